from __future__ import annotations

import numpy as np
import pytest

from bridgeta_core.evaluation.bootstrap import RESAMPLES, draw_scenes, find_intervals, resample


def test_each_resample_draws_as_many_scenes_as_there_are():
    draws = draw_scenes(7)
    assert draws.shape == (RESAMPLES, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert draws.mean() == 1
    assert draws.var() == pytest.approx(6 / 7, rel=0.1)  # of a binomial of 7 draws with a share of 1/7


def test_every_call_draws_the_same():
    np.testing.assert_array_equal(draw_scenes(5), draw_scenes(5))


def test_a_resample_has_the_figures_of_its_scenes_repeated():
    counts = np.random.default_rng(1).integers(1, 100, (4, 3, 2))
    found = resample(lambda c: c[..., 1] / c.sum(axis=-1), counts)
    for row, times in zip(found[::97], draw_scenes(4)[::97], strict=True):
        drawn = np.repeat(counts, times.astype(int), axis=0).sum(axis=0)
        np.testing.assert_allclose(row, drawn[:, 1] / drawn.sum(axis=-1))


def test_an_interval_holds_the_middle_95_percent():
    values = np.linspace(0, 1, RESAMPLES + 1)[:, None]
    np.testing.assert_allclose(find_intervals(values), [[0.025, 0.975]])


def test_too_few_values_give_no_interval():
    values = np.linspace(0, 1, 100)[:, None].repeat(2, axis=1)
    values[:40, 0] = values[:51, 1] = np.nan
    assert np.isnan(find_intervals(values)).any(axis=1).tolist() == [False, True]


def test_the_interval_of_a_mean_is_that_of_theory():
    """Against the standard error of a mean of 400 independent scenes."""
    values = np.random.default_rng(2).normal(size=(400, 1))
    (low, high) = find_intervals(resample(lambda c: c / 400, values))[0]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
