"""Lost if these fail: runs on several machines, with different numbers of processes on each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import FOREVER, All, AtCall, Send, Set
from nodes import Rank, free_port, start_all
from safetensors.torch import load_file
from test_endings import PREDICT, STEP
from torch import distributed

from coincide_pl import machines
from coincide_pl.errors import CoincideError

HURRY = Set("coincide_pl.command.watch:PATIENCE", 2.0)
STAGES = ("predict", "select", "fit")
SAME_STEPS = "--trainer.accumulate_grad_batches=3"
"""One process's steps are then those of three."""


def ends(running):
    """How the processes of a run end, and all that they say."""
    ended = [one.end(FOREVER) for one in running]
    return [one.status for one in ended], "".join(one.message for one in ended)


def check_walked(journey, whole):
    """The same features and choice as one process makes, and a model of it."""
    for name in ("activations", "selection"):
        assert journey.digests()[name] == whole.digests()[name]
    start, end = (
        load_file(f"{path}/model.safetensors") for path in (whole.model, journey.run / "model")
    )
    assert any(not torch.equal(start[name], end[name]) for name in start)


@pytest.fixture(scope="module")
def three(runner, whole, tmp_path_factory):
    """The path, by two processes on one machine and one on another."""
    walked = replace(whole, folder=tmp_path_factory.mktemp("three"))
    for stage in STAGES:
        statuses, said = ends(start_all(runner, walked.words(stage)))
        assert statuses == [0, 0, 0], said
        assert "Traceback" not in said
    return walked


def test_two_processes_and_one_choose_as_one_does_and_train_on_it(whole, three):
    check_walked(three, whole)


def test_a_process_that_is_lost_fails_or_is_asked_to_end_ends_those_of_all_machines(
    runner, walked, three, tmp_path
):
    """Four runs of three processes at once, for their ends are waited for."""
    places = {name: tmp_path / name for name in ("lost", "first", "failed", "asked")}
    predict = {name: replace(walked, folder=place) for name, place in places.items()}

    def fit(name):
        return walked.words("fit", f"--trainer.default_root_dir={places[name]}")

    runs = {
        "lost": (predict["lost"].words("predict"), 2, AtCall(PREDICT, 2)),
        "first": (fit("first"), 0, AtCall(STEP, 2)),
        "failed": (predict["failed"].words("predict"), 2, AtCall(PREDICT, 2, Spoil())),
        "asked": (fit("asked"), 2, AtCall(STEP, 2, Send(signal.SIGTERM))),
    }
    under_way = {}
    for name, (words, rank, fault) in runs.items():
        faults = dict.fromkeys(range(3), HURRY) | {rank: All((HURRY, fault))}
        under_way[name] = start_all(runner, words, faults)
    ended = {name: ends(running) for name, running in under_way.items()}
    for name, (statuses, said) in ended.items():
        lines = [x for x in said.splitlines() if x.startswith(("error: ", "interrupted: "))]
        assert len(lines) == 1, (name, statuses, said)
        assert "Traceback" not in said, (name, said)
        line = lines[0]
        match name:
            case "lost" | "first":
                rank = runs[name][1]
                assert f"(rank {rank} on " in line
                assert line.endswith("is lost; the same command goes on from here")
                assert statuses == [-9 if one == rank else 75 for one in range(3)], (name, said)
            case "failed":
                assert (statuses, "a broken tensor" in line) == ([1, 1, 1], True), (line, said)
            case "asked":
                assert statuses == [143, 143, 143], said
                assert line == "interrupted: the same command goes on from here"
                assert (places["asked"] / "checkpoints/last.ckpt").is_file()
    for more, status in (("--trainer.accumulate_grad_batches=2", 1), (SAME_STEPS, 0)):
        result = runner(*fit("asked"), more)
        assert result.status == status, result.message
        wrong = "(trainer.devices times num_nodes) was 3, and now is 1" in result.line
        assert wrong == (status == 1)
    models = [
        load_file(place / "model/model.safetensors") for place in (three.run, places["asked"])
    ]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, atol=1e-6, rtol=1e-4)


class Spoil:
    """An error that one process alone has."""

    def __call__(self):
        from coincide_pl.errors import DataError

        raise DataError("a broken tensor")


def part(place, own, said):
    """What a process of two machines does with folders that they do not share."""
    place()
    machines.APPEARING = 0.1
    distributed.init_process_group("gloo")
    lines = []
    for action in (
        lambda: machines.check_shared({"shared": own.parent}),
        lambda: machines.check_shared({"shared": own.parent, "trainer.default_root_dir": own}),
        lambda: machines.check_alike({"data.train": "as all"}),
        lambda: machines.check_alike({"data.train": own.name}),
        lambda: machines.on_first_of_each_machine(lambda: own.mkdir(exist_ok=True)),
        lambda: machines.on_first_of_each_machine(lambda: Spoil()() if own.name == "2" else None),
    ):
        try:
            action()
            lines.append("")
        except CoincideError as error:
            lines.append(str(error))
    said.put(lines)


def test_what_machines_do_not_share_is_named(runner, tmp_path):
    port, said = free_port(), runner.context.SimpleQueue()
    processes = []
    for rank in range(3):
        # The first machine's processes write to "0", the second's to a folder of its own.
        arguments = (Rank(rank, port), tmp_path / ("2" if rank == 2 else "0"), said)
        processes.append(runner.context.Process(target=part, args=arguments))
        processes[-1].start()
    for shared, apart, alike, others, made, failed in [said.get() for _ in processes]:
        assert (shared, alike, made) == ("", "", "")
        assert "(trainer.default_root_dir)" in apart
        assert "rank 2 on " in apart
        assert "name a folder that all machines share" in apart
        assert "data.train: rank 2 on " in others
        assert "a broken tensor (rank 2 on " in failed
    for process in processes:
        process.join()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "2"]  # no mark is left


def test_options_that_are_not_what_was_started(runner, walked):
    """All of them in the first process, whose line does not need the others."""
    for word, line in {
        "--trainer.devices=3": "trainer.devices: is 3, but torchrun has started 2 process(es)",
        "--trainer.num_nodes=3": "trainer.num_nodes: is 3, but torchrun has used 2 machine(s)",
    }.items():
        result = runner(*walked.words("select", word), fault=Rank(0, free_port()))
        assert result.is_clean, result.message
        assert line in result.line


@pytest.mark.nodes
def test_torchrun_on_two_nodes(whole, fresh, tmp_path):
    stages = [fresh.words(stage) for stage in STAGES]
    (tmp_path / "stages.json").write_text(json.dumps([stages, [None, free_port(), free_port()]]))
    port = free_port()
    nodes = [
        subprocess.Popen(
            [
                *(Path(sys.executable).parent / "torchrun", "--nnodes=2"),
                *(f"--nproc-per-node={processes}", "--rdzv-backend=c10d"),
                *(f"--rdzv-endpoint=localhost:{port}", "--local-addr=localhost"),
                *(Path(__file__).with_name("walk.py"), tmp_path / "stages.json"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for processes in (2, 1)
    ]
    said = "".join(node.communicate()[1] for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "Traceback" not in said
    check_walked(fresh, whole)
