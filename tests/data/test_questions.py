"""Lost if these fail: question files of the benchmarks, with their answers."""

import json

import pytest

from coincide_pl.data.readers import QuestionFile
from coincide_pl.errors import DataError


def lines(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


@pytest.fixture
def questions(tmp_path):
    items = [
        {"question_id": 1, "image": "a.png", "text": "Is there a dog?", "category": "random"},
        {"question_id": 2, "text": "Is there no dog?"},
    ]
    return lines(tmp_path / "q.jsonl", items)


@pytest.mark.parametrize(
    "answers",
    [
        [{"question_id": 1, "label": "yes"}, {"question_id": 2, "label": "no"}],
        [{"question_id": "1", "answer": "yes"}, {"question_id": 2, "answer": "no"}],
        [{"annotations": [{"question_id": n, "answer": a} for n, a in ((1, "yes"), (2, "no"))]}],
        [{"data": [{"question_id": n, "answer": a} for n, a in ((1, "yes"), (2, "no"))]}],
        [{"1": {"answer": "yes"}, "2": "no"}],
    ],
)
def test_answers_elsewhere(questions, tmp_path, answers):
    reader = QuestionFile(
        questions, answers=lines(tmp_path / "a.json", answers), suffix=" Briefly."
    )
    one, two = reader
    assert (one.id, one.images, one.source) == ("1", ("a.png",), "random")
    assert [turn.text for turn in one.turns] == ["<image>\nIs there a dog? Briefly.", "yes"]
    assert (two.id, two.images, two.source) == ("2", (), None)
    assert two.turns[1].text == "no"


def test_ten_annotators(tmp_path):
    told = [{"answer": "red", "answer_id": i} for i in range(9)] + [{"answer": "dark\nred"}]
    item = {"question_id": 5, "question": "<image>\nWhich?", "answers": told}
    (record,) = QuestionFile(lines(tmp_path / "q.jsonl", [item]))
    assert record.turns[0].text == "Which?"
    assert record.turns[1].text.splitlines() == ["red"] * 9 + ["dark red"]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (
            {"question_id": 3, "text": "x"},
            r"q.jsonl: record 0 \(id '3'\): has no answer in 'answer'",
        ),
        ({"question_id": 3, "answer": "x"}, "'text' must be text"),
        ({"text": "x", "answer": "y", "image": "../a"}, "leads outside"),
        ({"text": "x", "answer": "y", "image": 3}, "'image' must be a path"),
        (3, "is a int, not an object"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, item, told):
    with pytest.raises(DataError, match=told):
        list(QuestionFile(lines(tmp_path / "q.jsonl", [item])))


def test_files_that_are_wrong(questions, tmp_path):
    with pytest.raises(DataError, match="no such data file"):
        QuestionFile(questions, answers=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no such image folder"):
        QuestionFile(questions, image_folder=str(tmp_path / "none"))
    other = lines(tmp_path / "a.jsonl", [{"question_id": 1, "label": "yes"}])
    with pytest.raises(DataError, match=r"record 1 \(id '2'\): has no answer in .*a.jsonl"):
        list(QuestionFile(questions, answers=other))
    bad = lines(tmp_path / "b.jsonl", [{"annotations": [{"answer": "x"}]}])
    with pytest.raises(DataError, match="'annotations' 0 has no 'question_id'"):
        list(QuestionFile(questions, answers=bad))
    with pytest.raises(DataError, match="no records"):
        list(QuestionFile(lines(tmp_path / "e.jsonl", [])))


def test_subset(questions, tmp_path):
    QuestionFile(questions).write_subset([1], tmp_path / "subset.jsonl")
    (line,) = (tmp_path / "subset.jsonl").read_text().splitlines()
    assert json.loads(line)["question_id"] == 2


MME = [
    {"question_id": "color/0.png", "text": "Is it red? Please answer yes or no."},
    {"question_id": "color/0.png", "text": "Is it blue? Please answer yes or no."},
    {"question_id": "color/1.png", "text": "Is it red? Please answer yes or no."},
]


def truths(tmp_path, questions, answers):
    reader = QuestionFile(
        lines(tmp_path / "q.jsonl", questions), answers=lines(tmp_path / "a.jsonl", answers)
    )
    return [record.turns[-1].text for record in reader]


def test_questions_that_share_an_id_have_their_own_answers_in_order(tmp_path):
    answers = [
        {"question_id": "color/0.png", "answer": "Yes"},
        {"question_id": "color/0.png", "answer": "No"},
        {"question_id": "color/1.png", "answer": "No"},
    ]
    assert truths(tmp_path, MME, answers) == ["Yes", "No", "No"]
    by_text = [answer | {"text": item["text"]} for answer, item in zip(answers, MME, strict=True)]
    assert truths(tmp_path, MME, by_text[::-1]) == ["Yes", "No", "No"]
    assert truths(tmp_path, MME[1:2], by_text) == ["No"]


def test_an_answer_that_is_one_of_several_is_named(tmp_path):
    answers = [{"question_id": "color/0.png", "answer": a} for a in ("Yes", "No", "No")]
    with pytest.raises(DataError, match=r"a.jsonl: 'color/0.png' 3 times, with different answers"):
        truths(tmp_path, MME[:2], answers)
    same = [{"question_id": "color/0.png", "answer": "No"}] * 3
    assert truths(tmp_path, MME[:2], same) == ["No", "No"]


def test_answers_of_textvqa_are_found_by_image_and_question(tmp_path):
    tail = "\nReference OCR token: X\nAnswer the question using a single word or phrase."
    questions = [
        {"question_id": "0a1b", "text": f"what brand is it?{tail}"},
        {"question_id": "0a1b", "text": f"What year is it?{tail}"},
        {
            "question_id": "0c2d",
            "text": "OCR tokens: 7. Question: what number is it? Short answer:",
        },
    ]
    data = [
        {"image_id": i, "question_id": n, "question": q, "answers": [a] * 2}
        for i, n, q, a in (
            ("0a1b", 2, "what year is it?", "2011"),
            ("0a1b", 1, "what brand is it?", "nokia"),
            ("0c2d", 3, "what number is it?", "7"),
        )
    ]
    found = truths(tmp_path, questions, [{"dataset_type": "val", "data": data}])
    assert found == ["nokia\nnokia", "2011\n2011", "7\n7"]
    questions[0]["text"] = "what color is it?"
    with pytest.raises(DataError, match=r"record 0 .* is none of the questions about it in"):
        truths(tmp_path, questions, [{"dataset_type": "val", "data": data}])
