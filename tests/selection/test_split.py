"""Lost if these fail: the same selection from any number of processes, each holding its part."""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from coincide_pl.errors import SelectionError
from coincide_pl.processes import exchanged, joined, passed, traffic
from coincide_pl.selection import Coincide, Distinct, HierarchicalKMeans, Pool
from coincide_pl.selection.arrays import assigner, kept_centroids, sent_rows
from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.cache import Cache
from coincide_pl.selection.steps import cluster_order

WORLDS = (1, 2, 4, 8)
WIDTH, CLUSTERS = 80, 23


def features() -> np.ndarray:
    random = np.random.default_rng(3)
    centers = random.normal(size=(30, WIDTH))
    rows = centers[random.integers(0, 30, 700)] + 0.8 * random.normal(size=(700, WIDTH))
    rows[40:60] = rows[0]  # more equal rows than a cluster holds: some clusters lose all theirs
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def in_processes(runner):
    """Runs a task in groups of processes, one group after the other; an error fails the test."""

    def run(task, folder: Path, worlds=WORLDS, backend: str = "gloo") -> None:
        for world in worlds:
            group = [
                runner.context.Process(target=member, args=(task, rank, world, folder, backend))
                for rank in range(world)
            ]
            for process in group:
                process.start()
            for process in group:
                process.join()
            assert [process.exitcode for process in group] == [0] * world

    return run


def member(task, rank: int, world: int, folder: Path, backend: str) -> None:
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)
    store = distributed.FileStore(str(folder / f"group-{task.__name__}-{world}"), world)
    limit = timedelta(seconds=100)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    task(world, rank, folder)
    distributed.destroy_process_group()


def select(
    folder: Path, selector, cache: Path | None = None, name: str = "x", device: str = "cpu"
) -> bytes:
    x = np.load(folder / f"{name}.npy", mmap_mode="r")
    kept = {} if cache is None else {"cache": Cache(cache, {})}
    pool = Pool(range(len(x)), {"activations": x}, {"signals": "s"}, 2, device=device, **kept)
    path = folder / f"selection-{os.getpid()}"
    selector.select(pool, 200).save(path)
    return path.read_bytes()


def choose(world: int, rank: int, folder: Path) -> None:
    """All ways to cluster, centroids whole and in blocks, rows from the store and sent."""
    ways = (("exact", None), ("projected", 300), ("two_level", 500))
    for how, fit_rows in ways if world < 8 else ways[1:2]:
        for memory in (2.0, 6e-5):  # less than the centroids take
            sent_rows.READ_ALONE, sent_rows.IN_CACHE = 1 << 15, 0.5 if memory > 1 else 0
            assigner.MANY = 2048 if memory > 1 else 1  # fast products in bfloat16
            assigner.fastest = lambda device: torch.bfloat16
            whole = assigner.fits_whole(CLUSTERS, WIDTH, int(memory * 2**30))
            assert whole == (world == 1 or memory > 1)
            options = {"clustering": how, "projection": 24, "fit_rows": fit_rows}
            selector = Coincide(CLUSTERS, num_iterations=4, memory_gib=memory, **options)
            found = select(folder, selector)
            (folder / f"{how}-{memory}-{world}-{rank}").write_bytes(found)
    if world == 8:
        return
    levels = HierarchicalKMeans([CLUSTERS, 4], num_iterations=4, memory_gib=6e-5)
    (folder / f"levels-0-{world}-{rank}").write_bytes(select(folder, levels))
    distinct = Distinct(num_clusters=CLUSTERS, num_iterations=4, memory_gib=6e-5)
    (folder / f"distinct-0-{world}-{rank}").write_bytes(select(folder, distinct))


def test_any_number_of_processes_selects_the_same(in_processes, tmp_path):
    np.save(tmp_path / "x.npy", features())
    in_processes(choose, tmp_path)
    for how, count in {
        "exact": 14,
        "projected": 30,
        "two_level": 14,
        "levels": 7,
        "distinct": 7,
    }.items():
        files = sorted(tmp_path.glob(f"{how}-*"))
        assert len(files) == count
        assert len({file.read_bytes() for file in files}) == 1


def choose_on_gpus(world: int, rank: int, folder: Path) -> None:
    for memory in (2.0, 6e-5):
        selector = Coincide(CLUSTERS, memory_gib=memory)
        found = select(folder, selector, device=f"cuda:{rank}")
        (folder / f"gpu-{memory}-{world}-{rank}").write_bytes(found)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_processes_with_a_gpu_each_select_the_same(in_processes, tmp_path):
    np.save(tmp_path / "x.npy", features())
    in_processes(choose_on_gpus, tmp_path, (1, 2), "nccl")
    files = {file.read_bytes() for file in tmp_path.glob("gpu-*")}
    assert len(files) == 1


def stopped_after(count: int) -> list[None]:
    """Lets k-means assign rows so many times, then end; tells how often it did."""
    assign, calls = assigner.Assigner.assign_to, []

    def watched(self, centroids):
        if len(calls) == count:
            raise Stop
        calls.append(None)
        assign(self, centroids)

    assigner.Assigner.assign_to = watched
    kept_centroids.KEEP_EVERY = cluster_order.KEEP_EVERY = -1.0
    return calls


class Stop(Exception):
    pass


def go_on(world: int, rank: int, folder: Path) -> None:
    """Four processes are stopped, two go on, and one needs no features any more."""
    calls = stopped_after(3 if world == 4 else 99)
    selector = Coincide(CLUSTERS, num_iterations=9)
    if world == 4:
        with pytest.raises(Stop):
            select(folder, selector, folder / "kept")
        return
    if world == 2:
        (folder / f"whole-{rank}").write_bytes(select(folder, selector))
    whole = len(calls)
    found = select(folder, selector, folder / "kept", "x" if world == 2 else "nothing")
    again = len(calls) - whole  # one more, maybe: it does not know that no row has moved
    assert again in ((whole - 3, whole - 2) if world == 2 else (0,))
    (folder / f"again-{world}-{rank}").write_bytes(found)


def test_other_processes_go_on_from_what_some_have_kept(in_processes, tmp_path):
    x = features()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "nothing.npy", np.full_like(x, np.nan))
    in_processes(go_on, tmp_path, (4, 2, 1))
    files = [*tmp_path.glob("again-*"), *tmp_path.glob("whole-*")]
    assert (len(files), len({file.read_bytes() for file in files})) == (5, 1)
    names = sorted(file.name for file in (tmp_path / "kept").iterdir())
    shares = [name.rsplit("-", 1)[0] for name in names]
    assert [name for name in shares if name.startswith("centroids")] == [
        "centroids.0-11",
        "centroids.11-23",
    ]
    assert not [name for name in shares if name.startswith("kmeans")]


def give(world: int, rank: int, folder: Path) -> None:
    """Arrays of other lengths in every process, and of none in some."""
    own = np.arange(rank * 10, rank * 10 + rank, dtype=np.float32)[:, None]
    every = np.concatenate([np.arange(r * 10, r * 10 + r) for r in range(world)])
    np.testing.assert_array_equal(joined(own)[:, 0], every)
    before = traffic.received
    got = exchanged([np.full((rank + to, 3), rank * world + to, np.int16) for to in range(world)])
    assert [part.tolist() for part in got] == [
        [[of * world + rank] * 3] * (of + rank) for of in range(world)
    ]
    others = sum(of + rank for of in range(world) if of != rank)
    assert traffic.received - before == 6 * others
    share = np.arange(13)[13 * rank // world : 13 * (rank + 1) // world]
    blocks = list(passed(share, 13, 2))
    assert np.concatenate([block for _, block in blocks]).tolist() == list(range(13))
    assert max(len(block) for _, block in blocks) == 2
    x = features()
    x[500] = np.inf
    with pytest.raises(SelectionError, match="record 500 "):
        spherical_kmeans(x, 5, method="projected", projection=16)


def test_what_processes_give_each_other(in_processes, tmp_path):
    in_processes(give, tmp_path, (3,))
