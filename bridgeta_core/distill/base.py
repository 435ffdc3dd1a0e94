"""The contract between the training loop and every method of distillation: taps in, weighted losses out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.normalise import Adapter
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a batch: `masks` `[B, 6, Y, X]` of 0 and 1, and `known` bool `[B, 6]`.

    In a frame without labels no class is known. It takes part in the terms that compare networks, and in no label loss.
    """

    masks: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Context:
    """What a loss may need besides the taps: the networks, and the progress of training.

    `step` counts optimiser steps out of `steps`. While `warming_up`, only the modules of the method are trained, and
    the student's taps carry no graph. `strength` is the schedule's factor on all terms that compare networks. `gamma`
    is the focal loss's exponent.
    """

    student: Student
    teacher: Teacher
    step: int
    steps: int
    strength: float = 1.0
    warming_up: bool = False
    gamma: float = 2.0

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.step / max(1, self.steps))


class Distiller(nn.Module, ABC):
    """A method: its losses, and the modules that exist for training only.

    Teacher and student are no submodules of a distiller: what it owns is trained with the student and never shipped.
    """

    def __init__(
        self, config: DistillConfig, student: Student, teacher: Teacher, levels: Collection[str] = ("F", "D")
    ) -> None:
        super().__init__()
        self.config = config
        self.adapter = Adapter(student, teacher, levels)
        """What brings the student's taps at the `levels` that are compared to the teacher's channels."""
        self.report: dict[str, Tensor] = {}
        """Scalars to log of the last call of `compute_losses`: no losses, but what explains them."""

    @abstractmethod
    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute weighted scalar terms to add to the student's label loss.

        A term `kd/LEVEL` compares networks at a level and includes the factor `context.strength`. The teacher's taps
        carry no graph.
        """

    def prepare(self, teacher: Iterable[Taps]) -> None:
        """Measure what is needed of the teacher's taps on training frames, once before training. Default: nothing."""

    def calibrate(self, label_loss: Tensor, student: Taps, losses: dict[str, Tensor], share: float) -> None:
        """Set the weights of the levels, so that the gradient of each at the student's F has the norm of `share` times
        the label loss's. Called once. Default: nothing.
        """

    def select_warmup_parameters(self, student: Student) -> list[nn.Parameter]:
        """Select the student's parameters that the warm-up trains too, because the method decodes with them."""
        return []

    def predict_assistant(self, teacher: Taps, student: Taps, context: Context) -> Tensor | None:
        """Predict logits `[B, 6, Y, X]` of a teacher assistant, to score beside the student's; None without one."""
        return None
