"""A teacher's weights: one file that describes itself, as a student's (see `weights`), which no vehicle needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bridgeta_core.config.experiment import TeacherConfig
from bridgeta_core.deploy.weights import WeightsInfo, fill, read_description, resolve, write
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.teacher import Teacher

FORMAT = "bridgeta-teacher/1"


@dataclass
class TeacherInfo(WeightsInfo):
    """What a teacher's weights file says about itself: what a student's does, and the settings of `teacher`."""

    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    SETTINGS: ClassVar[dict[str, type]] = {**WeightsInfo.SETTINGS, "teacher": TeacherConfig}


def save_teacher(path: Path, teacher: Teacher, cameras: Sequence[str], provenance: Mapping[str, Any]) -> None:
    """Write the teacher to `path`, whole or not at all.

    `cameras` are the channels in the order of the camera axis, whether the teacher looks at them or not; `provenance`
    is any mapping that JSON can hold.
    """
    info = TeacherInfo(teacher.model, teacher.grid, CLASS_NAMES, tuple(cameras), {**provenance}, teacher.config)
    write(path, FORMAT, teacher, info)


def load_teacher(path: str | Path) -> tuple[Teacher, TeacherInfo]:
    """The teacher of a weights file, in eval mode on the CPU and not to be trained, and its description.

    Asks no hub. Raises BridgeTAError as `weights.load_student` does; a student's file is refused by name.
    """
    path = resolve(path)
    info = read_description(path, FORMAT, TeacherInfo)
    teacher = Teacher(info.teacher, info.model, info.grid, pretrained=False)
    fill(teacher, path)
    return teacher.eval().requires_grad_(False), info
