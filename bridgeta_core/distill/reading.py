"""Sending a foreign F through a decoder and head that belong to another network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bridgeta_core.distill.levels import Taps
from bridgeta_core.model.student import Student


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
