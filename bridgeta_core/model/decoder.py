"""Convolutions over the bird's-eye view: after the lift, into the shared feature F, and from F to D."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.experiment import DecoderConfig
from bridgeta_core.model.plain import PlainDecoder
from bridgeta_core.model.strided import StridedConv2d
from bridgeta_core.utils.errors import BridgeTAError


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Build a convolution without bias, batch norm and ReLU: `[B, inputs, h, w]` to `[B, outputs, h / s, w / s]`.

    A kernel as large as its stride is not padded, so it covers exactly the cells that it replaces.
    """
    padding = 0 if kernel == stride else kernel // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def build_downsampling(channels: int, stride: int, kernel: int = 2) -> nn.Sequential:
    """Build layers from `[B, C, Y, X]` to `[B, C, Y / stride, X / stride]`; none for stride 1.

    A 3x3 and a strided 2x2 convolution per halving, and one 3x3 at the end. (The usual strided 3x3 would shift the
    features by half a cell against the metric grid.) With `kernel` 3 it is the usual one, as in BEVFusion, with
    nothing at the end, since the neck is another 3x3.
    """
    layers: list[nn.Module] = []
    while stride > 1:
        layers.append(convolution(channels, channels))
        layers.append(convolution(channels, channels, 2, 2) if kernel == 2 else _halve(channels, channels))
        stride //= 2
    if layers and kernel == 2:
        layers.append(convolution(channels, channels))
    return nn.Sequential(*layers)


class CameraNeck(nn.Module):
    """Lifted features `[B, C, Y, X]` to F `[B, width, Y, X]` before its ReLU: the student's counterpart of a fuser."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = convolution(channels, width, relu=False)

    def forward(self, lifted: Tensor) -> Tensor:
        """Compute F before its ReLU."""
        return self.layers(lifted)


class Residual(nn.Module):
    """One 3x3 convolution with a skip connection, on `[B, channels, Y, X]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = convolution(channels, channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.layers(x))


def _halve(inputs: int, outputs: int, kernel: int = 3, relu: bool = True) -> nn.Sequential:
    """Build a strided convolution that sits on the rows as BEVFusion's does on its own, with batch norm and ReLU."""
    layers: list[nn.Module] = [StridedConv2d(inputs, outputs, kernel, 2), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class BevDecoder(nn.Module):
    """ReLU(F) `[B, width, Y, X]` to D `[B, channels * stages, Y, X]`, for student and teacher.

    Stages of 3x3 convolutions, each after the first at half the size (after SECOND, Yan et al. 2018). Every stage is
    brought to `channels` and to the size of the first, and all are concatenated.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        if not config.stages:
            raise BridgeTAError("model.decoder.stages must not be empty", exit_code=2)
        self.stages, self.up = nn.ModuleList(), nn.ModuleList()
        inputs = config.width
        for i, width in enumerate(config.stages):
            entry = convolution(inputs, width, stride=1 if i == 0 else 2)
            self.stages.append(nn.Sequential(entry, *(Residual(width) for _ in range(config.blocks - 1))))
            self.up.append(convolution(width, config.channels, kernel=1, stride=1))
            inputs = width
        self.channels = config.channels * len(config.stages)

    def forward(self, features: Tensor) -> Tensor:
        """Compute D on the cells of `features`."""
        size, maps = features.shape[-2:], []
        for stage, up in zip(self.stages, self.up, strict=True):
            features = stage(features)
            level = up(features)
            if level.shape[-2:] != size:
                level = functional.interpolate(level, size=size, mode="bilinear", align_corners=False)
            maps.append(level)
        return torch.cat(maps, dim=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a skip connection (He et al. 2016).

    `[B, inputs, Y, X]` becomes `[B, outputs, Y / stride, X / stride]`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = convolution(inputs, outputs) if stride == 1 else _halve(inputs, outputs)
        self.layers = nn.Sequential(first, convolution(outputs, outputs, relu=False))
        self.skip: nn.Module = nn.Identity()
        if stride > 1:
            self.skip = _halve(inputs, outputs, kernel=1, relu=False)
        elif inputs != outputs:
            self.skip = convolution(inputs, outputs, kernel=1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.layers(x) + self.skip(x))


class ResNetDecoder(nn.Module):
    """ReLU(F) `[B, width, Y, X]` to D `[B, channels, Y, X]`: BEVFusion's decoder of cameras alone.

    Residual stages of strides 2, ..., 2 and 1. The last is enlarged to the size of the first and laid beside it; two
    convolutions, an enlargement to the size of F, and one more convolution follow.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        if len(config.stages) < 2:
            raise BridgeTAError("model.decoder.stages needs two or more for kind = resnet", exit_code=2)
        self.stages = nn.ModuleList()
        inputs, last = config.width, len(config.stages) - 1
        for i, width in enumerate(config.stages):
            entry = BasicBlock(inputs, width, stride=1 if i == last else 2)
            self.stages.append(nn.Sequential(entry, *(BasicBlock(width, width, 1) for _ in range(config.blocks - 1))))
            inputs = width
        self.channels = config.channels
        joined = config.stages[0] + config.stages[-1]
        self.fuse = nn.Sequential(
            convolution(joined, config.channels, kernel=1), convolution(config.channels, config.channels)
        )
        self.output = convolution(config.channels, config.channels)

    def forward(self, features: Tensor) -> Tensor:
        """Compute D on the cells of `features`."""
        size, maps = features.shape[-2:], []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        large = _enlarge(maps[-1], maps[0].shape[-2:])
        return self.output(_enlarge(self.fuse(torch.cat([large, maps[0]], dim=1)), size))


def _enlarge(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Enlarge bilinearly, outermost cells onto outermost cells."""
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)


Decoder = BevDecoder | PlainDecoder | ResNetDecoder


_KINDS: dict[str, type[Decoder]] = {"second": BevDecoder, "plain": PlainDecoder, "resnet": ResNetDecoder}


def build_decoder(config: DecoderConfig) -> Decoder:
    """Build the decoder of a kind."""
    return _KINDS[config.kind](config)
