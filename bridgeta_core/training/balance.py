"""Class-balanced resampling, as CBGS does it for boxes (Zhu et al. 2019) and BEVFusion for maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from bridgeta_core.data.dataset import FrameDataset


def presence(dataset: FrameDataset, positions: Sequence[int], hidden: bool = False) -> NDArray[np.bool_]:
    """Which classes the labels at `positions` show, `[n, 6]`; rasterises every label, with a progress bar."""
    rows = np.zeros((len(positions), 6), dtype=bool)
    for row, position in zip(rows, track(positions, description="Counting classes", disable=hidden), strict=True):
        masks, known = dataset.labels(position)
        row[:] = masks.any(axis=(1, 2)) & known
    return rows


def balanced(positions: Sequence[int], shows: NDArray[np.bool_], seed: int) -> list[int]:
    """Positions drawn so that every class has the same number of draws among the samples that show it.

    `shows` `[n, K]` tells the classes of each position. In all there are as many draws as there are pairs of a sample
    and a class that it shows, so that a sample of several classes is drawn several times. A class without samples takes
    no part. Within a class all samples are drawn equally often, give or take one, which a seed decides.
    """
    pools = [np.flatnonzero(column) for column in shows.T if column.any()]
    if not pools:
        return list(positions)
    draws, random = int(shows.sum()) // len(pools), np.random.default_rng(seed)
    chosen: list[int] = []
    for pool in pools:
        whole, rest = divmod(draws, len(pool))
        chosen += [*np.tile(pool, whole).tolist(), *random.permutation(pool)[:rest].tolist()]
    return [positions[i] for i in chosen]
