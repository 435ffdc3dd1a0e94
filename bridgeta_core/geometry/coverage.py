"""What the cameras of a rig see of the grid, and what in a calibration is probably wrong."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.lens import Undistortion, place_horizon, to_pinhole
from bridgeta_core.geometry.rig import EQUIDISTANT, Camera, Rig
from bridgeta_core.geometry.transforms import ImageFit, invert, project, transform

# Remarks are for what no vehicle has. Whatever could be meant stays without one.
_FARTHEST = 25.0  # metres from the vehicle's frame to a camera: a long bus
_HIGHEST, _LOWEST = 8.0, 0.05  # metres above the ground
_NEARLY_NONE = 0.002  # of the grid: 20 m2 of the default one
_SQUARISH = 1.3  # width over height; 4:3 and 16:9 lie above
_SHORT_SIGHTED = 4.0  # metres
_TURNED = 60.0  # degrees about the optical axis
_SAME_PLACE, _SAME_DIRECTION, _SAME_LENS = 0.01, 1.0, 1.2  # metres, degrees, ratio of the fields of view


@dataclass(frozen=True, eq=False)
class CameraCoverage:
    """What one camera sees of a grid.

    `seen` `[Y, X]` are the cells whose centre, on the ground, lies in its network input; `whole` those in its whole
    image, without the cut of the network input. `nearest` and `farthest` are the distances in metres, along the
    horizontal direction of its optical axis, of the cells that are seen; 0 if none is. `undistortion` is None for a
    camera without distortion. `rows` are the first row of the
    image that the network sees, and the one below the last; of a fisheye's pinhole image.
    """

    camera: Camera
    fit: ImageFit
    undistortion: Undistortion | None
    seen: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    nearest: float
    farthest: float

    @property
    def share(self) -> float:
        """The share of the grid's cells that are seen."""
        return float(self.seen.mean())

    @property
    def rows(self) -> tuple[int, int]:
        return _find_rows(self.fit)

    def describe(self) -> str:
        """Describe in words how much is seen."""
        if not self.seen.any():
            return "sees no cell of the grid"
        return f"sees {100 * self.share:.2g} % of the grid, ground from {self.nearest:.1f} to {self.farthest:.1f} m"


def _find_rows(fit: ImageFit) -> tuple[int, int]:
    top, bottom = (max(0, edge) / fit.scale[1] for edge in (fit.offset[1], fit.offset[1] + fit.size[1]))
    return round(top), min(fit.source[1], round(bottom))


def measure_coverage(
    rig: Rig, fits: Sequence[ImageFit], grid: BevGrid, depth_min: float, depth_max: float
) -> tuple[CameraCoverage, ...]:
    """Measure what each camera of a rig sees; `fits` are in the rig's order. Takes some 10 ms for each camera.

    A seen cell's centre, on the ground (z = 0 of the ego frame), lies between the two depths in metres. What hides it,
    such as a vehicle, is not considered.
    """
    x, y = grid.centres()
    ground = np.stack((*np.meshgrid(x, y), np.zeros(grid.shape)), axis=-1)
    return tuple(
        _measure_camera(camera, fit, ground, depth_min, depth_max)
        for camera, fit in zip(rig.cameras, fits, strict=True)
    )


def _measure_camera(
    camera: Camera, fit: ImageFit, ground: NDArray[np.float64], depth_min: float, depth_max: float
) -> CameraCoverage:
    pinhole, local = to_pinhole(camera), transform(invert(camera.ego_T_cam), ground)
    pixels, depth = project(pinhole.intrinsics, local)
    whole = (depth >= depth_min) & (depth <= depth_max) & _lie_within(pixels, (pinhole.width, pinhole.height))
    fitted = pixels * fit.scale + fit.matrix[:2, 2]
    seen = whole & _lie_within(fitted, fit.size)
    undistortion = Undistortion.build(camera, fit) if camera.is_distorted else None
    if undistortion is not None:
        u, v = np.rint(fitted[seen]).astype(np.int64).T
        seen[seen] = undistortion.inside[v, u]
    ahead = _measure_distances(camera, ground[seen])
    nearest, farthest = (float(ahead.min()), float(ahead.max())) if ahead.size else (0.0, 0.0)
    return CameraCoverage(camera, fit, undistortion, seen, whole, nearest, farthest)


def _lie_within(pixels: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(((pixels >= -0.5) & (pixels < np.array(size) - 0.5)).all(axis=-1))


def _measure_distances(camera: Camera, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far points `[n, 3]` are ahead of a camera, horizontally, in metres."""
    axis, offsets = camera.ego_T_cam[:2, 2], points[:, :2] - camera.ego_T_cam[:2, 3]
    level = float(np.hypot(*axis))
    return np.asarray(offsets @ (axis / level) if level > 0.2 else np.hypot(*offsets.T))


def find_remarks(coverage: Sequence[CameraCoverage]) -> list[str]:
    """Say what in the calibration of a rig is probably not meant, by camera; empty for a plausible rig."""
    remarks = []
    for view in coverage:
        remark = (
            _find_misplaced(view.camera)
            or _find_turned(view.camera)
            or _find_misfit(view.camera)
            or _find_crop(view)
            or _find_blind(view)
        )
        if remark is not None:
            remarks.append(f"{view.camera.name} {remark}")
    for a, b in itertools.combinations([view.camera for view in coverage], 2):
        if _share_pose(a, b):
            remarks.append(f"{a.name} and {b.name} have one pose: is one of them a copy of the other?")
    return remarks


def _find_misplaced(camera: Camera) -> str | None:
    x, y, z = camera.ego_T_cam[:3, 3]
    away = float(np.hypot(x, y))
    units = [unit for unit, factor in (("millimetres", 1e3), ("centimetres", 1e2)) if 0.2 < z / factor < 5]
    guess = f"is its translation in {units[0]}?" if units else "is the base frame the vehicle's, and z = 0 the ground?"
    if away > _FARTHEST:
        return f"lies {away:.0f} m from the vehicle: {guess}"
    if z > _HIGHEST:
        return f"lies {z:.0f} m above the ground: {guess}"
    if z < _LOWEST:
        where = f"{-z:.1f} m under" if z < -_LOWEST else "on"
        return f"lies {where} the ground: z = 0 of the vehicle's frame has to be the ground"
    return None


def _find_turned(camera: Camera) -> str | None:
    right, down, axis = camera.ego_T_cam[2, :3]  # how far the image's axes rise
    if abs(axis) > 0.9:  # it looks up or down, where no side is up
        return None
    roll = abs(float(np.degrees(np.arctan2(right, -down))))
    return f"has an image turned by {roll:.0f} degrees: is its frame {_OPTICAL}?" if roll > _TURNED else None


_OPTICAL = "an optical frame (x right, y down, z forward)"


def _find_misfit(camera: Camera) -> str | None:
    k = camera.intrinsics
    if 0 <= k[0, 2] <= camera.width and 0 <= k[1, 2] <= camera.height:
        return None
    centre, size = f"({k[0, 2]:.0f}, {k[1, 2]:.0f})", f"{camera.width}x{camera.height}"
    return f"has its principal point {centre} beside its image of {size}: are its intrinsics for another size?"


def _find_crop(view: CameraCoverage) -> str | None:
    """Say that the cut of the network input leaves little of what an image shows of the ground."""
    camera = view.camera
    kept, shown = int(view.seen.sum()), int(view.whole.sum())
    if shown < _NEARLY_NONE * view.whole.size or kept >= shown / 2:
        return None
    # A cut that was asked for, or placed by the pose, is right unless it leaves nothing.
    is_placed = camera.crop_bottom is not None or camera.distortion_model == EQUIDISTANT
    is_short = not is_placed and view.farthest < _SHORT_SIGHTED
    is_squarish = not is_placed and camera.width < _SQUARISH * camera.height
    if not is_squarish and not (kept < shown / 4 and (is_short or view.share < _NEARLY_NONE)):
        return None
    first, end = view.rows
    ground = f"ground from {view.nearest:.1f} to {view.farthest:.1f} m" if kept else "no ground"
    kind = "undistorted " if camera.distortion_model == EQUIDISTANT else ""
    size = "x".join(map(str, view.fit.source))
    remark = f"shows the network rows {first} to {end - 1} of its {kind}{size} image, {ground}"
    better = camera.height if is_placed else _find_rows(place_horizon(view.fit, to_pinhole(camera)))[1]
    return f"{remark}: crop_bottom: {better} in rig.yaml shows it more" if better < end else remark


def _find_blind(view: CameraCoverage) -> str | None:
    if view.share >= _NEARLY_NONE:
        return None
    rise = float(np.degrees(np.arcsin(np.clip(view.camera.ego_T_cam[2, 2], -1, 1))))
    looks = f"it looks {abs(rise):.0f} degrees {'up' if rise > 0 else 'down'}, " if abs(rise) > 20 else ""
    return f"sees {int(view.seen.sum())} of the {view.seen.size} cells: {looks}is its frame {_OPTICAL}?"


def _share_pose(a: Camera, b: Camera) -> bool:
    """Return whether two cameras of like fields of view have one pose; a tele beside a wide one may."""
    if np.linalg.norm(a.ego_T_cam[:3, 3] - b.ego_T_cam[:3, 3]) > _SAME_PLACE:
        return False
    fields = sorted(to_pinhole(camera).intrinsics[0, 0] / camera.width for camera in (a, b))
    turn = a.ego_T_cam[:3, :3].T @ b.ego_T_cam[:3, :3]
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    return bool(angle < _SAME_DIRECTION and fields[1] < _SAME_LENS * fields[0])
