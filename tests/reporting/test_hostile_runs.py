"""Lost if these fail: runs from anywhere that are damaged or hostile, named in a line each."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from test_compare import answers

from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import CoincideError
from coincide_pl.reporting.compare import compare, load
from coincide_pl.reporting.escape import latex, markdown, spreadsheet
from coincide_pl.reporting.report import report
from coincide_pl.selection import Selection

DEEP = "[" * 100_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(12)
)
RESULTS = {"scores": {"a": 0.5}, "counts": {"a": 100}, "data": "q"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("results.json", text) for text in ("", "[]", "3", "null", DEEP, "\xff", '"x"')),
        ("results.json", json.dumps({**RESULTS, "scores": {"a": "much"}})),
        ("results.json", json.dumps({**RESULTS, "scores": {"a": float("nan")}})),
        ("results.json", json.dumps({**RESULTS, "scores": [0.5]})),
        ("results.json", json.dumps({**RESULTS, "counts": {}})),
        ("results.json", json.dumps({**RESULTS, "counts": {"a": 0}})),
        ("results.json", json.dumps({**RESULTS, "counts": {"a": 1e999}})),
        ("results.json", json.dumps({**RESULTS, "counts": {"a": None}})),
        ("results.json", '{"counts": {"a": ' + "9" * 5000 + "}}"),
        *(("fit.yaml", text) for text in ("", "a", "[", DEEP, "- 1", "a: 2020-99-99", "\t", BOMB)),
        ("fit.yaml", "seed_everything: x"),
        ("fit.yaml", "a: &a {b: *a}"),
        ("fit.yaml", "data: {init_args: {signals: 3}}"),
        ("fit.yaml", "data: {init_args: {signals: [[x]]}}"),
        ("fit.yaml", "!!python/object/apply:os.system ['touch ran']"),
        *(("inputs.json", text) for text in ("", "[]", '{"model": 1}', DEEP)),
        ("inputs.json", '{"model": "m", "signals": 3}'),
        *(("stages.jsonl", text) for text in ("3", DEEP, '{"stage": "fit"}', "\xff")),
        ("stages.jsonl", '{"stage": "fit", "seconds": NaN, "finished": true}'),
        ("stages.jsonl", '{"stage": "fit", "seconds": -1, "finished": true}'),
        ("selection.safetensors", "no"),
    ],
)
def test_a_damaged_run_is_left_out_and_named(finished, tmp_path, monkeypatch, file, content):
    runs = [
        finished("all", "All", answers(a=80), [("fit", 9)], fraction=1),
        finished("bad", "Random", answers(a=60), [("fit", 2)]),
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad" / file).write_bytes(content.encode("latin-1"))
    found, left_out = load(runs)
    assert [run.selector for run in found] == ["All"]
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path}/bad/{file}")
    assert "\n" not in left_out[0]
    assert len(left_out[0]) < 300
    assert not (tmp_path / "ran").exists()


def test_a_recipe_of_any_length_is_named_in_a_line(finished, tmp_path):
    runs = [finished(name, "All", answers(a=1), [("fit", 1)], fraction=1) for name in ("a", "b")]
    config = yaml.safe_load((tmp_path / "b/fit.yaml").read_text())
    config["trainer"]["precision"] = "x" * 100_000
    (tmp_path / "b/fit.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CoincideError) as caught:
        compare(runs, str(tmp_path / "out"))
    assert len(str(caught.value)) < 500


TASKS = [
    "[/red]",
    "[bold]x[/]",
    ":smile:",
    "=HYPERLINK(1)",
    "@SUM(A1)",
    "-2+3",
    "a|b",
    "x\ny",
    "\x1b[31mz",
    "_under_",
    "$\\frac$",
    "\\input{/etc/passwd}",
    "50%#&~^{}",
    "<img src=x onerror=alert(1)>",
    "![i](http://x)",
    "`code`",
    "**b**",
]


def test_names_are_never_markup(finished, tmp_path, capsys):
    shares = {task: 10 + i for i, task in enumerate(TASKS)}
    place = tmp_path / "[/blue]"
    place.mkdir(parents=True)  # a folder `[`, and `blue]` in it
    runs = [
        finished("[green]", "All", answers(**shares), [("fit [/red]", 9)], fraction=1),
        finished("random", "Random", answers(**shares), [("fit [/red]", 2)], options={"x": "[/b]"}),
        finished("half", "Random", answers(**shares), [("fit", 2)], fraction=0.5),
        finished("bad [red]", "Random", answers(a=1), [("fit", 2)]),
    ]
    (tmp_path / "bad [red]/results.json").unlink()
    compare(runs, str(place))
    out = capsys.readouterr().out
    assert "left out: " in out
    assert "bad [red]/results.json: no results" in out
    assert f"wrote {place}/comparison.csv" in out
    assert "\x1b" not in out
    header = next(csv.reader((place / "comparison.csv").read_text().splitlines()))
    assert not [cell for cell in header if cell.startswith(("=", "@", "+", "-", "\t"))]
    lines = (place / "comparison.md").read_text().splitlines()
    count = len(TASKS) + 5
    table = [line for line in lines[: lines.index("")] if line]
    assert {line.replace("\\|", "").count("|") for line in table} == {count + 1}
    assert "<img" not in lines[0]
    assert r"!\[i\](http" in lines[0]
    text = (place / "comparison.tex").read_text()
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert r"50\%\#\&\textasciitilde{}\textasciicircum{}\{\}" in text
    for name in ("comparison", "pareto", "fractions"):
        assert (place / f"{name}.png").stat().st_size > 1000


def test_plain_names_stay_as_they_are():
    for name in ("colour yes/no", "Coincide (temperature=0.5) 20", "task_0", "a-b", "vs Random"):
        assert markdown(name) == name
        assert spreadsheet(name) == name
        assert latex(name) == name.replace("_", r"\_")


@pytest.fixture
def made(llava, tmp_path):
    """A function that writes a run with a selection that says anything of itself."""
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    good = Selection(
        np.arange(0, 60, 3),
        60,
        {"class_path": "x.X", "init_args": {}},
        {"data": records.fingerprint},
        {"density": np.linspace(0, 1, 4)},
        {},
        np.arange(60, dtype=np.int32) % 4,
    )
    reader = {"class_path": "LlavaJson", "init_args": {"path": str(llava)}}
    config = {"data": {"init_args": {"train": reader, "cache_dir": str(tmp_path / "cache")}}}

    def make(**changes):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        replace(good, **changes).save(folder / "selection.safetensors")
        (folder / "fit.yaml").write_text(yaml.safe_dump(config))
        return folder

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {"selector": "x"},
        {"selector": {"class_path": 3, "init_args": {}}},
        {"selector": {"class_path": "x.X", "init_args": [1]}},
        {"figures": [1]},
        {"clusters": {"density": np.array([0.1, np.nan, 0.2, 0.3])}},
        {"clusters": {"density": np.zeros((4, 2))}},
        {"clusters": {"density": np.zeros(4), "transferability": np.zeros(3)}},
        {"clusters": {"density": np.zeros(70)}},
        {"labels": np.full(60, 2**31 - 1, np.int32)},
        {"labels": np.full(60, -1, np.int32)},
        {"labels": np.linspace(0, 1, 60)},
        {"labels": np.full(60, 4, np.int32)},
    ],
)
def test_a_hostile_selection_is_named(made, command, changes):
    run = made(**changes)
    for verb in ("report", "subset", "overlap"):
        words = {"subset": ["--output=x.json"], "overlap": [run]}.get(verb, [])
        status, _, said = command(verb, run, *words)
        lines = [line for line in said.splitlines() if not line.startswith("INFO")]
        assert (status, len(lines)) == (1, 1), said
        assert lines[0].startswith(f"error: {run}/selection.safetensors: "), said


def test_a_report_in_a_folder_with_any_name(made, tmp_path, capsys):
    place = tmp_path / "[/red]"
    place.parent.mkdir()
    made().rename(place)
    report(str(place))
    assert f"wrote {place}/report.html" in capsys.readouterr().out
