"""The metric of a validation pass, over all frames and by the light and weather of their scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.evaluation.metric import (
    RANGES,
    THRESHOLDS,
    MapIoU,
    by_range,
    intersection_over_union,
    mean,
    plain,
    range_labels,
)
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid

GROUPS = {"day": (0, 2), "night": (1, 3), "dry": (0, 1), "rain": (2, 3)}
"""Conditions by name: which of the groups that `groups_of` forms belong to each."""


def groups_of(dataset: FrameDataset) -> dict[str, int]:
    """The group of every sample by its token: 1 for a scene at night, plus 2 for one in rain."""
    scenes = dataset.dataset.scenes
    group = {i: scene.night + 2 * scene.rain for scene in scenes for i in scene.samples}
    return {dataset.dataset.tokens[i].decode(): group[i] for i in dataset.positions}


class ConditionIoU:
    """Counts cells as `MapIoU` does, in one group per combination of conditions.

    `counts` int64 `[4, 6, ranges + 1, thresholds + 1, 2]` and `samples` int64 `[4]` of several processes may be added.
    """

    def __init__(self, grid: BevGrid, groups: Mapping[str, int]) -> None:
        self._grid, self._groups = grid, groups
        self.reset()

    def reset(self) -> None:
        """Start again."""
        self.metrics = [MapIoU(self._grid) for _ in range(4)]
        self.samples = torch.zeros(len(self.metrics), dtype=torch.int64)

    @property
    def counts(self) -> Tensor:
        """The counts of all groups."""
        return torch.stack([metric.counts for metric in self.metrics])

    def update(self, probabilities: Tensor, labels: Tensor, known: Tensor, tokens: Sequence[str]) -> None:
        """Add a batch as `MapIoU.update` takes it, and the tokens of its samples."""
        groups = torch.tensor([self._groups.get(token, 0) for token in tokens])
        for group in groups.unique().tolist():
            rows = (groups == group).nonzero().squeeze(1)
            chosen = rows.to(probabilities.device)
            self.metrics[group].update(probabilities[chosen], labels[chosen], known[chosen])
            self.samples[group] += len(rows)

    def result(self, counts: Tensor, samples: Tensor) -> dict[str, Any]:
        """The IoU from counts and samples of all processes as plain values, null where nothing is scored.

        `miou` and `miou_at_0.5`, the `classes` (IoU at the best threshold and at 0.5, and both by range), the means by
        range in `ranges`, and the same for the samples of every condition that occurs in `conditions`.
        """
        conditions = {
            name: self._scores(counts[list(groups)].sum(0), int(samples[list(groups)].sum()))
            for name, groups in GROUPS.items()
            if samples[list(groups)].sum()
        }
        return {**self._scores(counts.sum(0), int(samples.sum())), "conditions": conditions}

    def _scores(self, counts: Tensor, samples: int) -> dict[str, Any]:
        metric = MapIoU(self._grid)
        metric.counts = counts
        iou, half = metric.result(), _half_by_range(counts.cpu().numpy())
        content = iou.to_mapping()
        for name, values in zip(CLASS_NAMES, half, strict=True):
            content["classes"][name]["iou_by_range_at_0.5"] = by_range(values)
        ranges = {
            label: {"miou": plain(mean(iou.by_range[:, r])), "miou_at_0.5": plain(mean(half[:, r]))}
            for r, label in enumerate(range_labels())
        }
        return {"samples": samples, **content, "ranges": ranges}


def _half_by_range(counts: Any) -> Any:
    """IoU at the threshold 0.5 `[6, ranges]` from the counts of `MapIoU`; levels above a threshold have reached it."""
    near = counts[:, : len(RANGES)]
    reached = near[:, :, THRESHOLDS.index(0.5) + 1 :].sum(axis=2)
    return intersection_over_union(reached[..., 1], reached[..., 0], near[..., 1].sum(axis=2))
