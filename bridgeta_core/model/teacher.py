"""The teacher: LiDAR, with or without cameras, to the same taps as the student's, for training only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bridgeta_core.config.experiment import LidarConfig, LiftConfig, StudentConfig, TeacherConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.decoder import Residual, build_decoder, build_downsampling, convolution
from bridgeta_core.model.head import SegmentationHead
from bridgeta_core.model.lift import LiftPlan, bev_grid
from bridgeta_core.model.pillars import Pillars
from bridgeta_core.model.student import CameraBranch, Segmenter, Taps
from bridgeta_core.utils.errors import BridgeTAError


class LidarBranch(nn.Module):
    """Points of B samples to `[B, config.width, Y', X']` on `self.grid`, which is `bev_grid(lift)`.

    Pillars on `lift.grid`, with each cell divided into `config.subdivide` squared, then convolutions whose strides
    cover whole cells, so that nothing shifts against the metric grid.
    """

    def __init__(self, config: LidarConfig, lift: LiftConfig) -> None:
        super().__init__()
        if not config.z_min < config.z_max:
            raise BridgeTAError("teacher.lidar.z_min must be below z_max", exit_code=2)
        self.config, self.grid = config, bev_grid(lift)
        grid = lift.grid
        fine = BevGrid(grid.x_min, grid.x_max, grid.y_min, grid.y_max, grid.resolution / config.subdivide)
        self.pillars = Pillars(fine, config.channels, config.z_min, config.z_max)
        self.downsample = build_downsampling(config.channels, lift.downsample * config.subdivide)
        self.widen = convolution(config.channels, config.width)
        self.blocks = nn.Sequential(*(Residual(config.width) for _ in range(config.blocks)))

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Compute features of B tensors `[n_i, 5]`: x, y, z in metres (ego frame), intensity 0-255, time lag in s."""
        return self.blocks(self.widen(self.downsample(self.pillars(points))))


class Teacher(Segmenter):
    """Camera branch (unless `config.sensors` is "lidar") and LiDAR branch, fuser (F), decoder (D) and head (Z).

    Decoder and head are of the student's kind and size, set by `model`, so F, D and Z have the shapes of the student's.
    The fuser is BEVFusion's (Liu et al. 2023): channels side by side, a 3x3 convolution, batch norm; its ReLU is the
    first step of `decode`. After construction `model` is the complete architecture: with `config` and `grid` it
    rebuilds this network without pretrained files. Raises BridgeTAError (exit code 2) that names the setting at fault.
    """

    def __init__(self, config: TeacherConfig, model: StudentConfig, grid: BevGrid, pretrained: bool = True) -> None:
        super().__init__()
        self.camera = CameraBranch(model, pretrained) if config.sensors == "fusion" else None
        self.lidar = LidarBranch(config.lidar, model.lift)
        self.config = config
        self.model = replace(model, backbone=self.camera.encoder.config) if self.camera else model
        self.grid, self.bev_grid = grid, self.lidar.grid
        fused = config.lidar.width + (model.lift.channels if self.camera else 0)
        self.fuser = convolution(fused, model.decoder.width, relu=False)
        self.decoder = build_decoder(model.decoder)
        self.head = SegmentationHead(self.decoder.channels, model.head, self.bev_grid, grid)
        self._store_channels_last()

    def forward(self, images: Tensor | None, plan: LiftPlan | None, points: Sequence[Tensor] | None) -> Taps:
        """Compute the taps of images `[B, N, 3, H, W]` (uint8, or normalised float) and of B tensors of points
        `[n_i, 5]`: x, y, z in metres (ego frame), intensity 0-255, time lag in seconds.

        `plan` is of the teacher's camera branch or of a student of the same `model`. Without cameras, `images` and
        `plan` are ignored. Raises BridgeTAError when an input is missing.
        """
        if points is None:
            raise BridgeTAError(
                "the teacher needs LiDAR points, and the frames have none",
                fix="Read frames with lidar=teacher.lidar, or use a dataset with LIDAR_TOP",
            )
        features = self.lidar(points)
        if self.camera is not None:
            if images is None or plan is None:
                raise BridgeTAError(
                    "a teacher of cameras and LiDAR needs images and their plan", fix="Give both, or set sensors=lidar"
                )
            if len(images) != len(points):
                raise BridgeTAError(f"images of {len(images)} samples came with points of {len(points)}")
            features = torch.cat([self.camera(images, plan), features], dim=1)
        return self.decode(self.fuser(features))
