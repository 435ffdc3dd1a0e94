"""Ray casting: the one function by which cameras and LiDAR meet the same world.

Rays form an image (a camera's, or 32 beams x 1080 azimuths). Every solid is tested only against the rays of the
rectangle that encloses it there; all (solid, ray) pairs go through the same few tensor operations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.geometry import Matrix, transform
from bridgeta_core.synth.ground import Ground
from bridgeta_core.synth.solids import Solids

GROUND, NOTHING = -1, -2
_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)], dtype=np.int64
)
# Pairs at a time: the working set of one chunk stays in a core's cache.
_CHUNK = {"cpu": 1 << 16}


class Hits(NamedTuple):
    """What rays meet first: `distance [n]` in units of the ray's direction (inf: nothing), `solid [n]` (index, GROUND
    or NOTHING), and for every (solid, ray) pair tested with success the two indices, whether or not it was the first.
    """

    distance: Tensor
    solid: Tensor
    pair_solid: Tensor
    pair_ray: Tensor


class SolidTensors:
    """Solids on a device, with what the tests need as `[n]` float32 tensors, seen from a ray origin."""

    def __init__(self, solids: Solids, origin: NDArray[np.float64], device: torch.device) -> None:
        self.solids = solids
        cos, sin = np.cos(solids.yaw), np.sin(solids.yaw)
        dx, dy = origin[0] - solids.x, origin[1] - solids.y
        ox, oy, oz = cos * dx + sin * dy, cos * dy - sin * dx, origin[2] - solids.z
        half = solids.height / 2
        columns = np.stack(
            (
                cos,
                sin,
                ox,
                oy,
                oz,
                solids.front - ox - solids.lean_front * oz,
                solids.back + ox - solids.lean_back * oz,
                solids.side - oy - solids.lean_side * oz,
                solids.side + oy - solids.lean_side * oz,
                solids.lean_front,
                solids.lean_back,
                solids.lean_side,
                solids.height - oz,
                1 / solids.front,
                1 / solids.side,
                1 / half,
                oz - half,
            )
        )
        values = torch.from_numpy(columns.astype(np.float32)).to(device)
        (self.cos, self.sin, self.ox, self.oy, self.oz, self.f, self.b, self.l, self.r) = values[:9]
        (self.lf, self.lb, self.ls, self.top, self.ia, self.ib, self.ic, self.ozc) = values[9:]
        lean = (solids.lean_front != 0) | (solids.lean_back != 0) | (solids.lean_side != 0)
        self.shape = np.where(solids.round, 2, np.where(lean, 1, 0))


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
    solids: Solids, sensor_T_global: Matrix, azimuths: int, elevations: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `camera_rectangles` for a range image with columns of azimuth from -pi on and rows of `elevations`.

    A solid across the seam has two rectangles; so the solids' indices come along: (rectangles [m, 4], indices [m]).
    """
    if not len(solids):
        return np.zeros((0, 4), dtype=np.int64), np.zeros(0, dtype=np.int64)
    corners = transform(sensor_T_global, solids.corners())
    middle = corners.mean(axis=1)
    centre = np.arctan2(middle[:, 1], middle[:, 0])
    angle = np.arctan2(corners[..., 1], corners[..., 0]) - centre[:, None]
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    distance, radius = np.hypot(middle[:, 0], middle[:, 1]), np.hypot(solids.front, solids.side)
    nearest, furthest = np.maximum(distance - radius, 0.05), distance + radius
    around = distance < radius + 0.2
    step = 2 * np.pi / azimuths
    first = np.floor((centre + angle.min(axis=1) + np.pi) / step).astype(np.int64) - 1
    last = np.ceil((centre + angle.max(axis=1) + np.pi) / step).astype(np.int64) + 2
    first, last = np.where(around, 0, first), np.where(around, azimuths, last)
    top, bottom = corners[..., 2].max(axis=1), corners[..., 2].min(axis=1)
    high = np.arctan2(top, np.where(top > 0, nearest, furthest)) + 0.01
    low = np.arctan2(bottom, np.where(bottom > 0, furthest, nearest)) - 0.01
    row0, row1 = np.searchsorted(elevations, low), np.searchsorted(elevations, high)
    index = np.arange(len(solids))
    pieces, owners = [], []
    for shift in (-azimuths, 0, azimuths):
        begin, end = np.clip(first + shift, 0, azimuths), np.clip(last + shift, 0, azimuths)
        keep = (begin < end) & (row0 < row1)
        pieces.append(np.stack((begin, end, row0, row1), axis=1)[keep])
        owners.append(index[keep])
    return np.concatenate(pieces), np.concatenate(owners)


def cast(
    ground: Ground,
    solids: SolidTensors,
    origin: Tensor,
    directions: Tensor,
    width: int,
    rectangles: NDArray[np.int64],
    indices: NDArray[np.int64],
) -> Hits:
    """First hits of rays from `origin [3]` along `directions [h * width, 3]` (row by row).

    `rectangles [m, 4]` and `indices [m]` say which solid may be met by which rays.
    """
    distance = ground.intersect(origin, directions)
    solid = torch.where(torch.isfinite(distance), GROUND, NOTHING)
    keep = (rectangles[:, 0] < rectangles[:, 1]) & (rectangles[:, 2] < rectangles[:, 3])
    rectangles, indices = rectangles[keep], indices[keep]
    grid = torch.arange(directions.shape[0], device=directions.device).view(-1, width)
    dx, dy, dz = directions.unbind(1)
    all_t, all_solid, all_ray = [], [], []
    for shape, test in ((0, _box), (1, _tapered), (2, _ellipsoid)):
        chosen = np.flatnonzero(solids.shape[indices] == shape)
        if not len(chosen):
            continue
        ray = torch.cat([grid[v0:v1, u0:u1].reshape(-1) for u0, u1, v0, v1 in rectangles[chosen].tolist()])
        area = (rectangles[chosen, 1] - rectangles[chosen, 0]) * (rectangles[chosen, 3] - rectangles[chosen, 2])
        which = torch.from_numpy(np.repeat(indices[chosen], area)).to(ray.device)
        size = _CHUNK.get(ray.device.type, len(ray))
        for start in range(0, len(ray), size):
            r, w = ray[start : start + size], which[start : start + size]
            t, hit = test(solids, w, dx[r], dy[r], dz[r])
            found = hit.nonzero()[:, 0]
            all_t.append(t[found])
            all_solid.append(w[found])
            all_ray.append(r[found])
    if not all_t:
        empty = torch.zeros(0, dtype=torch.int64, device=directions.device)
        return Hits(distance, solid, empty, empty)
    t, which, ray = torch.cat(all_t), torch.cat(all_solid), torch.cat(all_ray)
    distance.scatter_reduce_(0, ray, t, "amin")
    first = t <= distance[ray]
    # Of solids that are met at the same distance the last counts: an order-free rule keeps equal seeds equal.
    winner = torch.full_like(solid, NOTHING)
    winner.scatter_reduce_(0, ray[first], which[first], "amax")
    return Hits(distance, torch.where(winner >= 0, winner, solid), which, ray)


def _local(s: SolidTensors, w: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = s.cos[w], s.sin[w]
    return cos * dx + sin * dy, cos * dy - sin * dx


def _box(s: SolidTensors, w: Tensor, dx: Tensor, dy: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _local(s, w, dx, dy)
    enter, leave = None, None
    for speed, ahead, behind in ((x, s.f, s.b), (y, s.l, s.r), (dz, s.top, s.oz)):
        inverse = 1 / torch.where(speed.abs() < 1e-9, 1e-9, speed)
        t1, t2 = ahead[w] * inverse, -behind[w] * inverse
        low, high = torch.minimum(t1, t2), torch.maximum(t1, t2)
        enter = low if enter is None else torch.maximum(enter, low)
        leave = high if leave is None else torch.minimum(leave, high)
    assert enter is not None
    assert leave is not None
    return enter, (enter < leave) & (enter > 0.02)


def _tapered(s: SolidTensors, w: Tensor, dx: Tensor, dy: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _local(s, w, dx, dy)
    inverse = 1 / torch.where(dz.abs() < 1e-9, 1e-9, dz)
    t1, t2 = s.top[w] * inverse, -s.oz[w] * inverse
    enter, leave = torch.minimum(t1, t2), torch.maximum(t1, t2)
    side = s.ls[w] * dz
    for speed, room in ((x + s.lf[w] * dz, s.f), (s.lb[w] * dz - x, s.b), (y + side, s.l), (side - y, s.r)):
        t = room[w] / torch.where(speed.abs() < 1e-9, 1e-9, speed)
        enter = torch.where(speed < 0, torch.maximum(enter, t), enter)
        leave = torch.where(speed < 0, leave, torch.minimum(leave, t))
    return enter, (enter < leave) & (enter > 0.02)


def _ellipsoid(s: SolidTensors, w: Tensor, dx: Tensor, dy: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _local(s, w, dx, dy)
    ia, ib, ic = s.ia[w], s.ib[w], s.ic[w]
    x, y, z = x * ia, y * ib, dz * ic
    ox, oy, oz = s.ox[w] * ia, s.oy[w] * ib, s.ozc[w] * ic
    a, b, c = x * x + y * y + z * z, x * ox + y * oy + z * oz, ox * ox + oy * oy + oz * oz - 1
    inside = b * b - a * c
    t = (-b - inside.clamp(min=0).sqrt()) / a
    return t, (inside > 0) & (t > 0.02)
