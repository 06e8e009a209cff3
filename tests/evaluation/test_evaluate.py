"""Lost if these fail: a test that goes on where it was, and says the same in the end."""

import json

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
