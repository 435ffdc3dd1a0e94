"""LiDAR points to bird's-eye-view features: every cell of the grid is a pillar with a learned feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lidar.convolution import normalise_rows
from bridgeta_core.utils.errors import BridgeTAError

_COLUMNS = 5  # x, y, z, intensity, time lag
_INPUTS = 8
_INTENSITY = 255.0
_LAG = 0.5  # seconds, about the span of a sample's sweeps


class Pillars(nn.Module):
    """Points of B samples to features `[B, channels, Y, X]` on `grid`; pillars without points are zero.

    After PointPillars (Lang et al. 2019), in the dynamic form of Zhou et al. 2020: all points of all pillars count, so
    nothing is sampled at random, and memory follows the number of points. Every point is described by its place in
    its cell and relative to the mean of its pillar (x and y in cells), by height, intensity and time lag, all of about
    unit size. One linear layer with batch norm and ReLU follows, and a pillar takes the maximum of each channel. Its
    place on the grid is no input: that is left to the convolutions. Computes in float32, under autocast too, because
    coordinates need it.
    """

    def __init__(self, grid: BevGrid, channels: int, z_min: float, z_max: float) -> None:
        super().__init__()
        self.grid, self.channels, self.z_min, self.z_max = grid, channels, z_min, z_max
        self.linear = nn.Linear(_INPUTS, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Compute features of B tensors `[n_i, 5]`: x, y, z in metres (ego frame), intensity 0-255, time lag in s.

        Points off the grid, outside the range of z or with a number that is not finite are left out. The result is
        channels-last in memory.
        """
        for cloud in points:
            if cloud.ndim != 2 or cloud.shape[1] != _COLUMNS:
                raise BridgeTAError(f"LiDAR points are {list(cloud.shape)}, should be [n, {_COLUMNS}] per sample")
        batch, (rows, columns) = len(points), self.grid.shape
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            inside, cell, offset = self._place(points)
            pillar_cells, pillar = torch.unique(cell, return_inverse=True)
            described = self._describe(inside, offset, pillar, len(pillar_cells))
            values = functional.relu(normalise_rows(self.norm, self.linear(described)))
            empty = values.new_zeros(len(pillar_cells), self.channels)
            index = pillar[:, None].expand(-1, self.channels)
            largest = empty.scatter_reduce(0, index, values, "amax", include_self=False)
            canvas = values.new_zeros(batch * rows * columns, self.channels).index_copy(0, pillar_cells, largest)
        return canvas.view(batch, rows, columns, self.channels).permute(0, 3, 1, 2)

    def _place(self, points: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points `[P, 5]` inside the grid, the cell `[P]` of each in the batch's grids laid out one after
        another, and its offset `[P, 2]` (x, y) from the centre of that cell, in cells.
        """
        grid, (rows, columns) = self.grid, self.grid.shape
        device = self.linear.weight.device
        merged = torch.cat([cloud.float() for cloud in points])
        counts = torch.tensor([len(cloud) for cloud in points], device=device)
        sample = torch.repeat_interleave(torch.arange(len(points), device=device), counts, output_size=len(merged))
        place = (merged[:, :2] - merged.new_tensor([grid.x_min, grid.y_min])) / grid.resolution
        whole = place.floor()
        inside = ((whole >= 0) & (whole < whole.new_tensor([columns, rows]))).all(dim=1)
        inside &= (merged[:, 2] >= self.z_min) & (merged[:, 2] <= self.z_max)
        inside &= torch.isfinite(merged).all(dim=1)
        merged, place, whole, sample = merged[inside], place[inside], whole[inside], sample[inside]
        column, row = whole.long().unbind(1)
        return merged, (sample * rows + row) * columns + column, place - whole - 0.5

    def _describe(self, points: Tensor, offset: Tensor, pillar: Tensor, pillars: int) -> Tensor:
        """Build the input `[P, 8]` of the linear layer."""
        middle, half = (self.z_min + self.z_max) / 2, (self.z_max - self.z_min) / 2
        place = torch.cat([offset, (points[:, 2:3] - middle) / half], dim=1)
        total = place.new_zeros(pillars, 3).index_add(0, pillar, place)
        count = torch.bincount(pillar, minlength=pillars).to(place.dtype)
        from_mean = place - (total / count[:, None])[pillar]
        return torch.cat([place, from_mean, points[:, 3:4] / _INTENSITY, points[:, 4:5] / _LAG], dim=1)
