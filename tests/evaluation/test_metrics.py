"""Lost if these fail: scores of the right answers, as each benchmark defines them."""

import pytest
import torch

from coincide_pl.errors import DataError
from coincide_pl.evaluation import (
    MME,
    CircularChoice,
    ExactMatch,
    MultipleChoice,
    VQAAccuracy,
    YesNo,
)
from coincide_pl.evaluation.metrics import chosen_letter, normalized, said_yes


def test_exact_match_by_task():
    metric = ExactMatch(["a", "b", "unseen"])
    metric.update(["Yes.", " no", "yes it is"], ["yes", "no", "yes"], ["a", "a", "b"])
    metric.update(["red"], ["red"], ["b"])
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores == {"a": 1.0, "b": 0.5, "mean": 0.75}
    assert metric.counts() == {"a": 2, "b": 2}
    assert metric.all_details() == {}
    with pytest.raises(ValueError, match="'c' is not in list"):
        metric.update(["x"], ["x"], ["c"])


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_vqa_accuracy_of_ten_annotators(matches, expected):
    """The values that the VQA evaluation's own page gives."""
    truth = "\n".join(["the Dog."] * matches + [f"cat {i}" for i in range(10 - matches)])
    assert VQAAccuracy().outcome("a dog", truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Two dogs!", "2 dogs"),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("t-shirt", "t shirt"),
        ("black / white", "black white"),
        ("none", "0"),
        ("", ""),
    ],
)
def test_answers_as_vqa_compares_them(answer, expected):
    assert normalized(answer) == expected


def test_one_right_answer():
    assert VQAAccuracy().outcome("Net.", "net") == 1
    assert VQAAccuracy().outcome("nets", "net") == 0


def test_pope():
    metric = YesNo(["random", "popular"])
    answers = ["Yes", "yes, there is", "No", "There is no dog. Yes", "Yes", "No"]
    truths = ["yes", "no", "no", "yes", "yes", "no"]
    metric.update(answers, truths, ["random"] * 6)
    metric.update(["No"], ["yes"], ["popular"])
    details = metric.all_details()
    # true positives 2, false positives 1, false negatives 1, true negatives 2
    assert details["random"] == pytest.approx(
        {
            "accuracy": 4 / 6,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "yes_ratio": 3 / 6,
        }
    )
    scores = metric.compute()
    assert float(scores["random"]) == pytest.approx(2 / 3)
    assert float(scores["popular"]) == 0
    assert not said_yes("It is not.")
    assert said_yes("Nothing else")


def test_mme():
    metric = MME(["existence"])
    images = ["1.jpg", "1.jpg", "2.jpg", "2.jpg", "3.jpg", "3.jpg"]
    groups = [metric.group(f"existence/{image}", image) for image in images]
    answers = ["Yes", "No, it is not", "yes.", "Yes", "Maybe", "No"]
    truths = ["Yes", "No", "Yes", "No", "Yes", "No"]
    metric.update(answers, truths, ["existence"] * 6, groups)
    details = metric.all_details()["existence"]
    assert details == pytest.approx({"accuracy": 4 / 6, "accuracy_plus": 1 / 3})
    # MME's points: 100 * (accuracy + accuracy+) = 100
    assert 200 * float(metric.compute()["existence"]) == pytest.approx(100)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(C)", "C"),
        ("B. a dog", "B"),
        ("A: that one", "A"),
        ("The answer is D.", "D"),
        ("Because of this, the answer is: (E)", "E"),
        ("dog", None),
        ("", None),
        ("Because it is", None),
    ],
)
def test_letters(answer, letter):
    assert chosen_letter(answer) == letter
    assert MultipleChoice().outcome(answer, letter or "A") == (letter is not None)


def test_circular():
    metric = CircularChoice(["all"])
    ids = ["7", "1000007", "2000007", "8", "1000008", "9"]
    groups = [metric.group(i, None) for i in ids]
    metric.update(
        ["A", "B", "C", "A", "A", "D"], ["A", "B", "C", "A", "B", "D"], ["all"] * 6, groups
    )
    assert float(metric.compute()["all"]) == pytest.approx(2 / 3)
    assert metric.counts() == {"all": 6}


def test_states_go_together_over_processes():
    """As torchmetrics does it: states gathered, one after another."""
    one, two = MME(["a"]), MME(["a"])
    one.update(["yes"], ["yes"], ["a"], ["image"])
    two.update(["yes"], ["no"], ["a"], ["image"])
    for name in ("outcomes", "places", "groups"):
        setattr(one, name, [torch.cat([*getattr(one, name), *getattr(two, name)])])
    assert one.all_details() == {"a": {"accuracy": 0.5, "accuracy_plus": 0.0}}


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [
        (ExactMatch(["a"]), ["red", "No."], ["", " \n"]),
        (VQAAccuracy(["a"]), ["net", "\nnet"], ["", "\n \n"]),
        (YesNo(["a"]), ["yes", "No.", " YES "], ["True", "1", "yes, two", "y", ""]),
        (MME(["a"]), ["Yes", "no."], ["0", "not", ""]),
        (MultipleChoice(["a"]), ["B", "(c)", "D. a dog"], ["1", "the cat", "Because", ""]),
        (CircularChoice(["a"]), ["a"], ["2"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_truth_that_a_metric_can_not_read_is_not_a_wrong_answer(metric, good, bad):
    for truth in good:
        metric.update([truth], [truth], ["a"])
    for truth in bad:
        with pytest.raises(DataError, match=f"{type(metric).__name__}: the truth .* is not"):
            metric.update(["yes"], [truth], ["a"])
    assert metric.counts() == {"a": len(good)}
    assert float(metric.compute()["mean"]) == 1


@pytest.mark.parametrize(
    ("metric", "read", "unread"),
    [
        (ExactMatch(), ["red"], ["", " "]),
        (YesNo(), ["Yes", "it is not", "No, two."], ["I can't say", "a dog. No", "", "Nothing"]),
        (MME(), ["Yes", "No", "“No”"], ["It is. Yes", "maybe"]),
        (MultipleChoice(), ["B", "The answer is C."], ["dog", "B dog"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_answers_that_no_rule_reads(metric, read, unread):
    assert [metric.reads_answer(answer) for answer in read] == [True] * len(read)
    assert [metric.reads_answer(answer) for answer in unread] == [False] * len(unread)
