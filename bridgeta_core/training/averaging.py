"""Averaged weights, which are validated and exported in place of the trained ones."""

from __future__ import annotations

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and buffers; validation and export use it.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's moving averages: a constant one would
    carry the random initial weights through the first thousands of steps. Counters and flags are copied.
    """

    def __init__(self, decay: float) -> None:
        def average(mean: Tensor, value: Tensor, n: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value
            return value + (mean - value) * torch.clamp((1 + n) / (10 + n), max=decay)

        super().__init__(avg_fn=average)
