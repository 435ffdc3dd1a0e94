"""Estimate the height of the ground around the vehicle from its LiDAR, since nuScenes' maps have no heights."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_CELL = 1.0
_REACH = 64.0
# Ground may rise by this much per metre from the vehicle; what is higher is not ground.
_STEEPEST, _SLACK = 0.08, 0.4
# Cells whose lowest point lies above the surface count less: they show a car, a hedge or a wall.
_STEP = 0.15
_SPREADS = (16.0, 12.0, 9.0, 6.0, 4.5, 3.5, 2.5)


class GroundHeight:
    """A smooth surface through the lowest LiDAR points in cells of 1 m, up to 64 m in x and y.

    `points` `[n, 3 + k]` are in the ego frame, whose origin lies on the ground. Where nothing was measured the surface
    continues from nearby cells.
    """

    def __init__(self, points: NDArray[np.floating]) -> None:
        size = round(2 * _REACH / _CELL)
        near = points[(np.abs(points[:, :2]) < _REACH).all(axis=1), :3].astype(np.float64)
        reach = np.hypot(near[:, 0], near[:, 1])
        near = near[(np.abs(near[:, 2]) < _SLACK + _STEEPEST * reach) & (reach > 2)]
        cell = np.floor((near[:, :2] + _REACH) / _CELL).astype(np.int64)
        lowest = np.full((size, size), np.inf)
        np.minimum.at(lowest, (cell[:, 1], cell[:, 0]), near[:, 2])
        seen = np.isfinite(lowest)
        values = np.where(seen, lowest, 0)
        # The vehicle itself stands on the ground.
        middle = slice(size // 2 - 1, size // 2 + 1)
        seen[middle, middle], values[middle, middle] = True, 0.0
        weight = seen.astype(np.float64)
        for spread in _SPREADS:
            surface = _average(values, weight, spread)
            above = np.clip((values - surface) / _STEP, 0, 30)
            weight = np.where(seen, np.exp(-np.square(above)), 0.0)
        self._surface = _average(values, weight, _SPREADS[-1]).astype(np.float32)

    def __call__(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return heights `[n]` in metres at positions `[n, 2]`, both in the ego frame."""
        place = ((np.asarray(xy) + _REACH) / _CELL - 0.5).astype(np.float32)
        u, v = np.ascontiguousarray(place[:, 0]), np.ascontiguousarray(place[:, 1])
        # OpenCV's images are at most 32767 pixels long, so a long list is folded.
        rows = -(-max(len(u), 1) // 8192)
        fold = [np.pad(c, (0, rows * 8192 - len(c))).reshape(rows, 8192) for c in (u, v)]
        heights = cv2.remap(self._surface, fold[0], fold[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return heights.reshape(-1)[: len(u)].astype(np.float64)


def _average(values: NDArray[np.float64], weight: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Average around each cell over `spread` cells, weighted, and over more cells where none is so near."""
    total, count = np.zeros_like(values), np.zeros_like(values)
    # A wider mean has so little weight that it counts only where the narrower ones have none.
    for widen, share in ((1.0, 1.0), (3.0, 1e-3), (9.0, 1e-6), (27.0, 1e-9)):
        for result, field in ((total, values * weight), (count, weight)):
            result += share * cv2.GaussianBlur(field, (0, 0), spread * widen, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(total / np.maximum(count, 1e-300))
