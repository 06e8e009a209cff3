"""Lost if these fail: intervals that hold what they claim to."""

import numpy as np
import pytest

from coincide_pl.reporting.bootstrap import paired_difference


def test_against_the_normal_interval():
    random = np.random.default_rng(1)
    n = 4000
    ours, theirs = random.random(n) < 0.8, random.random(n) < 0.7
    apart = ours.astype(float) - theirs
    middle, low, high = paired_difference(
        [{"a": ours.astype(np.float32)}], [{"a": theirs.astype(np.float32)}], {"a": 0.9}
    )
    assert middle == pytest.approx(apart.mean() / 0.9)
    error = 1.96 * apart.std() / n**0.5 / 0.9
    assert low == pytest.approx(middle - error, abs=0.1 * error)
    assert high == pytest.approx(middle + error, abs=0.1 * error)


def test_seeds_widen_it():
    one = {"a": np.ones(50, np.float32), "b": np.zeros(10, np.float32)}
    none = {"a": np.zeros(50, np.float32), "b": np.zeros(10, np.float32)}
    full = {"a": 1.0, "b": 0.5}
    assert paired_difference([one, one], [none, none], full) == (0.5, 0.5, 0.5)
    assert paired_difference([one, none], [none, none], full) == (0.25, 0.0, 0.5)
    assert paired_difference([one], [none], full) == paired_difference([one], [none], full)
