"""Lost if these fail: shares of groups that are even, and add up to what was asked for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.selection.steps.even import even_shares


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_more_from_whoever_has_least_until_the_count_is_there(data):
    sizes = np.array(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=8)))
    count = data.draw(st.integers(0, int(sizes.sum())))
    shares = even_shares(sizes, count, np.random.default_rng(0))
    assert shares.sum() == count
    assert (shares <= sizes).all()
    assert (shares >= 0).all()
    plain = np.zeros(len(sizes), np.int64)
    for _ in range(count):
        plain[np.where(plain < sizes, plain, 99).argmin()] += 1
    assert sorted(shares) == sorted(plain)


def test_what_does_not_divide_is_drawn():
    sizes = np.full(10, 5)
    drawn = {tuple(even_shares(sizes, 11, np.random.default_rng(seed))) for seed in range(20)}
    assert len(drawn) > 5
