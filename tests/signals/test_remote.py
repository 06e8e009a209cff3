"""Lost if these fail: signals at an address, the same as in a folder, and never mixed or half."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from test_store import ROWS, SCORES, N, full, manifest

from coincide_pl.errors import DataError, FileError, SignalsError
from coincide_pl.owners import OWNER, STALE, Claim
from coincide_pl.signals import SignalsStore, SignalsWriter, remote, sealing
from coincide_pl.signals.remote import Remote, RemoteOwner, local_copy

URL = "memory://bucket/run/signals"


@pytest.fixture
def system():
    """What is in fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def begin(rank=0, **changes):
    SignalsWriter.create(URL, manifest(**changes))
    return SignalsWriter(URL, manifest(**changes), rank)


def write(writer, rows):
    rows = np.asarray(rows)
    writer.write(rows, {"activations": ROWS[rows], "el2n": SCORES[rows]})


def filled():
    writer = begin()
    write(writer, range(N))
    writer.close()
    SignalsWriter.finish(URL)


def test_a_store_at_an_address_is_the_one_in_a_folder(system, tmp_path, monkeypatch):
    monkeypatch.setattr(sealing, "FILE_BYTES", 100)
    order = np.random.default_rng(1).permutation(N)
    one, two = begin(), begin(rank=1)
    write(one, order[:20])
    write(two, order[20:40])
    one.close()
    two.close()
    with pytest.raises(SignalsError, match=f"^{URL}: incomplete, 10 of 50 rows are missing"):
        SignalsStore(URL, cache_dir=tmp_path)
    with pytest.raises(SignalsError, match=f"^{URL}: 10 of 50 rows are missing"):
        SignalsWriter.finish(URL)
    again = begin(rank=2)
    assert set(np.flatnonzero(~again.done)) == set(order[40:])
    write(again, range(N))
    again.close()
    SignalsWriter.finish(URL)
    assert not system.find("bucket/run/signals/shards")
    store = SignalsStore(URL, cache_dir=tmp_path / "cache")
    assert store.fingerprint == SignalsStore(full(tmp_path / "here")).fingerprint
    np.testing.assert_array_equal(store["activations"], ROWS)
    assert begin().done.all()
    with pytest.raises(SignalsError, match=f"{URL}: its signals come from another model: name"):
        begin(model="n")


def test_a_copy_is_made_once_and_brought_up_to_date(system, tmp_path, monkeypatch):
    filled()
    fetched = []
    fetch = Remote.fetch
    monkeypatch.setattr(Remote, "fetch", lambda *a: (fetched.append(a[1]), fetch(*a)))
    assert set(SignalsStore(f"{URL}/el2n", cache_dir=tmp_path)) == {"el2n"}
    assert local_copy(URL, tmp_path).name == "signals"
    assert sorted(fetched) == ["activations.npy", "el2n.npy"]
    system.rm("bucket/run/signals", recursive=True)
    writer = begin()
    writer.write(np.arange(N), {"activations": ROWS, "el2n": SCORES + 1})
    writer.close()
    SignalsWriter.finish(URL)
    assert SignalsStore(URL, cache_dir=tmp_path)["el2n"][0] == 1
    assert [name for name in fetched[2:] if "shards" not in name] == ["el2n.npy"]
    system.pipe_file("bucket/run/signals/el2n.npy", b"")
    with pytest.raises(SignalsError, match=f"{URL}/el2n.npy: changed since it was written"):
        SignalsStore(URL, cache_dir=tmp_path / "new")
    for place in ("memory://bucket/none", "memory://none"):
        with pytest.raises(SignalsError, match=f"{place}: no signals here"):
            SignalsStore(place, cache_dir=tmp_path)
    with pytest.raises(DataError, match="pip install s3fs"):
        SignalsStore("s3://bucket/signals")


def test_what_was_sent_before_a_kill_is_kept(system, monkeypatch):
    """Now and then, and piece by piece; nothing is left in the temporary folder."""
    from coincide_pl.signals import filling

    monkeypatch.setattr(filling, "SYNC_EVERY", -1.0)
    killed = begin()
    write(killed, range(5))
    assert not Remote(URL).shards()
    monkeypatch.setattr(remote, "SEND_EVERY", 0.0)
    write(killed, range(5, 12))
    assert begin().done.sum() == 12
    assert len(Remote(URL).shards()) == 3
    monkeypatch.setattr(remote, "PIECE_BYTES", 20)
    write(killed, range(12, 20))
    folder = killed._folder
    assert not any(folder.glob("shards/*"))
    write(killed, range(20, 30))
    assert len(Remote(URL).shards()) == 6
    assert begin().done.sum() == 30
    damaged = next(name for name in Remote(URL).shards() if name.endswith("activations.values"))
    path = f"bucket/run/signals/shards/{damaged}"
    system.pipe_file(path, b"\7" * len(system.cat_file(path)))
    rest = begin()
    write(rest, range(N))
    rest.close()
    said = rf"^{URL}/shards/{damaged}: damaged; delete {URL}/shards/0-.*\.\* and run the same"
    with pytest.raises(SignalsError, match=said):
        SignalsWriter.finish(URL)
    killed.close()
    assert not folder.exists()


def test_one_run_owns_an_address(system, monkeypatch):
    monkeypatch.setattr(remote, "SETTLE", 0.0)
    with RemoteOwner(URL), pytest.raises(FileError, match=r"process \d+ on .* is writing there"):
        RemoteOwner(URL)
    assert not system.exists(f"bucket/run/signals/{OWNER}")
    other = replace(Claim.own(), host="node7", place="0" * 12, process=12)

    def claim(seconds):
        system.pipe_file(
            f"bucket/run/signals/{OWNER}", f"{other.text}\n{time.time() - seconds}".encode()
        )

    claim(STALE - 60)
    with pytest.raises(FileError, match=rf"process 12 on node7.* or once {URL}/.owner is deleted"):
        RemoteOwner(URL)
    claim(STALE + 60)
    with RemoteOwner(URL) as owner:
        claim(0)
        ended = threading.Event()
        monkeypatch.setattr("coincide_pl.owners.BEAT", 0.0)
        monkeypatch.setattr("os.kill", lambda *_: ended.set())
        owner._live()
        assert ended.is_set()
    assert system.exists(f"bucket/run/signals/{OWNER}")
    monkeypatch.setattr(remote, "SETTLE", 0.0)
    monkeypatch.setattr(RemoteOwner, "_beat", lambda _: claim(0))  # another was later
    system.rm("bucket/run/signals", recursive=True)
    with pytest.raises(FileError, match="process 12 on node7"):
        RemoteOwner(URL)


def test_predict_and_select_at_an_address(system, command, llava, tiny, tmp_path, monkeypatch):
    """The selection is the one from a folder and from one file, byte for byte."""
    monkeypatch.setattr(remote, "SETTLE", 0.0)
    monkeypatch.chdir(tmp_path)
    data = (
        *("--data.train=LlavaJson", f"--data.train.path={llava}", "--data.num_workers=0"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        f"--data.cache_dir={tmp_path}/cache",
    )
    chosen = []
    for place, size in ((URL, 5000), ("here", sealing.FILE_BYTES)):
        monkeypatch.setattr(sealing, "FILE_BYTES", size)
        words = ("--model=ReferenceModule", f"--model.pretrained={tiny}", "--model.layers=[0, 2]")
        status, _, said = command("predict", *data, *words, f"--data.signals={place}")
        assert status == 0, said
        words = (
            "--data.selector=Coincide",
            "--data.selector.num_clusters=6",
            "--data.fraction=0.2",
        )
        status, _, said = command(
            "select", *data, *words, f"--data.signals={place}", "--trainer.default_root_dir=run"
        )
        assert status == 0, said
        chosen.append(Path("run/selection.safetensors").read_bytes())
        Path("run/selection.safetensors").unlink()
    assert chosen[0] == chosen[1]
    sealed = json.loads(system.cat_file("bucket/run/signals/manifest.json"))
    assert len(sealed["files"]["activations"]) == 4
    assert not system.exists(f"bucket/run/signals/{OWNER}")
