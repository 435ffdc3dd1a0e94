"""Direct teacher-student distillation at the same levels as BridgeTA: its key control (A1)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.levels import Levels, decode_with_student
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class Direct(Distiller):
    """The distance of teacher and student at every level.

    With `read_teacher` the student's decoder and head also learn from labels on the teacher's F.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, config.levels.levels)
        self.levels = Levels(config.levels, student, teacher)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        self.levels.prepare(example.taps for example in examples)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/F`, `kd/D`, `kd/Z`, and `label/teacher_feature` where it has a weight."""
        student = self.adapter(student)
        weights = self.levels.weigh_cells(labels, teacher)
        distances = {level: self.levels.measure(level, teacher, student, weights) for level in self.levels.names}
        losses = self.levels.weigh_terms(distances, context.strength)
        if self.config.direct.read_teacher > 0:
            taps = decode_with_student(context.student, teacher.F, self.adapter)
            label_loss = focal_loss(taps.Z, labels.masks, labels.known, context.gamma)
            losses["label/teacher_feature"] = self.config.direct.read_teacher * label_loss
        self.report = {f"distance_{level}": value.detach() for level, value in distances.items()}
        return losses

    def calibrate(self, label_loss: Tensor, student: Taps, losses: dict[str, Tensor], share: float) -> None:
        """Set the weights of the levels."""
        self.levels.calibrate(label_loss, student.F, losses, share)

    def select_warmup_parameters(self, student: Student) -> list[nn.Parameter]:
        """Select the student's decoder and head, where they decode the teacher's F."""
        if self.config.direct.read_teacher == 0:
            return []
        return [*student.decoder.parameters(), *student.head.parameters()]
