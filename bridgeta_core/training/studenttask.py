"""Training the camera-only student on its labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bridgeta_core.config.experiment import DataConfig, Experiment
from bridgeta_core.data.dataset import Batch
from bridgeta_core.deploy.weights import load_student
from bridgeta_core.model.lift import PlanCache
from bridgeta_core.model.student import Student
from bridgeta_core.training.initial import start_from
from bridgeta_core.training.tasks import MapTask


def kept_plans(data: DataConfig) -> int:
    """How many calibrations' plans are kept. A fleet has few calibrations, and mirroring the world doubles them; but
    where every sample or image is changed by its own amount, no plan is of use again, and at full scale one has 50 MB.
    """
    world = data.rotate or data.scale or data.translate
    return data.batch_size if world or data.image_resize or data.image_flip or data.image_rotate else 64


class StudentTask(MapTask):
    """The camera-only student on its label loss."""

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__(experiment, groups)
        # Anew here, so that one seed gives one student, whatever is built before it: methods are compared in pairs.
        torch.manual_seed(experiment.train.seed)
        self.student = Student(experiment.model, experiment.grid)
        if experiment.train.initial:
            start_from(self.student, load_student(experiment.train.initial)[0], experiment.train.initial)

    def setup(self, stage: str) -> None:
        """Not in the constructor, because averaging the weights copies the module, and a cache holds a lock."""
        self.plans = PlanCache(self.student.plan, size=kept_plans(self.experiment.data))

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, 6, Y, X]` of a batch."""
        return self.student(batch.images, self.plans(batch.intrinsics, batch.ego_T_cam)).Z
