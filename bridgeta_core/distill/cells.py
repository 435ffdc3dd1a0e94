"""How much each BEV cell counts when two networks are compared (kd_methods 0.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.geometry.grid import BevGrid


@dataclass(frozen=True, eq=False)
class CellWeights:
    """Weights that sum to 1 per sample: `feature` `[B, Y', X']` for F and D, `label` `[B, Y, X]` for Z."""

    feature: Tensor
    label: Tensor


class AreaAverage(nn.Module):
    """The average of `[..., Y, X]` on the label grid over the cells of the feature grid, in metric coordinates.

    Where a feature cell reaches beyond the label grid, only the part inside counts. `inside` `[Y', X']` is 1 for the
    cells whose centres lie on the label grid, else 0.
    """

    rows: Tensor
    columns: Tensor
    inside: Tensor

    def __init__(self, label: BevGrid, feature: BevGrid) -> None:
        super().__init__()
        rows = _compute_overlaps(
            feature.y_min, feature.resolution, feature.shape[0], label.y_min, label.resolution, label.shape[0]
        )
        columns = _compute_overlaps(
            feature.x_min, feature.resolution, feature.shape[1], label.x_min, label.resolution, label.shape[1]
        )
        x, y = feature.centres()
        inside = ((y > label.y_min) & (y < label.y_max))[:, None] & ((x > label.x_min) & (x < label.x_max))
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        self.register_buffer("columns", torch.from_numpy(columns), persistent=False)
        self.register_buffer("inside", torch.from_numpy(inside.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Average `x` to `[..., Y', X']`, 0 in cells without any label; float32, under autocast too."""
        with torch.autocast(x.device.type, enabled=False):
            return self.rows @ x.float() @ self.columns.T


def _compute_overlaps(
    start: float, size: float, n: int, label_start: float, label_size: float, m: int
) -> NDArray[np.float32]:
    """Compute the share `[n, m]` of each label cell in each feature cell, along one axis; rows sum to 1 or are 0."""
    low, label_low = start + size * np.arange(n)[:, None], label_start + label_size * np.arange(m)
    common = np.minimum(low + size, label_low + label_size) - np.maximum(low, label_low)
    common = np.where(common > 1e-9 * label_size, common, 0)
    return (common / np.maximum(common.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)


class CellWeighting(nn.Module):
    """A rule, `kind`, that gives each cell a weight.

    `balanced` gives half to the background and half in equal parts to the classes of a sample, so that dividers do not
    vanish beside drivable area; `foreground` gives all to the classes; `uniform` weighs all cells equally; `correct` is
    `balanced` over the cells where the teacher is right. Where a class is not known, the teacher's probability at 0.5
    stands in for the label.
    """

    def __init__(self, kind: str, label: BevGrid, feature: BevGrid) -> None:
        super().__init__()
        self.kind = kind
        self.average = AreaAverage(label, feature)

    @torch.no_grad()
    def forward(self, labels: Labels, teacher_logits: Tensor) -> CellWeights:
        """Compute the weights of a batch from its labels and the teacher's logits `[B, 6, Y, X]`."""
        predicted = teacher_logits > 0
        known = labels.known[:, :, None, None]
        y = labels.fill(teacher_logits).float()
        everywhere = torch.ones_like(y[:, 0])
        right = ((predicted == (y > 0)) | ~known).all(dim=1).float() if self.kind == "correct" else everywhere
        inside = self.average.inside.expand(len(y), -1, -1)
        return CellWeights(
            feature=self._weigh(self.average(y), inside * self.average(right)),
            label=self._weigh(y, everywhere * right),
        )

    def _weigh(self, y: Tensor, valid: Tensor) -> Tensor:
        """Compute weights `[B, y, x]` from class shares `[B, 6, y, x]` in [0, 1]; equal ones if no cell is valid."""
        if self.kind == "uniform":
            weights = valid
        else:
            total = y.sum(dim=(-2, -1), keepdim=True)
            present = (total > 0).float()
            classes = present.sum(dim=1).clamp(min=1)
            foreground = (y / total.clamp(min=1e-6)).sum(dim=1) / classes
            background = (1 - y).clamp(min=0).prod(dim=1)
            background = background / background.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
            any_class = present.amax(dim=1)
            share = 1.0 if self.kind == "foreground" else 0.5
            weights = valid * (share * any_class * foreground + (1 - share * any_class) * background)
        total = weights.sum(dim=(-2, -1), keepdim=True)
        return torch.where(
            total > 1e-12, weights / total.clamp(min=1e-12), torch.ones_like(weights) / weights[0].numel()
        )


def shrink_weights(weights: Tensor, size: torch.Size) -> Tensor:
    """Bring weights `[B, y, x]` that sum to 1 per frame to the cells of a smaller grid of the same extent, `size`."""
    rows, columns = size
    shrunk = functional.adaptive_avg_pool2d(weights[:, None], (rows, columns))[:, 0]
    return shrunk / shrunk.sum(dim=(-2, -1), keepdim=True)


def draw_cells(weights: Tensor, count: int, step: int) -> Tensor:
    """Draw `count` cells `[B, count]` of each frame with replacement, by `weights` `[B, y, x]`; cell y * width + x.

    The same random numbers serve every frame. They depend on the step alone, so that neither resuming nor the share of
    a process in the batch changes what is drawn.
    """
    generator = torch.Generator().manual_seed(step)
    places = torch.rand(count, generator=generator).to(weights.device, torch.float64)
    shares = weights.flatten(1).double().cumsum(dim=1)
    # The first cell whose cumulated weight is beyond the place: never one without weight.
    return torch.searchsorted(shares, places * shares[:, -1:], right=True)


def take_cells(features: Tensor, cells: Tensor) -> Tensor:
    """Take the cells `[B, n]` of features `[B, C, y, x]`: `[B, n, C]`."""
    index = cells[:, None].expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, index).transpose(1, 2)
