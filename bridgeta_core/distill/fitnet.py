"""Feature hints after FitNets, Romero et al. 2015 (arXiv 1412.6550), as an added loss (R2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.cells import CellWeights
from bridgeta_core.distill.distance import squared
from bridgeta_core.distill.normalise import Normaliser, fit, scales_of
from bridgeta_core.model.student import Student, StudentOutput
from bridgeta_core.model.teacher import Teacher, TeacherOutput
from bridgeta_core.utils.errors import BridgeTAError


class FitNet(Distiller):
    """The weighted squared difference of features, the student's behind a 1x1 convolution that starts as the identity.

    The adapter can absorb a part of the gap without the student changing; off, the features themselves are compared.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher)
        own = config.fitnet
        if not own.levels:
            raise BridgeTAError("distill.fitnet.levels is empty", fix="Name F or D", exit_code=2)
        widths = {"F": student.config.decoder.width, "D": student.decoder.channels}
        self.normalisers = nn.ModuleDict({x: Normaliser(own.normalise, widths[x]) for x in own.levels})
        self.adapters = nn.ModuleDict({x: nn.Conv2d(widths[x], widths[x], 1) for x in own.levels if own.adapter})
        for adapter in self.adapters.values():
            nn.init.dirac_(cast(Tensor, adapter.weight))
            nn.init.zeros_(cast(Tensor, adapter.bias))
        self.cells = CellWeights(own.cells, student.grid, student.bev_grid)

    def prepare(self, teacher: Iterable[TeacherOutput]) -> None:
        """Take the teacher's statistics over training frames."""
        fit(scales_of(self.normalisers), teacher)

    def losses(
        self, teacher: TeacherOutput, student: StudentOutput, labels: Labels, context: Context
    ) -> dict[str, Tensor]:
        """`kd/F` and `kd/D`, as far as they are chosen."""
        weights = self.cells(labels, teacher.Z).feature
        losses = {}
        with torch.autocast(student.F.device.type, enabled=False):
            for level, normalise in self.normalisers.items():
                target, own = normalise(getattr(teacher, level)), normalise(getattr(student, level))
                if level in self.adapters:
                    own = self.adapters[level](own)
                value = squared(target, own, weights)
                losses[f"kd/{level}"] = context.strength * self.config.fitnet.weight * value
        return losses
