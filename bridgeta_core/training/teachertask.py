"""Training the teacher on its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.data.dataset import Batch
from bridgeta_core.model.lift import LiftPlan, PlanCache
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.training.initial import start_from
from bridgeta_core.training.studenttask import kept_plans
from bridgeta_core.training.tasks import MapTask
from bridgeta_core.training.teacher_weights import load_teacher


class TeacherTask(MapTask):
    """The teacher, of LiDAR with or without cameras, on its label loss."""

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__(experiment, groups)
        self.teacher = Teacher(experiment.teacher, experiment.model, experiment.grid)
        if experiment.train.initial:
            start_from(self.teacher, load_teacher(experiment.train.initial)[0], experiment.train.initial)

    def setup(self, stage: str) -> None:
        """Not in the constructor, because averaging the weights copies the module, and a cache holds a lock."""
        self.plans = PlanCache(
            lambda k, pose: cast(LiftPlan, self.teacher.plan(k, pose)), size=kept_plans(self.experiment.data)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, 6, Y, X]` of a batch."""
        plan = self.plans(batch.intrinsics, batch.ego_T_cam) if self.teacher.camera is not None else None
        return self.teacher(batch.images, plan, batch.points).Z
