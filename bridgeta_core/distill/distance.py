"""Distances between the outputs of two networks (kd_methods 0.2, 0.4).

Each is a mean over the batch of sums weighted by cells; `weights` `[B, Y, X]` sum to 1 per sample. Classes overlap, so
each is a distribution over two outcomes, and terms are summed over classes, as in the label loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def squared_distance(a: Tensor, c: Tensor, weights: Tensor) -> Tensor:
    """Average the channels' mean squared difference of features `[B, C, Y, X]` over cells."""
    return (weights * (a - c).square().mean(dim=1)).sum(dim=(-2, -1)).mean()


def brier(p: Tensor, q: Tensor, weights: Tensor, tau: float) -> Tensor:
    """Compute tau^2 times the squared difference of the probabilities of logits `[B, K, Y, X]` at temperature tau."""
    difference = torch.sigmoid(p.float() / tau) - torch.sigmoid(q.float() / tau)
    return tau**2 * _sum_classes(difference.square(), weights)


def kl_divergence(p: Tensor, q: Tensor, weights: Tensor, tau: float) -> Tensor:
    """Compute tau^2 KL(p || q) of the Bernoulli distributions of logits `[B, K, Y, X]` at temperature tau."""
    return tau**2 * _sum_classes(bernoulli_kl(p.float() / tau, q.float() / tau), weights)


def jensen_shannon(p: Tensor, q: Tensor, weights: Tensor, tau: float) -> Tensor:
    """Compute tau^2 JS(p, q) of the Bernoulli distributions of logits at temperature tau; its root is a metric.

    The derivative of p log p is unbounded at 0, so probabilities are clamped to 1e-6 from 0 and 1.
    """
    u, v = (torch.sigmoid(x.float() / tau).clamp(1e-6, 1 - 1e-6) for x in (p, q))
    middle = (u + v) / 2
    return tau**2 * _sum_classes(_entropy(middle) - (_entropy(u) + _entropy(v)) / 2, weights)


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """Compute KL of Bernoulli distributions given as logits: p (z_p - z_q) - softplus(z_p) + softplus(z_q).

    This form is finite for any finite logits. Where they agree, rounding may leave it just below 0.
    """
    return torch.sigmoid(p) * (p - q) - functional.softplus(p) + functional.softplus(q)


def logit_divergence(teacher: Tensor, student: Tensor, tau: float) -> Tensor:
    """Compute logit distillation (R1) of `[B, K, Y, X]`: tau^2 KL, averaged over cells and batch, summed over classes.

    Many methods have it as an option beside terms of their own.
    """
    with torch.autocast(student.device.type, enabled=False):
        per_cell = bernoulli_kl(teacher.float() / tau, student.float() / tau)
    return tau**2 * per_cell.mean(dim=(0, 2, 3)).sum()


DISTANCES = {"brier": brier, "js": jensen_shannon, "kl": kl_divergence}
"""Distances of logits by the names that `distill.levels.distance` gives them."""


def _sum_classes(x: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, None] * x).sum(dim=(1, 2, 3)).mean()


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.log() + (1 - p) * torch.log1p(-p))
