"""Rigid transforms, pinhole projection, and how an image becomes a network input.

A transform `target_T_source` is a 4x4 float64 matrix that takes homogeneous points of frame `source` to frame
`target`. Quaternions are (w, x, y, z), as in the nuScenes tables. Camera frames are optical: x right, y down, z
forward. The integer pixel coordinate (0, 0) is the centre of the top-left pixel, as in OpenCV and ROS.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgeta_core.utils.errors import BridgeTAError

Matrix = NDArray[np.float64]


def rigid(translation: ArrayLike, quaternion: ArrayLike) -> Matrix:
    """Build a 4x4 transform from a translation in metres and a (w, x, y, z) quaternion, which is normalised first.

    Raises BridgeTAError for a quaternion of (nearly) zero length and for values that are not finite.
    """
    t = np.asarray(translation, dtype=np.float64)
    q = np.asarray(quaternion, dtype=np.float64)
    norm = np.linalg.norm(q)
    if not (np.isfinite(t).all() and np.isfinite(norm)) or norm < 1e-9:
        raise BridgeTAError(f"translation {t.tolist()} with quaternion {q.tolist()} is not a rigid transform")
    w, x, y, z = q / norm
    result = np.eye(4)
    result[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    result[:3, 3] = t
    return result


def quaternion(target_T_source: Matrix) -> NDArray[np.float64]:
    """Return the (w, x, y, z) unit quaternion of a transform's rotation, with w >= 0."""
    m = target_T_source[:3, :3]
    # Pivot on the largest of the four squared components, so that the divisor is at least 1/2.
    squares = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    columns = (
        (squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]),
        (m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]),
        (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]),
    )
    q = np.array(columns[int(squares.argmax())])
    q /= np.linalg.norm(q)
    return -q if q[0] < 0 else q


def invert(target_T_source: Matrix) -> Matrix:
    """source_T_target of a rigid transform."""
    rotation = target_T_source[:3, :3].T
    result = np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = -rotation @ target_T_source[:3, 3]
    return result


def transform(target_T_source: Matrix, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points `[..., 3]` of the source frame in the target frame."""
    return np.asarray(points, dtype=np.float64) @ target_T_source[:3, :3].T + target_T_source[:3, 3]


def yaw(target_T_source: Matrix) -> float:
    """Heading of the source's x axis in the target's xy plane, in radians, counter-clockwise."""
    return float(np.arctan2(target_T_source[1, 0], target_T_source[0, 0]))


def planar(target_T_source: Matrix) -> Matrix:
    """Remove roll and pitch from a pose: z axes become parallel, origin and heading stay."""
    angle = yaw(target_T_source)
    result = np.eye(4)
    result[:2, :2] = ((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))
    result[:3, 3] = target_T_source[:3, 3]
    return result


def project(intrinsics: Matrix, points_cam: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project optical-frame points `[..., 3]` to pixels `[..., 2]` (u, v) and depths `[...]` in metres.

    Pixels of points at or behind the image plane (depth <= 0) are meaningless; mask them by the depth.
    """
    homogeneous = np.asarray(points_cam, dtype=np.float64) @ intrinsics.T
    depth = homogeneous[..., 2]
    safe = np.where(depth > 0, depth, 1.0)
    return homogeneous[..., :2] / safe[..., None], depth


@dataclass(frozen=True)
class ImageFit:
    """How a camera's image becomes a network input.

    It is resized to `resized`, and `size` is cut out at `offset`. In training alone it is then mirrored left-right if
    `mirrored`, and turned by `angle` radians about the middle of the cut, from u towards v. All pairs are (horizontal,
    vertical) in pixels. The part of the cut outside the resized image is black.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    mirrored: bool = False
    angle: float = 0.0

    @classmethod
    def bottom(cls, source: tuple[int, int], size: tuple[int, int], margin: float = 1.0) -> ImageFit:
        """Resize to `margin` times the target width, keep the aspect ratio, and cut at the bottom centre.

        The road is at the bottom of an image and the sky at the top. BEVFusion's test transform (1600x900, resize
        0.48, 704x256 cut out of 768x432) is `bottom((1600, 900), (704, 256), margin=768 / 704)`.
        """
        scale = margin * size[0] / source[0]
        resized = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
        return cls(source, resized, ((resized[0] - size[0]) // 2, resized[1] - size[1]), size)

    def resize(self, factor: float, place: float) -> ImageFit:
        """Resize `factor` times as large, and cut at the bottom and at `place`, from 0 (left) to 1 (right).

        An image narrower than the cut is moved within it instead.
        """
        resized = (max(1, round(self.resized[0] * factor)), max(1, round(self.resized[1] * factor)))
        offset = (round(place * (resized[0] - self.size[0])), resized[1] - self.size[1])
        return replace(self, resized=resized, offset=offset)

    def shift(self, right: int, down: int) -> ImageFit:
        """Cut some pixels further right and down."""
        return replace(self, offset=(self.offset[0] + right, self.offset[1] + down))

    def widen(self, border: int) -> ImageFit:
        """Cut `border` pixels more at each of the four sides."""
        (x, y), (w, h) = self.offset, self.size
        return replace(self, offset=(x - border, y - border), size=(w + 2 * border, h + 2 * border))

    @property
    def scale(self) -> tuple[float, float]:
        """Resized pixels per source pixel, horizontally and vertically."""
        return self.resized[0] / self.source[0], self.resized[1] / self.source[1]

    @property
    def matrix(self) -> Matrix:
        """3x3 matrix from source pixels to network pixels; multiply intrinsics by it from the left.

        Resizing keeps the image's corners in place, not its pixel centres, hence the half pixels. Intrinsics of a
        mirrored image have a negative focal length, and those of a turned one are not triangular: `Camera` rejects
        them, but multiplying by them or by their inverse is fine.
        """
        (sx, sy), (ox, oy), (w, h) = self.scale, self.offset, self.size
        result: Matrix = np.array([[sx, 0, 0.5 * sx - 0.5 - ox], [0, sy, 0.5 * sy - 0.5 - oy], [0, 0, 1]])
        if self.mirrored:
            result = np.array([[-1.0, 0, w - 1], [0, 1, 0], [0, 0, 1]]) @ result
        if self.angle:
            x, y, cos, sin = (w - 1) / 2, (h - 1) / 2, np.cos(self.angle), np.sin(self.angle)
            turn = np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0, 0, 1]])
            result = turn @ result
        return result
