"""The teacher: LiDAR, with or without cameras, to the same taps as the student's; it exists for training alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from bridgeta_core.config.experiment import LidarConfig, LiftConfig, StudentConfig, TeacherConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.decoder import BevDecoder, Residual, convolution, downsampling
from bridgeta_core.model.head import SegmentationHead
from bridgeta_core.model.lift import LiftPlan, bev_grid
from bridgeta_core.model.pillars import Pillars
from bridgeta_core.model.student import CameraBranch, Segmenter
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


class TeacherOutput(NamedTuple):
    """The taps: F `[B, width, Y', X']` before its ReLU, D `[B, C_D, Y', X']`, logits Z `[B, 6, Y, X]`, and what was
    fused: `camera` `[B, lift.channels, Y', X']` (None without cameras) and `lidar` `[B, lidar.width, Y', X']`. After
    `decode` alone both are None.
    """

    F: Tensor
    D: Tensor
    Z: Tensor
    camera: Tensor | None = None
    lidar: Tensor | None = None


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
        self.decoder = BevDecoder(model.decoder)
        self.head = SegmentationHead(self.decoder.channels, model.head, self.bev_grid, grid)
        self._store_channels_last()

    def plan(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan | None:
        """The lift of cameras with `intrinsics` [B, N, 3, 3] (of the network input) and `ego_T_cam` [B, N, 4, 4]; None
        without cameras. The student's plan of the same `model` serves as well.
        """
        return self.camera.plan(intrinsics, ego_T_cam) if self.camera else None

    def decode(self, features: Tensor) -> TeacherOutput:
        """The rest of the network from an F before its ReLU, the teacher's own or another's."""
        return TeacherOutput(features, *self._decode(features))

    def forward(self, images: Tensor | None, plan: LiftPlan | None, points: Sequence[Tensor] | None) -> TeacherOutput:
        """All taps of images `[B, N, 3, H, W]` (uint8, or float and normalised) and of B tensors of points `[n_i, 5]`:
        x, y, z in metres in the ego frame, intensity 0-255, time lag in seconds.

        Without cameras `images` and `plan` are not looked at. Raises BridgeTAError when an input is lacking.
        """
        if points is None:
            raise BridgeTAError(
                "the teacher needs LiDAR points, and the frames have none",
                fix="Read frames with lidar=teacher.lidar, or use a dataset with LIDAR_TOP",
            )
        lidar = self.lidar(points)
        if self.camera is None:
            return self.decode(self.fuser(lidar))._replace(lidar=lidar)
        if images is None or plan is None:
            raise BridgeTAError(
                "a teacher of cameras and LiDAR needs images and their plan", fix="Give both, or set sensors=lidar"
            )
        if len(images) != len(points):
            raise BridgeTAError(f"images of {len(images)} samples came with points of {len(points)}")
        camera = self.camera(images, plan)
        fused = self.fuser(torch.cat([camera, lidar], dim=1))
        return self.decode(fused)._replace(camera=camera, lidar=lidar)
