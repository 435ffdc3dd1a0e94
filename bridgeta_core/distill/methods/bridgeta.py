"""BridgeTA: teacher, teacher assistant, student, by Young's inequality (our derivation; docs/distillation.md).

For any vectors a, b, c and eps > 0, |a - c|^2 <= (1 + eps) |a - b|^2 + (1 + 1/eps) |b - c|^2. The right side equals
|a - c|^2 + ((1 + eps)^2 / eps) |b - b*|^2 with b* = (1 - w) a + w c and w = 1 / (1 + eps): direct distillation, and a
pull of the assistant to a point between the two networks. So an assistant can help only through what it adds to that:
its label loss, or D and Z, which the student's own decoder and head make of its F. Studies find that the latter acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import BridgeTAConfig, DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.levels import Levels, decode_with_student
from bridgeta_core.distill.normalise import TeacherScale, collect_scales, fit_scales, tap_widths
from bridgeta_core.model.assistant import TeacherAssistant
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError

_DECAY = 0.99  # of the running means behind the adaptive rule: about a hundred steps


class Young(nn.Module):
    """The eps of every level, and measures of how tight the inequality is.

    `constant` eps; `adaptive`, the tightest bound |b - c| / |a - b| of running mean lengths; or a `curriculum` in which
    w = 1 / (1 + eps) falls from 3/4 to 1/4, so that the assistant moves from the student to the teacher.
    """

    lengths: Tensor

    def __init__(self, config: BridgeTAConfig, levels: Sequence[str]) -> None:
        super().__init__()
        unknown = sorted(set(config.eps_of) - {"F", "D", "Z"})
        if unknown or any(not value > 0 for value in config.eps_of.values()):
            raise BridgeTAError(
                f"distill.bridgeta.eps_of = {config.eps_of} must give F, D or Z a positive number", exit_code=2
            )
        self.config, self.levels = config, tuple(levels)
        self.register_buffer("lengths", torch.zeros(len(self.levels), 2))

    def eps_at(self, level: str, progress: float) -> float:
        """Return eps of a level when the share `progress` of the training is done."""
        if self.config.eps_rule == "curriculum":
            w = 0.75 - 0.5 * progress
            return 1 / w - 1
        if self.config.eps_rule == "adaptive" and level in self.levels:
            ab, bc = self.lengths[self.levels.index(level)].tolist()
            if ab > 0 and bc > 0:
                return min(100.0, max(0.01, (bc / ab) ** 0.5))
        return self.config.eps_of.get(level, self.config.eps)

    def share_at(self, level: str, progress: float) -> float:
        """Return w = 1 / (1 + eps): b* lies this share of the way from the teacher to the student."""
        return 1 / (1 + self.eps_at(level, progress))

    @torch.no_grad()
    def measure(self, level: str, ab: Tensor, bc: Tensor, ac: Tensor, eps: float) -> dict[str, Tensor]:
        """Update the running lengths, and return what to log, from squared distances of teacher a, assistant b and
        student c.

        slack = right side minus left side, never negative for a squared norm. By the identity above it is
        ((1 + eps)^2 / eps) |b - b*|^2, which gives delta = |b - b*|^2 / |a - c|^2: near 0, the assistant adds nothing.
        rho is the share of the way from a to c at which b's projection lies. For divergences, which are no squared
        norms, the three are formal.
        """
        if self.training:
            row = self.lengths[self.levels.index(level)]
            new = torch.stack([ab, bc]).to(row)
            row.copy_(torch.where(row > 0, _DECAY * row + (1 - _DECAY) * new, new))
        slack = (1 + eps) * ab + (1 + 1 / eps) * bc - ac
        direct = ac.clamp(min=1e-12)
        return {
            f"slack_{level}": slack,
            f"delta_{level}": slack * eps / (1 + eps) ** 2 / direct,
            f"rho_{level}": (ab + ac - bc) / (2 * direct),
        }


class _OwnHead(nn.Module):
    """D and Z straight from the assistant's latent feature (ablation A12b)."""

    def __init__(self, latent: int, student: Student, teacher: Teacher) -> None:
        super().__init__()
        channels, classes = teacher.decoder.channels, student.head.classify.out_channels
        self.decode = nn.Sequential(nn.Conv2d(latent, channels, 3, padding=1), nn.GELU())
        self.resample = GridResampler(student.bev_grid, student.grid)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        d = self.decode(z)
        return d, self.classify(self.resample(d))


class BridgeTA(Distiller):
    """The paths teacher-assistant and assistant-student at every level, and the assistant's label loss.

    The teacher gets no gradient. The student gets that of its own label loss and of the assistant-student path; where
    its decoder and head decode the assistant's F, these two also learn from the losses on the assistant's D and Z. The
    assistant's input from the student is detached, unless `network.open`: otherwise the student would be rewarded for
    features that help only beside LiDAR.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ["F", *config.levels.levels])
        own = config.bridgeta
        self.levels = Levels(config.levels, student, teacher)
        self.young = Young(own, self.levels.names)
        # The assistant has its own space, whatever the normalisation of the distances, because it must be invertible.
        width = tap_widths(teacher)["F"]
        self.space = TeacherScale(width)
        learned = own.assistant == "learned" and own.reading != "none"
        if own.reading == "own" and not learned:
            raise BridgeTAError(
                "distill.bridgeta.reading = own needs the latent feature of a learned assistant",
                fix="Set distill.bridgeta.assistant=learned, or another reading",
                exit_code=2,
            )
        self.assistant = TeacherAssistant(width, own.network) if learned else None
        self.head = _OwnHead(own.network.channels, student, teacher) if own.reading == "own" else None

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        scales = collect_scales(self.levels.normalisers)
        scales["F"].append(self.space)
        fit_scales(scales, (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/F`, `kd/D`, `kd/Z` and `label/assistant`."""
        own, student = self.config.bridgeta, self.adapter(student)
        assistant = self.run_assistant(teacher, student, context)
        weights = self.levels.weigh_cells(labels, teacher)
        detached_assistant, detached_student = (Taps(*(x.detach() for x in taps)) for taps in (assistant, student))
        paths: dict[str, Tensor] = {}
        report: dict[str, Tensor] = {}
        for level in self.levels.names:
            ab = self.levels.measure(level, teacher, assistant, weights)
            bc = self.levels.measure(level, detached_assistant, student, weights)
            if own.kappa > 0:
                for_assistant = self.levels.measure(level, assistant, detached_student, weights)
                # Only its gradient counts: the value of the path contains the distance once.
                bc = bc + own.kappa * (for_assistant - for_assistant.detach())
            eps = self.young.eps_at(level, context.progress)
            paths[level] = (1 + eps) * ab + (1 + 1 / eps) * bc
            ac = self.levels.measure(level, teacher, student, weights)
            if own.direct > 0:
                paths[level] = paths[level] + own.direct * ac
            report |= self.young.measure(level, ab.detach(), bc.detach(), ac.detach(), eps)
        losses = self.levels.weigh_terms(paths, context.strength)
        if own.label_weight > 0 and own.reading != "none":
            label_loss = focal_loss(assistant.Z, labels.masks, labels.known, context.gamma)
            losses["label/assistant"] = own.label_weight * label_loss
        self.report = report
        return losses

    def run_assistant(self, teacher: Taps, student: Taps, context: Context) -> Taps:
        """Compute the assistant's taps from those of the teacher and the student, of the same shapes."""
        own = self.config.bridgeta
        w = self.young.share_at("F", context.progress)
        if own.reading == "none":
            return self._mix_levels(teacher, student, context.progress)
        source = student.F if own.network.open else student.F.detach()
        if self.assistant is None:
            features, z = (1 - w) * teacher.F + w * source, None
        else:
            b, z = self.assistant(self.space(teacher.F.float()), self.space(source.float()), w)
            features = self.space.inverse(b)
        if self.head is not None:
            return Taps(features, *self.head(z))
        if own.reading == "frozen":
            return context.teacher.decode(features)
        return decode_with_student(context.student, features, self.adapter)

    def _mix_levels(self, teacher: Taps, student: Taps, progress: float) -> Taps:
        """Mix teacher and student at each level, Z as probabilities, without any network (ablation A5)."""
        w = {level: self.young.share_at(level, progress) for level in Taps._fields}
        tau = self.levels.config.tau
        p, q = (torch.sigmoid(z.detach().float() / tau) for z in (teacher.Z, student.Z))
        return Taps(
            F=(1 - w["F"]) * teacher.F + w["F"] * student.F.detach(),
            D=(1 - w["D"]) * teacher.D + w["D"] * student.D.detach(),
            Z=tau * torch.logit((1 - w["Z"]) * p + w["Z"] * q, eps=1e-7),
        )

    def calibrate(self, label_loss: Tensor, student: Taps, losses: dict[str, Tensor], share: float) -> None:
        """Set the weights of the levels."""
        self.levels.calibrate(label_loss, student.F, losses, share)

    def select_warmup_parameters(self, student: Student) -> list[nn.Parameter]:
        """Select the student's decoder and head, where they are the assistant's too."""
        if self.config.bridgeta.reading != "shared":
            return []
        return [*student.decoder.parameters(), *student.head.parameters()]

    def predict_assistant(self, teacher: Taps, student: Taps, context: Context) -> Tensor:
        """Predict the assistant's logits `[B, 6, Y, X]`, to score beside the student's."""
        return self.run_assistant(teacher, self.adapter(student), context).Z
