"""The lines of /diagnostics, and which of them have changed. No ROS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridgeta_core.geometry.coverage import CameraCoverage, find_remarks
from bridgeta_core.geometry.rig import Rig

OK, WARN, ERROR = 0, 1, 2  # diagnostic_msgs/DiagnosticStatus


@dataclass(frozen=True)
class Status:
    """One line of /diagnostics."""

    name: str
    level: int
    message: str
    values: Mapping[str, str]


def describe_calibration(
    rig: Rig | None,
    source: str,
    problem: str | None,
    remark: str | None = None,
    coverage: Sequence[CameraCoverage] = (),
) -> Status:
    """Describe the calibration in use, its source, what is wrong or missing, a remark, and what the cameras see."""
    values = {"source": source, **({"remark": remark} if remark else {})}
    for camera in rig.cameras if rig else ():
        x, y, z = camera.ego_T_cam[:3, 3]
        size, focal = f"{camera.width}x{camera.height}", camera.intrinsics[0, 0]
        values[camera.name] = f"{size}, focal length {focal:.1f} px, at {x:.2f} {y:.2f} {z:.2f} m"
    values.update({f"{view.camera.name} coverage": view.describe() for view in coverage})
    if rig is None:
        return Status("calibration", ERROR, f"waiting: {problem}", values)
    problems = [*([problem] if problem else []), *find_remarks(coverage)]
    message = "; ".join(problems) or f"{len(rig.cameras)} cameras"
    return Status("calibration", WARN if problems else OK, message, values)


def describe_network(weights: str, device: str, backend: str, precision: str, remarks: Sequence[str]) -> Status:
    """Describe the network in use; `remarks` say what it had to give up, such as the GPU."""
    values = {"weights": weights, "device": device, "backend": backend, "precision": precision}
    return Status("network", WARN if remarks else OK, "; ".join(remarks) or f"{device}, {backend}, {precision}", values)


def excuse_start(statuses: Sequence[Status]) -> list[Status]:
    """Report as OK what is missing while a node starts: cameras, calibration and TF come one after the other."""
    return [s if s.level == OK else Status(s.name, OK, f"starting: {s.message}", s.values) for s in statuses]


class Changes:
    """Remembers statuses, so that a log does not repeat itself."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, str]] = {}

    def update(self, statuses: Sequence[Status]) -> list[Status]:
        """Return the statuses that have changed in level or words.

        Numbers do not count, and a status that is OK from the start has not changed.
        """
        changed = []
        for status in statuses:
            # Digits within a word are a name's, such as camera0.
            words = re.sub(r"\b\d+(\.\d+)?\b", "", status.message)
            current = (status.level, words if status.level != OK else "")
            if current != self._last.get(status.name, (OK, "")):
                changed.append(status)
            self._last[status.name] = current
        return changed
