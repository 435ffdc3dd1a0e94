"""MapDistill, Hao et al. 2024 (arXiv 2407.11682), after a description by others: its code is not public.

A network of cameras and LiDAR teaches one of cameras to draw vectorised maps. The student has two BEV features, which
stand for the teacher's of cameras and of LiDAR, and learns the attention between these, the fused features, and the
predicted lines.

From the description: the three terms and what each compares. Ours: the student, which must not change, gets its two
features from F by convolutions that are trained only here; the teacher's two come from splitting its fuser's
convolution, which brings them into one space; tokens of 8 x 8 cells; distances and weights of cells as elsewhere here;
the squared difference times the cross-entropy in the place of the focal loss, and outlines in the place of points; all
weights. Not verified: the paper's text and its weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import CellWeighting
from bridgeta_core.distill.distance import logit_divergence, squared_distance
from bridgeta_core.distill.normalise import FEATURES, Normaliser, collect_scales, fit_scales, tap_widths
from bridgeta_core.distill.stages import check_fuses, split_fusion
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class MapDistill(Distiller):
    """Relations between sensors, features at two levels, and the map.

    Raises BridgeTAError (exit code 2) for a teacher of LiDAR alone, unless the relations have no weight.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        own = config.mapdistill
        super().__init__(config, student, teacher, FEATURES if own.feature > 0 else ())
        self.needs_live_teacher = own.relation > 0
        widths = tap_widths(teacher)
        self.views = nn.ModuleList()  # the student's counterparts of cameras and LiDAR
        if own.relation > 0:
            check_fuses(teacher, "distill.mapdistill.relation")
            self.views.extend(nn.Conv2d(tap_widths(student)["F"], widths["F"], 3, padding=1) for _ in range(2))
        chosen = FEATURES if own.feature > 0 else ()
        self.normalisers = nn.ModuleDict({level: Normaliser("teacher", widths[level]) for level in chosen})
        self.cells = CellWeighting("balanced", student.grid, student.bev_grid)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        if self.normalisers:
            fit_scales(collect_scales(self.normalisers), (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/relation`, `kd/F`, `kd/D`, `kd/head`, and `kd/Z` of logit distillation, those with a weight."""
        own = self.config.mapdistill
        losses: dict[str, Tensor] = {}
        with torch.autocast(student.F.device.type, enabled=False):
            if own.relation > 0:
                assert context.fused is not None
                views = [view(student.F.float()) for view in self.views]
                target = split_fusion(context.teacher, context.fused)
                losses["kd/relation"] = own.relation * compare_relations(target, views, own.patch)
            if own.feature > 0:
                weights, adapted = self.cells(labels, teacher.Z).feature, self.adapter(student)
                for level, normalise in self.normalisers.items():
                    t, s = normalise(getattr(teacher, level)), normalise(getattr(adapted, level))
                    losses[f"kd/{level}"] = own.feature * squared_distance(t, s, weights)
            if own.head > 0:
                losses["kd/head"] = own.head * compare_maps(teacher.Z.float(), student.Z.float(), own.edges)
        if own.logits > 0:
            losses["kd/Z"] = own.logits * logit_divergence(teacher.Z, student.Z, self.config.logits.tau)
        return {name: context.strength * value for name, value in losses.items()}


def compare_relations(teacher: Iterable[Tensor], student: Iterable[Tensor], patch: int) -> Tensor:
    """Add up, for both directions between two maps `[B, C, Y, X]`, the mean over rows of KL(teacher's || student's)."""
    pairs = zip(_attend_both_ways(teacher, patch), _attend_both_ways(student, patch), strict=True)
    return torch.stack([(t.exp() * (t - s)).sum(dim=-1).mean() for t, s in pairs]).sum()


def _attend_both_ways(maps: Iterable[Tensor], patch: int) -> tuple[Tensor, Tensor]:
    """Compute the logarithms of the attention from the tokens of one map to those of the other, and back."""
    one, other = (_make_tokens(x, patch) for x in maps)
    return attend(one, other), attend(other, one)


def attend(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute log softmax(Q K^T / sqrt d) `[B, n, m]` of tokens `[B, n, d]` and `[B, m, d]`."""
    return functional.log_softmax(queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5, dim=-1)


def _make_tokens(x: Tensor, patch: int) -> Tensor:
    """Average squares of cells, fewer at the far ends, and normalise the channels of each: `[B, tokens, C]`."""
    pooled = functional.avg_pool2d(x, patch, ceil_mode=True).flatten(2).transpose(1, 2)
    return functional.layer_norm(pooled, pooled.shape[-1:])


def compare_maps(teacher: Tensor, student: Tensor, edges: float) -> Tensor:
    """Compute |p_T - p_S|^2 BCE(p_S, p_T) plus `edges` times the difference of outlines, of logits `[B, K, Y, X]`.

    Both are averaged over cells and batch and summed over classes. The first is the focal loss with the teacher's
    probability as its target (Li et al. 2020, arXiv 2006.04388).
    """
    p, q = torch.sigmoid(teacher), torch.sigmoid(student)
    cross_entropy = functional.binary_cross_entropy_with_logits(student, p, reduction="none")
    value = (p - q).square() * cross_entropy
    if edges > 0:
        value = value + edges * (measure_slopes(p) - measure_slopes(q)).abs()
    return value.mean(dim=(0, 2, 3)).sum()


def measure_slopes(p: Tensor) -> Tensor:
    """Measure the slopes of maps `[B, K, Y, X]` by Sobel's operator, scaled so that a straight step from 0 to 1 is 1.

    The borders continue outwards as they are.
    """
    smooth, step = p.new_tensor([1.0, 2.0, 1.0]) / 4, p.new_tensor([-1.0, 0.0, 1.0])
    along = smooth[:, None] * step
    kernel = torch.stack([along, along.T])[:, None]
    padded = functional.pad(p.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    slopes = functional.conv2d(padded, kernel).square().sum(dim=1)
    # The root's slope has no bound at 0, where maps are flat.
    return (slopes + 1e-6).sqrt().unflatten(0, p.shape[:2])
