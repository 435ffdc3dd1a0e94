"""Direct teacher-student distillation at the same levels as BridgeTA: its key control (A1)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.levels import Levels, Taps, read_by_student
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, StudentOutput
from bridgeta_core.model.teacher import Teacher, TeacherOutput


class Direct(Distiller):
    """The distance of teacher and student at every level. With `read_teacher` the student's decoder and head also
    learn from labels on the teacher's F, the part of BridgeTA that needs no assistant.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher)
        self.levels = Levels(config.levels, student)

    def prepare(self, teacher: Iterable[TeacherOutput]) -> None:
        """Take the teacher's statistics over training frames."""
        self.levels.prepare(teacher)

    def losses(
        self, teacher: TeacherOutput, student: StudentOutput, labels: Labels, context: Context
    ) -> dict[str, Tensor]:
        """`kd/F`, `kd/D`, `kd/Z`, and `label/teacher_feature` if it is wanted."""
        a, c = Taps(teacher.F, teacher.D, teacher.Z), Taps(*student)
        weights = self.levels.weights(labels, teacher)
        distances = {level: self.levels.distance(level, a, c, weights) for level in self.levels.names}
        losses = self.levels.weighted(distances, context.strength)
        if self.config.direct.read_teacher > 0:
            read = read_by_student(context.student, teacher.F)
            label_loss = focal_loss(read.Z, labels.masks, labels.known, context.gamma)
            losses["label/teacher_feature"] = self.config.direct.read_teacher * label_loss
        self.report = {f"distance_{level}": value.detach() for level, value in distances.items()}
        return losses

    def calibrate(self, label_loss: Tensor, student: StudentOutput, losses: dict[str, Tensor], share: float) -> None:
        """Set the levels' weights."""
        self.levels.calibrate(label_loss, student.F, losses, share)

    def trained_while_warming(self, student: Student) -> list[nn.Parameter]:
        """The student's decoder and head, where they read the teacher's F."""
        return (
            [*student.decoder.parameters(), *student.head.parameters()] if self.config.direct.read_teacher > 0 else []
        )
