"""Statistics of seeds against numpy, SciPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bridgeta_core.study.statistics import differences, gap_closed, median_ratio, spread

shares = st.floats(0, 1, allow_subnormal=False)
by_seed = st.dictionaries(st.integers(0, 9), shares, max_size=8)


@given(st.lists(shares, min_size=2, max_size=20))
def test_spread_is_the_mean_the_sample_deviation_and_the_error_of_the_mean(values):
    found = spread(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.standard_error == pytest.approx(stats.sem(values), abs=1e-12)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert math.isnan(spread([0.4]).deviation)
    assert math.isnan(spread([0.4]).standard_error)
    assert spread([]) is None
    assert spread([math.nan]) is None


def test_what_is_not_scored_does_not_count():
    assert spread([0.1, math.nan, 0.3]).n == 2
    assert spread([0.1, math.nan, 0.3]).mean == pytest.approx(0.2)
    assert differences({0: 1.0, 1: math.nan}, {0: 0.5, 1: 0.5}) == {0: 0.5}


@given(by_seed, by_seed)
def test_differences_are_of_the_seeds_that_both_have(a, b):
    assert differences(a, b) == {seed: a[seed] - b[seed] for seed in a if seed in b}


@given(st.lists(st.tuples(shares, shares), min_size=2, max_size=10))
def test_the_paired_error_is_that_of_the_paired_t_test(pairs):
    a, b = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    found = spread(differences(a, b).values())
    x = np.array(pairs)
    assert found.mean == pytest.approx(np.mean(x[:, 0] - x[:, 1]), abs=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(x[:, 0] - x[:, 1]), abs=1e-12)


@given(shares, st.floats(0.01, 1), st.floats(-2, 2))
def test_the_gap_closed_is_the_fraction_of_the_way_from_baseline_to_teacher(start, gap, fraction):
    baseline = {0: start, 1: start + 0.1, 5: 0.3}
    teacher = {seed: value + gap for seed, value in baseline.items()}
    arm = {seed: value + fraction * gap for seed, value in baseline.items() if seed < 5}
    assert gap_closed(arm, baseline, teacher) == pytest.approx(fraction, abs=1e-9)


def test_without_a_gap_there_is_none_to_close():
    assert math.isnan(gap_closed({0: 0.5}, {0: 0.4}, {0: 0.4}))
    assert math.isnan(gap_closed({0: 0.5}, {0: 0.4}, {1: 0.9}))


def test_time_is_compared_seed_by_seed():
    assert median_ratio({0: 2.0, 1: 9.0, 2: 4.0}, {0: 1.0, 1: 3.0, 2: 4.0, 3: 1.0}) == 2
    assert math.isnan(median_ratio({0: 1.0}, {1: 1.0}))
