"""From CameraInfo and TF to a Rig, for replay and node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import Matrix, invert, rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.topics import match_names

# Both put their coefficients in OpenCV's order: k1, k2, p1, p2, k3, k4, k5, k6.
_POLYNOMIAL_MODELS = ("", "plumb_bob", "rational_polynomial")


def _frame(name: str) -> str:
    return name.lstrip("/")  # tf (of ROS 1) wrote leading slashes; some drivers still do


class TfTree:
    """The newest transform of every link on /tf and /tf_static."""

    def __init__(self) -> None:
        self._links: dict[str, tuple[str, Matrix]] = {}

    def add(self, parent: str, child: str, parent_T_child: Matrix) -> None:
        """Set a link; it replaces an earlier parent of the same child."""
        self._links[_frame(child)] = (_frame(parent), parent_T_child)

    def add_message(self, message: Any) -> None:
        """Set the links of a tf2_msgs/TFMessage.

        Raises BridgeTAError for a transform that is not rigid, after it has set all others of the message.
        """
        problem: BridgeTAError | None = None
        for entry in message.transforms:
            t, q = entry.transform.translation, entry.transform.rotation
            try:
                pose = rigid((t.x, t.y, t.z), (q.w, q.x, q.y, q.z))
            except BridgeTAError as error:
                problem = BridgeTAError(error.what, where=f"TF {entry.header.frame_id} <- {entry.child_frame_id}")
                continue
            self.add(entry.header.frame_id, entry.child_frame_id, pose)
        if problem is not None:
            raise problem

    def _to_root(self, frame: str) -> dict[str, Matrix]:
        """Return every ancestor of a frame (itself first, the root last) with ancestor_T_frame."""
        chain = {frame: np.eye(4)}
        while frame in self._links:
            parent, parent_T_child = self._links[frame]
            if parent in chain:
                raise BridgeTAError(f"TF has a loop through {parent}", fix="Each frame needs one parent")
            chain[parent] = parent_T_child @ chain[frame]
            frame = parent
        return chain

    def connects(self, target: str, source: str) -> bool:
        """Return whether `lookup` would find a chain."""
        return not self._to_root(_frame(source)).keys().isdisjoint(self._to_root(_frame(target)))

    def lookup(self, target: str, source: str) -> Matrix:
        """Return target_T_source. Raises BridgeTAError that names the frames between which a link is missing."""
        target, source = _frame(target), _frame(source)
        up_source, up_target = self._to_root(source), self._to_root(target)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            known = set(self._links) | {parent for parent, _ in self._links.values()}
            absent = [frame for frame in (target, source) if frame not in known]
            why = (
                f"TF does not know {' nor '.join(absent)}"
                if absent
                else f"{source} hangs on {list(up_source)[-1]}, {target} on {list(up_target)[-1]}"
            )
            raise BridgeTAError(
                f"no transform {target} <- {source}: {why}",
                fix="Publish the missing link on /tf_static, or give the calibration as a file (docs/rig.md)",
            )
        return invert(up_target[common]) @ up_source[common]


def camera_from_info(name: str, info: Any, base_T_frame: Matrix, rectified: bool | None = None) -> Camera:
    """Make a Camera from a sensor_msgs/CameraInfo and the pose of its optical frame.

    `rectified` says whether the images are: then P holds and there is no distortion; otherwise K and D hold. None
    takes them for rectified when D is zero or empty and P is there. A P with a fourth column (the right camera of a
    stereo pair) moves the camera. Binning and region of interest are applied, so that the size is that of the images.

    Raises BridgeTAError for numbers that are no calibration and for a distortion model that is not polynomial.
    """
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    p = np.asarray(info.p, dtype=np.float64).reshape(3, 4)
    d = tuple(float(v) for v in info.d)
    where = f"CameraInfo of {name}"
    if not (np.isfinite(k).all() and np.isfinite(p).all() and np.isfinite(d).all()):
        raise BridgeTAError("holds values that are not finite", where=where, fix="Calibrate this camera")
    if rectified is None:
        rectified = not any(d) and p[0, 0] > 0
    if not rectified and any(d) and info.distortion_model not in _POLYNOMIAL_MODELS:
        raise BridgeTAError(
            f"distortion model {info.distortion_model!r} is not supported",
            where=where,
            fix="Use this camera's rectified images, or a plumb_bob or rational_polynomial calibration",
        )
    intrinsics = (p[:, :3] if rectified else k).copy()
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise BridgeTAError("is not calibrated (zero focal length)", where=where, fix="Calibrate this camera")
    if not np.array_equal(intrinsics[2], (0, 0, 1)):
        raise BridgeTAError(f"has a last row {intrinsics[2].tolist()} in {'P' if rectified else 'K'}", where=where)
    pose = base_T_frame
    if rectified and p[:, 3].any():
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
    return Camera(name, width, height, intrinsics, pose, () if rectified or not any(d) else d)


def rig_from_messages(infos: Mapping[str, Any], tree: TfTree, base_frame: str = "base_link") -> Rig:
    """Make the rig of cameras by name, in the mapping's order, from their CameraInfo and the frames it names.

    Raises BridgeTAError for a camera without calibration or without a chain of transforms to `base_frame`.
    """
    cameras = []
    for name, info in infos.items():
        if not info.header.frame_id:
            raise BridgeTAError("names no frame", where=f"CameraInfo of {name}", fix="Set its header.frame_id")
        try:
            pose = tree.lookup(base_frame, info.header.frame_id)
        except BridgeTAError as error:
            raise BridgeTAError(error.what, where=f"camera {name}", fix=error.fix) from None
        cameras.append(camera_from_info(name, info, pose))
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
    return Rig(
        tuple(
            Camera(name, c.width, c.height, c.intrinsics, c.ego_T_cam, c.distortion)
            for name, c in zip(names, selected, strict=True)
        )
    )
