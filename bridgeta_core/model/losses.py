"""The task loss of map segmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, targets: Tensor, known: Tensor, gamma: float) -> Tensor:
    """Sigmoid focal loss: the mean over the pixels of each class, and the sum of these means over the classes.

    `logits` and `targets` in {0, 1} are `[B, K, Y, X]`; `known` `[B, K]` is False where a sample's map does not say
    anything about a class, which then takes no part. Every class is a problem of its own because the classes overlap.
    The modulating factor (1 - p_t)^gamma is Lin et al.'s (arXiv 1708.02002), without alpha, as in BEVFusion.
    Computed in float32; 0 for a batch that knows nothing.
    """
    logits, targets = logits.float(), targets.to(torch.float32)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t = sigmoid of the logit towards the wrong side: exact where 1 - exp(-cross_entropy) would cancel.
    wrong = torch.sigmoid(logits * (1 - 2 * targets))
    per_map = (wrong**gamma * cross_entropy).mean(dim=(-2, -1))
    weight = known.to(per_map.dtype)
    return ((per_map * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)).sum()
