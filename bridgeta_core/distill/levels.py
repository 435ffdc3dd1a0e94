"""The levels at which two networks are compared, each with its normalisation, cells, distance and weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bridgeta_core.config.distill import LevelsConfig
from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.cells import CellWeighting, CellWeights
from bridgeta_core.distill.distance import DISTANCES, squared_distance
from bridgeta_core.distill.normalise import FEATURES, Adapter, Normaliser, collect_scales, fit_scales, tap_widths
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


class Levels(nn.Module):
    """Distances at F, D and Z between networks whose taps have the teacher's shapes.

    It holds what is measured once: the teacher's statistics and the weights of the levels. Both are buffers, so a
    checkpoint has them and nothing trains them.
    """

    weight: Tensor

    def __init__(self, config: LevelsConfig, student: Student, teacher: Teacher) -> None:
        super().__init__()
        unknown = sorted(set(config.weight) - {"F", "D", "Z"})
        if unknown:
            raise BridgeTAError(f"distill.levels.weight: no level {', '.join(unknown)}, only F, D and Z", exit_code=2)
        if not config.levels:
            raise BridgeTAError("distill.levels.levels is empty", fix="Name F, D or Z", exit_code=2)
        self.config, self.names = config, tuple(dict.fromkeys(config.levels))
        widths = tap_widths(teacher)
        self.normalisers = nn.ModuleDict({level: Normaliser(config.normalise, widths[level]) for level in FEATURES})
        self.cells = CellWeighting(config.cells, student.grid, student.bev_grid)
        weights = torch.tensor([config.weight.get(level, 1.0) for level in self.names])
        self.register_buffer("weight", weights)

    def prepare(self, outputs: Iterable[Taps]) -> None:
        """Measure the teacher's statistics."""
        fit_scales(collect_scales(self.normalisers), outputs)

    def weigh_cells(self, labels: Labels, teacher: Taps) -> CellWeights:
        """Compute the weights of a batch's cells."""
        return self.cells(labels, teacher.Z)

    def measure(self, level: str, x: Taps, y: Taps, weights: CellWeights) -> Tensor:
        """Measure the distance of two networks at a level; of these only KL, from x to y, is not symmetric."""
        a, c = getattr(x, level), getattr(y, level)
        if level == "Z":
            return DISTANCES[self.config.distance](a, c, weights.label, self.config.tau)
        normalise = self.normalisers[level]
        return squared_distance(normalise(a), normalise(c), weights.feature)

    def weigh_terms(self, values: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
        """Turn a value per level into the terms `kd/LEVEL` of a loss."""
        return {f"kd/{name}": strength * self.weight[i] * values[name] for i, name in enumerate(self.names)}

    def calibrate(self, label_loss: Tensor, features: Tensor, losses: dict[str, Tensor], share: float) -> None:
        """Calibrate the weights of the levels by their gradients at `features`."""
        calibrate_weights(self.weight, label_loss, features, [losses[f"kd/{name}"] for name in self.names], share)


def calibrate_weights(
    weights: Tensor, label_loss: Tensor, features: Tensor, losses: Sequence[Tensor], share: float
) -> None:
    """Scale the `weights` of `losses` so that the gradient of each at `features` has the norm of `share` times the
    label loss's. One whose gradient vanishes keeps its weight.
    """
    target = share * compute_gradient_norm(label_loss, features)
    for i, loss in enumerate(losses):
        norm = compute_gradient_norm(loss, features)
        if norm > 0 and torch.isfinite(target / norm):
            weights[i] *= target / norm


def compute_gradient_norm(loss: Tensor, features: Tensor) -> Tensor:
    """Compute the norm of a loss's gradient at `features`, without freeing the graph."""
    (gradient,) = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    return torch.zeros((), device=loss.device) if gradient is None else gradient.float().norm()


def decode_with_student(student: Student, features: Tensor, adapter: Adapter) -> Taps:
    """Send another network's F, as wide as the teacher's, through the student's decoder and head, which the losses that
    follow train. F stays as it is, and D gets the teacher's channels.
    """
    with freeze_running_statistics(student.decoder, student.head):
        decoded = student.decode(adapter.to_student(features))
    return Taps(features, adapter.adapt("D", decoded.D), decoded.Z)


@contextmanager
def freeze_running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Let batch norms in training normalise by the batch without updating their running statistics, which are of the
    network's own features.
    """
    norms = [norm for norm in _list_norms(modules) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def use_running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Let batch norms in training normalise by their running statistics, for features that are not the network's own.

    These do not change.
    """
    norms = [norm for norm in _list_norms(modules) if norm.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def _list_norms(modules: Iterable[nn.Module]) -> list[_BatchNorm]:
    return [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
