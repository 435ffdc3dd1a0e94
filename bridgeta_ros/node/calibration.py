"""The calibration of a running vehicle: what CameraInfo, TF or a file have given, and what is still missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any

import cv2
import numpy as np

from bridgeta_core.geometry.rig import EQUIDISTANT, Camera, Rig
from bridgeta_core.geometry.transforms import Matrix, invert, transform
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.calibration import camera_from_info, find_info_remark, select_cameras
from bridgeta_ros.pipeline.tf_tree import TfTree, strip_slash

_CHANGES, _CALM = 5, 10.0  # so many rigs within so many seconds are taken at once; then one in two seconds


class LiveCalibration:
    """Collects the calibration of the cameras `names`, in this order, as their messages come.

    `rig` is None until at least `minimum` cameras are calibrated; then the others have `grace` seconds. A camera whose
    calibration turns bad keeps its last good one. `problems` says by camera what is missing or wrong. The images of the
    cameras `rectified` are (see `camera_from_info`). A rig file replaces all messages.

    Another rig costs the network a new lift, so a calibration that moves no pixel by more than `tolerance` does not
    replace the one in use (some drivers send another one with every image); `remark` says so. What moves more is
    used, but only once in two seconds if it goes on and on.
    """

    def __init__(
        self,
        names: Sequence[str],
        base_frame: str,
        minimum: int,
        file: Rig | None = None,
        *,
        rectified: Collection[str] = (),
        tolerance: float = 0.0,
        grace: float = 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.rig: Rig | None = None if file is None else select_cameras(names, file)
        self.from_file = file is not None
        self.problems: dict[str, str] = {} if file else dict.fromkeys(names, "no CameraInfo yet")
        self._names, self._base, self._minimum = tuple(names), base_frame, minimum
        self._rectified = dict.fromkeys(rectified, True)
        self._info_remarks: dict[str, str | None] = {}
        self._tolerance, self._grace, self._clock = tolerance, grace, clock
        self._shifts: dict[str, float] = {}  # largest change that was tolerated, in pixels by camera
        self._changes: deque[float] = deque(maxlen=_CHANGES)  # when the last rigs were made
        self._restless: float | None = None  # when a rig last had to wait, since there were many
        self._since: float | None = None  # when the first camera was calibrated
        self._tree = TfTree()
        self._infos: dict[str, tuple[Any, Any]] = {}  # signature and message, by camera
        self._cameras: dict[str, Camera] = {}

    @property
    def complete(self) -> bool:
        """Whether every camera is calibrated and nothing is wrong."""
        return not self.problems and not self._is_restless()

    @property
    def problem(self) -> str | None:
        """What is missing or wrong, in one line; None if nothing is."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.problems.items():
            by_reason.setdefault(reason, []).append(name)
        lines = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
        if self._is_restless():
            lines.append("the calibration does not rest, so it is used once in two seconds (calibration_tolerance)")
        return "; ".join(lines) or None

    @property
    def remark(self) -> str | None:
        """What in the messages may be meant otherwise, and which changes are too small to be used; None if nothing."""
        remarks = [remark for remark in self._info_remarks.values() if remark is not None]
        if self._shifts:
            most = ", ".join(f"{name} up to {shift:.2g} px" for name, shift in self._shifts.items())
            remarks.append(f"small changes are not used ({most}; calibration_tolerance is {self._tolerance:g} px)")
        if (overflow := self._tree.overflow) is not None:
            remarks.append(overflow)
        return "; ".join(remarks) or None

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
        if not message.transforms:
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
        now = self._clock()
        many = len(self._changes) == _CHANGES and now - self._changes[0] < _CALM
        if many and now - self._changes[-1] < _CALM / _CHANGES:
            self._restless = now
            return False
        self._changes.append(now)
        self.rig = rig
        return True

    def _is_restless(self) -> bool:
        return self._restless is not None and self._clock() - self._restless < _CALM

    def _calibrate(self, name: str) -> None:
        _, info = self._infos[name]
        try:
            if not strip_slash(info.header.frame_id):
                raise BridgeTAError("names no frame", where=name, fix="Set header.frame_id")
            pose = self._tree.lookup(self._base, info.header.frame_id)
            rectified = self._rectified.get(name)
            camera, known = camera_from_info(name, info, pose, rectified), self._cameras.get(name)
            self._info_remarks[name] = None if rectified else find_info_remark(name, info)
            shift = float("inf") if known is None else measure_shift(known, camera)
            if shift > self._tolerance:
                self._cameras[name] = camera
            elif shift > 0:
                self._shifts[name] = max(shift, self._shifts.get(name, 0.0))
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


def measure_shift(old: Camera, new: Camera) -> float:
    """Measure how far, in pixels, what one calibration of a camera sees moves in the image of another.

    It is the largest distance between the projections of 25 points at 10 m, over the inner four fifths of the field of
    view; infinite for images of different sizes and for lenses of different models.
    """
    plain = [(c.width, c.height, c.distortion_model, c.crop_bottom) for c in (old, new)]
    if plain[0] != plain[1]:
        return float("inf")
    if Rig((old,)).key() == Rig((new,)).key():
        return 0.0
    steps = np.linspace(0.1, 0.9, 5)
    pixels = np.stack(np.meshgrid(steps * old.width, steps * old.height), axis=-1).reshape(-1, 2)
    rays = (pixels - old.intrinsics[:2, 2]) / old.intrinsics[[0, 1], [0, 1]]
    if old.distortion_model == EQUIDISTANT:
        angles = np.linalg.norm(rays, axis=1, keepdims=True)
        rays = rays * np.tan(np.minimum(angles, 1.2)) / np.maximum(angles, 1e-9)
    rays = np.column_stack((rays, np.ones(len(rays))))
    points = 10 * rays / np.linalg.norm(rays, axis=1, keepdims=True)
    shifts = _project(new, transform(invert(new.ego_T_cam) @ old.ego_T_cam, points)) - _project(old, points)
    largest = float(np.linalg.norm(shifts, axis=1).max())
    return largest if np.isfinite(largest) else float("inf")


def _project(camera: Camera, points: Matrix) -> Matrix:
    """Project points `[N, 3]` of the camera's frame to pixels `[N, 2]`, lens included."""
    model = cv2.fisheye if camera.distortion_model == EQUIDISTANT else cv2
    d = np.array(camera.distortion or np.zeros(4), dtype=np.float64)
    pixels, _ = model.projectPoints(points[:, None], np.zeros(3), np.zeros(3), camera.intrinsics, d)
    return pixels.reshape(-1, 2)
