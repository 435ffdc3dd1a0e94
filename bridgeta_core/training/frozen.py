"""The trained teacher as distillation uses it: frozen, and invisible to whatever trains or saves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bridgeta_core.config.experiment import DataConfig, Experiment
from bridgeta_core.data.frames import Batch
from bridgeta_core.deploy.teacher_weights import load_teacher
from bridgeta_core.distill.stages import record_fuser_input
from bridgeta_core.model.lift import PlanCache
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.training.cache.taps import BatchWithTaps
from bridgeta_core.training.tasks import choose_plan_cache_size
from bridgeta_core.utils.errors import BridgeTAError


class FrozenTeacher:
    """Gives the teacher's taps of a batch, from the batch itself where it has them.

    It is not a module, so that the optimiser, checkpoints, DDP and the averaging of weights do not see it. A copy of an
    object that holds it shares it.
    """

    def __init__(self, network: Teacher, data: DataConfig) -> None:
        self.network = network.eval().requires_grad_(False)
        self._device = torch.device("cpu")
        camera = network.camera
        self._plans = None if camera is None else PlanCache(camera.plan, choose_plan_cache_size(data, camera))

    @classmethod
    def load(cls, path: str | Path, experiment: Experiment) -> FrozenTeacher:
        """Load the teacher of a weights file.

        Raises BridgeTAError (exit code 2) when it is for another label grid, other cameras or other images than the
        student's.
        """
        network, info = load_teacher(path)
        differences = []
        if info.grid != experiment.grid:
            differences.append(f"the label grid is {info.grid}, not {experiment.grid}")
        if network.camera is not None:
            if list(info.cameras) != experiment.data.cameras:
                differences.append(f"data.cameras is {list(info.cameras)}, not {experiment.data.cameras}")
            if network.model.image != experiment.model.image:
                differences.append(f"model.image is {network.model.image}, not {experiment.model.image}")
        if differences:
            raise BridgeTAError(
                f"is a teacher for other frames: {'; '.join(differences)}",
                where=path,
                fix="Train the student with the settings of the teacher, or another teacher",
                exit_code=2,
            )
        return cls(network, experiment.data)

    def check_student(self, student: Student, where: object) -> None:
        """Raise BridgeTAError (exit code 2) when the features of student and teacher lie on different cells."""
        if student.bev_grid != self.network.bev_grid:
            raise BridgeTAError(
                f"gives features on {self.network.bev_grid}; the student's are on {student.bev_grid}",
                where=where,
                fix="Give both networks the same model.lift.grid and model.lift.downsample",
                exit_code=2,
            )

    def to(self, device: torch.device | str) -> None:
        """Move the network, and from now on every batch from another device."""
        self._device = torch.device(device)
        self.network.to(device)

    def __call__(self, batch: Batch) -> Taps:
        """Return the taps of a batch in float32, without a graph."""
        return self.run(batch)[0]

    def run(self, batch: Batch) -> tuple[Taps, Tensor | None]:
        """Return the taps of a batch, and the input of the fuser where the teacher itself runs; without a graph."""
        with record_fuser_input(self.network) as inputs:
            taps = self._compute(batch)
        return taps, inputs[0] if inputs else None

    @torch.no_grad()
    def _compute(self, batch: Batch) -> Taps:
        batch = batch.to(self._device)
        if isinstance(batch, BatchWithTaps):
            return Taps(*(tap.float() for tap in batch.taps))
        plan = self._plans(batch.intrinsics, batch.ego_T_cam) if self._plans is not None else None
        return self.network(batch.images, plan, batch.points)

    def __deepcopy__(self, _: object) -> FrozenTeacher:
        return self
