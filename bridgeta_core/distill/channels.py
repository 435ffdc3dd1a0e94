"""Where channels fire: their distributions over the cells, compared."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bridgeta_core.distill.base import Labels


def select_classes(labels: Labels, logits: Tensor) -> Tensor:
    """Return 1 for the classes of each frame that the labels or the teacher's logits show, else 0: `[B, 6]`."""
    labelled = labels.known & (labels.masks > 0).flatten(2).any(dim=2)
    return (labelled | (torch.sigmoid(logits).amax(dim=(-2, -1)) > 0.1)).float()


def compare_channels(t: Tensor, s: Tensor, tau: float, inside: Tensor, counted: Tensor | None = None) -> Tensor:
    """Compute tau^2 KL of the channels of `t` and `s` `[B, C, Y, X]`, averaged over the channels that count.

    `inside` `[Y, X]` is 1 for the cells of the softmax, `counted` `[B, C]` for the channels, all by default. 0 where
    none counts.
    """
    per_channel = tau**2 * spatial_divergence(t / tau, s / tau, inside)
    if counted is None:
        return per_channel.mean()
    return (counted * per_channel).sum() / counted.sum().clamp(min=1)


def spatial_divergence(t: Tensor, s: Tensor, inside: Tensor) -> Tensor:
    """Compute KL `[B, C]` of `t` against `s` `[B, C, Y, X]`, softmaxed over the cells where `inside` `[Y, X]` is 1."""
    cells = inside.flatten() > 0
    log_t = functional.log_softmax(t.flatten(2)[:, :, cells], dim=2)
    log_s = functional.log_softmax(s.flatten(2)[:, :, cells], dim=2)
    return (log_t.exp() * (log_t - log_s)).sum(dim=2)
