"""Segmentation head: from BEV features on their own grid to logits on the label grid."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bridgeta_core.config.experiment import HeadConfig
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.decoder import convolution

_PRIOR = 0.1  # probability of every class before training, so that the focal loss starts small


class GridResampler(nn.Module):
    """Bilinear resampling of `[B, C, Y, X]` on grid `source` to `[B, C, Y', X']` on grid `target`.

    Both grids are aligned with the axes, so rows and columns are interpolated one after the other. Beyond the outermost
    cell centres of the source, the outermost values hold.
    """

    row: Tensor
    row_weight: Tensor
    column: Tensor
    column_weight: Tensor

    def __init__(self, source: BevGrid, target: BevGrid) -> None:
        super().__init__()
        self.identity = source == target
        x, y = target.centres()
        for name, positions, low, cells in (
            ("row", y, source.y_min, source.shape[0]),
            ("column", x, source.x_min, source.shape[1]),
        ):
            index, weight = _find_neighbours((positions - low) / source.resolution - 0.5, cells)
            self.register_buffer(name, torch.from_numpy(index), persistent=False)
            self.register_buffer(f"{name}_weight", torch.from_numpy(weight), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Resample features to the cells of the target."""
        if self.identity:
            return features
        # Channels last, so that a row or a cell is copied in one piece: four times as fast as on planes [y, x].
        x = features.permute(0, 2, 3, 1)
        x = self._interpolate(x, 1, self.row, self.row_weight[:, None, None])
        x = self._interpolate(x, 2, self.column, self.column_weight[:, None])
        return x.permute(0, 3, 1, 2)

    @staticmethod
    def _interpolate(x: Tensor, axis: int, index: Tensor, weight: Tensor) -> Tensor:
        low, high = x.index_select(axis, index[0]), x.index_select(axis, index[1])
        return torch.lerp(low, high, weight.to(x.dtype))


def _find_neighbours(positions: NDArray[np.float64], cells: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the two source cells `[2, n]` around each position in cells, and the weight `[n]` of the second."""
    inside = positions.clip(0, cells - 1)
    low = np.minimum(np.floor(inside), max(cells - 2, 0)).astype(np.int64)
    return np.stack([low, np.minimum(low + 1, cells - 1)]), (inside - low).astype(np.float32)


class SegmentationHead(nn.Module):
    """D `[B, inputs, Y, X]` on `source` to logits `[B, 6, Y', X']` on `target`; every class is a binary problem.

    Resampling, two 3x3 convolutions and a 1x1, as in BEVFusion's map segmentation.
    """

    def __init__(self, inputs: int, config: HeadConfig, source: BevGrid, target: BevGrid) -> None:
        super().__init__()
        self.resample = GridResampler(source, target)
        self.layers = nn.Sequential(convolution(inputs, config.width), convolution(config.width, config.width))
        self.classify = nn.Conv2d(config.width, len(CLASSES), 1)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits, one channel per class of `classes.CLASSES`."""
        return self.classify(self.layers(self.resample(features)))
