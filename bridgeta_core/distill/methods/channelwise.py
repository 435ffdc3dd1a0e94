"""Channel-wise distillation, Shu et al. 2021 (arXiv 2011.13256): where a channel fires, not how strongly (R3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import AreaAverage
from bridgeta_core.distill.channels import compare_channels, select_classes
from bridgeta_core.distill.normalise import FEATURES, Normaliser, collect_scales, fit_scales, tap_widths
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


class ChannelWise(Distiller):
    """tau^2 KL between each channel's softmax over the cells, the teacher's against the student's.

    The softmax ignores a constant added to a channel, so on Z this teaches no calibration. The map of an absent class
    would be a distribution of noise; with `presence`, only classes count that the labels or the teacher (probability
    above 0.1) show in a frame.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, config.channelwise.levels)
        own = config.channelwise
        unknown = sorted(set(own.weight) - {"F", "D", "Z"})
        if unknown or not own.levels:
            what = f"weight names {', '.join(unknown)}" if unknown else "levels is empty"
            raise BridgeTAError(f"distill.channelwise.{what}", fix="The levels are F, D and Z", exit_code=2)
        widths = tap_widths(teacher)
        chosen = [level for level in FEATURES if level in own.levels]
        self.normalisers = nn.ModuleDict({level: Normaliser("teacher", widths[level]) for level in chosen})
        self.area = AreaAverage(student.grid, student.bev_grid)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        fit_scales(collect_scales(self.normalisers), (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute a term `kd/LEVEL` per chosen level."""
        own, losses = self.config.channelwise, {}
        student = self.adapter(student)
        for level in own.levels:
            t, s = getattr(teacher, level).float(), getattr(student, level).float()
            counted, inside = None, torch.ones_like(t[0, 0])
            if level != "Z":
                normalise = self.normalisers[level]
                t, s, inside = normalise(t), normalise(s), self.area.inside
            elif own.presence:
                counted = select_classes(labels, t)
            value = compare_channels(t, s, own.tau, inside, counted)
            losses[f"kd/{level}"] = context.strength * own.weight.get(level, 1.0) * value
        return losses
