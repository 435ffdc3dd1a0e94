"""The task loss of map segmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, targets: Tensor, known: Tensor, gamma: float) -> Tensor:
    """Compute the sigmoid focal loss: the mean over the cells of each class, summed over the classes.

    `logits` and `targets` in {0, 1} are `[B, K, Y, X]`; `known` `[B, K]` is False where a sample's map says nothing
    about a class, which is then left out. Every class is a binary problem, because the classes overlap.
    The modulating factor (1 - p_t)^gamma is Lin et al.'s (arXiv 1708.02002), without alpha, as in BEVFusion.
    Computed in float32; 0 for a batch without any known class.
    """
    logits, targets = logits.float(), targets.to(torch.float32)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t is the sigmoid of the logit towards the wrong side: exact where 1 - exp(-cross_entropy) would cancel.
    wrong = torch.sigmoid(logits * (1 - 2 * targets))
    per_map = (wrong**gamma * cross_entropy).mean(dim=(-2, -1))
    weight = known.to(per_map.dtype)
    return ((per_map * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)).sum()
