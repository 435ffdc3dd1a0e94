"""The camera-only student: from images of any number of cameras to class logits on the label grid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.experiment import StudentConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.backbone import ImageEncoder
from bridgeta_core.model.decoder import CameraNeck, Decoder, build_decoder, build_downsampling
from bridgeta_core.model.head import SegmentationHead
from bridgeta_core.model.lift import LiftPlan, bev_grid, depth_bins, lift
from bridgeta_core.utils.errors import BridgeTAError

_MOST_ENTRIES = 2**25  # depth bins of one camera's image cells; a plan takes some thirty bytes for each


class Taps(NamedTuple):
    """What a network gives: F `[B, width, Y', X']` before its ReLU, D `[B, C_D, Y', X']`, logits Z `[B, 6, Y, X]`."""

    F: Tensor
    D: Tensor
    Z: Tensor


class CameraBranch(nn.Module):
    """Images to lifted BEV features `[B, lift.channels, Y', X']` on `self.grid`; student and teacher each have one.

    All cameras share all weights, so any number of them works. With `lift.ground_prior` the depth distribution starts
    from the flat ground (inverse perspective mapping), and the network learns what differs from it.
    """

    bins: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, config: StudentConfig, pretrained: bool = True) -> None:
        super().__init__()
        self.image, self.lift = config.image, config.lift
        self.encoder = ImageEncoder(config.backbone, pretrained)
        for key, size in (("width", self.image.width), ("height", self.image.height)):
            if size % self.encoder.stride:
                raise BridgeTAError(
                    f"model.image.{key} = {size} must be a multiple of {self.encoder.stride}, "
                    "the stride of the finest backbone stage",
                    exit_code=2,
                )
        if not len(self.image.mean) == len(self.image.std) == 3:
            raise BridgeTAError("model.image.mean and std need a value for each of R, G and B", exit_code=2)
        if not self.lift.z_min < self.lift.z_max:
            raise BridgeTAError("model.lift.z_min must be below z_max", exit_code=2)
        self.grid = bev_grid(self.lift)
        bins = depth_bins(self.lift).float()
        entries = len(bins) * math.prod(self.feature_size)
        if entries > _MOST_ENTRIES:
            raise BridgeTAError(
                f"model.lift: {entries:,} depth bins of image cells per camera are beyond {_MOST_ENTRIES:,}",
                exit_code=2,
            )
        self.register_buffer("bins", bins, persistent=False)
        # (x / 255 - mean) / std as one multiplication and one addition
        mean, std = torch.tensor(self.image.mean), torch.tensor(self.image.std)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None], persistent=False)
        self.register_buffer("shift", (-mean / std)[:, None, None], persistent=False)
        self.depth = nn.Conv2d(config.backbone.channels, len(bins) + self.lift.channels, 1)
        # 0.03/m is about the height of one image cell of a 352-pixel-wide image, seen as inverse depth of the ground.
        self.ground_width = nn.Parameter(torch.tensor(math.log(0.03))) if self.lift.ground_prior else None
        self.downsample = build_downsampling(self.lift.channels, self.lift.downsample, self.lift.kernel)

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the image features."""
        return self.image.height // self.encoder.stride, self.image.width // self.encoder.stride

    def plan(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        """Build the `LiftPlan` of some cameras with this network's sizes, on its device."""
        size = (self.image.height, self.image.width)
        return LiftPlan.build(intrinsics, ego_T_cam, self.feature_size, size, self.lift, self.bins.device)

    def encode(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the depth distributions `[B, N, D, h, w]` and features `[B, N, C, h, w]` of images.

        Images are `[B, N, 3, H, W]`, uint8 or normalised float; `ground` is that of the plan.
        """
        batch, cameras = images.shape[:2]
        if tuple(images.shape[2:]) != (3, self.image.height, self.image.width):
            raise BridgeTAError(
                f"images are {list(images.shape[2:])}, the network takes [3, {self.image.height}, {self.image.width}]"
            )
        x = images.flatten(0, 1)
        if x.dtype == torch.uint8:
            x = torch.addcmul(self.shift, x.to(self.scale.dtype), self.scale)
        x = x.to(self.depth.weight.dtype)
        encoded = self.depth(self.encoder(x.contiguous(memory_format=torch.channels_last)))
        logits, features = encoded.unflatten(0, (batch, cameras)).split((len(self.bins), self.lift.channels), dim=2)
        if self.ground_width is not None:
            offset = 1 / self.bins[:, None, None] - ground.clamp(min=0)[:, :, None]
            logits = logits - 0.5 * (offset * torch.exp(-self.ground_width)).square()
        depth = functional.softmax(logits, dim=2, dtype=torch.promote_types(logits.dtype, torch.float32))
        return depth, features

    def collect(self, depth: Tensor, features: Tensor, plan: LiftPlan) -> Tensor:
        """Lift what `encode` gives."""
        return self.downsample(lift(depth, features, plan))

    def forward(self, images: Tensor, plan: LiftPlan) -> Tensor:
        """Lift images `[B, N, 3, H, W]`, uint8 or normalised float."""
        return self.collect(*self.encode(images, plan.ground), plan)


class Segmenter(nn.Module):
    """What student and teacher share: the way from F on, through the `decoder` and `head` of the subclass."""

    decoder: Decoder
    head: SegmentationHead

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(p.numel() for p in self.parameters())

    def decode(self, features: Tensor) -> Taps:
        """Compute the taps from an F before its ReLU, this network's own or another's."""
        decoded = self.decoder(functional.relu(features))
        return Taps(features, decoded, self.head(decoded))

    def _store_channels_last(self) -> None:
        """Lay out the weights of all convolutions in memory as the features are; the last step of construction."""
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class Student(Segmenter):
    """Image encoder, lift, neck (F), decoder (D) and head (Z).

    `grid` is the label and output grid; F and D live on `bev_grid`. `pretrained=False` builds the network without
    asking for `config.backbone.pretrained`. After construction `config` is the complete architecture: it rebuilds
    this network without pretrained files. Raises BridgeTAError (exit code 2) that names the setting at fault.
    """

    def __init__(self, config: StudentConfig, grid: BevGrid, pretrained: bool = True) -> None:
        super().__init__()
        self.camera = CameraBranch(config, pretrained)
        self.config = replace(config, backbone=self.camera.encoder.config)
        self.grid, self.bev_grid = grid, self.camera.grid
        self.neck = CameraNeck(config.lift.channels, config.decoder.width)
        self.decoder = build_decoder(config.decoder)
        self.head = SegmentationHead(self.decoder.channels, config.head, self.bev_grid, grid)
        self._store_channels_last()

    def cast(self, precision: torch.dtype) -> None:
        """Convert the weights for inference. The constants of geometry and of the images stay as they are."""
        constants = {name: getattr(self.camera, name) for name in ("bins", "scale", "shift")}
        self.to(precision)
        for name, value in constants.items():
            setattr(self.camera, name, value)

    def plan(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        """Plan the lift for `intrinsics` [B, N, 3, 3] of the network input and `ego_T_cam` [B, N, 4, 4]."""
        return self.camera.plan(intrinsics, ego_T_cam)

    def forward(self, images: Tensor, plan: LiftPlan) -> Taps:
        """Compute the taps of images `[B, N, 3, H, W]` (uint8, or normalised float)."""
        return self.compute_with_depth(images, plan)[0]

    def compute_with_depth(self, images: Tensor, plan: LiftPlan) -> tuple[Taps, Tensor]:
        """Compute the taps, and the depth distributions `[B, N, D, h, w]` that led to them."""
        depth, features = self.camera.encode(images, plan.ground)
        return self.decode(self.neck(self.camera.collect(depth, features, plan))), depth
