"""Lost if these fail: a comparison that counts what it says, and pictures of it."""

import json

import pytest

from coincide_pl.errors import CoincideError
from coincide_pl.reporting.compare import Run, accuracies, compare, compared, times
from coincide_pl.reporting.stages import stage_seconds, timed


def finished(folder, scores, stages, data="d"):
    folder.mkdir()
    counts = dict.fromkeys(scores, 10)
    mean = sum(scores.values()) / len(scores)
    content = {"scores": {**scores, "mean": mean}, "counts": counts, "model": "m", "data": data}
    (folder / "results.json").write_text(json.dumps(content))
    lines = [{"stage": s, "seconds": t, "finished": f} for s, t, f in stages]
    (folder / "stages.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    part = finished(
        tmp_path / "part",
        {"a": 0.9, "b": 0.2},
        [("select", 5, True), ("fit", 7, False), ("fit", 20, True), ("test", 99, True)],
    )
    full = finished(tmp_path / "full", {"a": 1.0, "b": 0.4}, [("fit", 100, True)])
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "stages.jsonl").write_text('{"stage": "fit", "seconds": 3, "finished": true}\n')
    return [Run("part", part, [str(reference)]), Run("everything", full)]


def test_relative_performance_and_costs(runs):
    part, full = compared(runs, "everything")
    assert part.relative == pytest.approx((0.9 / 1.0 + 0.2 / 0.4) / 2)
    assert part.mean == pytest.approx(0.55)
    assert full.relative == 1
    assert part.seconds == {"reference fit": 3, "select": 5, "fit": 27}  # with what was interrupted
    assert part.total == 35
    assert accuracies([part])[1] == ["part", "90.0", "20.0", "55.0", "70.0"]
    assert times([part, full]) == [
        ["run", "reference fit", "select", "fit", "total"],
        ["part", "3", "5", "27", "35"],
        ["everything", "-", "-", "100", "100"],
    ]


def test_tables_and_picture(runs, tmp_path, capsys):
    compare(runs, "everything", str(tmp_path / "out"))
    told = capsys.readouterr().out
    assert "relative" in told
    assert "70.0" in told
    assert (tmp_path / "out/comparison.png").read_bytes()[:4] == b"\x89PNG"
    lines = (tmp_path / "out/comparison.csv").read_text().splitlines()
    assert lines[1] == "part,90.0,20.0,55.0,70.0,3,5,27,35"


def test_what_can_not_be_compared_is_named(runs, tmp_path):
    with pytest.raises(CoincideError, match="no run is called 'al'; there are part, everything"):
        compared(runs, "al")
    with pytest.raises(CoincideError, match=r"results.json: no results of 'x'"):
        compared([*runs, Run("x", str(tmp_path / "x"))], "everything")
    other = finished(tmp_path / "other", {"a": 1.0, "b": 1.0}, [("fit", 1, True)], data="e")
    with pytest.raises(CoincideError, match="other questions"):
        compared([*runs, Run("x", other)], "everything")
    (tmp_path / "part" / "results.json").write_text("{")
    with pytest.raises(CoincideError, match="damaged"):
        compared(runs, "everything")


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
