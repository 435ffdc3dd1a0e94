"""Values on a grid of places, on a device, and the grid of what is not paved."""

from __future__ import annotations

import cv2
import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from bridgeta_core.utils.arrays import Bytes, Floats


class Raster:
    """Values `[rows, columns]` at nodes `origin` + `step` * (column, row), on a device, looked up by place."""

    def __init__(self, values: Tensor, step: float, origin: Floats) -> None:
        self.values, self.step = values.contiguous(), step
        self.x, self.y = float(origin[0]), float(origin[1])

    def interpolate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Interpolate values bilinearly, with their derivatives along x and y."""
        rows, columns = self.values.shape
        u = ((x - self.x) * (1 / self.step)).clamp(0, columns - 1.001)
        v = ((y - self.y) * (1 / self.step)).clamp(0, rows - 1.001)
        column, row = u.int(), v.int()
        u, v = u - column, v - row
        at = (row * columns + column).view(-1)
        flat = self.values.view(-1)
        corners = (at, at + 1, at + columns, at + columns + 1)
        # index_select is ten times as fast on a CPU as indexing with brackets.
        a, b, c, d = (flat.index_select(0, corner).float().view(x.shape) for corner in corners)
        right, up = b - a, c - a
        twist = d - b - up
        along = right + v * twist
        return a + u * along + v * up, along * (1 / self.step), (up + u * twist) * (1 / self.step)

    def nearest(self, x: Tensor, y: Tensor) -> Tensor:
        """Look up the value of the nearest node, as float."""
        rows, columns = self.values.shape
        column = ((x - self.x) * (1 / self.step) + 0.5).int().clamp(0, columns - 1)
        row = ((y - self.y) * (1 / self.step) + 0.5).int().clamp(0, rows - 1)
        return self.values.view(-1).index_select(0, row * columns + column).float()


def rasterise_unpaved(paved: BaseGeometry, low: Floats, high: Floats, step: float) -> Bytes:
    """Rasterise the share (0-255) of every cell of `step` metres that is not paved.

    Returns `[rows, columns]`, row 0 at the smallest y.
    """
    fine = step / 4
    strip = 64
    columns, rows = (round(side / step) for side in high - low)
    result = np.empty((rows, columns), dtype=np.uint8)
    clipped = shapely.clip_by_rect(paved, *(low - 1), *(high + 1))
    rings = []
    for part in shapely.get_parts(clipped):
        if isinstance(part, Polygon):
            rings.append([np.asarray(r.coords)[:, :2] for r in (part.exterior, *part.interiors)])
    for start in range(0, rows, strip):
        stop = min(start + strip, rows)
        image = np.full((4 * (stop - start), 4 * columns), 255, dtype=np.uint8)
        corner = low + np.array((0.0, start * step))
        for polygon in rings:
            fixed = [np.round(((ring - corner) / fine - 0.5) * 16).astype(np.int32) for ring in polygon]
            cv2.fillPoly(image, fixed, 0, cv2.LINE_8, 4)
        result[start:stop] = cv2.resize(image, (columns, stop - start), interpolation=cv2.INTER_AREA)
    return result
