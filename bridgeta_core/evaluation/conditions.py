"""The metric of a validation, over all frames and by the light and weather of their scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.geometry.grid import BevGrid

GROUPS = {"day": (0, 2), "night": (1, 3), "dry": (0, 1), "rain": (2, 3)}
"""Conditions by name: which of the groups of `group_samples` belong to each."""


def group_samples(dataset: FrameDataset) -> dict[str, int]:
    """Map the token of every sample to its group: 1 for a scene at night, plus 2 for one in rain."""
    scenes = dataset.dataset.scenes
    group = {i: scene.night + 2 * scene.rain for scene in scenes for i in scene.samples}
    return {dataset.dataset.tokens[i].decode(): group[i] for i in dataset.positions}


class ConditionIoU:
    """Count cells as `MapIoU` does, in one group per combination of conditions.

    `counts` int64 `[4, 6, ranges + 1, thresholds + 1, 2]` and `samples` int64 `[4]` of several processes may be added.
    """

    def __init__(self, grid: BevGrid, groups: Mapping[str, int]) -> None:
        self._grid, self._groups = grid, groups
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.metrics = [MapIoU(self._grid) for _ in range(4)]
        self.samples = torch.zeros(len(self.metrics), dtype=torch.int64)

    @property
    def counts(self) -> Tensor:
        """The counts of all groups, stacked."""
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
        """Compute the IoU from counts and samples of all processes, as plain values for JSON.

        They are those of `IoU.to_mapping` with the number of `samples`, and in `conditions` the same for the samples of
        every condition that occurs.
        """
        conditions = {
            name: self._score(counts[list(groups)].sum(0), int(samples[list(groups)].sum()))
            for name, groups in GROUPS.items()
            if samples[list(groups)].sum()
        }
        return {**self._score(counts.sum(0), int(samples.sum())), "conditions": conditions}

    def _score(self, counts: Tensor, samples: int) -> dict[str, Any]:
        metric = MapIoU(self._grid)
        metric.counts = counts
        return {"samples": samples, **metric.result().to_mapping(half_by_range=True)}
