"""ELiTe, "Efficient image-to-LiDAR knowledge transfer", Zhang et al. 2024 (arXiv 2405.04121).

There a large image network teaches a small one of LiDAR, and is tuned to the task while it does. At several stages both
networks get classifiers, and the student's agree with the teacher's at the pixel where each point lies.

Read in the released model file: four stages, classifiers of two linear layers, the losses at each stage, tuning by
AdaLoRA. Not found there: the weights of the losses, and where the additions are. The paper was not read. Ours: the
other direction; cells of one grid, where a coarse stage speaks for all cells of a patch; the binary form; cross-entropy
and Dice on the shares of cells in the place of cross-entropy and Lovasz; plain LoRA (Hu et al. 2021, arXiv 2106.09685)
on fuser and decoder. Left out: pseudo-labels, because our labels are dense, and the classifier of all stages together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.cells import AreaAverage
from bridgeta_core.distill.dense import build_classifier, list_stage_widths
from bridgeta_core.distill.distance import bernoulli_kl, logit_divergence
from bridgeta_core.distill.normalise import tap_widths
from bridgeta_core.distill.stages import compute_stages, record_stages
from bridgeta_core.model.losses import average_maps, focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


class Elite(Distiller):
    """Classifiers at the stages of both networks on the labels, the student's also on the teacher's.

    With a `rank`, fuser and decoder of the teacher are tuned by their labels alone, and what compares networks sees the
    tuned teacher; the teacher itself stays as it is. Its batch norms stay in eval mode.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        own, networks = config.elite, (student, teacher)
        if not own.stages:
            raise BridgeTAError("distill.elite.stages is empty", fix="Name F, inner or D", exit_code=2)
        self.needs_live_teacher = own.rank > 0
        self.inner = min(len(list_stage_widths(network)) for network in networks)
        of_student, of_teacher = (self._build_classifiers(network) for network in networks)
        self.of_student, self.of_teacher = of_student, of_teacher
        self.tuning = nn.ModuleDict(
            {part: LowRank(getattr(teacher, part), own.rank) for part in ("fuser", "decoder") if own.rank}
        )
        self.average = AreaAverage(student.grid, student.bev_grid)

    def _build_classifiers(self, network: Student | Teacher) -> nn.ModuleList:
        widths, inner = tap_widths(network), list_stage_widths(network)[: self.inner]
        chosen = {"F": [widths["F"]], "inner": inner, "D": [widths["D"]]}
        return nn.ModuleList(_build_classifier(w) for x in chosen if x in self.config.elite.stages for w in chosen[x])

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/stages`, `kd/Z`, `label/teacher`, `label/teacher_stages` and `label/student_stages`."""
        own, losses = self.config.elite, {}
        if self.tuning:
            assert context.fused is not None
            before = focal_loss(teacher.Z, labels.masks, labels.known, context.gamma)
            teacher, stages = self.run_teacher(context.fused, context.teacher)
            losses["label/teacher"] = focal_loss(teacher.Z, labels.masks, labels.known, context.gamma)
            self.report = {"teacher_before": before}
        else:
            stages = compute_stages(context.teacher, teacher.F)
        t = self._classify(self.of_teacher, teacher, stages)
        s = self._classify(self.of_student, student, context.stages)
        with torch.autocast(student.Z.device.type, enabled=False):
            shares = self.average((labels.masks > 0).float())
            inside = self.average.inside / self.average.inside.sum()
            of_t, of_s = (
                torch.stack([occupancy_loss(z, shares, labels.known, inside) for z in logits]).sum()
                for logits in (t, s)
            )
            apart = [inside * bernoulli_kl(p.detach().float(), q.float()) for p, q in zip(t, s, strict=True)]
        losses["label/teacher_stages"] = own.teacher / len(t) * of_t
        losses["label/student_stages"] = own.student * of_s
        matching = torch.stack(apart).sum(dim=(0, 2, 3, 4)).mean() / len(t)
        losses["kd/stages"] = context.strength * own.matching * matching
        if own.logits > 0:
            divergence = logit_divergence(teacher.Z.detach(), student.Z, self.config.logits.tau)
            losses["kd/Z"] = context.strength * own.logits * divergence
        return losses

    def run_teacher(self, fused: Tensor, teacher: Teacher) -> tuple[Taps, tuple[Tensor, ...]]:
        """Run the tuned teacher on the input of its fuser; return its taps and stages, with the graph of the tuning."""
        f = functional_call(teacher.fuser, self._tune("fuser", teacher), (fused,))
        with record_stages(teacher.decoder) as stages:
            d = functional_call(teacher.decoder, self._tune("decoder", teacher), (torch.relu(f),))
        return Taps(f, d, teacher.head(d)), tuple(stages)

    def _tune(self, part: str, teacher: Teacher) -> dict[str, Tensor]:
        tuning = self.tuning[part]
        assert isinstance(tuning, LowRank)
        return tuning.add_to(getattr(teacher, part))

    def _classify(self, classifiers: nn.ModuleList, taps: Taps, stages: tuple[Tensor, ...]) -> list[Tensor]:
        """Compute logits `[B, 6, Y', X']` of every chosen stage; a cell has those of the coarser cell around it."""
        seen = {"F": [taps.F], "inner": list(stages[: self.inner]), "D": [taps.D]}
        features = [x for stage in seen if stage in self.config.elite.stages for x in seen[stage]]
        logits = [classify(x) for classify, x in zip(classifiers, features, strict=True)]
        return [functional.interpolate(z, size=taps.F.shape[-2:], mode="nearest") for z in logits]


def _build_classifier(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.ReLU(inplace=True), build_classifier(2 * width))


class LowRank(nn.Module):
    """What is added to the convolutions of a network: matrices of a low rank, 0 at the start, the network untouched."""

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        found = {name: m.weight for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
        self.names = [f"{name}.weight" for name in found]
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for weight in found.values():
            inputs = weight[0].numel()
            self.down.append(torch.randn(rank, inputs) / inputs**0.5)
            self.up.append(torch.zeros(len(weight), rank))

    def add_to(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the convolutions' weights with what is added, by name, for `torch.func.functional_call`."""
        weights = dict(network.named_parameters())
        pairs = zip(self.names, self.up, self.down, strict=True)
        return {name: weights[name] + (up @ down).view(weights[name].shape) for name, up, down in pairs}


def occupancy_loss(logits: Tensor, shares: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Compute cross-entropy and Dice of logits with the share of each cell that a class covers, both `[B, K, Y, X]`.

    Cells count by `weights` `[Y, X]`, which sum to 1. Both are averaged over the maps that are `known` `[B, K]`, and
    summed over classes. Dice is 1 - 2 sum(p y) / sum(p^2 + y^2) (Milletari et al. 2016, arXiv 1606.04797), least at
    p = y, and 0 for a map without the class.
    """
    logits = logits.float()
    entropy = (weights * functional.binary_cross_entropy_with_logits(logits, shares, reduction="none")).sum((-2, -1))
    p = torch.sigmoid(logits)
    both = (weights * (p.square() + shares.square())).sum(dim=(-2, -1))
    dice = 1 - 2 * (weights * p * shares).sum(dim=(-2, -1)) / both.clamp(min=1e-6)
    present = (shares > 0).any(dim=-1).any(dim=-1)
    return average_maps(entropy + present * dice, known)
