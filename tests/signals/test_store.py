"""Lost if these fail: rows that are what they claim to be, after any interruption."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import coincide_pl.signals.sealing as sealing
from coincide_pl.errors import SignalsError
from coincide_pl.files import content_digest
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.signals import (
    Activations,
    El2n,
    Manifest,
    ModelFacts,
    Signals,
    SignalsStore,
    SignalsWriter,
    StoredSignal,
    load_signals,
)

N = 50
ROWS = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float16)
SCORES = np.arange(N, dtype=np.float32)


def stored(*signals):
    return {signal.name: StoredSignal.of(signal, ModelFacts(hidden_size=1)) for signal in signals}


def manifest(**changes):
    fields = {
        "data": "d",
        "num_rows": N,
        "model": "m",
        "images": "time:i",
        "encoding": {"chat template": "c"},
        "settings": {},
        "signals": stored(Activations([0, 2, 3]), El2n()),
        "versions": {"torch": "1"},
    }
    return Manifest(**{**fields, **changes})


def write(folder, *parts, rank=0):
    SignalsWriter.create(folder, manifest())
    writer = SignalsWriter(folder, manifest(), rank)
    for rows in parts:
        rows = np.asarray(rows)
        writer.write(rows, {"activations": ROWS[rows], "el2n": SCORES[rows]})
    writer.close()


def full(folder):
    write(folder, range(N))
    SignalsWriter.finish(folder)
    return folder


def test_rows_in_any_order_from_any_process(tmp_path):
    order = np.random.default_rng(1).permutation(N)
    write(tmp_path / "s", order[:7], order[7:20], rank=0)
    write(tmp_path / "s", order[20:], rank=1)
    SignalsWriter.finish(tmp_path / "s")
    store = SignalsStore(tmp_path / "s", data="d", model="m", layers=[0, 2, 3])
    assert set(store) == {"activations", "el2n"}
    np.testing.assert_array_equal(store["activations"], ROWS)
    np.testing.assert_array_equal(store["el2n"], SCORES)
    write(tmp_path / "t", range(N))
    SignalsWriter.finish(tmp_path / "t")
    assert SignalsStore(tmp_path / "t").fingerprint == store.fingerprint


def test_an_unfinished_store_says_how_much_is_missing_and_goes_on(tmp_path):
    write(tmp_path, range(20))
    for path in (tmp_path / "shards").iterdir():
        with path.open("ab") as file:
            file.write(b"\1\2\3")  # a kill in the middle of a write
    with pytest.raises(SignalsError, match="incomplete, 30 of 50 rows are missing"):
        SignalsStore(tmp_path)
    with pytest.raises(SignalsError, match="30 of 50"):
        SignalsWriter.finish(tmp_path)
    SignalsWriter.create(tmp_path, manifest(versions={"torch": "2"}))
    writer = SignalsWriter(tmp_path, manifest(), 0)
    assert writer.done.nonzero()[0].tolist() == list(range(20))
    rows = np.arange(20, N)
    writer.write(rows, {"activations": ROWS[rows], "el2n": SCORES[rows]})
    writer.close()
    SignalsWriter.finish(tmp_path)
    np.testing.assert_array_equal(SignalsStore(tmp_path)["activations"], ROWS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "e"}, "another data"),
        ({"model": "n"}, "another model"),
        ({"images": "time:j"}, "images that have changed"),
        ({"images": "content:i"}, "images known by time, not by content .*"),
        ({"encoding": {"chat template": "d"}}, "another chat template"),
        ({"settings": {"dtype": "x"}}, 'dtype null, not "x"'),
        ({"signals": stored(El2n())}, "the signals activations, el2n, not el2n"),
        (
            {"signals": stored(Activations([0, 1, 2]), El2n())},
            r"activations with layers \[0, 2, 3\], not \[0, 1, 2\]",
        ),
        (
            {"signals": stored(Activations([0, 2, 3], tanh=False), El2n())},
            "activations with tanh true, not false",
        ),
    ],
)
def test_signals_of_something_else_are_not_mixed(tmp_path, change, said):
    full(tmp_path)
    with pytest.raises(SignalsError, match=f"its signals come from {said}: name another dir"):
        SignalsWriter.create(tmp_path, manifest(**change))


@pytest.mark.parametrize("asked", [{"data": "e"}, {"model": "n"}, {"layers": [0, 1]}])
def test_a_store_of_something_else_is_not_read(tmp_path, asked):
    full(tmp_path)
    (name,) = asked
    with pytest.raises(SignalsError, match=f"belong to other {name}"):
        SignalsStore(tmp_path, **asked)


def test_two_signals_of_one_class_stand_in_one_store_and_one_is_named(tmp_path):
    plain = Activations([0, 2, 3], tanh=False, name="plain")
    two = manifest(signals=stored(Activations([0, 2, 3]), plain))
    SignalsWriter.create(tmp_path / "s", two)
    writer = SignalsWriter(tmp_path / "s", two)
    writer.write(np.arange(N), {"activations": ROWS, "plain": -ROWS})
    writer.close()
    SignalsWriter.finish(tmp_path / "s")
    store = SignalsStore(tmp_path / "s")
    assert set(store) == {"activations", "plain"}
    message = r"'activations' is in .*s/activations and in .*s/plain; name one of them, as in"
    with pytest.raises(SignalsError, match=message):
        Signals([store])["activations"]
    one = SignalsStore(tmp_path / "s" / "plain")
    np.testing.assert_array_equal(Signals([one])["activations"], -ROWS)
    assert set(load_signals(tmp_path / "s/plain")) == {"plain"}
    assert one.fingerprint not in (store.fingerprint, SignalsStore(tmp_path / "s/activations"))
    with pytest.raises(SignalsError, match="holds activations, plain, and no el2n"):
        SignalsStore(tmp_path / "s" / "el2n")


def test_a_store_of_an_earlier_version_says_what_is_called_otherwise(tmp_path):
    old = {"data": "d", "num_rows": 1, "model": "m", "layers": [], "settings": {}, "versions": {}}
    old["signals"] = {"perplexity": [[], "float32"], "el2n": [[], "float32"]}
    (tmp_path / "manifest.json").write_text(json.dumps({"manifest": old, "digests": None}))
    message = (
        r"an earlier version.* \(perplexity is now nll\): delete it and run `coincide predict`"
    )
    for use in (SignalsStore, lambda path: SignalsWriter.create(path, manifest())):
        with pytest.raises(SignalsError, match=message):
            use(tmp_path)


def test_nan_is_refused_with_its_row(tmp_path):
    SignalsWriter.create(tmp_path, manifest())
    writer = SignalsWriter(tmp_path, manifest())
    bad = ROWS[:3].copy()
    bad[1, 2] = np.nan
    with pytest.raises(SignalsError, match="activations of record 8 holds NaN"):
        writer.write(np.array([7, 8, 9]), {"activations": bad, "el2n": SCORES[:3]})
    writer.close()


def parted(folder, monkeypatch, bytes_each=100):
    """The store in several files: 8 rows of activations each, and 25 scores."""
    monkeypatch.setattr(sealing, "FILE_BYTES", bytes_each)
    order = np.random.default_rng(2).permutation(N)
    write(folder, order[:30], order[30:41], rank=3)
    write(folder, order[41:])
    SignalsWriter.finish(folder)
    return folder


def test_arrays_in_several_files_are_the_same_as_in_one(tmp_path, monkeypatch):
    one = SignalsStore(full(tmp_path / "one"))
    monkeypatch.setattr(sealing, "BLOCK_BYTES", 50)
    many = SignalsStore(parted(tmp_path / "many", monkeypatch))
    assert many.fingerprint == one.fingerprint
    assert len([*(tmp_path / "many").glob("activations-*-of-00006.npy")]) == 6
    assert not (tmp_path / "many/shards").exists()
    for name in one:
        array, whole = many[name], np.asarray(one[name])
        np.testing.assert_array_equal(np.asarray(array, np.float64), whole.astype(np.float64))
        assert (len(array), array.shape, array.dtype) == (N, whole.shape, whole.dtype)
        mask = np.arange(N) % 3 == 0
        for index in (3, -1, slice(None), slice(7, 30), slice(9, 9), slice(40, 2, -3), mask):
            np.testing.assert_array_equal(array[index], whole[index])
        for rows in ([], [49, 0, 0, 17], [[1, 2], [-3, 4]], np.arange(5, 45)):
            rows = np.array(rows, int)
            np.testing.assert_array_equal(array[rows], whole[rows])
            if whole.ndim > 1:
                np.testing.assert_array_equal(array[rows, ..., 1:3], whole[rows, ..., 1:3])
    with pytest.raises(IndexError, match="none of 50"):
        many["el2n"][[3, 50]]


@given(st.lists(st.integers(0, N - 1), max_size=30), st.integers(0, N), st.integers(0, N))
def test_selection_reads_several_files_as_one(stores, rows, start, stop):
    """Blocks, gathered rows and rows at random; of all rows and of some."""
    one, many = (Rows(store["activations"]) for store in stores)
    start, stop = sorted((start, stop))
    rows = np.array(rows, int)
    np.testing.assert_array_equal(many.block(start, stop), one.block(start, stop))
    np.testing.assert_array_equal(many.gather(np.sort(rows)), one.gather(np.sort(rows)))
    for some in (rows, slice(start, stop)):
        np.testing.assert_array_equal(many.floats(some, True), one.floats(some, True))
    few = np.unique(rows)
    one, many = one.subset(few), many.subset(few)
    np.testing.assert_array_equal(many.block(0, len(few)), one.block(0, len(few)))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One store, in one file and in several."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        return SignalsStore(full(folder / "one")), SignalsStore(parted(folder / "many", patch))


def test_a_damaged_file_of_several_is_named(tmp_path, monkeypatch):
    folder = parted(tmp_path, monkeypatch)
    path = folder / "activations-00004-of-00006.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\7")
    with pytest.raises(SignalsError, match=r"activations-00004-of-00006.npy: changed since"):
        SignalsStore(folder)
    path.write_bytes(content[:-1])
    with pytest.raises(SignalsError, match=r"activations-00004-of-00006.npy: missing or truncated"):
        SignalsStore(folder)


def test_a_store_that_an_earlier_version_wrote_is_read(tmp_path):
    """One file each, journals beside them; an unfinished one says what to do."""
    new = SignalsStore(full(tmp_path / "new"))
    old = tmp_path / "old"
    old.mkdir()
    np.save(old / "activations.npy", ROWS)
    np.save(old / "el2n.npy", SCORES)
    (old / "done.0").write_bytes(b"\0" * 16)
    digests = {name: content_digest(old / f"{name}.npy") for name in ("activations", "el2n")}
    content = {"manifest": asdict(manifest()), "digests": digests}
    text = json.dumps([content["manifest"], digests], sort_keys=True)
    seal = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    (old / "manifest.json").write_text(json.dumps({**content, "seal": seal}))
    assert SignalsStore(old).fingerprint == new.fingerprint
    np.testing.assert_array_equal(SignalsStore(old)["activations"], ROWS)
    SignalsWriter.create(old, manifest())
    assert SignalsWriter(old, manifest()).done.all()
    (old / "manifest.json").write_text(json.dumps({**content, "digests": None}))
    for use in (SignalsStore, lambda path: SignalsWriter.create(path, manifest())):
        with pytest.raises(SignalsError, match="begun by an earlier version, and not finished"):
            use(old)


def test_missing_truncated_and_damaged_stores_are_named(tmp_path):
    with pytest.raises(SignalsError, match="no signals here"):
        SignalsStore(tmp_path / "none")
    folder = full(tmp_path / "cut")
    content = (folder / "activations.npy").read_bytes()
    (folder / "activations.npy").write_bytes(content[:-1])
    with pytest.raises(SignalsError, match=r"activations.npy: missing or truncated"):
        SignalsStore(folder)
    (folder / "activations.npy").unlink()
    with pytest.raises(SignalsError, match=r"activations.npy: missing or truncated"):
        SignalsStore(folder)
    for text in ("{", "[]", "{}", json.dumps({"manifest": {"data": 1}, "digests": None})):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(SignalsError, match="damaged manifest"):
            SignalsStore(folder)


def test_other_contents_have_another_fingerprint(tmp_path):
    one = SignalsStore(full(tmp_path / "a")).fingerprint
    SignalsWriter.create(tmp_path / "b", manifest())
    writer = SignalsWriter(tmp_path / "b", manifest())
    writer.write(np.arange(N), {"activations": ROWS, "el2n": SCORES + (SCORES == N - 1)})
    writer.close()
    SignalsWriter.finish(tmp_path / "b")
    assert SignalsStore(tmp_path / "b").fingerprint != one


def test_two_that_have_one_rank_write_files_of_their_own(tmp_path):
    SignalsWriter.create(tmp_path, manifest())
    one = SignalsWriter(tmp_path, manifest(), 0)
    program = (
        f"import sys, numpy as np; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_store import ROWS, SCORES, SignalsWriter, manifest\n"
        f"two = SignalsWriter({str(tmp_path)!r}, manifest(), 0)\n"
        "rows = np.arange(25, 50)\n"
        "two.write(rows, {'activations': ROWS[rows], 'el2n': SCORES[rows]})\n"
        "two.close()\n"
    )
    rows = np.arange(25)
    one.write(rows[:10], {"activations": ROWS[:10], "el2n": SCORES[:10]})
    subprocess.run([sys.executable, "-c", program], check=True)
    one.write(rows[10:], {"activations": ROWS[10:25], "el2n": SCORES[10:25]})
    one.close()
    assert {path.stat().st_size for path in tmp_path.glob("shards/*.rows")} == {25 * 24}
    SignalsWriter.finish(tmp_path)
    np.testing.assert_array_equal(SignalsStore(tmp_path)["activations"], ROWS)


def test_a_signal_of_ones_own_that_was_edited_is_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "from coincide_pl.signals import El2n\n\n\n"
        "class Mine(El2n):\n    name = 'mine'\n    power = 1\n"
    )
    (tmp_path / "my_own_signals.py").write_text(text)
    import my_own_signals

    before = manifest(signals=stored(my_own_signals.Mine()))
    assert before.differences(manifest(signals=stored(my_own_signals.Mine()))) == []
    (tmp_path / "my_own_signals.py").write_text(text.replace("1", "2"))
    after = manifest(signals=stored(my_own_signals.Mine()))
    assert before.differences(after) == ["mine by another text of my_own_signals.Mine"]
    assert stored(El2n())["el2n"].code is None


@pytest.mark.parametrize("shape", [(4, 7), (4,), (3, 6), (4, 6, 1)])
def test_rows_of_another_shape_never_reach_their_neighbors(tmp_path, shape):
    SignalsWriter.create(tmp_path, manifest())
    writer = SignalsWriter(tmp_path, manifest())
    values = {"activations": np.ones(shape, np.float16), "el2n": SCORES[:4]}
    message = (
        r"Activations: its rows for 4 samples have the shape .*, and its `shape` says \[4, 6\]"
    )
    with pytest.raises(SignalsError, match=message):
        writer.write(np.arange(4), values)
    writer.close()
    assert not any((tmp_path / "shards").iterdir())


def test_a_store_is_not_begun_where_a_signal_of_another_is_named(tmp_path):
    full(tmp_path / "s")
    with pytest.raises(
        SignalsError, match=r"s/el2n: names a signal of the store .*/s; name another"
    ):
        SignalsWriter.create(tmp_path / "s/el2n", manifest())


def test_a_signal_is_stored_as_numbers():
    class Words(El2n):
        dtype = "object"

    with pytest.raises(SignalsError, match="its dtype object is no number"):
        stored(Words())
