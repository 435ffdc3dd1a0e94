"""The trained teacher as distillation uses it: frozen, and hidden from all that trains or saves."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from bridgeta_core.config.experiment import DataConfig, Experiment
from bridgeta_core.data.frames import Batch
from bridgeta_core.model.lift import LiftPlan, PlanCache
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import Teacher, TeacherOutput
from bridgeta_core.training.cache.taps import TappedBatch
from bridgeta_core.training.tasks import kept_plans
from bridgeta_core.training.teacher_weights import load_teacher
from bridgeta_core.utils.errors import BridgeTAError


class FrozenTeacher:
    """Gives the teacher's taps of a batch, from the batch itself where it brings them along.

    Not a module: the optimiser, checkpoints, DDP and the averaging of weights do not see it, and a copy of what holds
    it shares it.
    """

    def __init__(self, network: Teacher, data: DataConfig) -> None:
        self.network = network.eval().requires_grad_(False)
        self._device = torch.device("cpu")
        self._plans = PlanCache(lambda k, pose: cast(LiftPlan, network.plan(k, pose)), size=kept_plans(data))

    @classmethod
    def load(cls, path: str | Path, experiment: Experiment) -> FrozenTeacher:
        """The teacher of a weights file. Raises BridgeTAError (exit code 2) when it does not see the frames or the grid
        that the experiment trains the student on.
        """
        network, info = load_teacher(path)
        differences = [
            f"{name} is {theirs}, not {ours}"
            for name, theirs, ours in (
                ("the label grid", info.grid, experiment.grid),
                ("data.cameras", list(info.cameras), experiment.data.cameras),
                ("model.image", network.model.image, experiment.model.image),
            )
            # A teacher without cameras does not mind which ones there are.
            if theirs != ours and (network.camera is not None or name == "the label grid")
        ]
        if differences:
            raise BridgeTAError(
                f"is a teacher for other frames: {'; '.join(differences)}",
                where=path,
                fix="Train the student with the settings of the teacher, or another teacher",
                exit_code=2,
            )
        return cls(network, experiment.data)

    def check(self, student: Student, where: object) -> None:
        """Raise BridgeTAError (exit code 2) when the taps of student and teacher differ in shape."""
        ours = (student.bev_grid, student.config.decoder.width, student.decoder.channels)
        theirs = (self.network.bev_grid, self.network.model.decoder.width, self.network.decoder.channels)
        if ours != theirs:
            raise BridgeTAError(
                f"gives F and D of {theirs[1]} and {theirs[2]} channels on {theirs[0]}; "
                f"the student's have {ours[1]} and {ours[2]} on {ours[0]}",
                where=where,
                fix="Give both networks the same model.lift.grid, model.lift.downsample and model.decoder",
                exit_code=2,
            )

    def to(self, device: torch.device | str) -> None:
        """Move the network, and from now on every batch that comes from elsewhere."""
        self._device = torch.device(device)
        self.network.to(device)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutput:
        """All taps of a batch, without a graph."""
        batch = batch.to(self._device)
        if isinstance(batch, TappedBatch) and (taps := batch.taps()) is not None:
            return taps
        plan = self._plans(batch.intrinsics, batch.ego_T_cam) if self.network.camera is not None else None
        return cast(TeacherOutput, self.network(batch.images, plan, batch.points))

    def __deepcopy__(self, _: object) -> FrozenTeacher:
        return self
