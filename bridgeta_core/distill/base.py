"""The contract between the training loop and every way of distilling: taps in, weighted losses out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.model.student import Student, StudentOutput
from bridgeta_core.model.teacher import Teacher, TeacherOutput


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of a batch: `masks` `[B, 6, Y, X]` of 0 and 1, and `known` bool `[B, 6]`.

    A frame without labels knows no class; it takes part in the terms that compare networks, and in no label loss.
    """

    masks: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Context:
    """What a loss may need besides the taps: the networks themselves, and how far training is.

    `step` counts optimiser steps of `steps` in all. `warming` holds while only what the method brings is trained: the
    student's taps carry no graph then. `strength` is the factor on all terms that compare networks, which the schedule
    raises from 0 and may lower again. `gamma` is the focal loss's exponent.
    """

    student: Student
    teacher: Teacher
    step: int
    steps: int
    strength: float = 1.0
    warming: bool = False
    gamma: float = 2.0

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.step / max(1, self.steps))


class Distiller(nn.Module, ABC):
    """A method: its losses, and the modules that exist for training alone.

    The teacher and the student are no submodules of a distiller: what it owns is what it trains and never ships.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__()
        self.config = config
        self.report: dict[str, Tensor] = {}
        """Scalars to log that the last call of `losses` left: no losses, but what explains them."""

    @abstractmethod
    def losses(
        self, teacher: TeacherOutput, student: StudentOutput, labels: Labels, context: Context
    ) -> dict[str, Tensor]:
        """Weighted scalar terms that are added to the student's label loss; `kd/LEVEL` compares networks at a level.

        The teacher's taps carry no graph. Terms named `kd/...` are multiplied by `context.strength` already.
        """

    def prepare(self, teacher: Iterable[TeacherOutput]) -> None:
        """Take what is needed from the teacher's outputs on training frames, once, before training; nothing here."""

    def calibrate(self, label_loss: Tensor, student: StudentOutput, losses: dict[str, Tensor], share: float) -> None:
        """Set the weights of the levels once, so that each one's gradient at the student's F has the norm of `share`
        times the label loss's; nothing here.
        """

    def trained_while_warming(self, student: Student) -> list[nn.Parameter]:
        """Parameters of the student that the warm-up trains too, because the method reads through them."""
        return []

    def assistant_logits(self, teacher: TeacherOutput, student: StudentOutput, context: Context) -> Tensor | None:
        """The prediction `[B, 6, Y, X]` of a teacher assistant, to score it beside the student's; None without one."""
        return None

    def train_modules(self) -> list[nn.Module]:
        """The modules that are trained along and left behind."""
        return [module for module in self.children() if any(p.requires_grad for p in module.parameters())]

    def export(self, student: Student) -> Student:
        """The student as it ships: unchanged, whatever the method was."""
        return student
