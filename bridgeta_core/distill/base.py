"""The contract between the training loop and every method of distillation: taps in, weighted losses out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.data.frames import Batch
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

    def fill(self, logits: Tensor) -> Tensor:
        """Return where each class is, bool `[B, 6, Y, X]`; where it is not known, where a teacher's logits see it."""
        return torch.where(self.known[:, :, None, None], self.masks > 0, logits > 0)


class Example(NamedTuple):
    """The teacher on a batch of unaugmented training frames, for what is measured or fitted before training.

    `fused` is the input of its fuser `[B, C, Y', X']`, for a method that `needs_live_teacher`. `view` is what it makes
    of the batch as the method's `view` transforms it at `step`, which counts the batches that were read.
    """

    taps: Taps
    labels: Labels
    fused: Tensor | None = None
    view: Taps | None = None
    step: int = 0


class View(NamedTuple):
    """What both networks make of a transformed batch; of these only the student's taps carry a graph."""

    teacher: Taps
    student: Taps
    labels: Labels


@dataclass(frozen=True, eq=False)
class Context:
    """What a loss may need besides the taps: the networks, what lies inside them, and the progress of training.

    `step` counts optimiser steps out of `steps`. While `warming_up`, only the modules of the method are trained, and
    the student's taps carry no graph. `strength` is the schedule's factor on all terms that compare networks. `gamma`
    is the focal loss's exponent. `stages` are what the stages of the student's decoder gave, the finest first, with the
    graph of its taps (`stages.compute_stages` has the teacher's). `fused`, the input of the teacher's fuser
    `[B, C, Y', X']`, is there for a method that `needs_live_teacher`, and `view` for one whose `view` transforms
    batches.
    """

    student: Student
    teacher: Teacher
    step: int
    steps: int
    strength: float = 1.0
    warming_up: bool = False
    gamma: float = 2.0
    stages: tuple[Tensor, ...] = ()
    fused: Tensor | None = None
    view: View | None = None

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.step / max(1, self.steps))


class Distiller(nn.Module, ABC):
    """A method: its losses, and the modules that exist for training only.

    Teacher and student are no submodules of a distiller: what it owns is trained with the student and never shipped.
    """

    needs_live_teacher = False
    """Whether the teacher must run in every step, because its taps, which a cache may hold, are not enough."""

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

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure or fit what the method needs of the teacher on training frames, once before training. Default:
        nothing.

        `examples` can be read several times, and every time the teacher runs anew. What comes of them belongs into
        buffers or parameters: a resumed run takes them from its checkpoint.
        """

    def view(self, batch: Batch, step: int) -> Batch | None:
        """Transform a batch, for a second pass of both networks in this step; None for none, as by default.

        Needs a live teacher. Batch norms of the student do not update their running statistics in that pass.
        """
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """List groups of the method's parameters that are not trained as the student's: `params`, `lr` (the schedule's
        peak), and `weight_decay`. Default: none.
        """
        return []

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
