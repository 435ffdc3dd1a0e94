"""The levels at which two networks are compared, each with its normalisation, cells, distance and weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bridgeta_core.config.distill import LevelsConfig
from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.cells import CellWeights, Weights
from bridgeta_core.distill.distance import DISTANCES, squared
from bridgeta_core.distill.normalise import FEATURES, Normaliser, fit, scales_of
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import TeacherOutput
from bridgeta_core.utils.errors import BridgeTAError


class Taps(NamedTuple):
    """F before its ReLU, D and Z of any network."""

    F: Tensor
    D: Tensor
    Z: Tensor


class Levels(nn.Module):
    """Distances at F, D and Z between networks whose taps have the student's shapes; holds what is measured once: the
    teacher's statistics and the levels' weights, both buffers, which a checkpoint keeps and nothing trains.
    """

    weight: Tensor

    def __init__(self, config: LevelsConfig, student: Student) -> None:
        super().__init__()
        unknown = sorted(set(config.weight) - {"F", "D", "Z"})
        if unknown:
            raise BridgeTAError(f"distill.levels.weight: no level {', '.join(unknown)}, only F, D and Z", exit_code=2)
        if not config.levels:
            raise BridgeTAError("distill.levels.levels is empty", fix="Name F, D or Z", exit_code=2)
        self.config, self.names = config, tuple(dict.fromkeys(config.levels))
        widths = {"F": student.config.decoder.width, "D": student.decoder.channels}
        self.normalisers = nn.ModuleDict({level: Normaliser(config.normalise, widths[level]) for level in FEATURES})
        self.cells = CellWeights(config.cells, student.grid, student.bev_grid)
        weights = torch.tensor([config.weight.get(level, 1.0) for level in self.names])
        self.register_buffer("weight", weights)

    def prepare(self, outputs: Iterable[TeacherOutput]) -> None:
        """Take the teacher's statistics."""
        fit(scales_of(self.normalisers), outputs)

    def weights(self, labels: Labels, teacher: TeacherOutput) -> Weights:
        """The cells' weights of a batch."""
        return cast(Weights, self.cells(labels, teacher.Z))

    def distance(self, level: str, x: Taps, y: Taps, weights: Weights) -> Tensor:
        """The distance of two networks at a level; the order matters for the divergence only, which leads from x."""
        a, c = getattr(x, level), getattr(y, level)
        if level == "Z":
            return DISTANCES[self.config.distance](a, c, weights.label, self.config.tau)
        normalise = self.normalisers[level]
        return squared(normalise(a), normalise(c), weights.feature)

    def weighted(self, values: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
        """The terms `kd/LEVEL` of a loss from a value per level."""
        return {f"kd/{name}": strength * self.weight[i] * values[name] for i, name in enumerate(self.names)}

    def calibrate(self, label_loss: Tensor, features: Tensor, losses: dict[str, Tensor], share: float) -> None:
        """Scale the weights so that each level's gradient at `features` gets the norm of `share` times the label
        loss's. A level whose gradient vanishes keeps its weight.
        """
        target = share * gradient_norm(label_loss, features)
        for i, name in enumerate(self.names):
            norm = gradient_norm(losses[f"kd/{name}"], features)
            if norm > 0 and torch.isfinite(target / norm):
                self.weight[i] *= target / norm


def gradient_norm(loss: Tensor, features: Tensor) -> Tensor:
    """Norm of the gradient of a loss at `features`; the graph stays."""
    (gradient,) = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    return torch.zeros((), device=loss.device) if gradient is None else gradient.float().norm()


@contextmanager
def running_statistics_kept(*modules: nn.Module) -> Iterator[None]:
    """Batch norms in training normalise by the batch but leave their running statistics alone, which belong to the
    network's own features.
    """
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def read_by_student(student: Student, features: Tensor) -> Taps:
    """What the student's decoder and head, trained by whatever loss follows, make of another network's F."""
    with running_statistics_kept(student.decoder, student.head):
        return Taps(*student.decode(features))
