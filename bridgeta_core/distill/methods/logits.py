"""Logit distillation after Hinton et al. 2015 (arXiv 1503.02531), for classes that overlap (R1)."""

from __future__ import annotations

import torch
from torch import Tensor

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.cells import CellWeighting
from bridgeta_core.distill.distance import bernoulli_kl
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class Logits(Distiller):
    """tau^2 KL between the tempered probabilities, per class and cell: a softmax would make the classes compete."""

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        kind = "balanced" if config.logits.balanced else "uniform"
        self.cells = CellWeighting(kind, student.grid, student.bev_grid)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/Z`."""
        own = self.config.logits
        weights = self.cells(labels, teacher.Z).label[:, None].expand_as(student.Z)
        if own.correct_only:
            right = ((teacher.Z > 0) == (labels.masks > 0)) | ~labels.known[:, :, None, None]
            weights = weights * right
            weights = weights / weights.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
        with torch.autocast(student.Z.device.type, enabled=False):
            per_cell = bernoulli_kl(teacher.Z.float() / own.tau, student.Z.float() / own.tau)
        value = own.tau**2 * (weights * per_cell).sum(dim=(1, 2, 3)).mean()
        return {"kd/Z": context.strength * own.weight * value}
