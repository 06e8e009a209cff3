"""Lost if these fail: signals that belong to the images, settings and model that they name."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coincide_pl.data.encoding import Encoder
from coincide_pl.data.probe import encoding_digests
from coincide_pl.models.processors import load_processor
from coincide_pl.signals import SignalsStore, SignalsWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(command, llava, tiny, tmp_path):
    """Runs a verb on the LLaVA file; returns its status and all that it says."""

    def run(verb, *words, place="run"):
        given = {
            "predict": (
                *("--config", ROOT / "configs/models/reference.yaml"),
                *(f"--model.pretrained={tiny}", "--model.layers=[0, 2]"),
            ),
            "select": (
                *("--config", ROOT / "configs/selectors/coincide.yaml"),
                *("--data.selector.num_clusters=3", "--data.fraction=0.5"),
            ),
        }[verb]
        status, _, said = command(
            *(verb, "--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
            *(f"--data.cache_dir={tmp_path}/cache", "--data.num_workers=0"),
            *(f"--data.signals={tmp_path}/signals", "--trainer.accelerator=cpu"),
            *("--trainer.enable_progress_bar=false", "--trainer.logger=false"),
            *(f"--trainer.default_root_dir={tmp_path}/{place}", *given, *words),
        )
        return status, said

    return run


def overwrite(path):
    """Puts other pixels under the same name; the file is as large as before."""
    size = path.stat().st_size
    pixels = np.asarray(Image.open(path)).copy()
    Image.fromarray(255 - pixels).save(path, compress_level=0)
    content = path.read_bytes()
    path.write_bytes(content[:size] if len(content) > size else content.ljust(size, b"\0"))


def test_images_that_changed_end_predict_select_and_what_was_selected(run, llava, tmp_path):
    assert run("predict")[0] == 0
    assert run("select", place="chosen")[0] == 0
    assert "used again" in run("select", place="chosen")[1]
    other = tmp_path / "elsewhere"
    shutil.copytree(llava.parent, other)
    image = llava.parent / "coco/0.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    status, said = run("predict")
    assert (status, "come from images that have changed: name another" in said) == (1, True)
    for place in ("chosen", "anew"):
        status, said = run("select", place=place)
        assert (status, "the images have changed since its signals were made" in said) == (1, True)
    folder = f"--data.train.image_folder={other}"
    assert run("select", folder, place="copy")[0] == 0  # the images as they were, and their times
    shutil.copy(other / "vg/1.png", other / "coco/0.png")
    status, said = run("select", folder, place="folder")
    assert (status, "the images have changed since its signals were made" in said) == (1, True)


def test_images_known_by_their_content_can_be_copied(run, llava, tmp_path):
    assert run("predict", "--data.images_by=content")[0] == 0
    for path in llava.parent.rglob("*.png"):
        os.utime(path, (1, 1))
    assert run("select")[0] == 0
    image = llava.parent / "vg/3.png"
    times = image.stat()
    overwrite(image)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "the images have changed" in run("select")[1]
    assert "images known by content, not by time" in run("predict")[1]


def test_images_that_change_while_they_are_read_seal_nothing(run, llava, tmp_path, monkeypatch):
    close = SignalsWriter.close

    def later(self):
        os.utime(llava.parent / "coco/0.png", (1, 1))
        close(self)

    monkeypatch.setattr(SignalsWriter, "close", later)
    status, said = run("predict")
    assert (status, "images changed while they were read" in said) == (1, True)
    with pytest.raises(Exception, match="incomplete"):
        SignalsStore(tmp_path / "signals")


OTHERWISE = [
    ("--trainer.precision=bf16-mixed", 'precision "32-true", not "bf16-mixed"'),
    ("--model.dtype=bfloat16", 'dtype "float32", not "bfloat16"'),
    ("--model.attn_implementation=eager", 'attn_implementation "sdpa", not "eager"'),
    ("--data.max_length=99", "max_length 2048, not 99"),
    (
        '--model.parts={"attention_output": "self_attn.v_proj"}',
        'parts {}, not {"attention_output": "self_attn.v_proj"}',
    ),
    ("--model.layers=[0, 1]", "activations with layers [0, 2], not [0, 1]"),
    ("--model.signals=[el2n]", "the signals activations, not el2n"),
]


def test_a_predict_goes_on_with_nothing_else_than_it_began_with(run, tmp_path):
    assert run("predict")[0] == 0
    manifest = tmp_path / "signals/manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "digests": None, "seal": None}))
    (tmp_path / "signals/shards").mkdir()  # as if it had been stopped at the start
    for word, said in OTHERWISE:
        status, told = run("predict", word)
        assert (status, f"come from {said}: name another directory" in told) == (1, True), told
    assert run("predict")[0] == 0


def test_what_an_encoder_does_is_known_by_what_comes_out(tiny):
    digests = encoding_digests(Encoder(load_processor(tiny)))
    assert encoding_digests(Encoder(load_processor(tiny))) == digests
    text, images = load_processor(tiny), load_processor(tiny)
    text.chat_template = text.chat_template.replace("USER: ", "HUMAN: ")
    assert text.chat_template != images.chat_template
    changed = encoding_digests(Encoder(text))
    assert [name for name in digests if digests[name] != changed[name]] == [
        "chat template or tokenizer"
    ]
    images.image_processor.image_mean = [0.1, 0.2, 0.3]
    changed = encoding_digests(Encoder(images))
    assert [name for name in digests if digests[name] != changed[name]] == [
        "way of preparing images"
    ]
