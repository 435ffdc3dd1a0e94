"""What a network makes of some samples now, beside what it made of them before and the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image
from bridgeta_core.utils.arrays import Bytes
from bridgeta_core.view.bev import paint_bev
from bridgeta_core.view.drawing import PAPER, write

_SIDE, _GAP, _LINE = 260, 12, 22  # pixels


@dataclass(frozen=True, eq=False)
class WatchedSample:
    """A sample's labels `[6, Y, X]`, and its probabilities in per cent `[6, Y, X]` now and, if it has any, before."""

    name: str
    labels: Bytes
    now: Bytes
    before: Bytes | None = None


def draw_progress(
    samples: Sequence[WatchedSample], grid: BevGrid, thresholds: Sequence[float], now: str, before: str
) -> Image:
    """Draw a row per sample: ground truth, what was predicted `before`, and `now`; classes from `thresholds` on."""
    titles = ("ground truth", before, now)
    rows = [
        [_paint(values, grid, thresholds) for values in (s.labels * np.uint8(100), s.before, s.now)] for s in samples
    ]
    height, width = rows[0][0].shape[:2]
    tile = (height + _LINE + _GAP, width + _GAP)
    page = np.full((_LINE + len(rows) * tile[0], _GAP + len(titles) * tile[1], 3), PAPER, dtype=np.uint8)
    for column, title in enumerate(titles):
        write(page, title, (_GAP + column * tile[1], _LINE - 7))
    for number, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        top = _LINE + number * tile[0]
        write(page, sample.name, (_GAP, top + _LINE - 8), 0.4)
        for column, picture in enumerate(row):
            left = _GAP + column * tile[1]
            page[top + _LINE : top + _LINE + height, left : left + width] = picture
    return page


def _paint(percent: Bytes | None, grid: BevGrid, thresholds: Sequence[float]) -> Image:
    empty = np.zeros((6, *grid.shape), dtype=np.uint8)
    return paint_bev((empty if percent is None else percent) / 100, grid, _SIDE, thresholds)
