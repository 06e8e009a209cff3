"""Lost if these fail: the grid that W&B would run, run here, going on where it stopped."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "experiments"))
import sweep  # noqa: E402

CELL = """
import pathlib, sys
values = dict(flag.split("=") for flag in sys.argv[1:])
place = pathlib.Path("runs") / "-".join(values.values())
if place.exists():
    sys.exit()
if values["method"] == "bad" and not pathlib.Path("mended").exists():
    sys.exit("no such method")
place.mkdir(parents=True)
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cell.py").write_text(CELL)
    config = {
        "program": "cell.py",
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
        "method": "grid",
        "parameters": {"method": {"values": ["good", "bad"]}, "seed": {"values": [0, 1]}},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return config


@pytest.mark.parametrize("jobs", [1, 2])
def test_goes_on_where_it_stopped(grid, tmp_path, capfd, jobs):
    with pytest.raises(SystemExit, match="2 of 4 runs failed"):
        sweep.run("sweep.yaml", jobs)
    said = capfd.readouterr().out
    assert "method=bad seed=1: failed with status 1" in said
    assert "no such method" in said
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["good-0", "good-1"]
    before = (tmp_path / "runs/good-0").stat().st_mtime_ns
    (tmp_path / "mended").touch()
    sweep.run("sweep.yaml", jobs)
    assert capfd.readouterr().out.count("done in") == 4
    assert (tmp_path / "runs/good-0").stat().st_mtime_ns == before
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_cells_are_those_of_wandb():
    config = yaml.safe_load((ROOT / "experiments/easy_vqa/sweep.yaml").read_text())
    todo = sweep.cells(config)
    assert len(todo) == len({tuple(cell.values()) for cell in todo})
    theirs = create_sweep_command_args({"args": {k: {"value": v} for k, v in todo[4].items()}})
    words = sweep.command(config, todo[4])
    assert words[-3:] == theirs["args_no_hyphens"]
    assert words[:-3] == [
        *("/usr/bin/env", "make", "--no-print-directory", "-f"),
        *("experiments/easy_vqa/sweep.mk", "cell"),
    ]
    hyphens = sweep.command({**config, "command": ["${args}"]}, todo[4])
    assert hyphens == theirs["args"]
    methods = {path.stem for path in (ROOT / "configs/selectors").glob("*.yaml")}
    assert {cell["data.selector"] for cell in todo} == methods - {"all", "per_source"}
    assert len(todo) == 3 * len(methods - {"all", "per_source"})


def test_a_part_of_the_grid(grid):
    assert sweep.cells(grid, {"seed": [1]}) == [
        {"method": "good", "seed": 1},
        {"method": "bad", "seed": 1},
    ]
    assert sweep.cells(grid, {"seed": [7]}) == []
    with pytest.raises(SystemExit, match="only: 'sed' is no parameter"):
        sweep.cells(grid, {"sed": [1]})


def test_what_is_no_grid_is_named(grid):
    with pytest.raises(SystemExit, match="method: 'bayes' can't be run here"):
        sweep.cells({**grid, "method": "bayes"})
    with pytest.raises(SystemExit, match=r"parameters.seed: a grid needs 'value' or 'values'"):
        sweep.cells({**grid, "parameters": {"seed": {"min": 0, "max": 1}}})


def test_each_cell_reads_what_its_method_needs():
    """The commands that make would run for a cell, not run."""
    for method, reads in {
        "random": "[]",
        "el2n": "[run/sweep/reference]",
        "self_filter": "[run/sweep/clip,run/sweep/self_filter/signals]",
    }.items():
        line, _ = select_and_test("easy_vqa", method)
        for part in (
            f"--config configs/selectors/{method}.yaml",
            f"--data.signals={reads}",
            "--data.fraction=0.1",
            "--seed_everything=2",
            f"--trainer.default_root_dir=run/sweep/cells/{method}-0.1-2",
        ):
            assert part in line, line


def select_and_test(experiment, method, *words):
    """These two commands of a cell, as make would run them."""
    cell = [f"data.selector={method}", "data.fraction=0.1", "seed=2", *words]
    done = subprocess.run(
        ["make", "-n", "-f", f"experiments/{experiment}/sweep.mk", "cell", "RUN=run", *cell],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", "").splitlines()
    last = {verb: line for verb in ("select", "test") for line in lines if f" {verb} --" in line}
    return last["select"], last["test"]


def test_options_are_chosen_on_the_validation_set():
    select, test = select_and_test("compositions", "coincide_chosen")
    assert "--config configs/selectors/coincide.yaml" in select
    assert "--data.selector.temperature=1 --data.selector.num_clusters=200" in select
    assert "--data.signals=[run/sweep/reference]" in select
    assert "--data.test.path=run/data/test.json" in test
    options = "modality=both+exclude_above=null+layers=1,3"
    select, test = select_and_test("compositions", "coincide", f"option={options}")
    assert "--data.selector.modality=both --data.selector.exclude_above=null" in select
    assert "--data.signals=[run/sweep/layers-1-3]" in select
    assert "--data.test.path=run/data/val.json" in test
    assert "--trainer.callbacks.full=run/sweep/ablations/all" in test
