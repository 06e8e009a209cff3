"""Lost if these fail: data and selections without a command, as in a notebook."""

import numpy as np
import pytest

from coincide_pl.data.batches import left_to_do
from coincide_pl.data.readers import LlavaJson
from coincide_pl.datamodule import InstructionData
from coincide_pl.errors import ConfigError, DataError, SelectionError
from coincide_pl.selection import All, Random, Selection


def data_of(llava, tmp_path, **options):
    reader = LlavaJson(str(llava))
    return InstructionData(reader, cache_dir=str(tmp_path / "cache"), **options)


def test_a_selection_without_a_trainer(llava, tmp_path):
    file = tmp_path / "selection.safetensors"
    asked = {"selector": Random(seed=0), "fraction": 0.5, "selection": str(file)}
    data = data_of(llava, tmp_path, **asked)
    data.prepare_data()
    data.setup("select")
    assert len(data.selection.indices) == 30
    written = file.stat().st_mtime_ns
    again = data_of(llava, tmp_path, **asked)
    again.setup("select")
    np.testing.assert_array_equal(again.selection.indices, data.selection.indices)
    assert file.stat().st_mtime_ns == written  # used again
    given = data_of(llava, tmp_path, selection=str(file))
    given.setup("select")
    assert given.selection.fingerprint == Selection.load(file).fingerprint


def test_what_needs_a_trainer_says_so(llava, tmp_path):
    with pytest.raises(ConfigError, match=r"setup\('fit'\): needs a trainer"):
        data_of(llava, tmp_path).setup("fit")
    with pytest.raises(ConfigError, match=r"data.selection: name a file"):
        data_of(llava, tmp_path, selector=Random(seed=0)).setup("select")
    with pytest.raises(DataError, match=r"data.test: test needs a reader"):
        data_of(llava, tmp_path).setup("test")


def test_every_process_has_a_batch_to_end_with():
    plan = [np.array([0, 1]), np.array([2, 3]), np.array([4])]
    done = np.array([True, True, True, False, True])
    assert [batch.tolist() for batch in left_to_do(plan, done, 1)] == [[2, 3]]
    assert [batch.tolist() for batch in left_to_do(plan, done, 3)] == [[2, 3]] * 3
    assert [batch.tolist() for batch in left_to_do(plan, np.ones(5, bool), 2)] == [[4]] * 2
    assert left_to_do(plan, None, 2) == plan


def test_how_many_are_chosen_is_said_where_nobody_asked(llava, tmp_path, caplog):
    """A selector without a fraction would train on everything, and a fraction without one too."""
    place = {"selection": str(tmp_path / "selection.safetensors")}
    for options, said in (
        ({"selector": Random()}, True),
        ({"selector": Random(), "fraction": 1.0}, False),
        ({"selector": All()}, False),
    ):
        caplog.clear()
        data = data_of(llava, tmp_path, **options, **place)
        data.setup("select")
        assert len(data.selection.indices) == 60
        assert ("data.fraction: not given, so Random chooses all 60 samples" in caplog.text) == said
    with pytest.raises(SelectionError, match=r"data.fraction: nothing chooses 0.2 of the data"):
        data_of(llava, tmp_path, fraction=0.2).setup("select")
