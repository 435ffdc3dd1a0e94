"""TSCM, "A teacher-student model for vision place recognition using cross-metric knowledge distillation", Shen et al.
2024 (arXiv 2404.01587), its released code and a summary of the paper.

Both networks describe places by vectors. Beside matching the teacher on the same image, the student's descriptor is
pulled to the teacher's of another image of the same place, and pushed from other places by triplets.

Published: the three terms, the margin, and the squared form of the release, whose clamp never acts. Ours: a place is a
region of the grid whose cells have the same set of classes; its descriptor is the mean of its cells at unit length; the
teacher's descriptors are along its principal components, where the student's projection starts; a queue has the
teacher's descriptors of other frames, because batches are small; the weights. Left out: descriptors of whole frames,
which need the vehicle's position. Not verified: the paper's text.

A descriptor constrains a mean over thousands of cells, so the signal per cell is weak: combine it with `logits`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import AreaAverage
from bridgeta_core.distill.distance import logit_divergence
from bridgeta_core.distill.normalise import tap_widths
from bridgeta_core.distill.pca import PrincipalComponents
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

_COVER = 0.25  # share of a cell that a class must cover to be there: lines are narrower than a cell of F


class Regions(NamedTuple):
    """The n regions of a batch: their frame and group, int64 `[n]`, and both networks' unit descriptors `[n, size]`."""

    frame: Tensor
    group: Tensor
    teacher: Tensor
    student: Tensor

    def select(self, chosen: Tensor) -> Regions:
        """Select regions by a mask or by indices."""
        return Regions(*(x[chosen] for x in self))


class Tscm(Distiller):
    """Distances between descriptors of regions. The queue is a buffer, and of several processes the first one's."""

    queue: Tensor
    filled: Tensor

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        own = config.tscm
        super().__init__(config, student, teacher, [own.level])
        width = tap_widths(teacher)[own.level]
        size = min(own.size, width)
        self.pca, self.project = PrincipalComponents(width, size), nn.Conv2d(width, size, 1, bias=False)
        self.area = AreaAverage(student.grid, student.bev_grid)
        groups = len(CLASSES) if own.groups == "classes" else 2 ** len(CLASSES)
        self.register_buffer("queue", torch.zeros(groups, own.queue, size))
        self.register_buffer("filled", torch.zeros(groups, dtype=torch.int64))

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Fit the principal components of the teacher's features, and start the student's projection there."""
        self.pca.fit(getattr(example.taps, self.config.tscm.level) for example in examples)
        with torch.no_grad():
            self.project.weight.copy_(self.pca.components[:, :, None, None])

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/regions` (soft, cross and released), `label/triplet` and `kd/Z`, those with a weight."""
        own, losses = self.config.tscm, {}
        generator = torch.Generator().manual_seed(context.step)
        with torch.autocast(student.F.device.type, enabled=False):
            regions = self._describe(teacher, student, labels)
            soft = _mean_of(_squared(regions.student, regions.teacher))
            cross = self._compare_across(regions, generator)
            value = own.soft * soft + own.cross * cross
            if own.released > 0:
                value = value + own.released * released_loss(regions, own.negatives, own.margin, generator)
            losses["kd/regions"] = context.strength * value
            if own.triplet > 0:
                labelled = regions.select(labels.known.all(dim=1)[regions.frame])
                triplet = triplet_loss(labelled, own.negatives, own.margin, generator)
                losses["label/triplet"] = own.triplet * triplet
        if own.logits > 0:
            divergence = logit_divergence(teacher.Z, student.Z, self.config.logits.tau)
            losses["kd/Z"] = context.strength * own.logits * divergence
        if self.training:
            self._push(regions)
        count = torch.tensor(float(len(regions.frame)))
        self.report = {"regions": count, "distance_soft": soft.detach(), "distance_cross": cross.detach()}
        return losses

    def _describe(self, teacher: Taps, student: Taps, labels: Labels) -> Regions:
        """Describe the regions of a batch that are large enough."""
        own = self.config.tscm
        members = assign_cells(self.area(labels.fill(teacher.Z).float()) >= _COVER, own.groups)
        members = (members & (self.area.inside > 0)).flatten(2).float()
        count = members.sum(dim=2)
        frame, group = (count >= own.cells).nonzero(as_tuple=True)
        target = self.pca(getattr(teacher, own.level))
        features = self.project(self.pca.scale(getattr(self.adapter(student), own.level).float()))
        means = [torch.einsum("bgp,bcp->bgc", members, x.flatten(2))[frame, group] for x in (target, features)]
        t, s = (functional.normalize(x / count[frame, group, None], dim=1, eps=1e-6) for x in means)
        return Regions(frame, group, t, s)

    def _compare_across(self, regions: Regions, generator: torch.Generator) -> Tensor:
        """Average |S(a) - T(p)|^2 + |S(p) - T(a)|^2, p a queued region of the same group.

        Of the second term, in which a queued region is the anchor, the student is not there any more. Every region is
        the other end of it at some step, so the first counts twice.
        """
        filled = self.filled.clamp(max=self.queue.shape[1])[regions.group]
        slot = torch.rand(len(filled), generator=generator).to(filled.device) * filled
        positive = self.queue[regions.group, slot.long()]
        return 2 * _mean_of(_squared(regions.student, positive), filled > 0)

    @torch.no_grad()
    def _push(self, regions: Regions) -> None:
        """Put the teacher's descriptors into the queues of their groups, over the oldest ones."""
        same = regions.group[:, None] == regions.group
        place = self.filled[regions.group] + same.tril(-1).sum(dim=1)
        self.queue[regions.group, place % self.queue.shape[1]] = regions.teacher
        self.filled += torch.bincount(regions.group, minlength=len(self.filled))


def assign_cells(present: Tensor, groups: str) -> Tensor:
    """Assign cells to groups, bool `[B, G, Y', X']`, by the classes that are there, bool `[B, 6, Y', X']`.

    By `vectors` each of the 2^6 sets of classes is a group, so that every cell is in exactly one; by `classes` each
    class is, and they overlap.
    """
    if groups == "classes":
        return present
    powers = 2 ** torch.arange(present.shape[1], device=present.device)
    code = (present * powers[:, None, None]).sum(dim=1)
    return functional.one_hot(code, 2 ** present.shape[1]).movedim(-1, 1) > 0


def _draw_tuples(regions: Regions, negatives: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a positive `[n]`, of the same group in another frame, and negatives `[n, k]`, of other groups, per region.

    The third result `[n, k]` is whether the regions of a tuple exist.
    """
    n = len(regions.group)
    same = regions.group[:, None] == regions.group
    partner = same & (regions.frame[:, None] != regions.frame)
    order = torch.rand(n, n, generator=generator).to(same.device)
    positive = order.masked_fill(~partner, -1).argmax(dim=1) if n else regions.group
    negative = order.masked_fill(same, -1).topk(min(negatives, n), dim=1).indices
    return positive, negative, partner.any(dim=1, keepdim=True) & ~same.gather(1, negative)


def triplet_loss(regions: Regions, negatives: int, margin: float, generator: torch.Generator) -> Tensor:
    """Average max(0, margin + |S(a) - S(p)|^2 - |S(a) - S(n)|^2) over the tuples of a batch; 0 without any."""
    positive, negative, exists = _draw_tuples(regions, negatives, generator)
    near = _squared(regions.student, regions.student[positive])[:, None]
    far = _squared(regions.student[:, None], regions.student[negative])
    return _mean_of(functional.relu(margin + near - far), exists)


def released_loss(regions: Regions, negatives: int, margin: float, generator: torch.Generator) -> Tensor:
    """Average max(0, margin + Q)^2 / 2 over the tuples of a batch, Q the sum of five squared distances; 0 without any.

    These are of S(a), S(p) to T(a), T(p) in all four pairs, and of S(n) to T(n). As Q is not negative, the value is
    margin^2 / 2 at least.
    """
    positive, negative, exists = _draw_tuples(regions, negatives, generator)
    t, s = regions.teacher, regions.student
    own = _squared(s, t)
    q = own + own[positive] + _squared(s, t[positive]) + _squared(s[positive], t)
    return _mean_of(functional.relu(margin + q[:, None] + own[negative]).square() / 2, exists)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(dim=-1)


def _mean_of(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """Average the values that count; 0 without any."""
    if counted is None:
        counted = torch.ones_like(values)
    return (values * counted).sum() / counted.sum().clamp(min=1)
