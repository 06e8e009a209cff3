"""Lost if these fail: scores of the right answers, by task."""

import pytest

from coincide_pl.evaluation.exact_match import ExactMatch


def test_scores_by_task():
    metric = ExactMatch(["a", "b", "unseen"])
    metric.update(["Yes.", " no", "yes it is"], ["yes", "no", "yes"], ["a", "a", "b"])
    metric.update(["red"], ["red"], ["b"])
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores == {"a": 1.0, "b": 0.5, "mean": 0.75}
    assert metric.total.tolist() == [2, 2, 0]
    with pytest.raises(ValueError, match="'c' is not in list"):
        metric.update(["x"], ["x"], ["c"])
