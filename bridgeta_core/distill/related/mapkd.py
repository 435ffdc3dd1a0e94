"""MapKD, Yan et al. 2025 (arXiv 2508.15653), read in its released scripts; of the paper we know the abstract.

A network of cameras, LiDAR and stored maps teaches one of cameras with the help of a coach. The coach is built like the
teacher and has its maps, but in the place of LiDAR it has what a second view transform makes of the images. So it sees
what the student sees and works as the teacher does.

Read in the code: the coach's simulated LiDAR; both losses, the same for teacher to coach, teacher to student and coach
to student; the coach is trained first, at 0.8 and 0.8 beside its labels. The first loss (TGPD) compares the softmax of
inner products among patches of the bird's-eye view and a token of its mean, by KL after a second softmax, and adds the
squared difference. Patches and token are projected by layers that are drawn anew in every step. The second (MSRD) is
cross-entropy with the other network's probabilities on cells that have a class. A script weighs them 0.5 and 0.75 for
the teacher and 0.01 for the coach; the final one has the second alone, at 0.75 and 0.001.
Ours: no stored maps; the coach shares the teacher's frozen camera branch, fuser, decoder and head, and learns only to
simulate LiDAR, while the student learns or in a warm-up before; cosines at a temperature without projections, the token
being a patch that shows the mean everywhere; one softmax, since two leave hardly any gradient; normalised F; KL in the
place of cross-entropy, which differs by a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import AreaAverage
from bridgeta_core.distill.distance import bernoulli_kl, logit_divergence
from bridgeta_core.distill.normalise import TeacherScale, fit_scales, tap_widths
from bridgeta_core.distill.stages import check_fuses
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class MapKd(Distiller):
    """Patches of F and the map where there is something, from the teacher, and from a coach that the teacher teaches.

    Where a class is not known, the teacher's probability at 0.5 says whether it is there. Raises BridgeTAError (exit
    code 2) for a teacher that does not fuse cameras with LiDAR, unless there is no coach.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ["F"])
        self.needs_live_teacher = config.mapkd.coach > 0
        self.coach: Coach | None = None
        if config.mapkd.coach > 0:
            check_fuses(teacher, "distill.mapkd.coach")
            self.coach = Coach(teacher, config.mapkd.channels)
        self.scale = TeacherScale(tap_widths(teacher)["F"])
        self.average = AreaAverage(student.grid, student.bev_grid)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        fit_scales({"F": [self.scale]}, (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/F` and `kd/Z`; with a coach, `kd/from_coach_...`, `kd/to_coach_...` and `label/coach` too."""
        own, losses, student = self.config.mapkd, {}, self.adapter(student)
        present = torch.where(labels.known[:, :, None, None], labels.masks > 0, teacher.Z > 0).any(dim=1)
        kd = self._compare(teacher, student, present, "", own.feature, own.response)
        if self.coach is not None:
            assert context.fused is not None
            coach = self.coach(context.fused, context.teacher)
            kd |= self._compare(teacher, coach, present, "to_coach_", own.teaching, own.teaching)
            seen = Taps(*(x.detach() for x in coach))
            kd |= self._compare(seen, student, present, "from_coach_", own.coach, own.coach)
            losses["label/coach"] = focal_loss(coach.Z, labels.masks, labels.known, context.gamma)
        if own.logits > 0:
            kd["logits"] = own.logits * logit_divergence(teacher.Z, student.Z, self.config.logits.tau)
        return losses | {f"kd/{name}": context.strength * value for name, value in kd.items()}

    def _compare(
        self, target: Taps, learner: Taps, present: Tensor, prefix: str, feature: float, response: float
    ) -> dict[str, Tensor]:
        """Compute both losses between two networks, those with a weight."""
        own, values = self.config.mapkd, {}
        with torch.autocast(learner.F.device.type, enabled=False):
            if feature > 0:
                t, s = self.scale(target.F.float()), self.scale(learner.F.float())
                inside = self.average.inside / self.average.inside.sum()
                difference = (inside * (t - s).square().mean(dim=1)).sum(dim=(1, 2)).mean()
                attention = compare_patches(t, s, own.patch, own.tau)
                values[f"{prefix}F"] = feature * (attention + own.difference * difference)
            if response > 0:
                values[f"{prefix}Z"] = response * compare_responses(target.Z.float(), learner.Z.float(), present)
        return values


class Coach(nn.Module):
    """The teacher with simulated LiDAR, which convolutions make of its cameras' BEV feature; the teacher is frozen."""

    def __init__(self, teacher: Teacher, channels: int) -> None:
        super().__init__()
        self.cameras = teacher.model.lift.channels
        layers: list[nn.Module] = []
        for inputs in (self.cameras, channels):
            norm = nn.GroupNorm(math.gcd(8, channels), channels)
            layers += [nn.Conv2d(inputs, channels, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)]
        self.simulate = nn.Sequential(*layers, nn.Conv2d(channels, teacher.config.lidar.width, 1))

    def forward(self, fused: Tensor, teacher: Teacher) -> Taps:
        """Compute the coach's taps from the input of the teacher's fuser, of which only the cameras' part is read."""
        cameras = fused[:, : self.cameras]
        return teacher.decode(teacher.fuser(torch.cat([cameras, self.simulate(cameras)], dim=1)))


def compare_patches(teacher: Tensor, student: Tensor, patch: int, tau: float) -> Tensor:
    """Average over tokens KL(teacher's || student's) of the softmax of cosines among the tokens of a map, over `tau`.

    The tokens of a map `[B, C, Y, X]` are its squares of `patch` cells, filled up by zeros, and its mean.
    """
    t, s = (_relate(_make_tokens(x, patch), tau) for x in (teacher, student))
    return (t.exp() * (t - s)).sum(dim=-1).mean()


def _relate(tokens: Tensor, tau: float) -> Tensor:
    unit = functional.normalize(tokens, dim=-1, eps=1e-6)
    return functional.log_softmax(unit @ unit.transpose(1, 2) / tau, dim=-1)


def _make_tokens(x: Tensor, patch: int) -> Tensor:
    """Lay the mean of a map, as a square that shows it in all cells, before its squares: `[B, 1 + n, C * patch^2]`."""
    rows, columns = (-size % patch for size in x.shape[-2:])
    squares = functional.unfold(functional.pad(x, (0, columns, 0, rows)), patch, stride=patch).transpose(1, 2)
    return torch.cat([x.mean(dim=(2, 3)).repeat_interleave(patch**2, dim=1)[:, None], squares], dim=1)


def compare_responses(teacher: Tensor, student: Tensor, present: Tensor) -> Tensor:
    """Compute KL of logits `[B, K, Y, X]` on the cells that are `present` `[B, Y, X]`.

    It is averaged over these cells in each frame, then over frames, and summed over classes.
    """
    values = (present[:, None] * bernoulli_kl(teacher, student)).sum(dim=(2, 3))
    return (values / present.sum(dim=(1, 2)).clamp(min=1)[:, None]).mean(dim=0).sum()
