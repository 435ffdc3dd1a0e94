"""What a table says about seeds: means with their spread, and differences of the runs that share a seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """The mean of `n` values and their standard deviation (of a sample, with n - 1), NaN for a single value."""

    mean: float
    deviation: float
    n: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, NaN for a single value."""
        return self.deviation / math.sqrt(self.n)


def spread(values: Iterable[float]) -> Spread | None:
    """Mean and spread of the values that are numbers; None if there are none."""
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if not len(known):
        return None
    return Spread(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known))


def differences(values: Mapping[int, float], of: Mapping[int, float]) -> dict[int, float]:
    """`values` minus `of` by seed, for the seeds that both know."""
    both = {seed: value - of[seed] for seed, value in values.items() if seed in of}
    return {seed: value for seed, value in both.items() if not math.isnan(value)}


def gap_closed(values: Mapping[int, float], baseline: Mapping[int, float], teacher: Mapping[int, float]) -> float:
    """Share of the gap between baseline and teacher that is closed: mean difference over mean gap, same seeds.

    `teacher` holds, by seed of the arms, the teacher that belongs to the seed. NaN where no seed has all three, and
    where the teacher is not better than the baseline: there is no gap to close then.
    """
    gains, gaps = differences(values, baseline), differences(teacher, baseline)
    seeds = gains.keys() & gaps.keys()
    gap = sum(gaps[seed] for seed in seeds)
    return sum(gains[seed] for seed in seeds) / gap if gap > 0 else math.nan


def median_ratio(values: Mapping[int, float], of: Mapping[int, float]) -> float:
    """The median of `values` over `of` by seed, for the seeds that both know; NaN if there are none."""
    ratios = [value / of[seed] for seed, value in values.items() if of.get(seed, 0) > 0 and not math.isnan(value)]
    return float(np.median(ratios)) if ratios else math.nan
