"""Lost if these fail: groups that give exactly as many as asked for, each by its weight."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.shares import shares, top_of_groups

GROUPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=7)


@given(GROUPS, st.data())
def test_groups_give_what_is_due_within_one_and_no_more_than_they_have(groups, data):
    weights, limits = np.array(groups).T
    count = data.draw(st.integers(0, int(limits.sum())))
    found = shares(weights, limits, count)
    assert found.sum() == count
    assert (found <= limits).all()
    due = [Fraction(int(w) * count, max(int(weights.sum()), 1)) for w in weights]
    if weights.sum() and all(d <= m for d, m in zip(due, limits.tolist(), strict=True)):
        plain = [d.numerator // d.denominator for d in due]  # largest fractions first, by hand
        by_fraction = sorted(range(len(due)), key=lambda g: (plain[g] - due[g], g))
        for group in [g for g in by_fraction if plain[g] < limits[g]][: count - sum(plain)]:
            plain[group] += 1
        assert found.tolist() == plain


def test_equal_fractions_come_by_group():
    assert shares([4, 9, 9, 9, 4], np.array([1, 2, 2, 2, 1]), 7).tolist() == [1, 2, 2, 2, 0]


def test_what_full_groups_can_not_give_is_divided_among_the_others():
    assert shares([5, 3, 2], np.array([1, 10, 10]), 10).tolist() == [1, 5, 4]
    assert shares([1, 0, 0], np.array([2, 3, 1]), 5).tolist() == [2, 2, 1]
    with pytest.raises(SelectionError, match="2 groups of 3 samples can't give 4"):
        shares([1, 1], np.array([1, 2]), 4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=20))
def test_the_top_of_each_group_is_a_sort(rows):
    scores, groups = np.array(rows).T
    counts = np.bincount(groups, minlength=5) // 2
    plain = []
    for group, count in enumerate(counts):
        members = [row for row in range(len(rows)) if groups[row] == group]
        plain += sorted(members, key=lambda row: (-scores[row], row))[:count]
    expected = sorted(plain, key=lambda row: (-scores[row], row))
    assert top_of_groups(scores.astype(float), groups, counts).tolist() == expected
