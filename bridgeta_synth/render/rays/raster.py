"""Values on a grid of places, on a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Raster:
    """Values `[rows, columns]` at nodes `origin` + `step` * (column, row), looked up by place."""

    def __init__(self, values: Tensor, step: float, origin: NDArray[np.float64]) -> None:
        self.values, self.step = values.contiguous(), step
        self.x, self.y = float(origin[0]), float(origin[1])

    def smooth(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bilinear values and their derivatives along x and y."""
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
        """The value of the nearest node, as float."""
        rows, columns = self.values.shape
        column = ((x - self.x) * (1 / self.step) + 0.5).int().clamp(0, columns - 1)
        row = ((y - self.y) * (1 / self.step) + 0.5).int().clamp(0, rows - 1)
        return self.values.view(-1).index_select(0, row * columns + column).float()
