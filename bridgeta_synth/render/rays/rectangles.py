"""Which pixels of an image, or beams of a sweep, a solid can be met by: the rectangles that enclose solids there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.transforms import Matrix, transform
from bridgeta_synth.world.solids import Solids

_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)], dtype=np.int64
)


def camera_rectangles(
    solids: Solids, cam_T_global: Matrix, intrinsics: Matrix, width: int, height: int
) -> NDArray[np.int64]:
    """Pixel rectangles (u0, u1, v0, v1), ends excluded, that enclose the solids in an image; u0 >= u1 if outside."""
    if not len(solids):
        return np.zeros((0, 4), dtype=np.int64)
    corners = transform(cam_T_global, solids.corners())
    near = 0.05
    a, b = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    crosses = (a[..., 2] > near) != (b[..., 2] > near)
    span = np.where(crosses, b[..., 2] - a[..., 2], 1.0)
    cut = a + ((near - a[..., 2]) / span)[..., None] * (b - a)
    points = np.concatenate((corners, cut), axis=1)
    valid = np.concatenate((corners[..., 2] > near, crosses), axis=1)
    depth = np.where(valid, points[..., 2], 1.0)
    u = intrinsics[0, 0] * points[..., 0] / depth + intrinsics[0, 2]
    v = intrinsics[1, 1] * points[..., 1] / depth + intrinsics[1, 2]
    low_u, high_u = np.where(valid, u, np.inf).min(axis=1), np.where(valid, u, -np.inf).max(axis=1)
    low_v, high_v = np.where(valid, v, np.inf).min(axis=1), np.where(valid, v, -np.inf).max(axis=1)
    seen = (high_u > -0.5) & (low_u < width) & (high_v > -0.5) & (low_v < height)
    result = np.stack(
        (
            np.clip(np.floor(low_u), 0, width),
            np.clip(np.ceil(high_u) + 1, 0, width),
            np.clip(np.floor(low_v), 0, height),
            np.clip(np.ceil(high_v) + 1, 0, height),
        ),
        axis=1,
    )
    result[~seen] = 0
    return result.astype(np.int64)


def lidar_rectangles(
    solids: Solids,
    corners: NDArray[np.float64],
    sensor_T_global: Matrix,
    start: float,
    columns: int,
    around: int,
    elevations: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `camera_rectangles` for a sector of a range image: `columns` of the `around` to a full turn, by ascending
    azimuth (radians in the sensor's frame) from `start` on, and rows of ascending `elevations`.

    `corners` are those of the solids, which all sectors share. A solid across the seam of a full turn has two
    rectangles; so indices come along: (rectangles [m, 4], [m]).
    """
    if not len(solids):
        return np.zeros((0, 4), dtype=np.int64), np.zeros(0, dtype=np.int64)
    corners = transform(sensor_T_global, corners)
    middle = corners.mean(axis=1)
    centre = np.arctan2(middle[:, 1], middle[:, 0])
    angle = np.arctan2(corners[..., 1], corners[..., 0]) - centre[:, None]
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    distance, radius = np.hypot(middle[:, 0], middle[:, 1]), np.hypot(solids.front, solids.side)
    # A tilted solid's corners lie a little further out than its base.
    radius = radius + 0.2 * solids.height
    nearest, furthest = np.maximum(distance - radius, 0.05), distance + radius
    inside = distance < radius + 0.2
    step = 2 * np.pi / around
    begin = (centre - start) % (2 * np.pi)
    first = np.floor((begin + angle.min(axis=1)) / step).astype(np.int64) - 1
    last = np.ceil((begin + angle.max(axis=1)) / step).astype(np.int64) + 2
    first, last = np.where(inside, 0, first), np.where(inside, around, last)
    top, bottom = corners[..., 2].max(axis=1), corners[..., 2].min(axis=1)
    high = np.arctan2(top, np.where(top > 0, nearest, furthest)) + 0.01
    low = np.arctan2(bottom, np.where(bottom > 0, furthest, nearest)) - 0.01
    row0, row1 = np.searchsorted(elevations, low), np.searchsorted(elevations, high)
    index = np.arange(len(solids))
    pieces_of, owners = [], []
    for shift in (-around, 0, around):
        from_column, to_column = np.clip(first + shift, 0, columns), np.clip(last + shift, 0, columns)
        keep = (from_column < to_column) & (row0 < row1)
        pieces_of.append(np.stack((from_column, to_column, row0, row1), axis=1)[keep])
        owners.append(index[keep])
    return np.concatenate(pieces_of), np.concatenate(owners)
