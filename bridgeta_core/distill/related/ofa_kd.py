"""OFA-KD, "One for all", Hao et al. 2023 (arXiv 2310.19444), read in its released code.

Networks of different kinds have different features, and only in the space of class logits are these alike. So the
student's inner features pass through branches to logits of their own, and all are compared with the teacher's output.
The outcome that the label says is enhanced, the more so the surer the teacher is of it.

Published: the loss, weights of 1, an exponent of 1 to 1.5. Ours: the binary form per class and cell, in which two
outcomes take the place of the classes; dense branches on the grid without pooling; different exponents for present and
absent classes. Not verified: how the paper's text writes the exponent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.dense import DenseHead, list_stage_widths
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class OfaKd(Distiller):
    """The student's logits, and those of branches at F and at every stage of its decoder, against the teacher's.

    Where a class is not known nothing is enhanced: its target is the teacher's probability.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        widths = [student.config.decoder.width, *list_stage_widths(student)]
        self.branches = nn.ModuleList(_build_branch(width, student) for width in widths)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/Z`, and `kd/branch_I` with F as I = 0 and the stages of the decoder from 1 on."""
        own, losses = self.config.ofa_kd, {}
        if own.output > 0:
            losses["kd/Z"] = context.strength * own.output * self._compare(teacher.Z, student.Z, labels)
        if own.branches > 0:
            inner = [torch.relu(student.F), *context.stages]
            for i, (branch, features) in enumerate(zip(self.branches, inner, strict=True)):
                value = self._compare(teacher.Z, branch(features), labels)
                losses[f"kd/branch_{i}"] = context.strength * own.branches * value
        return losses

    def _compare(self, teacher: Tensor, student: Tensor, labels: Labels) -> Tensor:
        """Sum over classes the mean enhanced cross-entropy."""
        own, present = self.config.ofa_kd, labels.masks > 0
        exponent = torch.where(present, own.present, own.absent)
        exponent = torch.where(labels.known[:, :, None, None], exponent, 1.0)
        with torch.autocast(student.device.type, enabled=False):
            return enhanced_cross_entropy(teacher.float(), student.float(), present, exponent).mean(dim=(0, 2, 3)).sum()


def _build_branch(width: int, student: Student) -> DenseHead:
    """Build two separable convolutions to logits."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return DenseHead(nn.Sequential(*layers), width, student)


def enhanced_cross_entropy(teacher: Tensor, student: Tensor, present: Tensor, exponent: Tensor) -> Tensor:
    """Compute -((1 + q_T)^g - 1) log q_S - (1 - q_T)^g log(1 - q_S) of logits, per element.

    q is the probability that a network gives to what the label says, `present` or not, and g the `exponent`, 1 or more.
    With g = 1 it is the cross-entropy with q_T; beyond, its minimum lies nearer to the label.
    """
    sign = torch.where(present, 1.0, -1.0)
    q = torch.sigmoid(sign * teacher)
    for_label, against = (1 + q) ** exponent - 1, torch.sigmoid(-sign * teacher) ** exponent
    return -for_label * functional.logsigmoid(sign * student) - against * functional.logsigmoid(-sign * student)
