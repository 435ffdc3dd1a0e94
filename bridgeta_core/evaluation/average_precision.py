"""Average precision, the area under the curve of precision over recall, from a histogram of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.utils.arrays import Floats

BINS = 256
"""Bins of equal width in [0, 1]. A power of two, so that finding the bin of a float rounds nothing."""


class ProbabilityHistogram:
    """Count cells over a dataset by class, probability and label: `counts`, int64 `[6, BINS, 2]`."""

    def __init__(self) -> None:
        self.counts = torch.zeros(len(CLASSES), BINS, 2, dtype=torch.int64)

    def update(self, probabilities: Tensor, labels: Tensor, known: Tensor) -> None:
        """Add a batch as `MapIoU.update` takes it."""
        device = probabilities.device
        bins = (probabilities.float() * BINS).long().clamp_(0, BINS - 1)
        place = torch.arange(len(CLASSES), device=device)[:, None, None] * BINS
        key = (place + bins) * 2 + labels.to(device, torch.int64)
        counts = torch.bincount(key[known.to(device, torch.bool)].flatten(), minlength=self.counts.numel())
        self.counts += counts.reshape(self.counts.shape).to(self.counts.device)


def compute_curves(counts: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Compute precision, recall and IoU `[..., BINS]` of what reaches each bin's lower edge, from cells as above.

    NaN where no label is 1, and precision where nothing reaches the edge.
    """
    reached = np.asarray(counts, dtype=np.float64)[..., ::-1, :].cumsum(axis=-2)[..., ::-1, :]
    false, true = reached[..., 0], reached[..., 1]
    positives = np.where(true[..., :1] > 0, true[..., :1], np.nan)
    precision = true / np.where(true + false > 0, true + false, np.nan)
    return precision, true / positives, true / (positives + false)


def compute_average_precision(counts: NDArray[Any]) -> Floats:
    """Compute the average precision `[...]` from cells `[..., BINS, 2]` by probability and label.

    It is the sum of (R_n - R_(n-1)) P_n over thresholds in falling order, with the precision P_n and the recall R_n of
    what reaches threshold n: scikit-learn's definition, without interpolation. With the bins' lower edges as thresholds
    it is that of probabilities rounded down to 1 / BINS. NaN where no label is 1.
    """
    falling = np.asarray(counts, dtype=np.float64)[..., ::-1, :]
    true = falling[..., 1].cumsum(axis=-1)
    reached = true + falling[..., 0].cumsum(axis=-1)
    area = (falling[..., 1] * true / np.maximum(reached, 1)).sum(axis=-1)
    positives = true[..., -1]
    return np.asarray(area / np.where(positives > 0, positives, np.nan), dtype=np.float64)
