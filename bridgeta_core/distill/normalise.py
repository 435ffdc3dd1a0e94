"""Bring the features of several networks to one scale, and to the same channels, to compare them (kd_methods 0.3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

FEATURES = ("F", "D")
"""The levels that are features; Z is compared as probabilities and needs no scale."""


class TeacherScale(nn.Module):
    """The map x -> (x - mean) / max(std, 0.05 median(std)) per channel, by the teacher's statistics.

    It is the same affine map for teacher, assistant and student, so distances stay a weighted Euclidean distance of the
    features themselves and the inequality holds. It is the identity until `set`, and is not trained.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise features `[B, C, Y, X]`."""
        return (x - self.mean) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """Undo `forward`."""
        return x * self.scale + self.mean

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics `[C]` of the channels.

        The floor keeps channels that hardly vary from being blown up; dead channels do not lower it.
        """
        alive = std[std > 0]
        floor = 0.05 * alive.median() if len(alive) else torch.ones((), dtype=std.dtype)
        self.mean.copy_(mean.view(-1, 1, 1))
        self.scale.copy_(std.clamp(min=float(floor)).view(-1, 1, 1))


class Normaliser(nn.Module):
    """A normalisation `kind`: by the `teacher`'s statistics (N1), of each map by its own (`instance`, N2), of cells to
    `unit` length (N3), or `none`.
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.teacher = TeacherScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise features `[B, C, Y, X]` in float32."""
        x = x.float()
        if self.kind == "teacher":
            return self.teacher(x)
        if self.kind == "instance":
            return functional.instance_norm(x)
        if self.kind == "unit":
            return functional.normalize(x, dim=1, eps=1e-6)
        return x


def collect_scales(normalisers: nn.ModuleDict) -> dict[str, list[Any]]:
    """Collect the scale of every level from its normaliser, for `fit_scales`."""
    return {level: [normaliser.teacher] for level, normaliser in normalisers.items()}


def fit_scales(
    scales: Mapping[str, Sequence[TeacherScale]], outputs: Iterable[Taps] | Iterable[Mapping[str, Tensor]]
) -> None:
    """Set the scales of every level, F or D of taps or any name of mappings, from the teacher's outputs in one pass,
    in float64.
    """
    count: dict[str, int] = {}
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    for output in outputs:
        for level in scales:
            x = (getattr(output, level) if isinstance(output, Taps) else output[level]).double()
            axes = (0, 2, 3)
            count[level] = count.get(level, 0) + x.numel() // x.shape[1]
            sums[level] = sums.get(level, 0) + x.sum(axes)
            squares[level] = squares.get(level, 0) + x.square().sum(axes)
    for level in count:
        mean = sums[level] / count[level]
        std = (squares[level] / count[level] - mean.square()).clamp(min=0).sqrt()
        for scale in scales[level]:
            scale.set(mean.to(scale.mean), std.to(scale.mean))


def tap_widths(network: Student | Teacher) -> dict[str, int]:
    """Return the channels of a network's F and D."""
    model = network.model if isinstance(network, Teacher) else network.config
    return {"F": model.decoder.width, "D": network.decoder.channels}


def build_identity(inputs: int, outputs: int) -> nn.Conv2d:
    """Build a 1x1 convolution that starts as the identity on the channels that both sides have, and 0 on others."""
    layer = nn.Conv2d(inputs, outputs, 1)
    assert layer.bias is not None
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Adapter(nn.Module):
    """A 1x1 convolution for each of the chosen `levels`, F or D, at which student and teacher differ in channels.

    It is on the student's side, as in FitNets (Romero et al. 2015): the teacher's features are what they are, so
    nothing can make the task easy by shrinking them. Where the networks have the same channels there is no such layer,
    and the features themselves are compared. `to_student` leads the other way, from an F as wide as the teacher's, such
    as an assistant's, into the student's decoder.
    """

    def __init__(self, student: Student, teacher: Teacher, levels: Collection[str]) -> None:
        super().__init__()
        own, wanted = tap_widths(student), tap_widths(teacher)
        self.levels = nn.ModuleDict(
            {x: nn.Conv2d(own[x], wanted[x], 1) for x in own if x in levels and own[x] != wanted[x]}
        )
        same = own["F"] == wanted["F"]
        self.to_student = nn.Identity() if same or "F" not in levels else nn.Conv2d(wanted["F"], own["F"], 1)

    def forward(self, taps: Taps) -> Taps:
        """Bring the taps of a network of the student's shapes to the teacher's at the chosen levels."""
        return taps._replace(**{level: self.adapt(level, getattr(taps, level)) for level in self.levels})

    def adapt(self, level: str, features: Tensor) -> Tensor:
        """Bring the features of one level to the teacher's channels, in float32 where autocast is off."""
        return self.levels[level](features.float()) if level in self.levels else features
