"""How well results agree with the ground-truth grids of the same bag."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bridgeta_core.evaluation.metric import RANGES, IoU, MapIoU
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid


def grid_values(message: Any, grid: BevGrid) -> NDArray[np.int8] | None:
    """The values `[Y, X]` of an OccupancyGrid, or None when it does not lie on `grid`."""
    info = message.info
    origin, turn = info.origin.position, info.origin.orientation
    here = (info.height, info.width) == grid.shape and np.allclose(
        (info.resolution, origin.x, origin.y, abs(turn.w)), (grid.resolution, grid.x_min, grid.y_min, 1.0), atol=1e-4
    )
    return np.frombuffer(message.data, dtype=np.int8).reshape(grid.shape) if here else None


class Agreement:
    """Pairs each ground truth with the result of the nearest stamp, and scores the pairs with the protocol's metric.

    Grids and results may come in any interleaving. Results of the last `window_ns` are kept; a ground truth without a
    result within `tolerance_ns` does not count, nor do unknown cells (-1).
    """

    def __init__(self, grid: BevGrid, tolerance_ns: int = 60_000_000, window_ns: int = 1_000_000_000) -> None:
        self.pairs = 0
        self._metric = MapIoU(grid)
        self._tolerance, self._window = tolerance_ns, window_ns
        self._truths: dict[int, dict[str, NDArray[np.int8]]] = {}
        self._results: deque[tuple[int, NDArray[np.float32]]] = deque()

    def add_truth(self, ns: int, name: str, values: NDArray[np.int8]) -> None:
        """One class's occupancy values `[Y, X]`; a class that does not come is unknown."""
        self._truths.setdefault(ns, {})[name] = values

    def add_result(self, ns: int, probabilities: NDArray[np.float32]) -> None:
        """A result `[6, Y, X]`; ground truths that no later one can be nearer to are counted."""
        self._results.append((ns, probabilities))
        while self._results[0][0] < ns - self._window:
            self._results.popleft()
        self._settle([stamp for stamp in self._truths if stamp + self._tolerance < ns])

    def result(self) -> IoU:
        """The metric, once no more of either will come."""
        self._settle(list(self._truths))
        return self._metric.result()

    def _settle(self, stamps: list[int]) -> None:
        for stamp in stamps:
            truth = self._truths.pop(stamp)
            near = [(abs(ns - stamp), p) for ns, p in self._results if abs(ns - stamp) <= self._tolerance]
            if not near:
                continue
            probabilities = min(near, key=lambda pair: pair[0])[1]
            unknown = np.full(probabilities.shape[1:], -1, dtype=np.int8)
            values = torch.from_numpy(np.stack([truth.get(name, unknown) for name in CLASS_NAMES]))[None]
            self._metric.update(torch.from_numpy(probabilities)[None], values >= 50, values >= 0)
            self.pairs += 1


def as_table(iou: IoU) -> dict[str, dict[str, float | None]]:
    """Per class the IoU at 0.5 (`half`), the `best` over the thresholds, its `threshold`, and by range at that one;
    None where there is nothing to score.
    """
    columns = {"half": iou.half, "best": iou.best, "threshold": iou.threshold}
    columns |= {f"{near:.0f}-{far:.0f} m": iou.by_range[:, i] for i, (near, far) in enumerate(RANGES)}
    return {
        name: {key: None if math.isnan(v := float(values[c])) else v for key, values in columns.items()}
        for c, name in enumerate(CLASS_NAMES)
    }
