"""From CameraInfo and TF to a Rig, for replay and node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bridgeta_core.geometry.rig import DISTORTION_MODELS, EQUIDISTANT, Camera, Rig, find_distortion_problem
from bridgeta_core.geometry.transforms import Matrix
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.tf_tree import TfTree, strip_slash
from bridgeta_ros.pipeline.topics import match_names

# Names that drivers give to the equidistant model, which is Kannala and Brandt's with four coefficients.
_EQUIDISTANT = (EQUIDISTANT, "fisheye", "kannala_brandt", "kannala_brandt4", "kb4")
# Names that drivers and simulators give to images without distortion.
_UNDISTORTED = ("", "none", "no_distortion", "undistorted", "pinhole", "perspective", "rectilinear", "perfect")
# A stereo pair is turned by less to bring its images into one plane; some converters write other rotations into R.
_LARGEST_RECTIFICATION = np.radians(30)


def camera_from_info(name: str, info: Any, base_T_frame: Matrix, rectified: bool | None = None) -> Camera:
    """Make a Camera from a sensor_msgs/CameraInfo and the pose of its optical frame.

    `rectified` says whether the images are: then P holds and there is no distortion; otherwise K and D hold. None
    takes them for rectified when D is zero or empty and its model is not that of a fisheye lens. A P that is not there
    is K, if D is zero. As in image_geometry, P projects points of the message's frame, and the frame of K is turned
    against it by R, which is not the identity in a stereo pair. A P with a fourth column (the right camera of a pair)
    moves the camera. Binning and region of interest are applied, so that the size is that of the images.

    Raises BridgeTAError for numbers that are no calibration, for a distortion model that is not known, and for
    coefficients that it does not have.
    """
    where = f"CameraInfo of {name}"
    try:
        k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
        p = np.asarray(info.p, dtype=np.float64).reshape(3, 4)
    except ValueError as error:
        raise BridgeTAError("has a K that is not 3x3, or a P that is not 3x4", where=where) from error
    if not (np.isfinite(k).all() and np.isfinite(p).all() and np.isfinite(info.d).all()):
        raise BridgeTAError("holds values that are not finite", where=where, fix="Calibrate this camera")
    if rectified is None:
        rectified = not any(info.d) and info.distortion_model not in _EQUIDISTANT
    if not any(info.d) and p[0, 0] <= 0:
        rectified = False  # then K says the same, for a lens without distortion
    model, d = ("plumb_bob", ()) if rectified else _read_distortion(info, where)
    intrinsics = (p[:, :3] if rectified else k).copy()
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        what = "is not calibrated (zero focal length" + (
            " in P, which holds for rectified images)" if rectified else ")"
        )
        raise BridgeTAError(what, where=where, fix="Calibrate this camera")
    if not np.array_equal(intrinsics[2], (0, 0, 1)):
        raise BridgeTAError(f"has a last row {intrinsics[2].tolist()} in {'P' if rectified else 'K'}", where=where)
    pose = base_T_frame
    if not rectified:
        pose = pose @ _read_rectification(info)
    elif p[:, 3].any():
        frame_T_cam = np.eye(4)
        frame_T_cam[:3, 3] = -np.linalg.solve(intrinsics, p[:, 3])
        pose = pose @ frame_T_cam
    width, height = int(info.width), int(info.height)
    roi, binning = info.roi, (max(1, int(info.binning_x)), max(1, int(info.binning_y)))
    if roi.width and roi.height:
        intrinsics[:2, 2] -= roi.x_offset, roi.y_offset
        width, height = int(roi.width), int(roi.height)
    if binning != (1, 1):
        # A binned pixel covers whole pixels, so its centre lies between theirs.
        intrinsics[:2] /= np.array(binning)[:, None]
        intrinsics[:2, 2] += 0.5 / np.array(binning) - 0.5
        width, height = width // binning[0], height // binning[1]
    try:
        return Camera(name, width, height, intrinsics, pose, d, model)
    except BridgeTAError as error:
        raise BridgeTAError(error.what, where=where, fix=error.fix) from error


def _read_distortion(info: Any, where: str) -> tuple[str, tuple[float, ...]]:
    """Return the distortion model and its coefficients as `Camera` has them."""
    d, model = tuple(float(v) for v in info.d), info.distortion_model
    if model in _EQUIDISTANT:
        model = EQUIDISTANT
    elif not any(d):
        return "plumb_bob", ()
    elif model == "":
        model = "plumb_bob"
    # Some drivers append zeros, so that all models have as many coefficients.
    counts = [c for c in DISTORTION_MODELS.get(model, ()) if c < len(d) and not any(d[c:])]
    if counts and len(d) not in DISTORTION_MODELS[model]:
        d = d[: counts[-1]]
    problem = find_distortion_problem(model, d)
    if problem:
        raise BridgeTAError(
            problem, where=where, fix="Correct its D and distortion_model, or use this camera's rectified images"
        )
    return model, d


def _read_rectification(info: Any) -> Matrix:
    """Return frame_T_cam of a camera whose images are not rectified, from R (see `camera_from_info`)."""
    result, r = np.eye(4), np.asarray(info.r, dtype=np.float64)
    if r.size == 9 and np.isfinite(r).all() and np.abs(r).max() < 2:
        r = r.reshape(3, 3)
        is_rotation = np.allclose(r @ r.T, np.eye(3), atol=1e-4) and np.linalg.det(r) > 0
        if is_rotation and np.trace(r) > 1 + 2 * np.cos(_LARGEST_RECTIFICATION):
            result[:3, :3] = r
    return result


def find_info_remark(name: str, info: Any) -> str | None:
    """Say what in a CameraInfo that can be used may be meant otherwise; None if nothing is."""
    model, d = info.distortion_model, info.d
    if model in _EQUIDISTANT and not any(d):
        return (
            f"{name}: its CameraInfo has the model {model} with coefficients of zero; it is used as an ideal fisheye "
            "lens. If its images are rectified, let it say plumb_bob"
        )
    if model not in (*_EQUIDISTANT, *DISTORTION_MODELS) and model.lower() not in _UNDISTORTED:
        return (
            f"{name}: its CameraInfo has the unknown distortion model {model!r} with coefficients of zero; none is used"
        )
    return None


class RigReader:
    """Collects the calibration of some cameras from the messages of a recording.

    The first CameraInfo of a camera that is a calibration counts: some drivers send empty ones until they are ready.
    `rectified` says of a camera whether its images are (see `camera_from_info`).
    """

    def __init__(
        self, names: Sequence[str], base_frame: str = "base_link", rectified: Mapping[str, bool | None] | None = None
    ) -> None:
        self.tree = TfTree()
        self._names, self._base, self._rectified = tuple(names), base_frame, rectified or {}
        self._infos: dict[str, Any] = {}
        self._problems: dict[str, BridgeTAError] = {}  # of the first CameraInfo that is none, by camera
        self._refused = Counter[str]()

    def add_info(self, name: str, info: Any) -> None:
        """Take a CameraInfo."""
        if name in self._infos:
            return
        try:
            if not strip_slash(info.header.frame_id):
                raise BridgeTAError("names no frame", where=f"CameraInfo of {name}", fix="Set its header.frame_id")
            camera_from_info(name, info, np.eye(4), self._rectified.get(name))
        except BridgeTAError as error:
            self._problems.setdefault(name, error.with_traceback(None))
            self._refused[name] += 1
        else:
            self._infos[name] = info

    @property
    def complete(self) -> bool:
        """Whether every camera is calibrated and TF leads to it."""
        return len(self._infos) == len(self._names) and all(
            self.tree.connects(self._base, info.header.frame_id) for info in self._infos.values()
        )

    @property
    def remarks(self) -> list[str]:
        """What was passed over, and what may be meant otherwise."""
        skipped: dict[str, list[str]] = {}
        others: list[str] = []
        for name, info in self._infos.items():
            problem = self._problems.get(name)
            if problem:
                skipped.setdefault(f"{self._refused[name]} CameraInfo ({problem.what})", []).append(name)
            fault = self.tree.find_fault(self._base, info.header.frame_id)
            remark = None if self._rectified.get(name) else find_info_remark(name, info)
            others += [text for text in (fault, remark) if text is not None and text not in others]
        first = [
            f"{', '.join(names)}: passed over {what} before the first that is a calibration"
            for what, names in skipped.items()
        ]
        overflow = self.tree.overflow
        return first + others + ([] if overflow is None else [overflow])

    def build_rig(self) -> Rig:
        """Make the rig of the cameras.

        Raises BridgeTAError for a camera without a CameraInfo that is a calibration, and without a chain of transforms
        to the base frame.
        """
        cameras = []
        for name in self._names:
            if name not in self._infos:
                raise self._problems.get(name, BridgeTAError("no message", where=f"CameraInfo of {name}"))
            info = self._infos[name]
            try:
                pose = self.tree.lookup(self._base, info.header.frame_id)
            except BridgeTAError as error:
                raise BridgeTAError(error.what, where=f"camera {name}", fix=error.fix) from None
            cameras.append(camera_from_info(name, info, pose, self._rectified.get(name)))
        return Rig(tuple(cameras))


def select_cameras(names: Sequence[str], calibration: Rig) -> Rig:
    """Select the cameras `names` (as topics call them) of a calibration file, which may spell them differently.

    Raises BridgeTAError that lists the cameras that the file lacks.
    """
    matches = match_names(calibration.names, names)
    missing = [name for name in names if name not in matches]
    if missing:
        raise BridgeTAError(
            f"the calibration has no camera {', '.join(missing)}; it has {', '.join(calibration.names)}", exit_code=2
        )
    selected = calibration.select(tuple(matches[name] for name in names)).cameras
    return Rig(tuple(replace(camera, name=name) for name, camera in zip(names, selected, strict=True)))
