"""The teacher's LiDAR branch: points to bird's-eye-view features on the same cells as the cameras' F."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from bridgeta_core.config.experiment import LidarConfig, LiftConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.decoder import Residual, downsampling
from bridgeta_core.model.layers import convolution
from bridgeta_core.model.lift import bev_grid
from bridgeta_core.model.pillars import Pillars
from bridgeta_core.utils.errors import BridgeTAError


class LidarBranch(nn.Module):
    """Points of B samples to `[B, config.width, Y', X']` on `self.grid`, which is `bev_grid(lift)`.

    Pillars on `lift.grid`, each cell divided into `config.subdivide` squared, then convolutions whose strides cover
    whole cells, so that nothing moves against the metric grid.
    """

    def __init__(self, config: LidarConfig, lift: LiftConfig) -> None:
        super().__init__()
        if not config.z_min < config.z_max:
            raise BridgeTAError("teacher.lidar.z_min must be below z_max", exit_code=2)
        self.config, self.grid = config, bev_grid(lift)
        grid = lift.grid
        fine = BevGrid(grid.x_min, grid.x_max, grid.y_min, grid.y_max, grid.resolution / config.subdivide)
        self.pillars = Pillars(fine, config.channels, config.z_min, config.z_max)
        self.downsample = downsampling(config.channels, lift.downsample * config.subdivide)
        self.widen = convolution(config.channels, config.width)
        self.blocks = nn.Sequential(*(Residual(config.width) for _ in range(config.blocks)))

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Features of B tensors `[n_i, 5]`: x, y, z in metres in the ego frame, intensity 0-255, time lag in s."""
        return cast(Tensor, self.blocks(self.widen(self.downsample(self.pillars(points)))))
