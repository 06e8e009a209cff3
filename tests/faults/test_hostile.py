"""Lost if these fail: nothing that comes with data, models or configs is executed or let out."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from coincide_pl.data.images import open_image
from coincide_pl.errors import CoincideError, DataError, ModelError, SignalsError
from coincide_pl.models.checkpoint import Checkpoints
from coincide_pl.models.loading import load_model
from coincide_pl.models.processors import load_processor
from coincide_pl.selection import Selection
from coincide_pl.signals import (
    El2n,
    Manifest,
    ModelFacts,
    SignalsStore,
    SignalsWriter,
    StoredSignal,
)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """A folder that is there once something was executed."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def refused(result, *said):
    status, _, message = result
    lines = [line for line in message.splitlines() if line.startswith("error: ")]
    assert status in (1, 2), message
    assert len(lines) == 1, message
    assert "Traceback" not in message
    for text in said:
        assert text in lines[0], message
    return lines[0]


def test_images_stay_in_their_folder(tmp_path):
    folder, outside = tmp_path / "images", tmp_path / "images-too"
    for place in (folder, outside):
        place.mkdir()
        Image.new("RGB", (2, 2)).save(place / "x.png")
    (folder / "inside.png").symlink_to(folder / "x.png")
    (folder / "out.png").symlink_to(outside / "x.png")
    (folder / "sub").mkdir()
    (folder / "sub/far").symlink_to(outside)
    (folder / "linked").symlink_to(outside)  # as people link in the folders where images lie
    (folder / "loop.png").symlink_to(folder / "loop.png")
    assert open_image(folder, "inside.png").size == (2, 2)
    assert open_image(folder, "linked/x.png").size == (2, 2)
    for name in (
        *("out.png", "sub/far/x.png", "linked/../../x.png", "linked/../x.png"),
        *("../images-too/x.png", str(outside / "x.png")),
    ):
        with pytest.raises(DataError, match="leads outside the image folder"):
            open_image(folder, name)
    with pytest.raises(DataError, match=r"loop.png"):
        open_image(folder, "loop.png")
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: not an ordinary file"):
        open_image(folder, "pipe.png")


def test_a_training_checkpoint_with_code_is_refused(mark, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "extra": Bomb(mark)}, path)
    with pytest.raises(ModelError, match=r"last.ckpt: not a training checkpoint"):
        Checkpoints().load_checkpoint(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ModelError, match=r"last.ckpt: not a training checkpoint"):
        Checkpoints().load_checkpoint(path)


def test_a_fit_does_not_go_on_from_code(runner, walked, mark):
    folder = walked.run / "checkpoints"
    folder.mkdir(exist_ok=True)
    torch.save({"state_dict": {}, "extra": Bomb(mark)}, folder / "last.ckpt")
    result = runner(*walked.words("fit"))
    assert result.is_clean, result.message
    assert "last.ckpt: not a training checkpoint, or a damaged one; delete it" in result.line


def test_arrays_with_objects_are_refused(mark, tmp_path):
    el2n = StoredSignal.of(El2n(), ModelFacts())
    manifest = Manifest("d", 1, "m", "time:i", {}, {}, {"el2n": el2n}, {})
    SignalsWriter.create(tmp_path / "s", manifest)
    writer = SignalsWriter(tmp_path / "s", manifest)
    writer.write(np.zeros(1, int), {"el2n": np.zeros(1, np.float32)})
    writer.close()
    SignalsWriter.finish(tmp_path / "s")
    np.save(tmp_path / "s/el2n.npy", np.array([Bomb(mark)], object), allow_pickle=True)
    with pytest.raises(SignalsError, match=r"el2n.npy: missing or truncated"):
        SignalsWriter.create(tmp_path / "s", manifest)
    with pytest.raises(SignalsError):
        SignalsStore(tmp_path / "s")
    text = (tmp_path / "s/manifest.json").read_text().replace("float32", "object")
    (tmp_path / "s/manifest.json").write_text(text)
    with pytest.raises(SignalsError, match="damaged manifest"):
        SignalsStore(tmp_path / "s")
    for write in (
        lambda path: path.write_bytes(pickle.dumps(Bomb(mark))),
        lambda path: torch.save({"indices": Bomb(mark)}, path),
        lambda path: zipfile.ZipFile(path, "w").close(),
        lambda path: save_file({"indices": np.arange(3)}, path),
    ):
        write(tmp_path / "selection.safetensors")
        with pytest.raises(CoincideError, match="not a selection file"):
            Selection.load(tmp_path / "selection.safetensors")


CODE = "import os\nos.mkdir({!r})\n"


def test_a_model_with_code_of_its_own_is_refused(tiny, mark, tmp_path):
    folder = tmp_path / "model"
    for name, key, value in (
        ("config.json", "AutoModelForImageTextToText", "code.Model"),
        ("config.json", "AutoConfig", "code.Config"),
        ("processor_config.json", "AutoProcessor", "code.Processor"),
        ("tokenizer_config.json", "AutoTokenizer", ["code.Tokenizer", None]),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny, folder)
        (folder / "code.py").write_text(CODE.format(str(mark)))
        content = json.loads((folder / name).read_text())
        content |= {"auto_map": {key: value}}
        if name == "config.json":
            content["model_type"] = "unheard_of"
        if name == "processor_config.json":
            content["processor_class"] = "UnheardOf"
        (folder / name).write_text(json.dumps(content))
        for load in (load_model, load_processor):
            with suppress(ModelError):  # or it does without that code
                load(str(folder))


def test_weights_that_are_a_pickle_are_refused(tiny, mark, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    torch.save({"weight": Bomb(mark)}, tmp_path / "model/pytorch_model.bin")
    with pytest.raises(ModelError, match="no image-text-to-text model"):
        load_model(str(tmp_path / "model"))


@pytest.mark.parametrize(
    "selector",
    [
        {"class_path": "os.mkdir", "init_args": {"path": "MARK"}},
        {"class_path": "os.system", "init_args": {"command": "mkdir MARK"}},
        {"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", "MARK"]}},
        {"class_path": "pathlib.Path", "init_args": {"args": "MARK"}},
        "os.system",
        "!!python/object/apply:os.mkdir [MARK]",
    ],
)
def test_a_config_can_not_call_what_is_no_selector(command, llava, mark, tmp_path, selector):
    text = json.dumps({"data": {"selector": selector}}).replace("MARK", str(mark))
    if str(selector).startswith("!!"):
        text = f"data:\n  selector: {selector.replace('MARK', str(mark))}\n"
    (tmp_path / "config.yaml").write_text(text)
    result = command(
        *("select", "--data=InstructionData", "--data.train=LlavaJson"),
        *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
        *(f"--trainer.default_root_dir={tmp_path}/run", f"--config={tmp_path}/config.yaml"),
    )
    refused(result)
    assert not (tmp_path / "run").exists()


def test_names_with_control_characters_are_spelled_out(command, llava, tmp_path):
    name = "da\nta\x1b[31m.json"
    words = ("check", "--train=LlavaJson", f"--cache_dir={tmp_path}/cache")
    line = refused(command(*words, f"--train.path={tmp_path}/{name}"), r"da\nta\x1b[31m.json")
    assert line.isprintable()
    folder = llava.parent
    items = json.loads(llava.read_text())
    items[0]["image"] = "no\nsuch\x1b[2J.png"
    items[1]["id"] = "a\nb"
    items[1]["image"] = "\x07.png"
    (folder / name).write_text(json.dumps(items))
    status, out, message = command(*words, f"--train.path={folder}/{name}")
    assert status == 1
    assert "\x1b" not in out + message
    assert "\x07" not in out + message
    assert r"no\nsuch\x1b[2J.png" in out
