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
from bridgeta_core.model.lidar.encoder import SparseEncoder, count_heights
from bridgeta_core.model.lidar.pillars import Pillars
from bridgeta_core.model.lidar.sites import Size
from bridgeta_core.model.lidar.voxels import COLUMNS, Voxels
from bridgeta_core.model.lift import LiftPlan, bev_grid
from bridgeta_core.model.student import CameraBranch, Segmenter, Taps
from bridgeta_core.utils.errors import BridgeTAError

_MARGIN = 1  # voxels without points on top of the volume
_MICROMETRES = 6  # places of metres to which the borders of the volume are rounded


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


class VoxelBranch(nn.Module):
    """Points of B samples to `[B, config.width, Y', X']` on `self.grid`, which is `bev_grid(lift)`.

    Voxels and convolutions work in the frame of nuScenes' LiDAR: x to the right, y forward, origin at `config.mount`,
    level. The encoder's columns, `[x, y]` there, are rows and columns of our grid with the rows in reverse.
    """

    def __init__(self, config: LidarConfig, lift: LiftConfig) -> None:
        super().__init__()
        self.config, self.grid = config, bev_grid(lift)
        if config.mount is None or len(config.mount) != 3:
            raise BridgeTAError(
                "teacher.lidar.mount must give x, y and z of the LiDAR for teacher.lidar.encoder=voxels", exit_code=2
            )
        self.mount: tuple[float, ...] = tuple(config.mount)
        sparse, size, (x, y, z) = config.sparse, self._measure(lift), self.mount
        low = (round(y - self.grid.y_max, _MICROMETRES), round(self.grid.x_min - x, _MICROMETRES))
        edges = (sparse.voxel, sparse.voxel, sparse.height)
        bottom = round(config.z_min - z, _MICROMETRES)
        self.voxels = Voxels((*low, bottom), edges, size, sparse.points, sparse.most, _MARGIN)
        self.encoder = SparseEncoder(COLUMNS, sparse)

    def _measure(self, lift: LiftConfig) -> Size:
        """Return the number of voxels along x, y and z of the LiDAR; raise BridgeTAError where they do not fit."""
        config, sparse, grid = self.config, self.config.sparse, lift.grid
        if not sparse.channels:
            raise BridgeTAError("teacher.lidar.sparse.channels must not be empty", exit_code=2)
        stride = 2 ** (len(sparse.channels) - 1)
        if abs(sparse.voxel * stride - self.grid.resolution) > 1e-6:
            raise BridgeTAError(
                f"teacher.lidar.sparse.voxel = {sparse.voxel:g} m times the stride {stride} of its "
                f"{len(sparse.channels)} stages is not the {self.grid.resolution:g} m of a cell of F",
                exit_code=2,
            )
        levels = (config.z_max - config.z_min) / sparse.height
        if levels < 1 or abs(levels - round(levels)) > 1e-4:
            raise BridgeTAError(
                f"teacher.lidar: z from {config.z_min:g} to {config.z_max:g} m is not a whole number of voxels of "
                f"{sparse.height:g} m",
                exit_code=2,
            )
        columns = count_heights(round(levels) + _MARGIN, len(sparse.channels) - 1)
        if columns < 1:
            raise BridgeTAError(
                f"teacher.lidar: {round(levels)} voxels along z are too few for the {len(sparse.channels)} stages of "
                "teacher.lidar.sparse.channels",
                exit_code=2,
            )
        if sparse.output * columns != config.width:
            raise BridgeTAError(
                f"teacher.lidar.width = {config.width} must be {sparse.output * columns}: the {sparse.output} channels "
                f"of teacher.lidar.sparse.output at {columns} heights",
                exit_code=2,
            )
        across, along = grid.y_max - grid.y_min, grid.x_max - grid.x_min
        return round(across / sparse.voxel), round(along / sparse.voxel), round(levels)

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Compute features of B tensors `[n_i, 5]`: x, y, z in metres (ego frame), intensity 0-255, time lag in s."""
        columns = self.encoder(*self.voxels([self.turn(cloud) for cloud in points]))
        return columns.flip(2).contiguous(memory_format=torch.channels_last)

    def turn(self, points: Tensor) -> Tensor:
        """Bring points of the ego frame into the LiDAR's; those of a wrong shape are left to be refused."""
        if points.ndim != 2 or points.shape[1] != COLUMNS:
            return points
        x, y, z = self.mount
        turned = points.to(self.encoder.output.norm.weight.device, torch.float32)
        return torch.stack([y - turned[:, 1], turned[:, 0] - x, turned[:, 2] - z, turned[:, 3], turned[:, 4]], dim=1)


class Teacher(Segmenter):
    """Camera branch (unless `config.sensors` is "lidar") and LiDAR branch, fuser (F), decoder (D) and head (Z).

    Decoder and head are of the student's kind and size, set by `model`, so F, D and Z have the shapes of the student's.
    The fuser is BEVFusion's (Liu et al. 2023): channels side by side, a 3x3 convolution, batch norm; its ReLU is the
    first step of `decode`. Its network of LiDAR alone has none: without `config.fuser` F is the LiDAR's features. After
    construction `model` is the complete architecture: with `config` and `grid` it rebuilds this network without
    pretrained files. Raises BridgeTAError (exit code 2) that names the setting at fault.
    """

    def __init__(self, config: TeacherConfig, model: StudentConfig, grid: BevGrid, pretrained: bool = True) -> None:
        super().__init__()
        self.camera = CameraBranch(model, pretrained) if config.sensors == "fusion" else None
        branch = VoxelBranch if config.lidar.encoder == "voxels" else LidarBranch
        self.lidar: LidarBranch | VoxelBranch = branch(config.lidar, model.lift)
        self.config = config
        self.model = replace(model, backbone=self.camera.encoder.config) if self.camera else model
        self.grid, self.bev_grid = grid, self.lidar.grid
        # With BEVFusion's stride the student's neck is the last convolution of its view transform, which we need too.
        last = self.camera is not None and model.lift.kernel == 3 and model.lift.downsample > 1
        self.camera_end = convolution(model.lift.channels, model.lift.channels) if last else nn.Identity()
        fused = config.lidar.width + (model.lift.channels if self.camera else 0)
        self.fuser: nn.Module = nn.Identity()
        if config.fuser:
            self.fuser = convolution(fused, model.decoder.width, relu=False)
        elif fused != model.decoder.width:
            raise BridgeTAError(
                f"teacher.fuser=false needs features of model.decoder.width = {model.decoder.width} channels, "
                f"and the sensors have {fused}",
                exit_code=2,
            )
        self.decoder = build_decoder(model.decoder)
        self.head = SegmentationHead(self.decoder.channels, model.head, self.bev_grid, grid)
        self._store_channels_last()

    def forward(self, images: Tensor | None, plan: LiftPlan | None, points: Sequence[Tensor] | None) -> Taps:
        """Compute the taps of images `[B, N, 3, H, W]` (uint8, or normalised float) and of B tensors of points
        `[n_i, 5]`: x, y, z in metres (ego frame), intensity 0-255, time lag in seconds.

        `plan` is of the teacher's camera branch or of a student of the same `model`. Without cameras, `images` and
        `plan` are ignored. Raises BridgeTAError when an input is missing.
        """
        return self.compute_with_depth(images, plan, points)[0]

    def compute_with_depth(
        self, images: Tensor | None, plan: LiftPlan | None, points: Sequence[Tensor] | None
    ) -> tuple[Taps, Tensor | None]:
        """Compute the taps, and the depth distributions `[B, N, D, h, w]` of the cameras, None without cameras."""
        depth = None
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
            depth, seen = self.camera.encode(images, plan.ground)
            lifted = self.camera.collect(depth, seen, plan)
            features = torch.cat([self.camera_end(lifted), features], dim=1)
        return self.decode(self.fuser(features)), depth
