"""How much each BEV cell counts when two networks are compared (kd_methods 0.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bridgeta_core.distill.base import Labels
from bridgeta_core.geometry.grid import BevGrid


@dataclass(frozen=True, eq=False)
class Weights:
    """Non-negative weights that sum to 1 per sample: `feature` `[B, Y', X']` for F and D, `label` `[B, Y, X]` for Z."""

    feature: Tensor
    label: Tensor

    def of(self, level: str) -> Tensor:
        """Those on the grid of a level."""
        return self.label if level == "Z" else self.feature


class AreaAverage(nn.Module):
    """Averages `[..., Y, X]` on the label grid over the cells of the feature grid, in metric coordinates.

    Where a feature cell reaches beyond the label grid, only the part inside counts. `inside` `[Y', X']` is 1 for the
    cells whose centres lie on the label grid, else 0.
    """

    rows: Tensor
    columns: Tensor
    inside: Tensor

    def __init__(self, label: BevGrid, feature: BevGrid) -> None:
        super().__init__()
        rows = _overlaps(
            feature.y_min, feature.resolution, feature.shape[0], label.y_min, label.resolution, label.shape[0]
        )
        columns = _overlaps(
            feature.x_min, feature.resolution, feature.shape[1], label.x_min, label.resolution, label.shape[1]
        )
        x, y = feature.centres()
        inside = ((y > label.y_min) & (y < label.y_max))[:, None] & ((x > label.x_min) & (x < label.x_max))
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        self.register_buffer("columns", torch.from_numpy(columns), persistent=False)
        self.register_buffer("inside", torch.from_numpy(inside.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Means `[..., Y', X']` of `x`, 0 in cells without any label; float32, under autocast too."""
        with torch.autocast(x.device.type, enabled=False):
            return self.rows @ x.float() @ self.columns.T


def _overlaps(start: float, size: float, n: int, label_start: float, label_size: float, m: int) -> NDArray[np.float32]:
    """Share `[n, m]` of each label cell in the mean of each feature cell, along one axis; rows sum to 1 or are 0."""
    low, label_low = start + size * np.arange(n)[:, None], label_start + label_size * np.arange(m)
    common = np.minimum(low + size, label_low + label_size) - np.maximum(low, label_low)
    common = np.where(common > 1e-9 * label_size, common, 0)
    return (common / np.maximum(common.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)


class CellWeights(nn.Module):
    """Cell weights of a `kind`: `balanced` gives half to the background and half to the classes that a sample has,
    alike, so that dividers do not vanish beside drivable area; `foreground` gives all to the classes; `uniform`;
    `correct` is balanced, over the cells where the teacher is right.

    A class that a frame's labels do not know is taken from the teacher's probabilities at 0.5.
    """

    def __init__(self, kind: str, label: BevGrid, feature: BevGrid) -> None:
        super().__init__()
        self.kind = kind
        self.average = AreaAverage(label, feature)

    @torch.no_grad()
    def forward(self, labels: Labels, teacher_logits: Tensor) -> Weights:
        """The weights of a batch, from its labels and the teacher's logits `[B, 6, Y, X]`."""
        seen = teacher_logits > 0
        known = labels.known[:, :, None, None]
        y = torch.where(known, labels.masks > 0, seen).float()
        everywhere = torch.ones_like(y[:, 0])
        right = ((seen == (y > 0)) | ~known).all(dim=1).float() if self.kind == "correct" else everywhere
        inside = self.average.inside.expand(len(y), -1, -1)
        return Weights(
            feature=self._weights(self.average(y), inside * self.average(right)),
            label=self._weights(y, everywhere * right),
        )

    def _weights(self, y: Tensor, valid: Tensor) -> Tensor:
        """Weights `[B, y, x]` from class shares `[B, 6, y, x]` in [0, 1]; if nothing is valid, all cells alike."""
        if self.kind == "uniform":
            weights = valid
        else:
            total = y.sum(dim=(-2, -1), keepdim=True)
            present = (total > 0).float()
            classes = present.sum(dim=1).clamp(min=1)
            foreground = (y / total.clamp(min=1e-6)).sum(dim=1) / classes
            background = (1 - y).clamp(min=0).prod(dim=1)
            background = background / background.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
            some = present.amax(dim=1)
            share = 1.0 if self.kind == "foreground" else 0.5
            weights = valid * (share * some * foreground + (1 - share * some) * background)
        total = weights.sum(dim=(-2, -1), keepdim=True)
        return torch.where(
            total > 1e-12, weights / total.clamp(min=1e-12), torch.ones_like(weights) / weights[0].numel()
        )
