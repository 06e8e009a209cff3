"""Lost if these fail: a test that goes on where it was, and says the same in the end."""

import json
from collections import Counter

import pytest

from coincide_pl.evaluation import Evaluate
from coincide_pl.evaluation.evaluate import KeptAnswers


def test_answers_that_are_there_are_not_generated_again(
    command, tiny, llava, tmp_path, monkeypatch
):
    words = [
        *("test", "--model=TargetModule", f"--model.pretrained={tiny}", "--model.max_new_tokens=2"),
        *("--data=InstructionData", "--data.test=LlavaJson", f"--data.test.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--data.batch_size=8", "--data.max_length=512"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    ]
    batches = []
    kept = KeptAnswers.add

    def add(self, answers):
        batches.append(len(answers))
        kept(self, answers)
        if stops_at is not None and sum(batches) >= stops_at:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(KeptAnswers, "add", add)
    stops_at = None
    status, _, said = command(*words, f"--trainer.default_root_dir={tmp_path}/whole")
    assert status == 0, said
    assert sum(batches) == 60
    place = f"--trainer.default_root_dir={tmp_path}/parts"
    for stops_at, left in ((20, 60), (20, 36), (12, 12), (None, 8)):
        batches.clear()
        if stops_at is None:
            status, _, said = command(*words, place)
            assert status == 0, said
        else:
            with pytest.raises(RuntimeError, match="pulled the plug"):
                command(*words, place)
        assert sum(batches) <= left
        file = tmp_path / "parts/.answers.0.jsonl"
        if stops_at is not None:
            file.write_text(file.read_text() + '[3, "a li')  # a line that was cut
    for name in ("results.json", "answers.jsonl"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert not file.exists()


def test_answers_of_another_test_are_not_taken(tmp_path):
    answers = {3: ("yes", "no", "a"), 5: ("a\\nb", "", "b")}
    KeptAnswers(tmp_path, {"model": "m"}, 0).add(answers)
    KeptAnswers(tmp_path, {"model": "m"}, 1).add({7: ("x", "y", "a")})
    assert KeptAnswers(tmp_path, {"model": "m"}, 0).load() == {**answers, 7: ("x", "y", "a")}
    file = tmp_path / ".answers.1.jsonl"
    file.write_bytes(file.read_bytes().replace(b'[7, "x"', b'[6, "x"') + b'\xff{"\n')
    KeptAnswers(tmp_path, {"model": "m"}, 1).add({9: ("x", "y", "a")})
    loaded = KeptAnswers(tmp_path, {"model": "m"}, 0).load()
    assert loaded == {**answers, 9: ("x", "y", "a")}
    other = KeptAnswers(tmp_path, {"model": "n"}, 0)
    assert other.load() == {}
    other.add({1: ("a", "b", "c")})
    assert other.load() == {1: ("a", "b", "c")}
    assert KeptAnswers(tmp_path, {"model": "m"}, 0).load() == {9: ("x", "y", "a")}
    other.forget()
    assert not list(tmp_path.iterdir())
    nowhere = KeptAnswers(None, {}, 0)
    nowhere.add(answers)
    assert nowhere.load() == {}


def test_relative_to_all_data(command, tiny, llava, tmp_path):
    words = [
        *("test", "--model=TargetModule", f"--model.pretrained={tiny}", "--model.max_new_tokens=2"),
        *("--data=InstructionData", "--data.test=LlavaJson", f"--data.test.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", "--trainer.callbacks=Evaluate"),
        *(f"--trainer.callbacks.full={tmp_path}/all", f"--trainer.default_root_dir={tmp_path}/run"),
    ]
    status, _, said = command(*words)
    assert status == 1
    assert "all/results.json: no results; run `coincide test` for it" in said
    (tmp_path / "all").mkdir()
    full = {
        "scores": {"coco": 0.5, "text": 0.5, "vg": 0.5},
        "counts": {"coco": 1, "text": 1, "vg": 1},
    }
    (tmp_path / "all/results.json").write_text(json.dumps({**full, "data": "other"}))
    status, _, said = command(*words)
    assert status == 1
    assert "of other questions than these" in said
    assert Evaluate().full is None


@pytest.fixture
def asked(tiny, llava, tmp_path):
    """A test of the tiny model on a file of questions; returns the words, and how to ask."""

    def ask(metric, truths):
        path = tmp_path / "questions.jsonl"
        lines = [
            {"question_id": i, "text": "Is it?", "answer": truth, "category": "ab"[i % 2]}
            for i, truth in enumerate(truths)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return [
            *("test", "--model=TargetModule", f"--model.pretrained={tiny}"),
            *("--model.max_new_tokens=2", "--data=InstructionData", "--data.test=QuestionFile"),
            *(f"--data.test.path={path}", f"--data.cache_dir={tmp_path}/cache"),
            *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *("--trainer.callbacks=Evaluate", f"--trainer.callbacks.metric={metric}"),
            f"--trainer.default_root_dir={tmp_path}/run",
        ]

    return ask


def test_truths_that_the_metric_can_not_read_stop_the_test(command, asked, tmp_path):
    """Before an answer is generated; they would count as wrong, or as no."""
    status, _, said = command(*asked("YesNo", ["yes", True, "no", "maybe"]))
    assert status == 1
    (line,) = [line for line in said.splitlines() if line.startswith("error")]
    assert line == (
        f"error: {tmp_path}/questions.jsonl: record 1 (id '1'): the truth 'True' is not yes or no, "
        "as YesNo reads them, nor are those of 1 others; mend them, or name another "
        "--trainer.callbacks.metric"
    )
    assert not list((tmp_path / "run").glob("*answers*"))


def test_answers_that_no_rule_reads_are_counted(command, asked, tmp_path):
    status, _, said = command(*asked("MultipleChoice", ["A", "B", "C", "D"]))
    assert status == 0, said
    results = json.loads((tmp_path / "run/results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run/answers.jsonl").read_text().splitlines()]
    unread = [line["task"] for line in lines if len(line["answer"]) != 1]
    assert results["unread"] == dict(Counter(unread))
    assert unread
    assert f"MultipleChoice can't read {len(unread)} of 4 answers" in said
