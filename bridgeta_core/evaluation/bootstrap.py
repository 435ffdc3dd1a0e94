"""Intervals by a bootstrap over scenes: the frames of a scene are near-duplicates, so whole scenes are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.arrays import Floats

RESAMPLES, LEVEL = 1000, 0.95
_SEED = 0
_AT_ONCE = 50  # resamples that are in memory together


def draw_scenes(scenes: int) -> Floats:
    """Draw how often each scene is in each resample, `[RESAMPLES, scenes]`.

    Every call draws the same, so the figures of two predictors are paired: their differences are those on equal scenes.
    """
    shares = np.full(scenes, 1 / scenes)
    return np.random.default_rng(_SEED).multinomial(scenes, shares, RESAMPLES).astype(np.float64)


def resample(compute: Callable[[NDArray[Any]], Floats], counts: NDArray[Any]) -> Floats:
    """Compute figures `[RESAMPLES, ...]` of all resamples from counts by scene, `[scenes, ...]`.

    `compute` takes the counts of some resamples, `[m, ...]`, and returns their figures. Counts stay below 2^53, so
    float64 holds them exactly.
    """
    draws = draw_scenes(len(counts))
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    parts = (draws[first : first + _AT_ONCE] @ flat for first in range(0, RESAMPLES, _AT_ONCE))
    return np.concatenate([compute(part.reshape(-1, *counts.shape[1:])) for part in parts])


def find_intervals(values: Floats) -> Floats:
    """Find the central intervals of LEVEL by percentiles, `[n, 2]`, of resampled figures `[RESAMPLES, n]`.

    A resample without a value, NaN, is left out; where fewer than half have one, the interval is NaN.
    """
    intervals = np.full((values.shape[1], 2), np.nan)
    for interval, column in zip(intervals, values.T, strict=True):
        known = column[~np.isnan(column)]
        if 2 * len(known) >= len(column):
            interval[:] = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return intervals
