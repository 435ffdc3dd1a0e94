"""Predictions fused along each scene, as the local map of a vehicle fuses them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.data.sample import Sample
from bridgeta_core.evaluation.seen import SeenCells
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.local_map import LocalMap

GAIN = 0.5
"""Least weight of a keyframe. In the half second from one to the next a vehicle forgets as much at 10 Hz and 0.13."""
_MARGIN = 10.0  # metres around the grid, so that its corners stay inside while the ego turns


class Fusion:
    """Fuse the predictions of successive samples of a scene; a new scene starts anew."""

    def __init__(self, grid: BevGrid, cells: SeenCells) -> None:
        farthest = 2 * float(grid.ranges().max()) + _MARGIN
        size = np.ceil(farthest / grid.resolution) * grid.resolution
        self._map, self._cells, self._scene = LocalMap(grid, float(size), gain=GAIN), cells, ""

    def add(self, sample: Sample, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fuse a sample's prediction `[6, Y, X]` with those of its scene before it, and return the map around it.

        What no camera has looked at so far keeps the prediction of this sample.
        """
        if sample.scene != self._scene:
            self._map.reset()
            self._scene = sample.scene
        self._map.update(probabilities, self._cells.find_in_view(sample), sample.global_T_ego)
        fused = self._map.look_up(sample.global_T_ego)
        return np.where(np.isnan(fused), probabilities, fused)
