"""Ray casting: the one function by which cameras and LiDAR see the same world.

Rays form images (a camera's, or a sector of a LiDAR's sweep). Every solid is tested only against the rays of the
rectangle that encloses it there; all (solid, ray) pairs of all images go through the same few tensor operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.geometry.transforms import Matrix, transform
from bridgeta_core.utils.arrays import Floats, Ints
from bridgeta_synth.render.rays.ground_shape import GroundShape
from bridgeta_synth.render.rays.solid_tensors import SolidTensors
from bridgeta_synth.world.solids import Solids

GROUND, NOTHING, KERB = -1, -2, -3
# Elements at a time on a CPU: the working set of one chunk stays in a core's cache.
_CHUNK = 1 << 16

_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)], dtype=np.int64
)


def iter_chunks(count: int, device: torch.device) -> Iterator[slice]:
    """Split `count` elements into slices: small ones that fit the cache of a CPU, or a single one on a GPU."""
    size = _CHUNK if device.type == "cpu" else max(count, 1)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@dataclass(frozen=True, eq=False)
class View:
    """A pinhole camera somewhere: `global_T_cam` (4x4, may hold a reflection), `intrinsics` (3x3) of an image of
    `width` x `height` pixels. x points right, y down, z along the optical axis.
    """

    global_T_cam: Matrix
    intrinsics: Matrix
    width: int
    height: int

    def directions(self) -> NDArray[np.float32]:
        """Compute rays through the pixels' centres in the camera's frame, `[height * width, 3]`, z = 1, row by row."""
        return _pixel_rays(tuple(self.intrinsics.ravel()), self.width, self.height)


@lru_cache(maxsize=32)
def _pixel_rays(intrinsics: tuple[float, ...], width: int, height: int) -> NDArray[np.float32]:
    inverse = np.linalg.inv(np.reshape(intrinsics, (3, 3)))
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack((u, v, np.ones_like(u)), axis=-1).reshape(-1, 3) @ inverse.T
    return np.asfortranarray(rays.astype(np.float32))


@dataclass(eq=False)
class Traced:
    """The first hits of the rays of `views` images of one size.

    `origin [v, 3]`, `direction [n, 3]` in the global frame, image after image and row by row, `view [n]`: the image of
    each ray. `distance [n]` in units of the ray's direction (inf: nothing). `row [n]`: the row of `solids` that was
    hit, or GROUND, KERB (the upright face of one) or NOTHING. `pair_row` and `pair_ray`: every (solid, ray) pair that
    hits, whether or not it is the first hit. `views` is empty for a LiDAR's rays.
    """

    origin: Tensor
    direction: Tensor
    view: Tensor
    distance: Tensor
    row: Tensor
    solids: SolidTensors
    pair_row: Tensor
    pair_ray: Tensor
    width: int
    height: int
    views: tuple[View, ...] = ()

    def points(self, chosen: Tensor) -> Tensor:
        """Compute where the chosen rays end, `[m, 3]` in the global frame."""
        return self.origin[self.view[chosen]] + self.distance[chosen, None] * self.direction[chosen]


def rotate(rays: Tensor, rotation: Floats) -> Tensor:
    """Rotate rays `[n, 3]` by a 3x3 rotation; the result is planes of x, y and z in memory."""
    # Written out: a matrix product may sum in another order on another number of threads.
    x, y, z = rays.unbind(1)
    return torch.stack([r[0] * x + r[1] * y + r[2] * z for r in rotation.tolist()]).T


def trace_views(
    ground_shape: GroundShape | None, solids: Solids | Sequence[Solids], views: Sequence[View], device: torch.device
) -> Traced:
    """Trace the rays of pinhole views of one size; without a ground shape they hit solids only.

    `solids` are either the same for all views, or given once for each view, where it sees them.
    """
    width, height = views[0].width, views[0].height
    poses = np.stack([view.global_T_cam for view in views])
    rays = [torch.from_numpy(view.directions()).to(device) for view in views]
    turned = [rotate(r, pose[:3, :3]).T for r, pose in zip(rays, poses, strict=True)]
    directions = torch.cat(turned, dim=1).T
    solids_by_view = [solids] * len(views) if isinstance(solids, Solids) else list(solids)
    rectangles = [
        bound_in_image(each, np.linalg.inv(view.global_T_cam), view.intrinsics, width, height)
        for each, view in zip(solids_by_view, views, strict=True)
    ]
    indices = [np.arange(len(solids_by_view[0]))] * len(views)
    traced = cast_rays(ground_shape, solids_by_view, poses[:, :3, 3], directions, width, height, rectangles, indices)
    return replace(traced, views=tuple(views))


def cast_rays(
    ground_shape: GroundShape | None,
    solids_by_view: Sequence[Solids],
    origins: Floats,
    directions: Tensor,
    width: int,
    height: int,
    rectangles: list[Ints],
    indices: list[Ints],
) -> Traced:
    """Find the first hits of rays from `origins [v, 3]` along `directions [v * height * width, 3]`.

    `solids_by_view` are the solids of every image. For each image, `rectangles [m, 4]` and `indices [m]` say which of
    its rays may hit which solid.
    """
    device, views, size = directions.device, len(origins), width * height
    tensors = SolidTensors(solids_by_view, origins, device)
    count = max(tensors.count, 1)
    origin = torch.from_numpy(origins.astype(np.float32)).to(device)
    if ground_shape is None:
        distance = torch.full((views * size,), torch.inf, device=device)
        row = torch.full((views * size,), NOTHING, dtype=torch.int64, device=device)
    else:
        distance, kerb = ground_shape.intersect(origin, directions, width, height)
        row = torch.where(torch.isfinite(distance), torch.where(kerb, KERB, GROUND), NOTHING)
    planes = directions.unbind(1)
    boxes, which, first = _gather_rectangles(rectangles, indices, tensors.count, size)
    all_t, all_row, all_ray = [], [], []
    for family in range(6):
        chosen = np.flatnonzero(tensors.family[which % count] == family)
        if not len(chosen):
            continue
        ray, owner = _pair_rays(boxes[chosen], first[chosen], which[chosen], width, device)
        for chunk in iter_chunks(len(ray), device):
            r, w = ray[chunk], owner[chunk]
            t, hit = tensors.intersect(family, w, [plane.index_select(0, r) for plane in planes])
            found = hit.nonzero()[:, 0]
            all_t.append(t[found])
            all_row.append(w[found])
            all_ray.append(r[found])
    view = torch.arange(views, device=device).repeat_interleave(size)
    if all_t:
        t, pair_row, pair_ray = torch.cat(all_t), torch.cat(all_row), torch.cat(all_ray)
        distance.scatter_reduce_(0, pair_ray, t, "amin")
        nearest = t <= distance[pair_ray]
        # Of solids hit at the same distance the last counts: an order-free rule keeps equal seeds equal.
        winner = torch.full_like(row, NOTHING)
        winner.scatter_reduce_(0, pair_ray[nearest], pair_row[nearest], "amax")
        row = torch.where(winner >= 0, winner, row)
    else:
        pair_row = pair_ray = torch.zeros(0, dtype=torch.int64, device=device)
    return Traced(origin, directions, view, distance, row, tensors, pair_row, pair_ray, width, height)


def _gather_rectangles(rectangles: list[Ints], indices: list[Ints], count: int, size: int) -> tuple[Ints, Ints, Ints]:
    """Gather all images' rectangles that are not empty, the rows of their solids, and the first ray of their image."""
    views = range(len(rectangles))
    boxes = np.concatenate(rectangles)
    which = np.concatenate([indices[v] + v * count for v in views])
    first = np.concatenate([np.full(len(indices[v]), v * size, dtype=np.int64) for v in views])
    valid = (boxes[:, 0] < boxes[:, 1]) & (boxes[:, 2] < boxes[:, 3])
    return boxes[valid], which[valid], first[valid]


def _pair_rays(boxes: Ints, first: Ints, which: Ints, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pair every ray with the rows whose rectangles it lies in: `(ray [k], row [k])`."""
    u0, u1, v0, v1 = (torch.from_numpy(np.ascontiguousarray(c)).to(device) for c in boxes.T)
    begin = torch.from_numpy(first).to(device) + v0 * width + u0
    # One entry per line of a rectangle, then one per pixel of a line.
    lines = v1 - v0
    box = torch.arange(len(boxes), device=device).repeat_interleave(lines)
    line = torch.arange(len(box), device=device) - (lines.cumsum(0) - lines)[box]
    wide = (u1 - u0)[box]
    start = begin[box] + line * width - (wide.cumsum(0) - wide)
    ray = start.repeat_interleave(wide)
    ray += torch.arange(len(ray), device=device)
    row = torch.from_numpy(which).to(device)[box].repeat_interleave(wide)
    return ray, row


def bound_in_image(solids: Solids, cam_T_global: Matrix, intrinsics: Matrix, width: int, height: int) -> Ints:
    """Bound solids in an image by pixel rectangles (u0, u1, v0, v1), ends excluded; u0 >= u1 if outside."""
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


def bound_in_sweep(
    solids: Solids,
    corners: Floats,
    sensor_T_global: Matrix,
    start: float,
    columns: int,
    around: int,
    elevations: Floats,
) -> tuple[Ints, Ints]:
    """Bound solids in a sector of a range image: `columns` of the `around` to a full turn, by ascending azimuth
    (radians in the sensor's frame) from `start`, and rows of ascending `elevations`.

    `corners` are those of the solids, which all sectors share. A solid across the seam of a full turn has two
    rectangles, so indices come along: (rectangles `[m, 4]`, indices `[m]`).
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
    rectangles, solid_indices = [], []
    for shift in (-around, 0, around):
        from_column, to_column = np.clip(first + shift, 0, columns), np.clip(last + shift, 0, columns)
        valid = (from_column < to_column) & (row0 < row1)
        rectangles.append(np.stack((from_column, to_column, row0, row1), axis=1)[valid])
        solid_indices.append(index[valid])
    return np.concatenate(rectangles), np.concatenate(solid_indices)
