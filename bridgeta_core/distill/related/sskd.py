"""SSKD, "Knowledge distillation meets self-supervision", Xu et al. 2020 (arXiv 2006.07114), read in its released code.

How a teacher sees that two views show the same thing tells more of it than its outputs. A head on the frozen teacher
learns which original a transformed image comes from. The student learns from the teacher's outputs on originals and
transformed ones, and from its similarities between both.

Published: the terms, the head, its training by cross-entropy on cosines, which rows of similarities are dropped, and
temperatures of 4, 4 and 0.5; weights of 0.9, 2.7 and 10 beside 0.1 for the labels. Ours: the transform, a quarter, half
or three quarters of a turn of the whole world about the vehicle, one per step, which leaves the images as they are;
regions of F in the place of images, since a batch has few of these; divergences per class and cell; dropping cells by
their class. Each process contrasts the frames of its own. The head is trained for a few passes where the paper has 60.
Left out: to run the image encoder once for both views, which it sees alike. Not verified: the paper's text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.data.frames import Batch
from bridgeta_core.distill.base import Context, Distiller, Example, Labels, View
from bridgeta_core.distill.distance import bernoulli_kl, logit_divergence
from bridgeta_core.distill.normalise import tap_widths
from bridgeta_core.distill.related.rdd import find_hard
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


class Sskd(Distiller):
    """Logits on frames and on turned frames, and similarities between the regions of both.

    Raises BridgeTAError (exit code 2) for grids that a quarter of a turn does not map onto themselves.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        own = config.sskd
        self.needs_live_teacher = own.transformed > 0 or own.similarity > 0
        if self.needs_live_teacher:
            _check_square("grid", student.grid)
            _check_square("model.lift.grid", student.bev_grid)
        self.regions = min(own.regions, *student.bev_grid.shape)
        self.teacher_head = _build_head(tap_widths(teacher)["F"]).requires_grad_(False)
        self.student_head = _build_head(tap_widths(student)["F"]).requires_grad_(own.similarity > 0)

    def view(self, batch: Batch, step: int) -> Batch | None:
        """Turn the world, where a term needs it."""
        return turn_batch(batch, draw_turns(step)) if self.needs_live_teacher else None

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Train the teacher's head to find the region that each region of a turned frame comes from."""
        own = self.config.sskd
        if own.similarity == 0:
            return
        self.teacher_head.requires_grad_(True)
        optimiser = torch.optim.AdamW(self.teacher_head.parameters(), lr=own.fit_rate)
        for _ in range(own.fit_epochs):
            for example in examples:
                assert example.view is not None
                similarities = self._compare(self.teacher_head, example.taps, example.view)
                sources = self._find_sources(len(example.taps.F), example.step).to(similarities.device)
                functional.cross_entropy(similarities, sources).backward()
                optimiser.step()
                optimiser.zero_grad()
        self.teacher_head.requires_grad_(False)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/Z`, `kd/transformed` and `kd/similarity`, those with a weight."""
        own, view = self.config.sskd, context.view
        losses, self.report = {}, {}
        if own.logits > 0:
            losses["kd/Z"] = context.strength * own.logits * logit_divergence(teacher.Z, student.Z, own.tau)
        if view is not None and own.transformed > 0:
            losses["kd/transformed"] = context.strength * own.transformed * self._compare_logits(view)
        if view is not None and own.similarity > 0:
            value = self._compare_similarities(teacher, student, view, context.step)
            losses["kd/similarity"] = context.strength * own.similarity * value
        return losses

    def _compare_logits(self, view: View) -> Tensor:
        """Compute logit distillation on the turned frames, but for the cells where the teacher is worst."""
        own, teacher, student = self.config.sskd, view.teacher.Z.float(), view.student.Z.float()
        kept = torch.ones_like(teacher)
        if own.drop > 0:
            kept = 1 - find_hard(teacher, view.labels, threshold=0, hardest=own.drop).float()
        with torch.autocast(teacher.device.type, enabled=False):
            per_cell = kept * bernoulli_kl(teacher / own.tau, student / own.tau)
        return own.tau**2 * (per_cell.sum(dim=(0, 2, 3)) / kept.sum(dim=(0, 2, 3)).clamp(min=1)).sum()

    def _compare_similarities(self, teacher: Taps, student: Taps, view: View, step: int) -> Tensor:
        """Compute tau^2 KL between the rows of both networks' similarities, over the rows that are kept."""
        own = self.config.sskd
        target = self._compare(self.teacher_head, teacher, view.teacher)
        sources = self._find_sources(len(teacher.F), step).to(target.device)
        kept, self.report["regions_found"] = select_rows(target, sources, own.keep)
        similarities = self._compare(self.student_head, student, view.student)
        p, q = (functional.log_softmax(x[kept] / own.similarity_tau, dim=1) for x in (target, similarities))
        return own.similarity_tau**2 * functional.kl_div(q, p, reduction="batchmean", log_target=True)

    def _compare(self, head: nn.Module, normal: Taps, turned: Taps) -> Tensor:
        """Compute the cosines of all regions of turned frames (rows) with all regions of frames (columns)."""
        with torch.autocast(normal.F.device.type, enabled=False):
            pooled = (
                functional.adaptive_avg_pool2d(torch.relu(taps.F.float()), self.regions) for taps in (turned, normal)
            )
            rows, columns = (functional.normalize(head(x.movedim(1, -1).flatten(0, 2)), dim=1) for x in pooled)
            return rows @ columns.T

    def _find_sources(self, batch: int, step: int) -> Tensor:
        """Find the region among all of a batch that each region of the frames turned in a step comes from."""
        count = self.regions**2
        own = torch.arange(batch * count).view(batch, self.regions, self.regions)
        return turn_map(own, draw_turns(step)).flatten()


def _build_head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _check_square(name: str, grid: BevGrid) -> None:
    if not grid.x_max == grid.y_max == -grid.x_min == -grid.y_min:
        raise BridgeTAError(
            f"distill.method=sskd turns the world, and {name} is no square with the vehicle in its middle",
            fix="Set distill.sskd.transformed=0 and distill.sskd.similarity=0, or another grid",
            exit_code=2,
        )


def draw_turns(step: int) -> int:
    """Draw by how many quarters of a turn, 1 to 3, the frames of a step are turned."""
    generator = torch.Generator().manual_seed(step)
    return int(torch.randint(1, 4, (), generator=generator))


def turn_map(x: Tensor, turns: int) -> Tensor:
    """Turn maps `[..., y, x]` of a square around the vehicle counter-clockwise by quarters, as seen from above.

    Rows run towards positive y, which is up, so torch.rot90 turns the other way.
    """
    return torch.rot90(x, -turns, (-2, -1))


def turn_batch(batch: Batch, turns: int) -> Batch:
    """Turn the world of a batch counter-clockwise about the vehicle by quarters: cameras, points and labels.

    The images stay as they are.
    """
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns % 4]
    turned_T_ego = torch.tensor([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    turned_T_ego = turned_T_ego.to(batch.ego_T_cam)
    return replace(
        batch,
        ego_T_cam=turned_T_ego @ batch.ego_T_cam,
        labels=turn_map(batch.labels, turns).contiguous(),
        points=None if batch.points is None else [_turn_points(points, cos, sin) for points in batch.points],
    )


def _turn_points(points: Tensor, cos: int, sin: int) -> Tensor:
    x, y = points[:, 0], points[:, 1]
    return torch.cat([torch.stack([cos * x - sin * y, sin * x + cos * y], dim=1), points[:, 2:]], dim=1)


def select_rows(similarities: Tensor, sources: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """Select rows `[n]` of similarities by the rank of the right column: all where it is first, and the best share
    `keep` of the others, but at least one row. Also return the share of rows where it is first.
    """
    right = similarities.gather(1, sources[:, None])
    rank = (similarities > right).sum(dim=1)
    first = int((rank == 0).sum())
    count = first + int(keep * (len(rank) - first))
    return rank.argsort(stable=True)[: max(1, count)], (rank == 0).float().mean()
