"""BridgeTA: teacher, teacher assistant, student, by Young's inequality (our derivation; docs/distillation.md).

For any vectors a, b, c and eps > 0, |a - c|^2 <= (1 + eps) |a - b|^2 + (1 + 1/eps) |b - c|^2. The right side equals
|a - c|^2 + ((1 + eps)^2 / eps) |b - b*|^2 with b* = (1 - w) a + w c and w = 1 / (1 + eps): direct distillation, and a
pull of the assistant to a point between the two networks. So the assistant helps through what it adds to that: its own
label loss, read by the student's own decoder and head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import BridgeTAConfig, DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.levels import Levels, Taps, read_by_student
from bridgeta_core.distill.normalise import TeacherScale, fit, scales_of
from bridgeta_core.model.assistant import TeacherAssistant
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, StudentOutput
from bridgeta_core.model.teacher import Teacher, TeacherOutput
from bridgeta_core.utils.errors import BridgeTAError

_DECAY = 0.99  # of the running means behind the adaptive rule: about a hundred steps


class Young(nn.Module):
    """eps of every level: `constant`; `adaptive`, the tightest bound |b - c| / |a - b| of running mean lengths; or a
    `curriculum` in which w = 1 / (1 + eps) falls from 3/4 to 1/4, so that the assistant walks from student to teacher.
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

    def eps(self, level: str, progress: float) -> float:
        """The constant of a level when the share `progress` of the training is done."""
        if self.config.eps_rule == "curriculum":
            w = 0.75 - 0.5 * progress
            return 1 / w - 1
        if self.config.eps_rule == "adaptive" and level in self.levels:
            ab, bc = self.lengths[self.levels.index(level)].tolist()
            if ab > 0 and bc > 0:
                return min(100.0, max(0.01, (bc / ab) ** 0.5))
        return self.config.eps_of.get(level, self.config.eps)

    def share(self, level: str, progress: float) -> float:
        """The share w = 1 / (1 + eps): b* lies this share of the way from the teacher to the student."""
        return 1 / (1 + self.eps(level, progress))

    @torch.no_grad()
    def measure(self, level: str, ab: Tensor, bc: Tensor, ac: Tensor, eps: float) -> dict[str, Tensor]:
        """What to log of squared distances between teacher a, assistant b and student c, and the running lengths.

        slack = right side minus left side, never negative for a squared norm. By the exact identity slack is
        ((1 + eps)^2 / eps) |b - b*|^2, so delta = |b - b*|^2 / |a - c|^2 follows; and rho, the share of the way from a
        to c at which b's projection lies, from the three lengths alone. Near 0, delta says that the assistant does
        nothing of its own. For divergences, which are no squared norms, the three are formal.
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

    def __init__(self, latent: int, student: Student) -> None:
        super().__init__()
        channels, classes = student.decoder.channels, student.head.classify.out_channels
        self.decode = nn.Sequential(nn.Conv2d(latent, channels, 3, padding=1), nn.GELU())
        self.resample = GridResampler(student.bev_grid, student.grid)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        d = self.decode(z)
        return d, self.classify(self.resample(d))


class BridgeTA(Distiller):
    """The paths teacher-assistant and assistant-student at every level, and the assistant's label loss.

    The teacher gets no gradient. The student gets that of its own label loss, of the assistant-student path, and,
    where it reads the assistant's feature, of what the assistant's D and Z are measured by, in its decoder and head
    only. The assistant's input from the student is cut from the graph, unless `network.open`: the student must not be
    rewarded for features that help only beside LiDAR.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher)
        own = config.bridgeta
        self.levels = Levels(config.levels, student)
        self.young = Young(own, self.levels.names)
        # The assistant's own space, whatever normalisation the distances have: it must be invertible.
        self.space = TeacherScale(student.config.decoder.width)
        learned = own.assistant == "learned" and own.reading != "none"
        if own.reading == "own" and not learned:
            raise BridgeTAError(
                "distill.bridgeta.reading = own needs the latent feature of a learned assistant",
                fix="Set distill.bridgeta.assistant=learned, or another reading",
                exit_code=2,
            )
        self.assistant = TeacherAssistant(student.config.decoder.width, own.network) if learned else None
        self.head = _OwnHead(own.network.channels, student) if own.reading == "own" else None

    def prepare(self, teacher: Iterable[TeacherOutput]) -> None:
        """Take the teacher's statistics over training frames."""
        scales = scales_of(self.levels.normalisers)
        scales["F"].append(self.space)
        fit(scales, teacher)

    def losses(
        self, teacher: TeacherOutput, student: StudentOutput, labels: Labels, context: Context
    ) -> dict[str, Tensor]:
        """`kd/F`, `kd/D`, `kd/Z` and `label/assistant`."""
        a, c = Taps(teacher.F, teacher.D, teacher.Z), Taps(*student)
        b = self.read(a, c, context)
        weights = self.levels.weights(labels, teacher)
        detached_b, detached_c = Taps(*(x.detach() for x in b)), Taps(*(x.detach() for x in c))
        paths: dict[str, Tensor] = {}
        report: dict[str, Tensor] = {}
        for level in self.levels.names:
            ab = self.levels.distance(level, a, b, weights)
            bc = self.levels.distance(level, detached_b, c, weights)
            if self.config.bridgeta.kappa > 0:
                for_assistant = self.levels.distance(level, b, detached_c, weights)
                # Only its gradient counts: the value of the path holds the distance once.
                bc = bc + self.config.bridgeta.kappa * (for_assistant - for_assistant.detach())
            eps = self.young.eps(level, context.progress)
            paths[level] = (1 + eps) * ab + (1 + 1 / eps) * bc
            ac = self.levels.distance(level, a, c, weights)
            if self.config.bridgeta.direct > 0:
                paths[level] = paths[level] + self.config.bridgeta.direct * ac
            report |= self.young.measure(level, ab.detach(), bc.detach(), ac.detach(), eps)
        losses = self.levels.weighted(paths, context.strength)
        if self.config.bridgeta.label_weight > 0 and self.config.bridgeta.reading != "none":
            label_loss = focal_loss(b.Z, labels.masks, labels.known, context.gamma)
            losses["label/assistant"] = self.config.bridgeta.label_weight * label_loss
        self.report = report
        return losses

    def read(self, a: Taps, c: Taps, context: Context) -> Taps:
        """The assistant's taps."""
        own = self.config.bridgeta
        w = self.young.share("F", context.progress)
        if own.reading == "none":
            return self._mixture(a, c, context.progress)
        source = c.F if own.network.open else c.F.detach()
        if self.assistant is None:
            features, z = (1 - w) * a.F + w * source, None
        else:
            b, z = self.assistant(self.space(a.F.float()), self.space(source.float()), w)
            features = self.space.inverse(b)
        if self.head is not None:
            return Taps(features, *self.head(z))
        if own.reading == "frozen":
            read = context.teacher.decode(features)
            return Taps(read.F, read.D, read.Z)
        return read_by_student(context.student, features)

    def _mixture(self, a: Taps, c: Taps, progress: float) -> Taps:
        """No network at all (ablation A5): each level's own point between the two, of Z between the probabilities."""
        shares = {level: self.young.share(level, progress) for level in Taps._fields}
        tau = self.levels.config.tau
        p, q = (torch.sigmoid(z.detach().float() / tau) for z in (a.Z, c.Z))
        mixed = (1 - shares["Z"]) * p + shares["Z"] * q
        f, d = ((1 - shares[x]) * getattr(a, x) + shares[x] * getattr(c, x).detach() for x in ("F", "D"))
        return Taps(f, d, tau * torch.logit(mixed, eps=1e-7))

    def calibrate(self, label_loss: Tensor, student: StudentOutput, losses: dict[str, Tensor], share: float) -> None:
        """Set the levels' weights."""
        self.levels.calibrate(label_loss, student.F, losses, share)

    def trained_while_warming(self, student: Student) -> list[nn.Parameter]:
        """The student's decoder and head, where they are the assistant's too."""
        if self.config.bridgeta.reading != "shared":
            return []
        return [*student.decoder.parameters(), *student.head.parameters()]

    def assistant_logits(self, teacher: TeacherOutput, student: StudentOutput, context: Context) -> Tensor | None:
        """The assistant's own prediction `[B, 6, Y, X]`, to score it beside the student's."""
        return self.read(Taps(teacher.F, teacher.D, teacher.Z), Taps(*student), context).Z
