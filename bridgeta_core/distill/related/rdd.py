"""RDD, "Relative difficulty distillation", Liang et al. 2024 (arXiv 2407.03719), read in its released code.

The teacher does not say what to learn here, labels do; it says where. At first, cells count more that are easy for it:
those on which its output agrees with an auxiliary head inside it. Later, those that exactly one of teacher and student
finds hard. The paper adds logit distillation.

Published: both stages, the threshold, the share of hard cells, a tenth of the steps for the first, logit distillation
at temperature 1 with weight 1, and the gradual turn as a variant. Ours: the binary form per class and cell, focal loss
in the place of cross-entropy, an auxiliary head fitted to the frozen teacher's F, and the gradual turn as the default,
because hard cells alone starve rare classes. Left out: a second, auxiliary output of the student, and weights of the
classes. Not verified: the equations of the paper's text.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.dense import DenseHead, fit_head
from bridgeta_core.distill.distance import bernoulli_kl, logit_divergence
from bridgeta_core.distill.normalise import tap_widths
from bridgeta_core.model.decoder import convolution
from bridgeta_core.model.losses import focal_loss, focal_map
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

PLACES = {
    "one": torch.logical_xor,
    "either": torch.logical_or,
    "both": torch.logical_and,
    "student": lambda student, teacher: student,
}
"""Which cells count, of those that are hard for the student and those that are hard for the teacher."""


class Rdd(Distiller):
    """The label loss on the cells that the teacher chooses, in the place of the plain one, and logit distillation.

    As the loop adds the plain label loss, `label/difficulty` is what the chosen cells make of it, and may be negative.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        width = tap_widths(teacher)["F"]
        self.auxiliary = DenseHead(convolution(width, width), width, student).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Rdd:
        """Keep the auxiliary head, which is a part of the teacher, in eval mode."""
        super().train(mode)
        self.auxiliary.eval()
        return self

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Fit the auxiliary head."""
        own = self.config.rdd
        self.auxiliary.requires_grad_(True)
        fit_head(self.auxiliary, examples, lambda example: torch.relu(example.taps.F), own.fit_epochs, own.fit_rate)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `label/difficulty`, and `kd/Z` where it has a weight."""
        own, self.report = self.config.rdd, {}
        share = self._share_of_easy(context.progress)
        plain = focal_loss(student.Z, labels.masks, labels.known, context.gamma)
        chosen = torch.zeros_like(plain)
        if share > 0:
            chosen = chosen + share * self._weigh_easy(teacher, student, labels, context.gamma)
        if share < 1:
            chosen = chosen + (1 - share) * self._select_hard(teacher, student, labels, context.gamma)
        losses = {"label/difficulty": chosen - plain}
        if own.logits > 0:
            losses["kd/Z"] = context.strength * own.logits * logit_divergence(teacher.Z, student.Z, own.tau)
        return losses

    def _share_of_easy(self, progress: float) -> float:
        """Return the share of the first stage in the loss: 1 at first, then falling to 0."""
        own = self.config.rdd
        if progress < own.easy or own.easy == 1:
            return 1.0
        return 0.0 if own.turn == "once" else (1 - progress) / (1 - own.easy)

    def _weigh_easy(self, teacher: Taps, student: Taps, labels: Labels, gamma: float) -> Tensor:
        """Compute the focal loss with the weights exp(-KL(auxiliary || output)) of the teacher."""
        with torch.no_grad(), torch.autocast(teacher.Z.device.type, enabled=False):
            auxiliary = self.auxiliary(torch.relu(teacher.F.float()))
            weights = weigh_by_agreement(auxiliary, teacher.Z.float())
            known = labels.known[:, :, None, None].expand_as(weights)
            mean = (weights * known).sum() / known.sum().clamp(min=1)
        self.report["mean_weight"] = mean
        if self.config.rdd.rescale:
            weights = weights / mean.clamp(min=1e-6)
        return focal_loss(student.Z, labels.masks, labels.known, gamma, weights)

    def _select_hard(self, teacher: Taps, student: Taps, labels: Labels, gamma: float) -> Tensor:
        """Compute the focal loss of each class averaged over the cells that count, summed over classes."""
        own = self.config.rdd
        hard = [find_hard(x.Z.detach(), labels, own.threshold, own.hardest) for x in (student, teacher)]
        counted = PLACES[own.places](*hard)
        self.report["hard_cells"] = counted.float().mean()
        per_class = (counted * focal_map(student.Z, labels.masks, gamma)).sum(dim=(0, 2, 3))
        return (per_class / counted.sum(dim=(0, 2, 3)).clamp(min=1)).sum()


def weigh_by_agreement(auxiliary: Tensor, output: Tensor) -> Tensor:
    """Compute exp(-KL(auxiliary || output)) of logits, per element: 1 where a network's two heads agree."""
    return torch.exp(-bernoulli_kl(auxiliary, output).clamp(min=0))


def find_hard(logits: Tensor, labels: Labels, threshold: float, hardest: float) -> Tensor:
    """Find the cells `[B, 6, Y, X]` to whose label a network gives a probability of at most `threshold`.

    Where fewer than the share `hardest` of the known cells of a class in the batch are below it, it is raised to them.
    """
    sign = 2 * labels.masks.float() - 1
    q = torch.sigmoid(sign * logits.float())
    known = labels.known[:, :, None, None].expand_as(q)
    ordered = torch.where(known, q, torch.inf).transpose(0, 1).flatten(1).sort(dim=1).values
    rank = (hardest * known.sum(dim=(0, 2, 3))).ceil().long().clamp(min=1) - 1
    limit = ordered.gather(1, rank[:, None]).clamp(min=threshold)
    return known & (q <= limit[:, :, None])
