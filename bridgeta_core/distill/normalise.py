"""Bringing the features of several networks to one scale before they are compared (kd_methods 0.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.model.teacher import TeacherOutput

FEATURES = ("F", "D")
"""The levels that are features; Z is compared as probabilities and needs no scale."""


class TeacherScale(nn.Module):
    """From x to (x - mean) / max(std, 0.05 median(std)), per channel, by the teacher's statistics.

    One affine map for teacher, assistant and student, so that distances stay a weighted Euclidean distance of the
    features themselves and the inequality holds. It is the identity until `fit`; nothing trains it.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features `[B, C, Y, X]`."""
        return (x - self.mean) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """The features that `forward` gives `x` for."""
        return x * self.scale + self.mean

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take per-channel statistics `[C]`.

        Channels that hardly vary must not be blown up, hence the floor; dead ones do not lower it.
        """
        alive = std[std > 0]
        floor = 0.05 * alive.median() if len(alive) else torch.ones((), dtype=std.dtype)
        self.mean.copy_(mean.view(-1, 1, 1))
        self.scale.copy_(std.clamp(min=float(floor)).view(-1, 1, 1))


class Normaliser(nn.Module):
    """The chosen normalisation: by the `teacher`'s statistics (N1), each map by its own (`instance`, N2), cells of
    `unit` length (N3), or `none`.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.teacher = TeacherScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features `[B, C, Y, X]`, float32."""
        x = x.float()
        if self.kind == "teacher":
            return cast(Tensor, self.teacher(x))
        if self.kind == "instance":
            return functional.instance_norm(x)
        if self.kind == "unit":
            return functional.normalize(x, dim=1, eps=1e-6)
        return x


def scales_of(normalisers: nn.ModuleDict) -> dict[str, list[TeacherScale]]:
    """The scale of every level, for `fit`, from its normaliser."""
    return {level: [cast(Normaliser, module).teacher] for level, module in normalisers.items()}


def fit(scales: Mapping[str, Sequence[TeacherScale]], outputs: Iterable[TeacherOutput]) -> None:
    """Set every scale of a level, `F` or `D`, from the teacher's outputs, in one pass over them and in float64."""
    count: dict[str, int] = {}
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    for output in outputs:
        for level in scales:
            x = getattr(output, level).double()
            axes = (0, 2, 3)
            count[level] = count.get(level, 0) + x.numel() // x.shape[1]
            sums[level] = sums.get(level, 0) + x.sum(axes)
            squares[level] = squares.get(level, 0) + x.square().sum(axes)
    for level in count:
        mean = sums[level] / count[level]
        std = (squares[level] / count[level] - mean.square()).clamp(min=0).sqrt()
        for scale in scales[level]:
            scale.set(mean.to(scale.mean), std.to(scale.mean))
