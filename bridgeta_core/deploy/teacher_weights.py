"""A teacher's weights: one file that describes itself, like a student's (see `deploy.weights`); no vehicle needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bridgeta_core.config.experiment import TeacherConfig
from bridgeta_core.deploy.weights import (
    WeightsInfo,
    find_weights,
    load_network,
    read_description,
    read_format,
    read_info,
    write_weights,
)
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.teacher import Teacher

FORMAT = "bridgeta-teacher/1"


@dataclass
class TeacherInfo(WeightsInfo):
    """The description in a teacher's weights file: that of a student's, and the settings of `teacher`."""

    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    SETTINGS: ClassVar[dict[str, type]] = {**WeightsInfo.SETTINGS, "teacher": TeacherConfig}


def save_teacher(path: Path, teacher: Teacher, cameras: Sequence[str], provenance: Mapping[str, Any]) -> None:
    """Write the teacher to `path`, whole or not at all.

    `cameras` are the channels in the order of the camera axis, whether the teacher uses them or not; `provenance` is
    any mapping that JSON can hold.
    """
    info = TeacherInfo(teacher.model, teacher.grid, CLASS_NAMES, tuple(cameras), {**provenance}, teacher.config)
    write_weights(path, FORMAT, teacher, info)


def read_any_info(path: str | Path) -> WeightsInfo:
    """Read the description in the weights file of a student or of a teacher, of which it is a `TeacherInfo`.

    Raises BridgeTAError as `weights.read_info`.
    """
    path = find_weights(path)
    return read_description(path, FORMAT, TeacherInfo) if read_format(path) == FORMAT else read_info(path)


def load_teacher(path: str | Path) -> tuple[Teacher, TeacherInfo]:
    """Load a frozen teacher and its description from a weights file, in eval mode on the CPU, without asking a hub.

    Raises BridgeTAError as `weights.load_student` does, also for a student's file.
    """
    path = find_weights(path)
    info = read_description(path, FORMAT, TeacherInfo)
    teacher = load_network(lambda: Teacher(info.teacher, info.model, info.grid, pretrained=False), path)
    return teacher.eval().requires_grad_(False), info
