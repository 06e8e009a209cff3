"""Lost if these fail: a mistake in one's own arrays is a line, never a wrong selection."""

import numpy as np
import pytest
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection import (
    EL2N,
    Pool,
    Selection,
    budgets,
    density,
    greedy_mmd,
    pick,
    transferability,
)

X = np.random.default_rng(0).normal(size=(20, 8))
LABELS = np.arange(20) % 3
SCORES = np.array([0.5, 0.6, 0.7])


def broken(value=np.nan, row=7):
    x = X.copy()
    x[row, 2] = value
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: greedy_mmd(broken(), 5), "record 7 hold NaN or infinity"),
        (lambda: greedy_mmd(broken(np.inf), 5, memory=300), "record 7 hold NaN or infinity"),
        (lambda: greedy_mmd(torch.from_numpy(broken()), 5), "record 7 hold NaN or infinity"),
        (lambda: greedy_mmd(X[0], 1), r"rows \[N, D\], not of shape \(8,\)"),
        (lambda: greedy_mmd(X.astype(complex), 1), "float numbers, not complex128"),
        (lambda: greedy_mmd(X, 21), "can't pick 21 of 20 samples"),
        (lambda: greedy_mmd(X, -1), "can't pick -1 of 20 samples"),
        (lambda: greedy_mmd(X, 2.5), r"count: 2\.5 must be a whole number"),
        (lambda: greedy_mmd(X, 2, bandwidth=0), "bandwidth: 0 must be positive"),
        (lambda: density(broken(), LABELS), "record 7 hold NaN or infinity"),
        (lambda: density(X, LABELS[:9]), "labels must be 20 numbers"),
        (lambda: density(X, LABELS - 1), "labels must not be negative, as -1 is"),
        (lambda: density(X, LABELS / 2), "labels must be whole numbers, .* not float64"),
        (lambda: budgets(SCORES, SCORES[:2], [1, 2, 3], 2), "of 3, 2 and 3 clusters"),
        (lambda: budgets(SCORES, -SCORES, [1, 2, 3], 2), "cluster 0: .* density, -0.5, positive"),
        (lambda: budgets(SCORES, 0 * SCORES, [1, 2, 3], 2), "cluster 0: .* density, 0.0, positive"),
        (lambda: budgets(SCORES * np.nan, SCORES, [1, 2, 3], 2), "cluster 0: .* transferability"),
        (lambda: budgets(SCORES, SCORES, [1, -2, 3], 2), "sizes must not be negative"),
        (lambda: budgets(SCORES, SCORES, [1, 2, 3], 7), "can't pick 7 of 6 samples"),
        (lambda: budgets(SCORES, SCORES, [1, 2, 3], 2, 0.0), "temperature: 0.0 must be positive"),
        (lambda: pick(broken(), LABELS, SCORES, 0.5), "record 7 hold NaN or infinity"),
        (lambda: pick(X, LABELS + 1, SCORES, 0.5), "labels must be 20 numbers from 0 to 2"),
        (lambda: pick(X, LABELS, SCORES * np.nan, 0.5), "transferability, nan, must be finite"),
        (lambda: pick(X, LABELS, SCORES[None], 0.5), r"transferability .* shape \(1, 3\)"),
        (lambda: transferability(broken(), 2), "centroid 7 holds NaN or infinity"),
        (lambda: transferability(X, 3), "do not divide into 3 layers"),
        (lambda: transferability(X, 0), "do not divide into 0 layers"),
        (lambda: transferability(X, 2, "txt"), "modality: 'txt' must be one of text, visual, both"),
        (
            lambda: EL2N().select(Pool(range(3), {"el2n": np.array([1, np.nan, 2])}), 2),
            "'el2n' of record 1 is NaN",
        ),
    ],
)
def test_what_can_not_be_right_is_named(call, message):
    with pytest.raises(SelectionError, match=message):
        call()


def test_tensors_of_any_float_dtype_are_read():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        x = torch.from_numpy(X).to(dtype).requires_grad_()
        assert greedy_mmd(x, 4).dtype == torch.int64
        assert density(x, torch.from_numpy(LABELS)).shape == (3,)
        assert transferability(x, 2).shape == (20,)


@pytest.mark.parametrize("bandwidth", [1.0, 0.2, 0.1, 0.05, 0.01])
@pytest.mark.parametrize("memory", [1 << 30, 300])
def test_density_without_self_is_a_small_number_not_a_wrong_one(bandwidth, memory):
    """Taken as a difference it was -1e-17 once, and one cluster got the whole budget."""
    x = np.eye(24)[:8]  # all pairs at a squared distance of 2
    labels = np.zeros(8, int)
    found = density(x, labels, bandwidth, include_self=False, memory=memory)[0]
    assert found > 0
    expected = np.exp(-1 / bandwidth**2)
    assert found == pytest.approx(max(expected, np.finfo(float).tiny), rel=1e-9, abs=0)


def test_budgets_of_densities_that_are_next_to_nothing():
    tiny = np.finfo(float).tiny
    shares = budgets(np.array([0.5, 0.5, 0.5]), np.array([tiny, 0.5, tiny]), [10, 10, 10], 20)
    assert shares.tolist() == [10, 0, 10]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 4, 1], "holds a row twice"),
        ([1, -1, 2], "not among those from 0 to 8"),
        ([1, 9, 2], "not among those from 0 to 8"),
        ([], "holds no rows"),
    ],
)
def test_a_selection_file_with_rows_that_can_not_be_is_refused(indices, message, tmp_path):
    path = tmp_path / "selection.safetensors"
    Selection(np.array(indices, np.int64), 9, {"class_path": "A", "init_args": {}}, {}).save(path)
    with pytest.raises(SelectionError, match=message):
        Selection.load(path)
