"""Ray casting: the one function by which cameras and LiDAR meet the same world.

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

from bridgeta_core.geometry.transforms import Matrix
from bridgeta_synth.render.rays.ground_shape import Surface
from bridgeta_synth.render.rays.rectangles import camera_rectangles
from bridgeta_synth.render.rays.solid_tensors import SolidTensors
from bridgeta_synth.world.solids import Solids

GROUND, NOTHING, KERB = -1, -2, -3
# Elements at a time on a CPU: the working set of one piece stays in a core's cache.
_PIECE = 1 << 16


def pieces(count: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover `count` elements: small ones on a CPU, whose cache they fit, and one on a GPU."""
    size = _PIECE if device.type == "cpu" else max(count, 1)
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
        """Rays through the pixels' centres in the camera's frame, `[height * width, 3]`, with z = 1, row by row."""
        return _pixel_rays(tuple(self.intrinsics.ravel()), self.width, self.height)


@lru_cache(maxsize=32)
def _pixel_rays(intrinsics: tuple[float, ...], width: int, height: int) -> NDArray[np.float32]:
    inverse = np.linalg.inv(np.reshape(intrinsics, (3, 3)))
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack((u, v, np.ones_like(u)), axis=-1).reshape(-1, 3) @ inverse.T
    return np.asfortranarray(rays.astype(np.float32))


@dataclass(eq=False)
class Traced:
    """What the rays of `views` images of one size meet first.

    `origin [v, 3]`, `direction [n, 3]` in the global frame, image after image and row by row, `view [n]`: the image of
    each ray. `distance [n]` in units of the ray's direction (inf: nothing). `row [n]`: the row of `solids` that was
    met, or GROUND, KERB (the upright face of one) or NOTHING. For every (solid, ray) pair that was tested with
    success, whether or not it was the first: `pair_row` and `pair_ray`. `views` is empty for a LiDAR's rays.
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
        """Where the chosen rays end, `[m, 3]` in the global frame."""
        return self.origin[self.view[chosen]] + self.distance[chosen, None] * self.direction[chosen]


def rotate(rays: Tensor, rotation: NDArray[np.float64]) -> Tensor:
    """Rays `[n, 3]` turned by a 3x3 rotation; planes of x, y and z in memory."""
    # Written out: a matrix product may sum in another order on another number of threads.
    x, y, z = rays.unbind(1)
    return torch.stack([r[0] * x + r[1] * y + r[2] * z for r in rotation.tolist()]).T


def trace(
    surface: Surface | None, solids: Solids | Sequence[Solids], views: Sequence[View], device: torch.device
) -> Traced:
    """Trace the rays of pinhole views of one size; without a surface they meet solids only.

    `solids` are where all views see them, or the same ones once for each view, where it sees them.
    """
    width, height = views[0].width, views[0].height
    poses = np.stack([view.global_T_cam for view in views])
    rays = [torch.from_numpy(view.directions()).to(device) for view in views]
    turned = [rotate(r, pose[:3, :3]).T for r, pose in zip(rays, poses, strict=True)]
    directions = torch.cat(turned, dim=1).T
    instants = [solids] * len(views) if isinstance(solids, Solids) else list(solids)
    rectangles = [
        camera_rectangles(each, np.linalg.inv(view.global_T_cam), view.intrinsics, width, height)
        for each, view in zip(instants, views, strict=True)
    ]
    indices = [np.arange(len(instants[0]))] * len(views)
    traced = cast(surface, instants, poses[:, :3, 3], directions, width, height, rectangles, indices)
    return replace(traced, views=tuple(views))


def cast(
    surface: Surface | None,
    instants: Sequence[Solids],
    origins: NDArray[np.float64],
    directions: Tensor,
    width: int,
    height: int,
    rectangles: list[NDArray[np.int64]],
    indices: list[NDArray[np.int64]],
) -> Traced:
    """First hits of rays from `origins [v, 3]` along `directions [v * height * width, 3]`.

    `instants` are the solids of every image. For each, `rectangles [m, 4]` and `indices [m]` say which solid may be
    met by which of its rays.
    """
    device, views, size = directions.device, len(origins), width * height
    tensors = SolidTensors(instants, origins, device)
    count = max(tensors.count, 1)
    origin = torch.from_numpy(origins.astype(np.float32)).to(device)
    if surface is None:
        distance = torch.full((views * size,), torch.inf, device=device)
        row = torch.full((views * size,), NOTHING, dtype=torch.int64, device=device)
    else:
        distance, kerb = surface.intersect(origin, directions, width, height)
        row = torch.where(torch.isfinite(distance), torch.where(kerb, KERB, GROUND), NOTHING)
    planes = directions.unbind(1)
    boxes, which, first = _pairs(rectangles, indices, tensors.count, size)
    all_t, all_row, all_ray = [], [], []
    for family in range(6):
        chosen = np.flatnonzero(tensors.family[which % count] == family)
        if not len(chosen):
            continue
        ray, owner = _rays_of(boxes[chosen], first[chosen], which[chosen], width, device)
        for piece in pieces(len(ray), device):
            r, w = ray[piece], owner[piece]
            t, hit = tensors.meet(family, w, [plane.index_select(0, r) for plane in planes])
            found = hit.nonzero()[:, 0]
            all_t.append(t[found])
            all_row.append(w[found])
            all_ray.append(r[found])
    view = torch.arange(views, device=device).repeat_interleave(size)
    if all_t:
        t, pair_row, pair_ray = torch.cat(all_t), torch.cat(all_row), torch.cat(all_ray)
        distance.scatter_reduce_(0, pair_ray, t, "amin")
        nearest = t <= distance[pair_ray]
        # Of solids that are met at the same distance the last counts: an order-free rule keeps equal seeds equal.
        winner = torch.full_like(row, NOTHING)
        winner.scatter_reduce_(0, pair_ray[nearest], pair_row[nearest], "amax")
        row = torch.where(winner >= 0, winner, row)
    else:
        pair_row = pair_ray = torch.zeros(0, dtype=torch.int64, device=device)
    return Traced(origin, directions, view, distance, row, tensors, pair_row, pair_ray, width, height)


def _pairs(
    rectangles: list[NDArray[np.int64]], indices: list[NDArray[np.int64]], count: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All images' rectangles that are not empty, the rows of their solids, and the first ray of their image."""
    views = range(len(rectangles))
    boxes = np.concatenate(rectangles)
    which = np.concatenate([indices[v] + v * count for v in views])
    first = np.concatenate([np.full(len(indices[v]), v * size, dtype=np.int64) for v in views])
    keep = (boxes[:, 0] < boxes[:, 1]) & (boxes[:, 2] < boxes[:, 3])
    return boxes[keep], which[keep], first[keep]


def _rays_of(
    boxes: NDArray[np.int64], first: NDArray[np.int64], which: NDArray[np.int64], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """All pairs of a ray and the row whose rectangle it lies in: `(ray [k], row [k])`."""
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
