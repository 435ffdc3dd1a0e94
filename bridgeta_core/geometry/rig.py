"""The cameras of a vehicle: names, image sizes, intrinsics and mounting poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.geometry.image_header import MAX_PIXELS
from bridgeta_core.geometry.rig_file import FORMAT_HELP, format_rig, read_entries
from bridgeta_core.geometry.transforms import Matrix, quaternion, rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import MOST_CAMERAS
from bridgeta_core.utils.outputs import replace_when_done

EQUIDISTANT = "equidistant"
# Coefficients in OpenCV's order: k1, k2, p1, p2, k3 to k6, s1 to s4, tx, ty of a polynomial model, and k1 to k4 of the
# equidistant (fisheye) one.
_POLYNOMIAL = (4, 5, 8, 12, 14)
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": _POLYNOMIAL,
    "rational_polynomial": _POLYNOMIAL,
    EQUIDISTANT: (4,),
}
"""How many coefficients each distortion model may have, by the names of sensor_msgs/CameraInfo."""

_LONGEST_SIDE = 16  # in shorter sides; resized to the network's width, a longer image would need gigabytes
_SHORTEST = 0.05  # of the image's width: 168 degrees without distortion, and no lens is so wide with it
_UNFOLDED = 0.25  # of the image's width from the axis: nearer to it no calibration's polynomial may turn around
_LONGEST = 1e7  # pixels
_LARGEST = 32767  # pixels; OpenCV cannot remap larger images
_FARTHEST = 1e7  # metres, around the Earth to its pole; a base frame on a map is only remarked on


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera: image size and 3x3 intrinsics in pixels, 4x4 ego_T_cam (optical frame), and lens distortion.

    Distortion is the coefficients of its model (see `DISTORTION_MODELS`). Without any, an image of a polynomial model
    is rectified. The network sees the image down to the row `crop_bottom`, counted from the top; None leaves the choice
    to `lens.fit_camera`.

    Raises BridgeTAError that names the camera for numbers that are no calibration.
    """

    name: str
    width: int
    height: int
    intrinsics: Matrix
    ego_T_cam: Matrix
    distortion: tuple[float, ...] = ()
    distortion_model: str = "plumb_bob"
    crop_bottom: int | None = None

    def __post_init__(self) -> None:
        k, pose = np.asarray(self.intrinsics, dtype=np.float64), np.asarray(self.ego_T_cam, dtype=np.float64)
        object.__setattr__(self, "intrinsics", k)
        object.__setattr__(self, "ego_T_cam", pose)
        problem = self._find_problem()
        if problem:
            raise BridgeTAError(problem, where=f"camera {self.name}", fix="Correct its calibration")

    @property
    def is_distorted(self) -> bool:
        """Whether its images need undistortion; a fisheye's do with coefficients of zero too."""
        return self.distortion_model == EQUIDISTANT or any(self.distortion)

    def _find_problem(self) -> str | None:
        k, pose = self.intrinsics, self.ego_T_cam
        if self.width < 1 or self.height < 1:
            return f"image size {self.width}x{self.height} is empty"
        if max(self.width, self.height) > _LARGEST:
            return f"image size {self.width}x{self.height} is beyond {_LARGEST} pixels a side"
        long, short = max(self.width, self.height), min(self.width, self.height)
        if long * short > MAX_PIXELS:
            return f"image size {self.width}x{self.height} is beyond {MAX_PIXELS:,} pixels"
        if long > _LONGEST_SIDE * short:
            return f"image size {self.width}x{self.height} is no camera's (over {_LONGEST_SIDE} to 1)"
        if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
            return f"intrinsics {k.tolist()} need 3x3 finite numbers with positive focal lengths"
        if k[1, 0] or not np.array_equal(k[2], (0, 0, 1)):
            return f"intrinsics {k.tolist()} need the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
        focal = min(k[0, 0], k[1, 1])
        if focal < _SHORTEST * self.width:
            return (
                f"intrinsics with a focal length of {focal:g} px are impossible for an image {self.width} px wide "
                "(are they normalised, or in millimetres?)"
            )
        if np.abs(k).max() > _LONGEST:
            return f"intrinsics {k.tolist()} are not pixels"
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            return "ego_T_cam needs 4x4 finite numbers"
        if np.abs(pose[:3, :3]).max() > 2 or not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-4):
            return "the rotation of ego_T_cam is not orthonormal"
        if np.linalg.det(pose[:3, :3]) < 0:
            return "the rotation of ego_T_cam is a reflection"
        if np.abs(pose[:3, 3]).max() > _FARTHEST:
            return f"the translation of ego_T_cam is {np.abs(pose[:3, 3]).max():.3g} m long"
        if self.crop_bottom is not None and not 1 <= self.crop_bottom <= self.height:
            return f"crop_bottom {self.crop_bottom} is not a row of an image {self.height} px high"
        problem = find_distortion_problem(self.distortion_model, self.distortion)
        if problem is None and self.is_distorted:
            inner = np.linspace(0, _UNFOLDED * self.width / k[0, 0], 64)
            if not (np.diff(distort_radius(self.distortion_model, self.distortion, inner)) > 0).all():
                return f"distortion {list(self.distortion)} folds the middle of the image"
        return problem


def find_distortion_problem(model: str, coefficients: Sequence[float]) -> str | None:
    """Say what is wrong with a distortion model and its coefficients; None if nothing is."""
    if model not in DISTORTION_MODELS:
        return f"distortion model {model!r} is not one of {', '.join(DISTORTION_MODELS)}"
    if not np.isfinite(coefficients).all():
        return f"distortion {list(coefficients)} holds values that are not finite"
    counts = DISTORTION_MODELS[model]
    if len(coefficients) in counts or (not coefficients and model != EQUIDISTANT):
        return None
    allowed = " or ".join(filter(None, (", ".join(map(str, counts[:-1])), str(counts[-1]))))
    return f"distortion has {len(coefficients)} coefficients, {model} takes {allowed}"


def distort_radius(model: str, coefficients: Sequence[float], radius: Matrix) -> Matrix:
    """Map distances from the axis at depth 1 to distances in the image in focal lengths, without tangential parts.

    Formulas: OpenCV's documentation of `calib3d` and `fisheye`.
    """
    d = np.zeros(14)
    d[: len(coefficients)] = coefficients
    with np.errstate(all="ignore"):
        if model == EQUIDISTANT:
            angle = np.arctan(radius)
            return np.asarray(angle * np.polyval([*d[3::-1], 1], angle**2))
        square = radius**2
        gain = np.polyval([d[4], d[1], d[0], 1], square) / np.polyval([d[7], d[6], d[5], 1], square)
        return np.asarray(radius * gain)


@dataclass(frozen=True, eq=False)
class Rig:
    """An ordered set of cameras; the order is that of the network's camera axis."""

    cameras: tuple[Camera, ...]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(camera.name for camera in self.cameras)
        if not names or len(set(names)) != len(names):
            raise BridgeTAError(f"a rig needs one or more cameras with different names, not {list(names)}")
        if len(names) > MOST_CAMERAS:
            raise BridgeTAError(f"a rig of {len(names)} cameras is beyond {MOST_CAMERAS}", fix="Choose some of them")
        object.__setattr__(self, "names", names)

    def key(self) -> tuple[Any, ...]:
        """Return a hashable value that is equal for two rigs exactly when their calibrations are."""
        key: list[Any] = []
        for c in self.cameras:
            key += [c.name, c.width, c.height, c.intrinsics.tobytes(), c.ego_T_cam.tobytes()]
            key += [c.distortion, c.distortion_model, c.crop_bottom]
        return tuple(key)

    def select(self, names: tuple[str, ...]) -> Rig:
        """Return the rig of some cameras, in this order. Raises BridgeTAError for an unknown name."""
        by_name = {camera.name: camera for camera in self.cameras}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise BridgeTAError(f"no calibration for {', '.join(missing)}; the rig has {', '.join(self.names)}")
        return Rig(tuple(by_name[name] for name in names))

    def save(self, path: Path) -> None:
        """Write the rig as YAML: translations in metres, (w, x, y, z) quaternions, pixels."""
        with replace_when_done(path) as temporary:
            temporary.write_text(format_rig({camera.name: _to_entry(camera) for camera in self.cameras}))

    @classmethod
    def load(cls, path: Path) -> Rig:
        """Read a rig that `save` wrote. Raises BridgeTAError that names the file, the camera and the key at fault."""
        cameras = []
        for name, entry in read_entries(path).items():
            pose = rigid(entry.pop("translation"), entry.pop("rotation"))
            try:
                cameras.append(Camera(name, ego_T_cam=pose, **entry))
            except BridgeTAError as error:
                raise BridgeTAError(f"camera {name}: {error.what}", where=path, fix=FORMAT_HELP) from error
        return cls(tuple(cameras))


def _to_entry(camera: Camera) -> dict[str, Any]:
    """Return a camera as a rig file has it."""
    entry: dict[str, Any] = {
        "width": camera.width,
        "height": camera.height,
        "intrinsics": [[float(v) for v in row] for row in camera.intrinsics],
        "translation": [float(v) for v in camera.ego_T_cam[:3, 3]],
        "rotation": [float(v) for v in quaternion(camera.ego_T_cam)],
        "distortion": [float(v) for v in camera.distortion],
    }
    if camera.distortion:
        entry["distortion_model"] = camera.distortion_model
    if camera.crop_bottom is not None:
        entry["crop_bottom"] = camera.crop_bottom
    return entry
