"""The teacher assistant: an intermediate BEV feature from those of teacher and student. It exists in training only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import AssistantConfig


def _group_norm(channels: int) -> nn.GroupNorm:
    # Not batch norm: an assistant must neither share statistics with another network nor leak them.
    return nn.GroupNorm(math.gcd(8, channels), channels)


class _Separable(nn.Module):
    """z + GELU(GN(pointwise(depthwise 3x3(z))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            _group_norm(channels),
            nn.GELU(),
        )

    def forward(self, z: Tensor) -> Tensor:
        result: Tensor = z + self.layers(z)
        return result


class TeacherAssistant(nn.Module):
    """Normalised features of teacher a and student c `[B, C, Y, X]` to the assistant's b of the same shape.

    Both are projected to a shared latent space and mixed by a gate per cell and channel; two separable convolutions
    follow. With `skip` the result is added to the point (1 - w) a + w c, at which the assistant then starts, because
    its last layer is zero: all it can learn is what differs from plain distillation. Without an input, that input's
    part of the sum is gone too.
    """

    def __init__(self, width: int, config: AssistantConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.channels
        sees = {name: config.inputs in (name, "both") for name in ("teacher", "student")}
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(width, latent, 1, bias=False), _group_norm(latent))
                for name, seen in sees.items()
                if seen
            }
        )
        self.gate = nn.Conv2d(2 * latent, latent, 1) if config.inputs == "both" else None
        self.mix = nn.Sequential(_Separable(latent), _Separable(latent))
        self.output = nn.Conv2d(latent, width, 1)
        if config.skip:
            nn.init.zeros_(self.output.weight)
            assert self.output.bias is not None
            nn.init.zeros_(self.output.bias)

    def latent(self, a: Tensor, c: Tensor) -> Tensor:
        """The shared latent feature z `[B, channels, Y, X]`."""
        inputs = {"teacher": a, "student": c}
        seen = [layer(inputs[name]) for name, layer in self.project.items()]
        z = seen[0]
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(torch.cat(seen, dim=1)))
            z = gate * seen[0] + (1 - gate) * seen[1]
        mixed: Tensor = self.mix(z)
        return mixed

    def forward(self, a: Tensor, c: Tensor, w: float) -> tuple[Tensor, Tensor]:
        """The feature b and the latent z; `w` in (0, 1) says how far from a towards c the starting point lies."""
        z = self.latent(a, c)
        b: Tensor = self.output(z)
        if self.config.skip:
            start = {"both": (1 - w) * a + w * c, "teacher": a, "student": c}[self.config.inputs]
            b = b + start
        return b, z
