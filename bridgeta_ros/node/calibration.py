"""The calibration of a running vehicle: what CameraInfo, TF or a file have given, and what is still missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import numpy as np

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.calibration import camera_from_info, select_cameras
from bridgeta_ros.pipeline.tf_tree import TfTree


class LiveCalibration:
    """Collects the calibration of the cameras `names`, in this order, as their messages come.

    `rig` is None until at least `minimum` cameras are calibrated; then the others have `grace` seconds. A camera whose
    calibration turns bad keeps its last good one. `problems` says by camera what is missing or wrong. A rig file
    replaces all messages.
    """

    def __init__(
        self,
        names: Sequence[str],
        base_frame: str,
        minimum: int,
        file: Rig | None = None,
        *,
        grace: float = 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.rig: Rig | None = None if file is None else select_cameras(names, file)
        self.from_file = file is not None
        self.problems: dict[str, str] = {} if file else dict.fromkeys(names, "no CameraInfo yet")
        self._names, self._base, self._minimum = tuple(names), base_frame, minimum
        self._grace, self._clock = grace, clock
        self._since: float | None = None  # when the first camera was calibrated
        self._tree = TfTree()
        self._infos: dict[str, tuple[Any, Any]] = {}  # signature and message, by camera
        self._cameras: dict[str, Camera] = {}

    @property
    def complete(self) -> bool:
        """Whether every camera is calibrated and nothing is wrong."""
        return not self.problems

    @property
    def problem(self) -> str | None:
        """What is missing or wrong, in one line; None if nothing is."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.problems.items():
            by_reason.setdefault(reason, []).append(name)
        lines = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
        return "; ".join(lines) or None

    def add_info(self, name: str, message: Any) -> bool:
        """Take a CameraInfo; return whether `rig` has changed."""
        signature = _sign(message)
        if self.from_file or (name in self._infos and self._infos[name][0] == signature):
            return False
        self._infos[name] = (signature, message)
        self._calibrate(name)
        return self.update_rig()

    def add_tf(self, message: Any, *, static: bool = False) -> bool:
        """Take a TFMessage of /tf or, if it is `static`, of /tf_static; return whether `rig` has changed."""
        if self.from_file:
            return False
        self._tree.add_message(message, static=static)
        for name in self._infos:
            self._calibrate(name)
        return self.update_rig()

    def update_rig(self) -> bool:
        """Make the rig of what is known, if nothing more is waited for; return whether it has changed."""
        cameras = tuple(self._cameras[name] for name in self._names if name in self._cameras)
        if cameras and self._since is None:
            self._since = self._clock()
        waiting = len(cameras) < len(self._names) and (
            len(cameras) < self._minimum or self._since is None or self._clock() - self._since < self._grace
        )
        if self.from_file or waiting or not cameras:
            return False
        rig = Rig(cameras)
        if self.rig is not None and self.rig.key() == rig.key():
            return False
        self.rig = rig
        return True

    def _calibrate(self, name: str) -> None:
        _, info = self._infos[name]
        try:
            if not info.header.frame_id:
                raise BridgeTAError("names no frame", where=name, fix="Set header.frame_id")
            pose = self._tree.lookup(self._base, info.header.frame_id)
            self._cameras[name] = camera_from_info(name, info, pose)
            fault = self._tree.find_fault(self._base, info.header.frame_id)
            if fault is None:
                self.problems.pop(name, None)
            else:
                self.problems[name] = f"{fault}, the earlier transform stays in use"
        except BridgeTAError as error:
            what = f"CameraInfo {error.what}" if error.where else error.what
            remark = ", the earlier calibration stays in use" if name in self._cameras else ""
            self.problems[name] = f"{what}{remark}" + (f". {error.fix}" if error.fix else "")


def _sign(info: Any) -> tuple[Any, ...]:
    """Return everything in a CameraInfo but its stamp, to compare it by."""
    numbers = tuple(np.asarray(values, dtype=np.float64).tobytes() for values in (info.d, info.k, info.r, info.p))
    roi = info.roi
    window = (roi.x_offset, roi.y_offset, roi.width, roi.height)
    plain = (info.header.frame_id, info.width, info.height, info.distortion_model, info.binning_x, info.binning_y)
    return plain + window + numbers
