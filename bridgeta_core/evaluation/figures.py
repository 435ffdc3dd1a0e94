"""Count cells by scene, and compute from the counts every figure with its interval."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.evaluation.average_precision import ProbabilityHistogram, compute_average_precision
from bridgeta_core.evaluation.bootstrap import find_intervals, resample
from bridgeta_core.evaluation.metric import (
    THRESHOLDS,
    IoU,
    MapIoU,
    average_scored,
    compute_iou,
    compute_threshold_iou,
    round_share,
)
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.arrays import Floats, Ints

IOU, HALF, PRECISION = "iou", "iou_at_0.5", "average_precision"
"""Kinds of figures, as JSON names those of a class."""
_MEANS = {IOU: "miou", HALF: "miou_at_0.5", PRECISION: "mean_average_precision"}


class SceneCounts:
    """Count cells as `MapIoU` and `ProbabilityHistogram` do, scene by scene. A scene takes 28 kB."""

    def __init__(self, grid: BevGrid) -> None:
        self._grid = grid
        self._scenes: dict[str, tuple[MapIoU, ProbabilityHistogram]] = {}

    def update(self, scene: str, probabilities: Tensor, labels: Tensor, known: Tensor) -> None:
        """Add a sample of a scene: probabilities and labels `[6, Y, X]`, and known `[6]`, or by cell `[6, Y, X]`."""
        if scene not in self._scenes:
            self._scenes[scene] = MapIoU(self._grid), ProbabilityHistogram()
        for counter in self._scenes[scene]:
            counter.update(probabilities[None], labels[None], known[None])

    def result(self) -> Figures:
        """Return the figures of all that was added."""
        metrics, histograms = zip(*self._scenes.values(), strict=True)
        return Figures(*(torch.stack([c.counts for c in counters]).numpy() for counters in (metrics, histograms)))


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of one predictor over one set of cells.

    `counts` `[scenes, 6, ranges + 1, thresholds + 1, 2]` are `MapIoU`'s and `histograms` `[scenes, 6, BINS, 2]` those
    of `ProbabilityHistogram`. Figures are by kind (IOU, HALF, PRECISION) and have seven values: of the six classes, NaN
    for one that is not scored, and the mean of the others.
    """

    counts: Ints
    histograms: Ints

    @property
    def scenes(self) -> int:
        return len(self.counts)

    @cached_property
    def iou(self) -> IoU:
        return compute_iou(self.counts.sum(axis=0))

    @cached_property
    def values(self) -> dict[str, Floats]:
        """The figures `[7]` by kind."""
        precision = compute_average_precision(self.histograms.sum(axis=0))
        return {
            IOU: np.append(self.iou.best, self.iou.miou),
            HALF: np.append(self.iou.half, self.iou.miou_half),
            PRECISION: np.append(precision, average_scored(precision)),
        }

    @cached_property
    def resampled(self) -> dict[str, Floats]:
        """The figures `[RESAMPLES, 7]` of every resample by kind, each with its own best thresholds.

        A mean is that of the same classes always: it is NaN where the drawn scenes lack one.
        """
        by_threshold = resample(lambda counts: compute_threshold_iou(counts)[0], self.counts.sum(axis=2))
        figures = {
            IOU: by_threshold.max(axis=-1),
            HALF: by_threshold[..., THRESHOLDS.index(0.5)],
            PRECISION: resample(compute_average_precision, self.histograms),
        }
        scored = ~np.isnan(self.iou.best)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no class at all
            return {kind: np.column_stack((v, v[:, scored].mean(axis=1))) for kind, v in figures.items()}

    def intervals(self, kind: str, other: Figures | None = None) -> Floats:
        """Find the intervals `[7, 2]` of figures, or of what they are above those of `other` on the same scenes.

        NaN for a single scene.
        """
        if self.scenes < 2:
            return np.full((len(CLASS_NAMES) + 1, 2), np.nan)
        values = self.resampled[kind]
        return find_intervals(values if other is None else values - other.resampled[kind])

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON: those of `IoU.to_mapping`, with average precision and intervals."""
        content = self.iou.to_mapping()
        self._add_figures(content, None)
        return content

    def subtract(self, other: Figures) -> dict[str, Any]:
        """Return what the figures are above those of another, with paired intervals, as plain values for JSON."""
        content: dict[str, Any] = {"classes": {name: {} for name in CLASS_NAMES}}
        self._add_figures(content, other)
        return content

    def _add_figures(self, content: dict[str, Any], other: Figures | None) -> None:
        for kind, mean in _MEANS.items():
            values = self.values[kind] - (0 if other is None else other.values[kind])
            intervals = [
                None if np.isnan(pair).any() else pair.round(6).tolist() for pair in self.intervals(kind, other)
            ]
            for row, value, interval in zip(content["classes"].values(), values, intervals, strict=False):
                row |= {kind: round_share(value), f"{kind}_interval": interval}
            content |= {mean: round_share(values[-1]), f"{mean}_interval": intervals[-1]}
