"""Feature hints after FitNets, Romero et al. 2015 (arXiv 1412.6550), as an added loss (R2)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import CellWeighting
from bridgeta_core.distill.distance import squared_distance
from bridgeta_core.distill.normalise import Normaliser, build_identity, collect_scales, fit_scales, tap_widths
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


class FitNet(Distiller):
    """The weighted squared difference of features, the student's behind a 1x1 convolution that starts as the identity.

    The adapter can absorb part of the gap, so that the student need not change. `adapter` off compares the features
    themselves.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, config.fitnet.levels)
        own = config.fitnet
        if not own.levels:
            raise BridgeTAError("distill.fitnet.levels is empty", fix="Name F or D", exit_code=2)
        widths = tap_widths(teacher)
        self.normalisers = nn.ModuleDict({x: Normaliser(own.normalise, widths[x]) for x in own.levels})
        self.adapters = nn.ModuleDict({x: build_identity(widths[x], widths[x]) for x in own.levels if own.adapter})
        self.cells = CellWeighting(own.cells, student.grid, student.bev_grid)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        fit_scales(collect_scales(self.normalisers), (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/F` and `kd/D`, those that are chosen."""
        weights = self.cells(labels, teacher.Z).feature
        student, losses = self.adapter(student), {}
        with torch.autocast(student.F.device.type, enabled=False):
            for level, normalise in self.normalisers.items():
                target, own = normalise(getattr(teacher, level)), normalise(getattr(student, level))
                if level in self.adapters:
                    own = self.adapters[level](own)
                value = squared_distance(target, own, weights)
                losses[f"kd/{level}"] = context.strength * self.config.fitnet.weight * value
        return losses
