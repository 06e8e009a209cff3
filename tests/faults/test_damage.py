"""Lost if these fail: a damaged store, selection, checkpoint or config is never believed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from harness import All
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import GOOD

from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import CoincideError, SelectionError, SignalsError
from coincide_pl.models.checkpoint import Checkpoints
from coincide_pl.models.loading import checkpoint_fingerprint, load_model
from coincide_pl.models.processors import load_processor
from coincide_pl.selection import Selection
from coincide_pl.selection.cache import Cache
from coincide_pl.signals import (
    Activations,
    Manifest,
    ModelFacts,
    SignalsStore,
    SignalsWriter,
    StoredSignal,
)

N = 12
ROWS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float16)


def damages(path, count, seed=0):
    """The file, with one byte after another changed, and cut at as many places; then as it was."""
    content = path.read_bytes()
    random = np.random.default_rng(seed)
    places = np.unique(random.integers(0, len(content), count))
    for place in places.tolist():
        changed = bytearray(content)
        changed[place] ^= int(random.integers(1, 256))
        path.write_bytes(changed)
        yield place
    for place in random.choice(places, min(len(places), 20), replace=False).tolist():
        path.write_bytes(content[:place])
        yield place
    path.write_bytes(content)


def manifest(rows=N):
    stored = StoredSignal.of(Activations([0, 2]), ModelFacts(hidden_size=1))
    return Manifest(
        "d", rows, "m", "time:i", {}, {"dtype": "x"}, {"activations": stored}, {"torch": "1"}
    )


def write(folder, rows, finish=False):
    SignalsWriter.create(folder, manifest())
    writer = SignalsWriter(folder, manifest())
    rows = np.asarray(rows, np.int64)
    writer.write(rows, {"activations": ROWS[rows]})
    writer.close()
    if finish:
        SignalsWriter.finish(folder)


def test_a_store(tmp_path):
    write(tmp_path, range(N), finish=True)
    whole = SignalsStore(tmp_path).fingerprint
    for _ in damages(tmp_path / "activations.npy", 120):
        with pytest.raises(SignalsError, match=r"activations.npy: (changed|missing or truncated)"):
            SignalsStore(tmp_path)
    for _ in damages(tmp_path / "manifest.json", 300):
        try:
            assert SignalsStore(tmp_path).fingerprint == whole
        except SignalsError as error:
            assert "manifest.json: a damaged manifest" in str(error)  # noqa: PT017
    assert SignalsStore(tmp_path).fingerprint == whole


def test_an_unfinished_store(tmp_path):
    """Whatever happens to the journal, what it names was written; the rest is written again."""
    write(tmp_path, range(5))
    (journal,) = tmp_path.glob("shards/*.rows")
    for _ in damages(journal, 80):
        done = SignalsWriter(tmp_path, manifest()).done
        assert not done[5:].any()
    (values,) = tmp_path.glob("shards/*.activations.values")
    content = values.read_bytes()
    values.write_bytes(content[:-3])
    assert SignalsWriter(tmp_path, manifest()).done.sum() == 4
    values.write_bytes(content)
    write(tmp_path, range(5, N))
    damaged = r"activations.values: damaged; delete .*/shards/0-.*\* and run the same"
    for _ in damages(values, 40):
        with pytest.raises(SignalsError, match=f"{damaged}|of {N} rows are missing"):
            SignalsWriter.finish(tmp_path)
    journal.unlink()
    write(tmp_path, range(5), finish=True)
    np.testing.assert_array_equal(SignalsStore(tmp_path)["activations"], ROWS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, N - 1), max_size=6), max_size=6), st.binary(max_size=40))
def test_rows_in_any_order_with_anything_after_them(tmp_path_factory, parts, rest):
    """A store is whole exactly when every row was written, and then it holds them."""
    folder = tmp_path_factory.mktemp("store")
    for part in parts:
        write(folder, part)
    SignalsWriter.create(folder, manifest())
    for journal in folder.glob("shards/*.rows"):
        with journal.open("ab") as file:
            file.write(rest)
    if {row for part in parts for row in part} != set(range(N)):
        with pytest.raises(SignalsError, match=f"of {N} rows are missing"):
            SignalsWriter.finish(folder)
        write(folder, range(N))
    SignalsWriter.finish(folder)
    np.testing.assert_array_equal(SignalsStore(folder)["activations"], ROWS)


def test_a_selection(tmp_path):
    path = tmp_path / "selection.safetensors"
    clusters = {"size": np.arange(3), "density": np.linspace(0, 1, 3)}
    labels = np.arange(9, dtype=np.int32) % 3
    chosen = Selection(np.array([4, 2, 8]), 9, {"a": 1}, {"data": "d"}, clusters, {}, labels)
    chosen.save(path)
    for _ in damages(path, len(path.read_bytes())):
        with pytest.raises(SelectionError, match=r"selection.safetensors: (not a sel|changed)"):
            Selection.load(path)
    for old, new in ((b'"I64"', b'"F64"'), (b'"I64"', b'"U64"'), (b'"I32"', b'"F32"')):
        content = path.read_bytes()
        path.write_bytes(content.replace(old, new))
        with pytest.raises(SelectionError):
            Selection.load(path)
        path.write_bytes(content)
    assert Selection.load(path).fingerprint == chosen.fingerprint


def test_what_a_selection_keeps(tmp_path):
    cache = Cache(tmp_path, {"a": 1})
    cache.save("clusters", {"labels": np.arange(9), "means": np.linspace(0, 1, 4)})
    for _ in damages(cache.path("clusters"), 200):
        found = cache.load("clusters")
        assert found is None or (found["labels"] == np.arange(9)).all()


def test_records_that_are_kept(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([GOOD] * 3))
    whole = list(LlavaJson(str(path)).records(tmp_path / "cache"))
    (kept,) = (tmp_path / "cache").glob("*.arrow")
    for _ in damages(kept, 60):
        assert list(LlavaJson(str(path)).records(tmp_path / "cache")) == whole


def test_a_training_checkpoint(tmp_path):
    path, state = tmp_path / "last.ckpt", {"state_dict": {"a": torch.arange(300.0)}, "epoch": 3}
    Checkpoints().save_checkpoint(state, path)
    for _ in damages(path, 400):
        try:
            found = Checkpoints().load_checkpoint(path)
            assert torch.equal(found["state_dict"]["a"], state["state_dict"]["a"])
            assert found["epoch"] == 3
        except CoincideError as error:
            assert "last.ckpt: not a training checkpoint, or a damaged one" in str(error)  # noqa: PT017


def test_a_model(tiny, tmp_path, capfd):
    """Another file is another model: signals of the one are not taken for the other's."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    own = checkpoint_fingerprint(tiny)
    for name, load, count in (
        ("model.safetensors", load_model, 20),
        ("config.json", load_model, 20),
        ("processor_config.json", load_processor, 10),
        ("tokenizer.json", load_processor, 10),
    ):
        for _ in damages(folder / name, count):
            assert checkpoint_fingerprint(str(folder)) != own
            try:
                load(str(folder))
            except CoincideError as error:
                assert str(folder) in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
    assert checkpoint_fingerprint(str(folder)) == own


def test_a_config(command, llava, tmp_path):
    path = tmp_path / "config.yaml"
    words = (
        *("select", "--data=InstructionData", "--data.train=LlavaJson"),
        *(f"--data.train.path={llava}", f"--data.cache_dir={tmp_path}/cache"),
        *("--config", path, "--print_config"),
    )
    path.write_text("data:\n  fraction: 0.5\n  selector:\n    class_path: Random\n")
    for _ in damages(path, 20):
        status, _, message = command(*words)
        lines = [line for line in message.splitlines() if line.startswith("error: ")]
        assert (status == 0) == (not lines), message
        assert "Traceback" not in message


@dataclass(frozen=True)
class Backwards:
    """Every look at the clock of the machine tells an earlier time."""

    def __call__(self):
        import time

        now = [2e9]

        def earlier():
            now[0] -= 3600
            return now[0]

        time.time = earlier
        time.time_ns = lambda: int(earlier() * 1e9)


def test_a_clock_that_goes_backwards(runner, whole, fresh):
    for stage in ("predict", "select", "fit", "test"):
        result = runner(*fresh.words(stage), fault=All((Backwards(),)))
        assert result.status == 0, result.message
    assert fresh.digests() == whole.digests()


def test_a_store_that_changes_between_stages(runner, walked):
    path = walked.signals / "activations.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for stage in ("select", "fit"):
        result = runner(*walked.words(stage))
        assert result.is_clean, result.message
        assert f"{path}: changed since it was written" in result.line
    path.write_bytes(content[:-1])
    for stage in ("predict", "select", "fit"):
        result = runner(*walked.words(stage))
        assert result.is_clean, result.message
        assert f"{path}: missing or truncated" in result.line
