"""The teacher assistant: an intermediate BEV feature from those of teacher and student, for training only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import AssistantConfig


def _group_norm(channels: int) -> nn.GroupNorm:
    # Not batch norm: the assistant must neither share statistics with another network nor leak them.
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
        return z + self.layers(z)


class TeacherAssistant(nn.Module):
    """Normalised features of teacher a and student c `[B, C, Y, X]` to the assistant's b of the same shape.

    Both are projected to a shared latent space and mixed by a gate per cell and channel; two separable convolutions
    follow. With `skip` the result is added to the point (1 - w) a + w c. The last layer starts at zero, so the
    assistant starts at that point and learns only what differs from direct distillation. With one input, the point is
    that input itself.
    """

    def __init__(self, width: int, config: AssistantConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.channels
        self.project = nn.ModuleDict()
        for name in ("teacher", "student"):
            if config.inputs in (name, "both"):
                self.project[name] = nn.Sequential(nn.Conv2d(width, latent, 1, bias=False), _group_norm(latent))
        self.gate = nn.Conv2d(2 * latent, latent, 1) if config.inputs == "both" else None
        self.mix = nn.Sequential(_Separable(latent), _Separable(latent))
        self.output = nn.Conv2d(latent, width, 1)
        if config.skip:
            nn.init.zeros_(self.output.weight)
            assert self.output.bias is not None
            nn.init.zeros_(self.output.bias)

    def forward(self, a: Tensor, c: Tensor, w: float) -> tuple[Tensor, Tensor]:
        """Return b and the latent z `[B, channels, Y, X]`; `w` in (0, 1) is how far from a towards c the start lies."""
        inputs = {"teacher": a, "student": c}
        projected = [layer(inputs[name]) for name, layer in self.project.items()]
        z = projected[0]
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(torch.cat(projected, dim=1)))
            z = gate * projected[0] + (1 - gate) * projected[1]
        z = self.mix(z)
        b: Tensor = self.output(z)
        if self.config.skip:
            start = {"both": (1 - w) * a + w * c, "teacher": a, "student": c}[self.config.inputs]
            b = b + start
        return b, z
