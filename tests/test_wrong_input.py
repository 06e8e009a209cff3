"""Lost if these fail: one line that says what is wrong, and a status that is not zero."""

import json
from pathlib import Path

import numpy as np
import pytest

from coincide_pl.data.image_states import images_digest
from coincide_pl.data.readers import LlavaJson
from coincide_pl.signals import Activations, Manifest, ModelFacts, SignalsWriter, StoredSignal

ROOT = Path(__file__).parents[1]


def refused(result, *said):
    status, _, message = result
    lines = [line for line in message.splitlines() if line.startswith("error: ")]
    assert status in (1, 2), message
    assert len(lines) == 1, message
    assert "Traceback" not in message
    for text in said:
        assert text in lines[0]


@pytest.fixture
def select(command, llava, tmp_path):
    """Runs select on the LLaVA file with some more words."""

    def run(*words, selector="random"):
        return command(
            *("select", "--config", ROOT / "configs/data/llava.yaml"),
            *("--config", ROOT / f"configs/selectors/{selector}.yaml"),
            *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
            *("--trainer.accelerator=cpu", "--trainer.logger=false"),
            *(f"--trainer.default_root_dir={tmp_path}/run", *words),
        )

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data.fracton=0.2",), ["fracton", "did you mean fraction"]),
        (("--data.selector.sed=2",), ["sed", "seed"]),
        (("--data.selector=Randm",), ["Randm", "Random"]),
        (("--data.selector=Nothing",), ["Nothing"]),
        (("--data.fraction=many",), ["fraction", "many", "float"]),
        (("--data.fraction=0",), ["fraction: 0", "(0, 1]"]),
        (("--data.fraction=1.01",), ["fraction: 1.01", "(0, 1]"]),
        (("--data.fraction=0.001",), ["fraction: 0.001 of 60 samples leaves none"]),
        (("--trainer.acelerator=cpu",), ["acelerator", "accelerator"]),
        (("--config", "nowhere.yaml"), ["nowhere.yaml: no such config", "coincide configs"]),
        (("--config", "selectors/randm"), ["selectors/randm: no such", "mean selectors/random"]),
        (("--data.train.path=nowhere.json",), ["nowhere.json: no such data file"]),
        (("--data.train.image_folder=nowhere",), ["nowhere: no such image folder"]),
    ],
)
def test_wrong_options(select, words, said):
    refused(select(*words), *said)


def test_wrong_verbs(command):
    refused(command("fitt"), "fitt", "did you mean fit")
    refused(command("fit"), "missing: --model")
    early = command("fit", "--model.pretrained=x", "--model=TargetModule")
    refused(early, "pretrained", "name the class that has it", "before this one")
    refused(
        command("create-tiny-llava", "--output=x", "--hiden_size=3"), "hiden_size", "hidden_size"
    )


def test_wrong_records(select, llava):
    items = json.loads(llava.read_text())
    del items[3]["conversations"]
    llava.write_text(json.dumps(items))
    refused(select(), str(llava), "record 3 (id 'r3')", "'conversations'")


@pytest.fixture
def signals(llava, tmp_path):
    """A store of random rows for the LLaVA file, as it was at the start."""
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    images = f"time:{images_digest(records)}"
    rows = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float16)
    stored = StoredSignal.of(Activations([0, 1]), ModelFacts(hidden_size=2))
    manifest = Manifest(records.fingerprint, 60, "m", images, {}, {}, {"activations": stored}, {})
    SignalsWriter.create(tmp_path / "signals", manifest)
    writer = SignalsWriter(tmp_path / "signals", manifest)

    def write(count):
        writer.write(np.arange(count), {"activations": rows[:count]})
        writer.close()
        if count == 60:
            SignalsWriter.finish(tmp_path / "signals")
        return f"--data.signals={tmp_path}/signals"

    return write


def test_wrong_signals(select, signals, tiny, llava, tmp_path):
    refused(select(selector="coincide"), "data.signals", "coincide predict")
    place = signals(60)
    refused(
        select(place, selector="coincide"), "10000 clusters of 60 samples"
    )  # more clusters than samples
    few = "--data.selector.num_clusters=4"
    refused(select(place, few, "--data.layers=[0, 2]", selector="coincide"), "other layers")
    refused(select(place, few, f"--data.reference={tiny}", selector="coincide"), "other model")
    refused(select(f"--data.signals={tmp_path}/none", selector="coincide"), "no signals here")
    path = tmp_path / "signals" / "activations.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + np.float16(np.nan).tobytes())
    refused(select(place, few, selector="coincide"), "changed since it was written")
    path.write_bytes(content[:-2])
    refused(select(place, few, selector="coincide"), "truncated")
    path.write_bytes(content)
    items = json.loads(llava.read_text())
    llava.write_text(json.dumps(items[::-1]))
    refused(select(place, few, selector="coincide"), "signals", "other data")


def test_incomplete_signals(select, signals):
    refused(select(signals(44), selector="coincide"), "incomplete, 16 of 60 rows are missing")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "no such image"),
        (lambda path: path.write_bytes(path.read_bytes()[:80]), "broken image"),
        (lambda path: path.write_text("text"), "not an image"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_wrong_images(command, llava, tiny, tmp_path, damage, said, workers):
    image = llava.parent / "coco" / "2.png"
    damage(image)
    result = command(
        *("fit", "--config", ROOT / "configs/models/target.yaml"),
        *("--config", ROOT / "configs/data/llava.yaml", f"--model.pretrained={tiny}"),
        *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
        *(f"--data.num_workers={workers}", "--trainer.accelerator=cpu", "--trainer.logger=false"),
        *("--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"),
        f"--trainer.default_root_dir={tmp_path}/run",
    )
    refused(result, str(image), said, f"{llava}: record ", "2 (id 'r", "'image'")  # 2, 12, ... 52


def test_wrong_checkpoints(command, llava, tmp_path):
    words = (
        *("fit", "--config", ROOT / "configs/models/target.yaml"),
        *("--config", ROOT / "configs/data/llava.yaml", f"--data.train.path={llava}"),
        f"--trainer.default_root_dir={tmp_path}/run",
    )
    (tmp_path / "empty").mkdir()
    refused(command(*words, f"--model.pretrained={tmp_path}/none"), "none: no such checkpoint")
    refused(command(*words, f"--model.pretrained={tmp_path}/empty"), "without a model")


def test_long_conversations_are_counted_in_one_warning(command, llava, tiny, tmp_path):
    status, _, message = command(
        *("fit", "--config", ROOT / "configs/models/target.yaml"),
        *("--config", ROOT / "configs/data/llava.yaml", f"--model.pretrained={tiny}"),
        *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
        *("--data.num_workers=0", "--data.max_length=24", "--trainer.accelerator=cpu"),
        *("--trainer.logger=false", "--trainer.enable_progress_bar=false"),
        *("--trainer.max_epochs=2", f"--trainer.default_root_dir={tmp_path}/run"),
    )
    assert status == 0, message
    lines = [line for line in message.splitlines() if "were cut at 24 tokens" in line]
    assert len(lines) == 1
    assert " of 60 conversations" in lines[0]


def test_a_fit_that_can_learn_nothing_is_an_error(command, llava, tiny, tmp_path):
    """And not a model that is the one it began with, as the result of a finetuning."""
    words = (
        *("fit", "--config", ROOT / "configs/models/target.yaml"),
        *("--config", ROOT / "configs/data/llava.yaml", f"--model.pretrained={tiny}"),
        *("--config", ROOT / "configs/trainers/one_epoch.yaml"),
        *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
        *("--data.num_workers=0", "--data.max_length=6", "--data.batch_size=8"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        f"--trainer.default_root_dir={tmp_path}/run",
    )
    for _ in range(2):  # a checkpoint of it is none to go on from
        status, _, message = command(*words)
        assert status == 1
        assert "error: data.max_length: 6 tokens leave no conversation an answer" in message
        assert not (tmp_path / "run/model").exists()


def test_conversations_that_teach_nothing_are_counted(command, llava, tiny, tmp_path):
    items = json.loads(llava.read_text())
    for item in items[:3]:
        item["conversations"][0]["value"] += " and so on" * 60  # its answer is cut away
    llava.write_text(json.dumps(items))
    status, _, message = command(
        *("fit", "--config", ROOT / "configs/models/target.yaml"),
        *("--config", ROOT / "configs/data/llava.yaml", f"--model.pretrained={tiny}"),
        *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
        *("--data.num_workers=0", "--data.max_length=150", "--data.max_tokens=300"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        *("--trainer.max_epochs=2", f"--trainer.default_root_dir={tmp_path}/run"),
    )
    assert status == 0, message
    lines = [line for line in message.splitlines() if "no answer left to train on" in line]
    assert len(lines) == 1
    assert "3 of 60 conversations" in lines[0]
    assert "nan" not in message.lower()
