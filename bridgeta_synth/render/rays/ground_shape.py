"""The ground as rays hit it: hills, and kerbs that raise everything beside the carriageways.

There are two sheets: the terrain itself, where vehicles drive, and the same one kerb higher, everywhere else. A ray
from above hits the upper sheet where the ground is raised, the lower sheet where it is not, or the upright face of a
kerb in between.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.render.rays.raster import Raster, rasterise_unpaved
from bridgeta_synth.world.terrain import MAX_SLOPE, Terrain

# Ray parameters at which the coarse search tests the ground; a wave of terrain is never shorter than 75 m.
_MARCH = np.geomspace(0.4, 900.0, 48)
# One pixel in _STRIDE x _STRIDE is searched; the others start from their neighbours' results.
_STRIDE = 6
_PRECISION = 5e-4
# Rays that approach the ground by less than this per metre are searched again.
_SKIMS = 0.03
_MASK_STEP = 0.2
_FAR = 60.0
_PROBES = 6


class GroundHits(NamedTuple):
    """Where rays hit the ground: `distance [n]` (inf: nowhere) and whether it is the face of a kerb, `kerb [n]`."""

    distance: Tensor
    kerb: Tensor


class GroundShape:
    """Terrain and kerbs around a scene, on a device.

    `paved` is level with the terrain, everything else `kerb` metres higher. Kerb lines are stored within `reach` metres
    of the `path [n, 2]`; beyond, the state at that border continues.
    """

    def __init__(
        self,
        terrain: Terrain,
        kerb: float,
        paved: BaseGeometry,
        path: Floats,
        device: torch.device,
        reach: float = 170.0,
    ) -> None:
        self.kerb, self.device = kerb, device
        low, high = np.floor(path.min(axis=0) - reach), np.ceil(path.max(axis=0) + reach)
        raised = rasterise_unpaved(paved, low, high, _MASK_STEP)
        # Coverage with a soft edge: its level of one half is the kerb line, to a fraction of a cell.
        soft = cv2.GaussianBlur(raised, (5, 5), 0.8)
        self._mask = Raster(torch.from_numpy(soft).to(device), _MASK_STEP, low + _MASK_STEP / 2)
        solid = (raised >= 128).astype(np.uint8)
        away = np.maximum(*(cv2.distanceTransform(m, cv2.DIST_L2, 5) for m in (solid, 1 - solid))) * _MASK_STEP
        # The extent of a cell and the soft edge are subtracted, so that areas called uniform are uniform.
        clear = np.clip(away - 2 * _MASK_STEP, 0, _FAR)
        self._clear = Raster(torch.from_numpy(clear.astype(np.float16)).to(device), _MASK_STEP, low + _MASK_STEP / 2)
        self._heights = Raster(
            torch.from_numpy(terrain.heights).to(device), terrain.step, np.array(terrain.origin, dtype=np.float64)
        )

    def sample_terrain(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sample the height of the lower sheet and its slopes along x and y, each `[n]`, at places x, y `[n]`."""
        return self._heights.interpolate(x, y)

    def is_raised(self, x: Tensor, y: Tensor) -> Tensor:
        """Tell whether places lie a kerb above the terrain, bool `[n]`."""
        return self._mask.interpolate(x, y)[0] >= 127.5

    def kerb_direction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute unit directions (x, y), each `[n]`, from the paved to the raised side at places near a kerb."""
        _, along_x, along_y = self._mask.interpolate(x, y)
        length = torch.hypot(along_x, along_y).clamp(min=1e-6)
        return along_x / length, along_y / length

    def height(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the height of the ground, kerbs included, `[n]` metres."""
        return self.sample_terrain(x, y)[0] + self.kerb * self.is_raised(x, y)

    def normal(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute unit normals `[n, 3]`, upwards."""
        _, slope_x, slope_y = self.sample_terrain(x, y)
        upright = (1 + slope_x * slope_x + slope_y * slope_y).rsqrt()
        return torch.stack((-slope_x * upright, -slope_y * upright, upright), dim=1)

    def intersect(self, origin: Tensor, directions: Tensor, width: int, height: int) -> GroundHits:
        """Find the first hits of the rays of images.

        `origin [v, 3]`; `directions [v * height * width, 3]` row by row.
        """
        views = len(origin)
        # Planes of x, y and z: arithmetic on them is several times as fast as on interleaved triples.
        rays = directions.T.reshape(3, views, height, width)
        distance = torch.full((views, height, width), torch.inf, device=directions.device)
        kerb = torch.zeros((views, height, width), dtype=torch.bool, device=directions.device)
        # Rows whose rays all climb more steeply than the terrain can rise are left out.
        hits = _may_hit(rays).any(dim=2).any(dim=0).nonzero()[:, 0]
        if len(hits):
            top, bottom = int(hits[0]), int(hits[-1]) + 1
            lower, face = self._find_first_hits(origin, rays[:, :, top:bottom])
            distance[:, top:bottom], kerb[:, top:bottom] = lower, face
        return GroundHits(distance.view(-1), kerb.view(-1))

    def _find_first_hits(self, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Find distances and kerb faces, both `[v, h, w]`, of images of rays `[3, v, h, w]`."""
        views, height, width = rays.shape[1:]
        coarse = self._guess_inverse(origin, rays)
        d = rays.reshape(3, -1)
        o = _expand_origins(origin, height * width)
        low, trusted = self._polish(o, d, coarse.reshape(-1))
        again = (~trusted).nonzero()[:, 0]
        if len(again):
            low[again] = self._search(_select_origins(o, again), _select(d, again))
        found = torch.isfinite(low).nonzero()[:, 0]
        face = torch.zeros(len(low), dtype=torch.bool, device=low.device)
        low[found], face[found] = self._raise_to_ground(_select_origins(o, found), _select(d, found), low[found])
        return low.view(views, height, width), face.view(views, height, width)

    def _search(self, o: Tensor, d: Tensor, lift: float = 0.0) -> Tensor:
        """Search whole rays for their first hits with the terrain lifted by `lift`: ray parameters `[n]`."""
        result = torch.full(d.shape[1:], torch.inf, device=d.device)
        chosen = _may_hit(d).nonzero()[:, 0]
        if not len(chosen):
            return result
        steps = torch.from_numpy(_MARCH.astype(np.float32)).to(d.device)
        o, d = _select_origins(o, chosen), _select(d, chosen)
        t = steps[:, None]
        below = o[2] + t * d[2] < self.sample_terrain(o[0] + t * d[0], o[1] + t * d[1])[0] + lift
        first = below.to(torch.uint8).argmax(dim=0)
        hit = below.any(dim=0).nonzero()[:, 0]
        chosen, o, d, first = chosen[hit], _select_origins(o, hit), _select(d, hit), first[hit]
        near = torch.where(first > 0, steps[(first - 1).clamp(min=0)], 0.0)
        far = steps[first]
        for turn in range(5):
            # Bisect the inverse distance, then take Newton's steps that stay between the two.
            middle = (
                2 * near * far / (near + far).clamp(min=1e-9) if turn < 2 else self._step_newton(o, d, far, near, lift)
            )
            under = self._measure_clearance(o, d, middle)[0] < lift
            near, far = torch.where(under, near, middle), torch.where(under, middle, far)
        for _ in range(2):
            far = self._step_newton(o, d, far, near, lift)
        result[chosen] = far
        return result

    def _measure_clearance(self, o: Tensor, d: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Measure how far the rays are above the lower sheet at t, and how fast that changes with t."""
        height, slope_x, slope_y = self.sample_terrain(o[0] + t * d[0], o[1] + t * d[1])
        return o[2] + t * d[2] - height, d[2] - slope_x * d[0] - slope_y * d[1]

    def _step_newton(self, o: Tensor, d: Tensor, t: Tensor, near: Tensor, lift: float) -> Tensor:
        above, rate = self._measure_clearance(o, d, t)
        return torch.maximum(t - (above - lift) / rate.clamp(max=-1e-3), near)

    def _guess_inverse(self, origin: Tensor, rays: Tensor) -> Tensor:
        """Guess inverse distances `[v, h, w]` of rays `[3, v, h, w]` by interpolating those of a few rays."""
        height, width = rays.shape[2:]
        rows = torch.arange(0, height - 1 + _STRIDE, _STRIDE, device=rays.device).clamp(max=height - 1)
        columns = torch.arange(0, width - 1 + _STRIDE, _STRIDE, device=rays.device).clamp(max=width - 1)
        sparse = rays[:, :, rows][..., columns]
        known = 1 / self._search(_expand_origins(origin, len(rows) * len(columns)), sparse.reshape(3, -1))
        inverse = known.view(sparse.shape[1:])
        row, down = _split_into_cells(height, rows)
        column, across = _split_into_cells(width, columns)
        # Between a ray that hits the ground and one that does not, nothing can be guessed: NaN asks for a search.
        left, right = inverse[:, :, column], inverse[:, :, (column + 1).clamp(max=len(columns) - 1)]
        wide = torch.where((left == 0) != (right == 0), torch.nan, left * (1 - across) + right * across)
        above, below = wide[:, row], wide[:, (row + 1).clamp(max=len(rows) - 1)]
        guess = above * (1 - down[:, None]) + below * down[:, None]
        return torch.where((above == 0) != (below == 0), torch.nan, guess)

    def _polish(self, o: Tensor, d: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """Take Newton's steps from guessed inverse distances; return distances `[n]` and where they can be trusted."""
        result = torch.full_like(guess, torch.inf)
        chosen = (guess > 0).nonzero()[:, 0]
        o, d, start = _select_origins(o, chosen), _select(d, chosen), 1 / guess[chosen]
        t = start
        for _ in range(2):
            above, rate = self._measure_clearance(o, d, t)
            t = t - above / rate.clamp(max=-1e-3)
        above, rate = self._measure_clearance(o, d, t)
        sure = (above.abs() < _PRECISION) & (rate < -1e-3) & ((t - start).abs() < 0.2 * start)
        result[chosen] = t
        trusted = guess == 0
        trusted[chosen] = sure
        return result, trusted

    def _raise_to_ground(self, o: Tensor, d: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Turn hits with the lower sheet into hits with the ground: `(distance [n], on a kerb's face [n])`."""
        _, rate = self._measure_clearance(o, d, low)
        ahead = torch.hypot(d[0], d[1])
        back = self.kerb / (-rate).clamp(min=4e-3)
        x, y = o[0] + low * d[0], o[1] + low * d[1]
        mixed = self._clear.nearest(x, y) < back * ahead
        result, face = low.clone(), torch.zeros(len(low), dtype=torch.bool, device=low.device)
        climb = (self.is_raised(x, y) | mixed).nonzero()[:, 0]
        if not len(climb):
            return result, face
        skims = rate[climb] > -_SKIMS * ahead[climb]
        o, d, bottom, mixed = _select_origins(o, climb), _select(d, climb), low[climb], mixed[climb]
        top = (bottom - back[climb]).clamp(min=0)
        for _ in range(2):
            above, rate = self._measure_clearance(o, d, top)
            top = torch.minimum((top - (above - self.kerb) / rate.clamp(max=-4e-3)).clamp(min=0), bottom)
        # A ray that skims a crest may dip into the upper sheet well before it hits the lower one.
        again = skims.nonzero()[:, 0]
        if len(again):
            top[again] = torch.minimum(
                self._search(_select_origins(o, again), _select(d, again), self.kerb), bottom[again]
            )
            mixed = mixed | skims
        result[climb] = top
        look = mixed.nonzero()[:, 0]
        if len(look):
            result[climb[look]], face[climb[look]] = self._search_kerbs(
                _select_origins(o, look), _select(d, look), top[look], bottom[look]
            )
        return result, face

    def _search_kerbs(self, o: Tensor, d: Tensor, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same for rays with a kerb nearby, which hit the upper sheet at `top` and the lower at `bottom`."""
        t = top + (bottom - top) * torch.linspace(0, 1, _PROBES, device=d.device)[:, None]
        up = self.is_raised(o[0] + t * d[0], o[1] + t * d[1])
        first = up.to(torch.uint8).argmax(dim=0)
        near = torch.gather(t, 0, (first - 1).clamp(min=0)[None])[0]
        far = torch.gather(t, 0, first[None])[0]
        for _ in range(5):
            middle = (near + far) / 2
            inside = self.is_raised(o[0] + middle * d[0], o[1] + middle * d[1])
            near, far = torch.where(inside, near, middle), torch.where(inside, middle, far)
        on_top, hits = up[0], up.any(dim=0)
        return torch.where(on_top, top, torch.where(hits, far, bottom)), hits & ~on_top


def _may_hit(d: Tensor) -> Tensor:
    """Tell whether rays `[3, ...]` from above the ground can hit it: no slope is steeper than MAX_SLOPE."""
    return d[2] < MAX_SLOPE * torch.hypot(d[0], d[1])


def _expand_origins(origin: Tensor, rays: int) -> Tensor:
    """Expand origins `[v, 3]` to planes `[3, v * rays]`, or to `[3, 1]`, which is broadcast, if there is only one."""
    return origin.T if len(origin) == 1 else origin.T.repeat_interleave(rays, dim=1)


def _select_origins(o: Tensor, index: Tensor) -> Tensor:
    return o if o.shape[1] == 1 else _select(o, index)


def _select(planes: Tensor, index: Tensor) -> Tensor:
    return torch.stack([plane.index_select(0, index) for plane in planes])


def _split_into_cells(size: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Find for pixels 0 to size - 1 the node before each, and the position in [0, 1] between it and the next."""
    place = torch.arange(size, device=nodes.device)
    cell = (place // _STRIDE).clamp(max=max(len(nodes) - 2, 0))
    span = (nodes[(cell + 1).clamp(max=len(nodes) - 1)] - nodes[cell]).clamp(min=1)
    return cell, (place - nodes[cell]).float() / span
