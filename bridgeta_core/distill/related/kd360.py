"""KD360-VoxelBEV, E et al. 2025 (arXiv 2512.15311), read in its released code.

A network of LiDAR and a panoramic camera teaches one of the camera alone, at three stages: the similarities between the
cells of the BEV feature, and where the channels inside the decoder and those of the logits fire.

Published: the three stages, a temperature of 3, weights learned by uncertainty where there are several terms, and a run
with the third stage alone. Ours: the term of similarities gives the student a gradient, which the release withholds
because the detached side is the student's; windows of 16 cells a side instead of 100; classes that no one sees do not
count; weights that are not learned as the default; and the label loss stays at weight 1. Left out: the teacher of the
paper (LiDAR images lifted through occupied voxels, a gate that fuses them with the cameras), for ours teaches. Not
verified: the paper's text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import AreaAverage
from bridgeta_core.distill.channels import compare_channels, select_classes
from bridgeta_core.distill.dense import list_stage_widths
from bridgeta_core.distill.distance import logit_divergence
from bridgeta_core.distill.normalise import TeacherScale, fit_scales
from bridgeta_core.distill.stages import StageAdapter, compute_stages
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class Kd360(Distiller):
    """Similarities of cells at F, and channel-wise divergences of the decoder's last stage and of Z."""

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        own = config.kd360
        super().__init__(config, student, teacher, ["F"] if own.affinity > 0 else ())
        self.weights = {name: weight for name in ("affinity", "inner", "output") if (weight := getattr(own, name)) > 0}
        self.stage = StageAdapter(student, teacher, -1, -1) if own.inner > 0 else None
        self.scale = TeacherScale(list_stage_widths(teacher)[-1])
        self.area = AreaAverage(student.grid, student.bev_grid)
        self.uncertainty = nn.Parameter(torch.zeros(len(self.weights))) if own.learned else None

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the statistics of the last stage of the teacher's decoder on training frames."""
        if self.stage is not None:
            outputs = ({"inner": compute_stages(teacher, example.taps.F)[-1]} for example in examples)
            fit_scales({"inner": [self.scale]}, outputs)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Leave the learned weights without decay, which would pull them towards 1/2."""
        return [] if self.uncertainty is None else [{"params": [self.uncertainty], "weight_decay": 0.0}]

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/affinity`, `kd/inner` and `kd/output`, and `kd/Z` of logit distillation, those with a weight."""
        own, losses = self.config.kd360, {}
        with torch.autocast(student.F.device.type, enabled=False):
            values = {name: self._compare(name, teacher, student, labels, context) for name in self.weights}
        for i, (name, value) in enumerate(values.items()):
            weighted = self.weights[name] * value
            if self.uncertainty is not None:
                weighted = weigh_by_uncertainty(value, self.uncertainty[i])
            losses[f"kd/{name}"] = context.strength * weighted
        if own.logits > 0:
            divergence = logit_divergence(teacher.Z, student.Z, self.config.logits.tau)
            losses["kd/Z"] = context.strength * own.logits * divergence
        self.report = {f"distance_{name}": value.detach() for name, value in values.items()}
        return losses

    def _compare(self, name: str, teacher: Taps, student: Taps, labels: Labels, context: Context) -> Tensor:
        """Compute a term without its weight."""
        own = self.config.kd360
        if name == "affinity":
            return compare_affinities(teacher.F.float(), self.adapter(student).F.float(), own.window)
        if name == "output":
            t, s = teacher.Z.float(), student.Z.float()
            return compare_channels(t, s, own.tau, torch.ones_like(t[0, 0]), select_classes(labels, t))
        assert self.stage is not None
        t = compute_stages(context.teacher, teacher.F)[-1].float()
        s = self.stage(context.stages[-1].float(), t.shape[-2:])
        rows, columns = t.shape[-2:]
        inside = functional.adaptive_avg_pool2d(self.area.inside[None], (rows, columns))[0] > 0.5
        return compare_channels(self.scale(t), self.scale(s), own.tau, inside.float())


def weigh_by_uncertainty(value: Tensor, s: Tensor) -> Tensor:
    """Compute exp(-s) value / 2 + s / 2, which is smallest at s = log value (Kendall et al. 2018, arXiv 1705.07115)."""
    return (torch.exp(-s) * value + s) / 2


def compare_affinities(t: Tensor, s: Tensor, window: int) -> Tensor:
    """Average |A_T - A_S| over the pairs of cells in the same window of `[B, C, Y, X]`, A the cosines of the pairs.

    Windows have `window` cells along each side, and fewer at the far ends.
    """
    difference = (_compute_affinities(t, window) - _compute_affinities(s, window)).abs().sum()
    pairs = len(t)
    for cells in t.shape[-2:]:
        pairs *= (cells // window) * window**2 + (cells % window) ** 2
    return difference / pairs


def _compute_affinities(x: Tensor, window: int) -> Tensor:
    """Compute the cosines `[B, windows, n, n]` of the cells of each window; 0 for what fills up the last ones."""
    unit = functional.normalize(x, dim=1, eps=1e-6)
    rows, columns = (-cells % window for cells in x.shape[-2:])
    tiles = functional.pad(unit, (0, columns, 0, rows)).unfold(2, window, window).unfold(3, window, window)
    cells = tiles.permute(0, 2, 3, 1, 4, 5).flatten(4).flatten(1, 2)  # [B, windows, C, n]
    return cells.transpose(2, 3) @ cells
