"""BEVFusion's decoder of LiDAR and fusion: SECOND and its pyramid as they were published."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bridgeta_core.config.experiment import DecoderConfig
from bridgeta_core.model.strided import StridedConv2d
from bridgeta_core.utils.errors import BridgeTAError


class PlainDecoder(nn.Module):
    """ReLU(F) `[B, width, Y, X]` to D `[B, channels * stages, Y, X]`.

    Stages of 3x3 convolutions without skips, each after the first at half the size (SECOND, Yan et al. 2018). Every
    stage is brought to `channels` and to the size of the first by one convolution, transposed where it enlarges, and
    all are concatenated.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        if not config.stages:
            raise BridgeTAError("model.decoder.stages must not be empty", exit_code=2)
        self.stages, self.up = nn.ModuleList(), nn.ModuleList()
        inputs = config.width
        for i, width in enumerate(config.stages):
            layers = _finish(StridedConv2d(inputs, width, 3, 1 if i == 0 else 2))
            for _ in range(config.blocks - 1):
                layers += _finish(nn.Conv2d(width, width, 3, padding=1, bias=False))
            self.stages.append(nn.Sequential(*layers))
            size = {"kernel_size": 2**i, "stride": 2**i, "bias": False}
            kind = nn.ConvTranspose2d if i else nn.Conv2d
            self.up.append(nn.Sequential(*_finish(kind(width, config.channels, **size))))
            inputs = width
        self.channels = config.channels * len(config.stages)

    def forward(self, features: Tensor) -> Tensor:
        """Compute D on the cells of `features`."""
        levels = []
        for stage, up in zip(self.stages, self.up, strict=True):
            features = stage(features)
            levels.append(up(features))
        if any(level.shape[2:] != levels[0].shape[2:] for level in levels):
            raise BridgeTAError(
                f"model.decoder: {list(levels[0].shape[2:])} cells cannot be halved {len(levels) - 1} times",
                exit_code=2,
            )
        return torch.cat(levels, dim=1)


def _finish(convolution: nn.Module) -> list[nn.Module]:
    channels = int(convolution.out_channels)  # type: ignore[arg-type]
    return [convolution, nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]
