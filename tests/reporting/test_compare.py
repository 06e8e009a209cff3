"""Lost if these fail: a comparison that counts what it says, and pictures of it."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from notes import inputs_of, stages_of

from coincide_pl.errors import CoincideError
from coincide_pl.evaluation.evaluate import relative_performance
from coincide_pl.reporting.compare import compare, load, unknown
from coincide_pl.reporting.rows import Row, compared
from coincide_pl.reporting.runs import FinishedRun
from coincide_pl.reporting.stages import stage_seconds, timed
from coincide_pl.reporting.tables import times
from coincide_pl.selection import Selection


def answers(**shares):
    """100 questions a task, the first of them answered right."""
    return {task: np.arange(100) < share for task, share in shares.items()}


@pytest.fixture
def runs(finished, tmp_path):
    """Coincide with its reference and signals, three seeds of which one was not tested."""
    stages_of(tmp_path / "start", [("fit", 1000)])
    (tmp_path / "start/model").mkdir()
    stages_of(tmp_path / "unread", [("predict", 500)])
    for i, (name, pretrained, stages) in enumerate(
        (
            ("reference", tmp_path / "start/model", [("fit", 3), ("test", 50)]),
            ("signals", tmp_path / "reference/model", [("predict", 4)]),
        )
    ):
        stages_of(tmp_path / name, stages)
        stage = "predict" if name == "signals" else "fit"
        config = {
            "model": {"init_args": {"pretrained": str(pretrained)}},
            "data": {"init_args": {"signals": str(tmp_path / ("unread", "signals")[i])}},
        }
        (tmp_path / name / f"{stage}.yaml").write_text(yaml.safe_dump(config))
    inputs_of(tmp_path / "reference", {})
    signals = str(tmp_path / "signals")
    found = [
        finished("all", "All", answers(a=100, b=40), [("fit", 100)], fraction=1),
        finished("random0", "Random", answers(a=80, b=20), [("select", 1), ("fit", 20)]),
        finished("random1", "Random", answers(a=84, b=20), [("select", 1), ("fit", 22)], seed=1),
        finished(
            "coincide0",
            "Coincide",
            answers(a=90, b=20),
            [("select", 5), ("fit", 7, False), ("fit", 20), ("test", 99)],
            signals=signals,
        ),
        finished(
            "coincide1",
            "Coincide",
            answers(a=90, b=24),
            [("select", 7), ("fit", 27)],
            seed=1,
            signals=signals,
        ),
        finished("coincide2", "Coincide", answers(a=1, b=1), [("fit", 1)], seed=2, signals=signals),
    ]
    (tmp_path / "coincide2/results.json").unlink()
    return found


def test_signals_tell_runs_of_one_seed_apart(runs, finished, tmp_path):
    signals = str(tmp_path / "layers-0")
    other = finished("other", "Coincide", answers(a=1, b=1), [("fit", 1)], signals=signals)
    names = {row.name: len(row.runs) for row in compared(load([*runs, other])[0])}
    assert names["Coincide (signals=signals) 20 %"] == 2
    assert names["Coincide (signals=layers-0) 20 %"] == 1


def test_rows_over_seeds(runs, tmp_path):
    found, left_out = load(runs)
    assert left_out == [
        f"{tmp_path}/coincide2/results.json: no results; run `coincide test` for it"
    ]
    random, coincide, full = compared(found)
    assert (random.name, coincide.name, full.name) == ("Random 20 %", "Coincide 20 %", "All")
    assert coincide.scores["a"].tolist() == [0.9, 0.9]
    np.testing.assert_allclose(coincide.mean, [0.55, 0.57])
    np.testing.assert_allclose(coincide.relative, [(0.9 + 0.5) / 2, (0.9 + 0.6) / 2])
    assert full.relative.tolist() == [1]
    assert full.seconds == {"fit": 100}
    # What made the signals counts, what was interrupted too; tests do not.
    assert coincide.seconds == {
        **{"start fit": 1000, "reference fit": 3, "signals predict": 4},
        **{"select": 6, "fit": 27},
    }
    assert coincide.whole
    assert random.seconds == {"select": 1, "fit": 21}
    middle, low, high = coincide.difference
    assert middle == pytest.approx(np.mean([0.7 - 0.65, 0.75 - 0.67]))
    assert low < middle < high
    assert random.difference is None


def test_the_targets_own_start_costs_nothing(runs, tmp_path):
    for name in ("coincide0", "coincide1"):
        config = yaml.safe_load((tmp_path / name / "fit.yaml").read_text())
        config["model"]["init_args"]["pretrained"] = str(tmp_path / "start/model")
        (tmp_path / name / "fit.yaml").write_text(yaml.safe_dump(config))
    run = FinishedRun.load(tmp_path / "coincide0")
    assert list(run.seconds) == ["reference fit", "signals predict", "select", "fit"]


def test_costs_that_nobody_noted(runs, tmp_path):
    (tmp_path / "signals/stages.jsonl").unlink()
    run = FinishedRun.load(tmp_path / "coincide0")
    assert run.seconds == {"select": 5, "fit": 27}
    assert not run.whole


def test_what_a_fit_has_read_counts(runs, finished, tmp_path):
    """A model that reads signals itself, and runs from before this was noted."""
    stages_of(tmp_path / "clip", [("predict", 9)])
    clip, signals = str(tmp_path / "clip"), str(tmp_path / "signals")
    inputs_of(tmp_path / "coincide0", {signals: "s", clip: "c"})
    run = FinishedRun.load(tmp_path / "coincide0")
    assert (run.seconds["clip predict"], run.whole) == (9, True)
    random = finished("old", "Random", answers(a=1, b=1), [("fit", 1)])
    for name, reads in (("coincide0", True), ("old", False)):
        (tmp_path / name / "inputs.json").unlink()
        config = yaml.safe_load((tmp_path / name / "fit.yaml").read_text())
        config["data"]["init_args"]["signals"] = signals
        (tmp_path / name / "fit.yaml").write_text(yaml.safe_dump(config))
        run = FinishedRun.load(tmp_path / name)
        assert ("signals predict" in run.seconds, run.whole) == (reads, True)
    inputs_of(tmp_path / "coincide0", {})  # its selection was handed to it
    assert "signals predict" in FinishedRun.load(tmp_path / "coincide0").seconds
    (tmp_path / "old/inputs.json").write_text("[]")
    with pytest.raises(CoincideError, match=r"inputs.json: damaged"):
        FinishedRun.load(random)


def test_the_start_is_compared_by_its_content(finished, tmp_path):
    def place(name, pretrained):
        config = yaml.safe_load((tmp_path / name / "fit.yaml").read_text())
        config["model"]["init_args"]["pretrained"] = pretrained
        (tmp_path / name / "fit.yaml").write_text(yaml.safe_dump(config))

    names = ("all", "All", answers(a=9), [("fit", 1)])
    finished(*names, fraction=1)
    finished("moved", "Random", answers(a=9), [("fit", 1)])
    place("moved", "elsewhere")
    paths = [str(tmp_path / name) for name in ("all", "moved")]
    assert len(compared(load(paths)[0])) == 2
    inputs_of(tmp_path / "moved", {}, start="n")
    with pytest.raises(CoincideError, match=r"moved can't.*start.* elsewhere.*base"):
        compared(load(paths)[0])
    (tmp_path / "moved/inputs.json").unlink()
    with pytest.raises(CoincideError, match=r"moved can't.*pretrained is elsewhere, not base"):
        compared(load(paths)[0])


def test_tables_and_pictures(runs, finished, tmp_path, capsys):
    out = tmp_path / "out"
    half = finished("half", "Random", answers(a=95, b=40), [("fit", 50)], fraction=0.5)
    (tmp_path / "empty").mkdir()
    compare([*runs, half, str(tmp_path / "empty")], str(out))
    said = " ".join(capsys.readouterr().out.split())
    assert "left out: " in said
    assert "empty: neither the directory of a run nor W&B's files of one" in said
    assert "fractions.png" in said
    for name in ("comparison", "pareto", "fractions"):
        assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    lines = (out / "comparison.md").read_text().splitlines()
    assert lines[0] == "| run | seeds | a | b | mean | relative | vs Random |"
    random, coincide, *_ = [line.split(" | ") for line in lines[2:]]
    assert random[:3] == ["| Random 20 %", "2", "82.0 ± 2.8"]
    assert coincide[2:6] == ["**90.0 ± 0.0**", "**22.0 ± 2.8**", "**56.0 ± 1.4**", "**72.5 ± 3.5**"]
    assert coincide[6].startswith("+6.5 [")
    assert "| Coincide 20 % | 6 | 1000 | 3 | 4 | 27 | 1013 | 1040 |" in lines
    latex = (out / "comparison.tex").read_text()
    assert r"Coincide 20 \% & 2 & \textbf{90.0 $\pm$ 0.0}" in latex
    assert latex.count(r"\bottomrule") == 2
    table = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert [row["run"] for row in table] == ["Random 20 %", "Coincide 20 %", "Random 50 %", "All"]
    assert float(table[1]["relative"]) == pytest.approx(0.725)
    assert float(table[1]["total (s)"]) == 1040
    assert table[2]["a std"] == "nan"


def test_twenty_rows_fit_a_terminal():
    """Stages of several checkpoints were a column each, of two characters."""
    many = {f"gradients-{step} predict": 10.0 for step in range(4)}
    one = np.ones(1)
    row = Row("LESS 20 %", "LESS", 0.2, [], {}, one, None, None, {**many, "fit": 5.0})
    table = times([row])
    assert table.header == ["run", "gradients predict", "fit", "choosing", "total"]
    assert table.lines == [["LESS 20 %", "40", "5", "40", "45"]]
    assert table.within(200) is table
    assert table.within(40).header == ["run", "fit", "choosing", "total"]


def test_methods_are_told_apart_by_their_options(finished, runs):
    other = finished(
        "warm", "Coincide", answers(a=50, b=50), [("fit", 1)], options={"temperature": 0.5}
    )
    names = [row.name for row in compared(load([*runs[:4], other])[0])]
    assert names == ["Random 20 %", "Coincide 20 %", "Coincide (temperature=0.5) 20 %", "All"]


def test_what_can_not_be_compared_is_named(runs, finished, tmp_path):
    with pytest.raises(CoincideError, match=r"no finished run: .*/x: no such directory or file"):
        compare([str(tmp_path / "x")], str(tmp_path / "out"))
    longer = finished("longer", "X", answers(a=1, b=1), [("fit", 1)], max_epochs=3)
    with pytest.raises(CoincideError, match=r"longer can't.*all: trainer.max_epochs is 3, not 2"):
        compared(load([*runs, longer])[0])
    other = finished("other", "X", answers(a=1, b=1, c=1), [("fit", 1)])
    with pytest.raises(CoincideError, match="tested on other questions"):
        compared(load([*runs, other])[0])
    foreign = finished("foreign", "X", answers(a=1, b=1), [("fit", 1)])
    content = json.loads((tmp_path / "foreign/results.json").read_text())
    (tmp_path / "foreign/results.json").write_text(json.dumps({**content, "data": "z"}))
    with pytest.raises(CoincideError, match="tested on other questions"):
        compared(load([*runs, foreign])[0])
    moved = finished("moved", "X", answers(a=1, b=1), [("fit", 1)], data="e")
    again = finished("again", "Random", answers(a=1, b=1), [("fit", 1)])
    with pytest.raises(CoincideError, match=r"the same choice and seed as .*random0"):
        compared(load([*runs, again])[0])
    (tmp_path / "moved/results.json").write_text("{")
    assert "damaged" in load([*runs, moved])[1][1]
    (tmp_path / "random0/answers.jsonl").write_text('{"task": "a", "outcome": 1}\n')
    with pytest.raises(CoincideError, match="not of the test in its results"):
        compared(load(runs)[0])


def test_runs_without_answers_have_no_interval(runs, tmp_path):
    for run in ("random0", "coincide1"):
        (tmp_path / run / "answers.jsonl").unlink()
    found, _ = load(runs)
    assert compared(found)[1].difference is None
    assert unknown(found)[0].endswith("random0/answers.jsonl and 1 more")


def test_a_task_that_nothing_was_learned_of_has_no_ratio(finished, caplog):
    caplog.set_level("WARNING", logger="coincide_pl")
    some = [
        finished("all", "All", answers(a=80, b=0), [("fit", 9)], fraction=1),
        finished("random", "Random", answers(a=60, b=30), [("fit", 2)]),
    ]
    rows = compared(load(some)[0])
    assert [float(row.relative[0]) for row in rows] == pytest.approx([0.75, 1.0])
    assert "relative leaves out where all data score 0: b" in caplog.text
    none = [finished("nothing", "All", answers(a=0, b=0), [("fit", 9)], fraction=1), some[1]]
    assert {row.relative for row in compared(load(none)[0])} == {None}


def test_stages_are_timed_whether_they_end_or_not(tmp_path):
    with pytest.raises(KeyboardInterrupt), timed(tmp_path, "fit"):
        raise KeyboardInterrupt
    assert stage_seconds(tmp_path) == {}
    with timed(tmp_path, "fit"):
        pass
    assert set(stage_seconds(tmp_path)) == {"fit"}
    first, second = map(json.loads, (tmp_path / "stages.jsonl").read_text().splitlines())
    assert (first["finished"], second["finished"]) == (False, True)
    assert stage_seconds(tmp_path)["fit"] == pytest.approx(first["seconds"] + second["seconds"])


def test_work_beside_a_run_does_not_add_to_its_processor_time(tmp_path):
    """A grid that ran on a shared machine can still tell what its methods cost."""
    with timed(tmp_path, "fit"):
        subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    (line,) = map(json.loads, (tmp_path / "stages.jsonl").read_text().splitlines())
    assert 0 < line["cpu_seconds"] == stage_seconds(tmp_path, "cpu")["fit"]
    older = {name: value for name, value in line.items() if name != "cpu_seconds"}
    (tmp_path / "stages.jsonl").write_text(json.dumps(older) + "\n")
    assert stage_seconds(tmp_path, "cpu") == {}


def test_scores_of_a_run_that_was_fitted_again_are_not_shown(finished, tmp_path):
    """They were measured on other weights."""
    runs = [
        finished("all", "All", answers(a=80), [("fit", 9)], fraction=1),
        finished("random", "Random", answers(a=60), [("fit", 2)], model="old"),
    ]
    inputs_of(tmp_path / "random", {}, trained="old")
    assert [row.name for row in compared(load(runs)[0])] == ["Random 20 %", "All"]
    for trained, why in (
        ("new", "of other weights than the fit has left; run `coincide test` again"),
        (None, "its fit has begun again; end it, and test again"),
    ):
        inputs_of(tmp_path / "random", {}, trained=trained)
        found, left_out = load(runs)
        assert [run.selector for run in found] == ["All"]
        assert left_out == [f"{tmp_path}/random/results.json: {why}"]
        with pytest.raises(CoincideError, match=r"its fit|of other weights"):
            relative_performance({"a": 0.1}, tmp_path / "random", "q")


def test_a_run_whose_selection_was_made_again_is_not_shown(finished, tmp_path):
    """Its scores are of a model that was trained on other samples."""
    run = finished("random", "Random", answers(a=60), [("fit", 2)])
    chosen = Selection.load(tmp_path / "random/selection.safetensors")
    inputs_of(tmp_path / "random", {}, selection=chosen.fingerprint)
    assert FinishedRun.load(run).fraction == 0.2
    replace(chosen, indices=chosen.indices[:9]).save(tmp_path / "random/selection.safetensors")
    with pytest.raises(CoincideError, match=r"selection\.safetensors: not what was trained on"):
        FinishedRun.load(run)


@pytest.mark.parametrize("whole", [None, 0])
def test_without_a_score_on_all_data_the_other_columns_are_there(
    finished, tmp_path, caplog, capsys, whole
):
    runs = [
        finished("random", "Random", answers(a=60, b=20), [("fit", 2)]),
        finished("half", "Random", answers(a=70, b=20), [("fit", 2)], fraction=0.5),
        finished("coincide", "Coincide", answers(a=70, b=30), [("fit", 2)]),
    ]
    if whole is not None:
        runs.append(finished("all", "All", answers(a=0, b=0), [("fit", 9)], fraction=1))
    compare(runs, str(tmp_path / "out"))
    why = "none of the runs is on all data" if whole is None else f"{tmp_path}/all: 0 in every task"
    assert f"relative performance is left out: {why}" in caplog.text
    lines = (tmp_path / "out/comparison.md").read_text().splitlines()
    assert lines[0] == "| run | seeds | a | b | mean |"
    assert "| Coincide 20 % | 1 | **70.0** | **30.0** | **50.0** |" in lines
    table = list(csv.DictReader((tmp_path / "out/comparison.csv").read_text().splitlines()))
    assert "relative" not in table[0]
    assert float(table[0]["mean"]) == 0.4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"comparison.{end}" for end in ("csv", "md", "tex", "png")
    }
