"""LiDAR points to voxels: the mean of the first points of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bridgeta_core.model.lidar.sites import Sites, Size
from bridgeta_core.utils.errors import BridgeTAError

COLUMNS = 5  # x, y, z, intensity, time lag


class Voxels:
    """Points of B samples to active voxels, by BEVFusion's rule.

    `low` (x, y, z) in metres is the corner of a volume of `size` voxels of `edges` metres. Points are taken in their
    order: a voxel keeps the first `points` of them, a sample the first `most` voxels that it meets. Points off the
    volume, or with a number that is not finite, are left out. The layers that follow may give the volume more voxels
    than hold points: `margin` on top of z.
    """

    def __init__(
        self, low: Sequence[float], edges: Sequence[float], size: Size, points: int, most: int, margin: int = 0
    ) -> None:
        self.low, self.edges, self.size, self.points, self.most = tuple(low), tuple(edges), size, points, most
        self.sites_size = (size[0], size[1], size[2] + margin)

    @torch.no_grad()
    def __call__(self, clouds: Sequence[Tensor]) -> tuple[Tensor, Sites]:
        """Compute the means `[n, 5]` of the points `[n_i, 5]` of every sample, in the order of the sites."""
        for cloud in clouds:
            if cloud.ndim != 2 or cloud.shape[1] != COLUMNS:
                raise BridgeTAError(f"LiDAR points are {list(cloud.shape)}, should be [n, {COLUMNS}] per sample")
        means, coordinates = zip(*(self._average(cloud.float()) for cloud in clouds), strict=True)
        samples = [torch.cat([c.new_full((len(c), 1), b), c], dim=1) for b, c in enumerate(coordinates)]
        sites, order = Sites.from_coordinates(torch.cat(samples), self.sites_size, len(clouds))
        return torch.cat(means)[order], sites

    def _average(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means `[n, 5]` and the coordinates `[n, 3]` of the voxels of one sample."""
        place = ((points[:, :3] - points.new_tensor(self.low)) / points.new_tensor(self.edges)).floor()
        inside = ((place >= 0) & (place < place.new_tensor(self.size))).all(dim=1) & torch.isfinite(points).all(dim=1)
        points, (x, y, z) = points[inside], place[inside].long().unbind(1)
        cells, order = torch.sort((x * self.size[1] + y) * self.size[2] + z, stable=True)
        voxels, voxel, counts = torch.unique_consecutive(cells, return_inverse=True, return_counts=True)
        first = counts.cumsum(0) - counts
        if len(voxels) > self.most:
            met = torch.zeros_like(voxels, dtype=torch.bool)
            met[order[first].argsort()[: self.most]] = True
            return self._fill(points[order], voxels, voxel, counts, first, met)
        return self._fill(points[order], voxels, voxel, counts, first, None)

    def _fill(
        self, points: Tensor, voxels: Tensor, voxel: Tensor, counts: Tensor, first: Tensor, chosen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Average the first points of every voxel, of sorted points."""
        rank = torch.arange(len(points), device=points.device) - first[voxel]
        kept = rank < self.points
        # A table of few points, and no sum by index: on CUDA that would add in another order at every call.
        table = points.new_zeros(len(voxels), self.points, COLUMNS)
        table[voxel[kept], rank[kept]] = points[kept]
        means = table.sum(dim=1) / counts.clamp(max=self.points)[:, None]
        if chosen is not None:
            means, voxels = means[chosen], voxels[chosen]
        columns = torch.div(voxels, self.size[2], rounding_mode="floor")
        x = torch.div(columns, self.size[1], rounding_mode="floor")
        return means, torch.stack([x, columns - x * self.size[1], voxels - columns * self.size[2]], dim=1)
