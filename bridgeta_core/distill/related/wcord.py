"""WCoRD, Wasserstein contrastive representation distillation, Chen et al. 2020 (arXiv 2012.08674).

Both forms of the Wasserstein distance bring the student's representation to the teacher's. By its dual form, a critic
of bounded slope tells pairs of the same input from pairs of different inputs; student and critic together widen that
difference. By its primal form, the student's samples are transported to the teacher's at the least cost.

Known of the paper is the abstract: the two forms and what each is for. Its formulas and weights are from memory and
were not verified. Ours: a sample is a cell of the grid; the teacher's embedding is a fixed PCA; the critic is bilinear;
what counts as a different input; the queue's means; the optional price of distance on the ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import CellWeighting, draw_cells, take_cells
from bridgeta_core.distill.distance import logit_divergence
from bridgeta_core.distill.normalise import tap_widths
from bridgeta_core.distill.pca import PrincipalComponents
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

_NEAR = 10.0  # metres within which cells of a frame are no different inputs, and the unit of the price of distance


class _Pairs(NamedTuple):
    """Cells of a batch: unit embeddings `[B, n, d]`, squared distances on the ground `[B, n, n]` in units of _NEAR, and
    whether the teacher's cell i and the student's j are different inputs, bool `[B, n, n]`.
    """

    teacher: Tensor
    student: Tensor
    distance: Tensor
    different: Tensor


class Wcord(Distiller):
    """The dual form over pairs of cells, and the primal form within each frame.

    Where a class is not known, the teacher's probability at 0.5 stands in for the label.
    """

    places: Tensor
    queue: Tensor
    queued: Tensor

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ["F"])
        own, width = config.wcord, tap_widths(teacher)["F"]
        size = min(own.size, width)
        self.pca = PrincipalComponents(width, size)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))
        # A constant added to the critic would cancel between the two kinds of pairs.
        self.critic = spectral_norm(nn.Linear(size, size, bias=False))
        self.cells = CellWeighting("balanced", student.grid, student.bev_grid)
        x, y = (torch.from_numpy(axis).float() / _NEAR for axis in student.bev_grid.centres())
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        self.register_buffer("places", places, persistent=False)
        # The critic is linear in the teacher's cell, so its mean over a queue of cells is its value at their mean.
        self.register_buffer("queue", torch.zeros(own.queue, size))
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics, and the principal components of its normalised F, on training frames."""
        self.pca.fit(example.taps.F for example in examples)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/contrast` (the dual form), `kd/transport` (the primal form) and `kd/Z`, those with a weight."""
        own, losses = self.config.wcord, {}
        with torch.autocast(student.F.device.type, enabled=False):
            pairs = self._embed_cells(teacher, student, labels, context.step)
            if own.contrast > 0:
                losses["kd/contrast"] = own.contrast * self._contrast(pairs)
            if own.transport > 0:
                cost = 1 - pairs.teacher @ pairs.student.transpose(1, 2) + own.distance * pairs.distance
                plan = plan_transport(cost.detach(), own.entropy, own.iterations)
                losses["kd/transport"] = own.transport * (plan * cost).sum(dim=(1, 2)).mean()
        if own.logits > 0:
            losses["kd/Z"] = own.logits * logit_divergence(teacher.Z, student.Z, self.config.logits.tau)
        return {name: context.strength * value for name, value in losses.items()}

    def _embed_cells(self, teacher: Taps, student: Taps, labels: Labels, step: int) -> _Pairs:
        """Draw cells by the balanced weights, the same in both networks, and embed them."""
        cells = draw_cells(self.cells(labels, teacher.Z).feature, self.config.wcord.cells, step)
        t, s = (take_cells(self.pca.scale(f.float()), cells) for f in (teacher.F, self.adapter.adapt("F", student.F)))
        outcomes = take_cells((self.cells.average(labels.fill(teacher.Z).float()) > 0.5).float(), cells)
        distance = torch.cdist(self.places[cells], self.places[cells]).square()
        return _Pairs(
            teacher=functional.normalize(t @ self.pca.components.T, dim=-1),
            student=functional.normalize(self.embed(s), dim=-1),
            distance=distance,
            different=(distance > 1) & (torch.cdist(outcomes, outcomes, p=0) > 0),
        )

    def _contrast(self, pairs: _Pairs) -> Tensor:
        """Compute 2 - (the critic's mean over cells and themselves - its mean over different inputs).

        The critic lies between -1 and 1, so this is not negative. Different inputs are the cells of earlier batches,
        and those of the same frame that are far away and have other classes; every pair counts once.
        """
        student = self.critic(pairs.student)  # once: in training every use of its weight moves the spectral norm
        values = pairs.teacher @ student.transpose(1, 2)
        same = values.diagonal(dim1=1, dim2=2).mean(dim=1)
        n, filled = values.shape[1], self.queued.clamp(max=len(self.queue))
        earlier = filled * n * n
        mean = self.queue.sum(dim=0) / filled.clamp(min=1)
        total = earlier * (student @ mean).mean(dim=1) + (values * pairs.different).sum(dim=(1, 2))
        count = earlier + pairs.different.sum(dim=(1, 2))
        if self.training:
            self._enqueue(pairs.teacher)
        return (2 - same + total / count.clamp(min=1)).mean()

    @torch.no_grad()
    def _enqueue(self, cells: Tensor) -> None:
        """Put the mean of a batch's embeddings `[B, n, d]`, over all processes, into the queue."""
        total = torch.cat([cells.mean(dim=1).sum(dim=0), cells.new_tensor([len(cells)])])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        self.queue[self.queued % len(self.queue)] = total[:-1] / total[-1]
        self.queued += 1


@torch.no_grad()
def plan_transport(cost: Tensor, entropy: float, iterations: int) -> Tensor:
    """Compute the plan `[B, n, m]` of least cost between equal weights on n and on m points, blurred by `entropy`.

    Sinkhorn's iterations on logarithms (Cuturi 2013, arXiv 1306.0895). Columns have their weights exactly, rows almost.
    """
    kernel = -cost / entropy
    rows, columns = (-math.log(size) for size in cost.shape[1:])
    v = torch.zeros_like(cost[:, :1])
    for _ in range(iterations):
        u = rows - torch.logsumexp(kernel + v, dim=2, keepdim=True)
        v = columns - torch.logsumexp(kernel + u, dim=1, keepdim=True)
    return torch.exp(kernel + u + v)
