"""The lines of /diagnostics: what they are made of, and which of them are news. No ROS."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridgeta_core.geometry.rig import Rig

OK, WARN, ERROR = 0, 1, 2  # diagnostic_msgs/DiagnosticStatus


@dataclass(frozen=True)
class Status:
    """One line of /diagnostics."""

    name: str
    level: int
    message: str
    values: Mapping[str, str]


def calibration_status(rig: Rig | None, source: str, problem: str | None) -> Status:
    """Of the calibration in use, where it comes from, and what is wrong or missing."""
    values = {"source": source}
    for camera in rig.cameras if rig else ():
        x, y, z = camera.ego_T_cam[:3, 3]
        size, focal = f"{camera.width}x{camera.height}", camera.intrinsics[0, 0]
        values[camera.name] = f"{size}, focal length {focal:.1f} px, at {x:.2f} {y:.2f} {z:.2f} m"
    if rig is None:
        return Status("calibration", ERROR, f"waiting: {problem}", values)
    return Status("calibration", WARN if problem else OK, problem or f"{len(rig.cameras)} cameras", values)


def network_status(weights: str, device: str, precision: str, remarks: Sequence[str]) -> Status:
    """Of the network in use, and what it had to give up."""
    values = {"weights": weights, "device": device, "precision": precision}
    return Status("network", WARN if remarks else OK, "; ".join(remarks) or f"{device}, {precision}", values)


class Changes:
    """Which statuses differ from the last time in level or in words, for a log that does not repeat itself."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[int, str]] = {}

    def of(self, statuses: Sequence[Status]) -> list[Status]:
        """The changed ones. Numbers do not count, and what is well from the start is not news."""
        changed = []
        for status in statuses:
            # Digits within a word are a name's, such as camera0.
            words = re.sub(r"\b\d+(\.\d+)?\b", "", status.message)
            now = (status.level, words if status.level != OK else "")
            if now != self._said.get(status.name, (OK, "")):
                changed.append(status)
            self._said[status.name] = now
        return changed
