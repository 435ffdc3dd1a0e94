"""BEV-feature distillation in the manner of UniDistill (CVPR 2023) and BEVDistill (ICLR 2023), for map classes (R4).

Those methods sample features at the corners, edges and centres of object boxes. Map classes have no boxes: here the
points are drawn on the boundary of each class, inside it, and on the background, new ones at every step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import CellWeighting
from bridgeta_core.distill.distance import squared_distance
from bridgeta_core.distill.normalise import Normaliser, fit_scales, tap_widths
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

_DILATION = 2  # cells around the foreground that the response term also covers


class BevFeature(Distiller):
    """Features at key points (L1), the points' cosine similarities, and responses around the foreground (L1).

    Where a class is not known, the teacher's probability at 0.5 stands in for the label. The points depend on the step
    alone.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ["F"])
        self.label_grid, self.feature_grid = student.grid, student.bev_grid
        self.normaliser = Normaliser("teacher", tap_widths(teacher)["F"])
        self.foreground = CellWeighting("foreground", student.grid, student.bev_grid)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        fit_scales({"F": [self.normaliser.teacher]}, (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/feature`, `kd/relation`, `kd/response` and `kd/dense`, those with a weight."""
        own = self.config.bevfeature
        y = labels.fill(teacher.Z)
        t, s = self.normaliser(teacher.F), self.normaliser(self.adapter(student).F)
        terms: dict[str, Tensor] = {}
        if own.feature or own.relation:
            terms["feature"], terms["relation"] = self._point_losses(t, s, y, context.step)
        terms["response"] = _response_loss(teacher.Z.float(), student.Z.float(), y)
        terms["dense"] = squared_distance(t, s, self.foreground(labels, teacher.Z).feature)
        factors = {"feature": own.feature, "relation": own.relation, "response": own.response, "dense": own.dense}
        return {f"kd/{k}": context.strength * factors[k] * v for k, v in terms.items() if factors[k] > 0}

    def _point_losses(self, t: Tensor, s: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Average the difference of features at the points, and of their cosine matrices, over frames and classes."""
        generator = torch.Generator().manual_seed(step)
        features, relations = [], []
        for frame in range(len(y)):
            background = _draw(~y[frame].any(dim=0), self.config.bevfeature.points, generator)
            for mask in y[frame]:
                if not mask.any():
                    continue
                edge = mask & ~_erode(mask)
                count = self.config.bevfeature.points
                cells = torch.cat([_draw(edge, count, generator), _draw(mask, count, generator)])
                of_class = [self._sample(x[frame], cells) for x in (t, s)]
                relations.append((_cosine_matrix(of_class[0]) - _cosine_matrix(of_class[1])).abs().mean())
                everywhere = [self._sample(x[frame], torch.cat([cells, background])) for x in (t, s)]
                features.append((everywhere[0] - everywhere[1]).abs().mean())
        if not features:
            zero = 0 * s.sum()
            return zero, zero
        return torch.stack(features).mean(), torch.stack(relations).mean()

    def _sample(self, features: Tensor, cells: Tensor) -> Tensor:
        """Sample features `[C, Y', X']` bilinearly at the centres of label cells `[n, 2]` (row, column): `[n, C]`."""
        coordinates = to_sampling_coordinates(cells, self.label_grid, self.feature_grid)
        sampled = functional.grid_sample(
            features[None].float(), coordinates[None, None], align_corners=False, padding_mode="border"
        )
        return sampled[0, :, 0].T


def to_sampling_coordinates(cells: Tensor, label: BevGrid, feature: BevGrid) -> Tensor:
    """Return the centres of label cells `[n, 2]` (row, column) as x, y scaled to [-1, 1] over the feature grid."""
    x = label.x_min + (cells[:, 1] + 0.5) * label.resolution
    y = label.y_min + (cells[:, 0] + 0.5) * label.resolution
    return torch.stack(
        [
            2 * (x - feature.x_min) / (feature.x_max - feature.x_min) - 1,
            2 * (y - feature.y_min) / (feature.y_max - feature.y_min) - 1,
        ],
        dim=-1,
    ).float()


def _erode(mask: Tensor) -> Tensor:
    """Return the cells of a mask `[Y, X]` whose eight neighbours belong to it too."""
    outside = functional.max_pool2d((~mask)[None, None].float(), 3, stride=1, padding=1)
    return outside[0, 0] == 0


def _draw(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` cells `[count, 2]` of a mask `[Y, X]` with replacement; none of an empty mask."""
    cells = mask.nonzero()
    if not len(cells):
        return cells
    chosen = torch.randint(len(cells), (count,), generator=generator).to(cells.device)
    return cells[chosen]


def _cosine_matrix(x: Tensor) -> Tensor:
    unit = functional.normalize(x, dim=1, eps=1e-6)
    with torch.autocast(x.device.type, enabled=False):
        return unit @ unit.T


def _response_loss(t: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Sum over classes the mean |p_T - p_S| on the dilated foreground of each frame that has the class."""
    size = 2 * _DILATION + 1
    near = functional.max_pool2d(y.float(), size, stride=1, padding=_DILATION)
    difference = (near * (torch.sigmoid(t) - torch.sigmoid(s)).abs()).sum(dim=(-2, -1))
    per_map = difference / near.sum(dim=(-2, -1)).clamp(min=1)
    return per_map.mean(dim=0).sum()
