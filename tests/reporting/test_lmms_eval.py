"""Lost if these fail: the benchmarks that lmms-eval ran, in our comparison."""

import json

import pytest
from test_compare import answers

from coincide_pl.errors import CoincideError
from coincide_pl.reporting.compare import load, unknown
from coincide_pl.reporting.lmms_results import lmms_results
from coincide_pl.reporting.rows import compared

RESULTS = {
    "results": {
        "mme": {
            "alias": "mme",
            "mme_perception_score,none": 1500.0,
            "mme_perception_score_stderr,none": "N/A",
            "mme_cognition_score,none": 400.0,
        },
        "pope": {"alias": "pope", "pope_accuracy,none": 0.9, "pope_f1_score,none": 0.8},
        "gqa": {"alias": "gqa", "exact_match,none": 0.6, "exact_match_stderr,none": 0.01},
        "mmbench_en_dev": {"alias": "x", "gpt_eval_score,none": 64.0},
        "group": {"alias": "group"},
    },
    "n-samples": {"gqa": {"original": 12578, "effective": 12578}},
}


def test_scores_by_task(tmp_path):
    assert lmms_results(tmp_path) is None
    folder = tmp_path / "lmms_eval" / "model"
    folder.mkdir(parents=True)
    (folder / "20260101_000000_results.json").write_text(json.dumps(RESULTS))
    later = {"results": {"gqa": {"exact_match,none": 0.7}}}
    (folder / "20260102_000000_results.json").write_text(json.dumps(later))
    assert lmms_results(tmp_path).scores == pytest.approx(
        {
            "mme_perception": 0.75,
            "mme_cognition": 0.5,
            "pope": 0.8,
            "gqa": 0.7,
            "mmbench_en_dev": 0.64,
        }
    )
    (folder / "20260103_000000_results.json").write_text("[]")
    with pytest.raises(CoincideError, match="damaged; run lmms-eval again"):
        lmms_results(tmp_path)


def documents(folder, task, worth, name="exact_match"):
    """Writes what `--log_samples` leaves of a task, in the order in which answers came."""
    lines = [json.dumps({"doc_id": i, name: value}) for i, value in enumerate(worth)]
    (folder / f"1_samples_{task}.jsonl").write_text("\n".join(lines[::-1]) + "\n")


def test_documents_give_the_difference_to_random_its_interval(finished, tmp_path, caplog):
    """Documents are paired by their numbers; a score that is no mean of theirs has no interval."""
    worth = {
        "all": [1.0] * 40,
        "random": [1.0, 0.0] * 20,
        "ours": [1.0, 0.0] * 10 + [1.0] * 20,
    }
    runs = []
    for run, right in worth.items():
        kind = {"all": "All", "random": "Random", "ours": "Coincide"}[run]
        whole = {"fraction": 1} if run == "all" else {}
        runs.append(finished(run, kind, answers(a=1), [("fit", 9)], **whole))
        (tmp_path / run / "results.json").unlink()
        (tmp_path / run / "answers.jsonl").unlink()
        folder = tmp_path / run / "lmms_eval/model"
        folder.mkdir(parents=True)
        results = {"gqa": {"exact_match,none": sum(right) / 40}, "pope": {"pope_f1_score,none": 1}}
        sizes = {task: {"effective": 40} for task in results}
        (folder / "1_results.json").write_text(json.dumps({"results": results, "n-samples": sizes}))
        documents(folder, "gqa", right)
        documents(folder, "pope", [{"score": x} for x in right], "pope_f1_score")
    row = next(row for row in compared(load(runs)[0]) if row.method == "Coincide")
    middle, low, high = row.difference
    assert middle == pytest.approx(0.25)
    assert 0 < low < middle < high < 0.5
    assert "leaves out pope: no answers, or a score that is not their mean" in caplog.text
    assert unknown(load(runs)[0]) == []
    samples = tmp_path / "ours/lmms_eval/model/1_samples_gqa.jsonl"
    samples.write_text("[]\n")
    with pytest.raises(CoincideError, match=r"1_samples_gqa\.jsonl.*run lmms-eval again"):
        compared(load(runs)[0])
    samples.unlink()
    assert unknown(load(runs)[0])[0].endswith("ours/lmms_eval")


def test_runs_compared_by_them(finished, tmp_path):
    runs = [
        finished("all", "All", answers(a=1), [("fit", 100)], fraction=1),
        finished("part", "Random", answers(a=1), [("fit", 20)]),
    ]
    for run, score in zip(runs, (0.8, 0.6), strict=True):
        (tmp_path / run / "results.json").unlink()
        (tmp_path / run / "answers.jsonl").unlink()
        (tmp_path / run / "lmms_eval").mkdir()
        content = {"results": {"gqa": {"exact_match,none": score}}}
        (tmp_path / run / "lmms_eval/1_results.json").write_text(json.dumps(content))
    part, _ = compared(load(runs)[0])
    assert part.relative.tolist() == pytest.approx([0.75])
