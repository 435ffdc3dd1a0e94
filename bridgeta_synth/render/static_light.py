"""Static light on the ground of a scene: sun between the shadows, open sky, street lamps, and pools of rain.

`StaticLight.draw_tile` gives four channels of 8 bits for a piece of ground: the share of the sun that arrives, the
share of the sky that is open, the lamps' light (the square root of its share of LAMP_LIGHT), and the gloss of wet
ground. `sunlight_at` and `lamplight_at` give the same for places on solids.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.utils.arrays import Bytes, Floats
from bridgeta_synth.render.looks.paint import FINE, PERIOD, Textures
from bridgeta_synth.render.shadows import hang_cables, outline_shadows, slice_shadows, sun_drift
from bridgeta_synth.world import solids as kinds
from bridgeta_synth.world.light import Light
from bridgeta_synth.world.solids import Solids
from bridgeta_synth.world.terrain import Terrain

SUN, SKY, LAMP, GLOSS = range(4)
LAMP_LIGHT = 0.6
"""Radiance of a white surface under the lamps' light that a stored value of 255 means."""

_COARSE = 0.4
_CUT = 0.25
# Light of a lamp 8 m straight below it, and how far its light reaches.
_LAMP, _LAMP_REACH = 0.22, 34.0
_HEIGHT_CODE = 24.0
_CABLE_SUN = 135


class StaticLight:
    """Static light over the rectangle `low`..`high` (global metres) of a scene with the static solids `still`.

    lamps: heads of street lamps `[n, 3]` in metres; they shine when they are on, and cables hang between some of them.
    """

    def __init__(
        self,
        terrain: Terrain,
        still: Solids,
        lamps: Floats,
        light: Light,
        textures: Textures,
        low: Floats,
        high: Floats,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.light, self.low, self._textures, self.device = light, np.asarray(low, dtype=np.float64), textures, device
        size = np.ceil((np.asarray(high) - low) / _COARSE).astype(int)
        self._shape = (int(size[1]), int(size[0]))
        self._sky = self._draw_open_sky(still, terrain)
        self._lamp = self._draw_lamplight(terrain, lamps)
        self._rings: list[Floats] = []
        self._leafy = np.zeros(0, dtype=bool)
        # Spots of sun below trees.
        share = np.clip(1.6 * np.arange(256) - 230, 0, 200).astype(np.uint8)
        self._spots = cv2.LUT(textures.wear[2 * FINE], share)
        self._cables: list[Floats] = []
        self._bounds = np.zeros((0, 4))
        self._slope = sun_drift(light.sun)
        cut = np.zeros((1, 1), dtype=np.uint8)
        if max(light.sun_colour) > 0:
            # Flat solids, like the foot of a cone, have no shadow worth a polygon.
            casting = still.take(still.height > 0.08)
            self._rings = outline_shadows(casting, terrain, light.sun)
            self._cables = hang_cables(np.asarray(lamps, dtype=np.float64).reshape(-1, 3), terrain, light.sun, rng)
            self._leafy = np.isin(casting.kind, (kinds.CROWN, kinds.HEDGE))
            self._bounds = np.array([[*r.min(axis=0), *r.max(axis=0)] for r in self._rings]).reshape(-1, 4)
            cut = self._draw_shadow_heights(casting, terrain)
        self._cut = torch.from_numpy(cut).to(device)
        self._lamp_on_device = torch.from_numpy(self._lamp).to(device)
        self._terrain = torch.from_numpy(terrain.heights).to(device)
        self._terrain_step = terrain.step
        self._terrain_origin = terrain.origin

    def draw_tile(self, corner: Floats, step: float, size: int) -> Bytes:
        """Draw the four channels `[size, size, 4]` of a square that starts at `corner`, row 0 at the smallest y."""
        result = np.empty((size, size, 4), dtype=np.uint8)
        result[..., SUN] = self._draw_sun(corner, step, size)
        result[..., SKY] = self._upsample(self._sky, corner, step, size)
        result[..., LAMP] = self._upsample(self._lamp, corner, step, size) if self.light.lamps else 0
        result[..., GLOSS] = self._draw_gloss(corner, step, size) if self.light.wet > 0 else 0
        return result

    def sunlight_at(self, points: Tensor, base: Tensor, grace: Tensor) -> Tensor:
        """Compute the share of the sun `[n]` that passes static solids and reaches `points [3, n]` on other solids.

        The bases of these solids lie at heights `base [n]`. Shadows that end less than `grace [n]` metres above a point
        do not count.
        """
        if self._cut.numel() == 1:
            return torch.full_like(base, 1.0 if max(self.light.sun_colour) > 0 else 0.0)
        x, y, z = points
        sx, sy = (float(v) for v in self._slope)
        above = z - base
        ground = self._terrain_height(x - sx * above, y - sy * above)
        above = (z - ground).clamp(min=0)
        rows, columns = self._cut.shape
        u = ((x - sx * above - float(self.low[0])) * (1 / _CUT) - 0.5).clamp(0, columns - 1.001)
        v = ((y - sy * above - float(self.low[1])) * (1 / _CUT) - 0.5).clamp(0, rows - 1.001)
        column, row = u.int(), v.int()
        u, v = u - column, v - row
        # Surfaces that face the sun must not shade themselves: leave room for a cell's side and some of the terrain's.
        slack = 0.15 + 1.5 * _CUT / math.hypot(sx, sy)
        level = _HEIGHT_CODE * torch.log2(1 + slack + above + grace)
        lit = [
            (level >= self._cut.view(-1).index_select(0, row * columns + column + step)).float()
            for step in (0, 1, columns, columns + 1)
        ]
        return torch.lerp(torch.lerp(lit[0], lit[1], u), torch.lerp(lit[2], lit[3], u), v)

    def lamplight_at(self, points: Tensor) -> Tensor:
        """Look up the light of the street lamps `[n]` on the ground below `points [3, n]`."""
        rows, columns = self._shape
        u = ((points[0] - float(self.low[0])) / _COARSE).int().clamp(0, columns - 1)
        v = ((points[1] - float(self.low[1])) / _COARSE).int().clamp(0, rows - 1)
        value = self._lamp_on_device.view(-1).index_select(0, v * columns + u).float() / 255
        return LAMP_LIGHT * value * value

    def _terrain_height(self, x: Tensor, y: Tensor) -> Tensor:
        rows, columns = self._terrain.shape
        u = ((x - self._terrain_origin[0]) / self._terrain_step + 0.5).int().clamp(0, columns - 1)
        v = ((y - self._terrain_origin[1]) / self._terrain_step + 0.5).int().clamp(0, rows - 1)
        return self._terrain.view(-1).index_select(0, v * columns + u)

    def _to_pixels(self, ring: Floats, corner: Floats, step: float) -> NDArray[np.int32]:
        return np.round(((ring - corner) / step - 0.5) * 16).astype(np.int32)

    def _draw_sun(self, corner: Floats, step: float, size: int) -> Bytes:
        if max(self.light.sun_colour) == 0:
            return np.zeros((size, size), dtype=np.uint8)
        far = corner + size * step
        b = self._bounds
        near = (b[:, 0] < far[0]) & (b[:, 2] > corner[0]) & (b[:, 1] < far[1]) & (b[:, 3] > corner[1])
        lit = np.full((size, size), 255, dtype=np.uint8)
        leaves = np.zeros((size, size), dtype=np.uint8)
        # A cable is narrower than the sun: its shadow is faint.
        lines = [self._to_pixels(line, corner, step) for line in self._cables]
        cv2.polylines(lit, lines, False, _CABLE_SUN, 1, cv2.LINE_AA, 4)
        for i in np.flatnonzero(near):
            target, value = (leaves, 1) if self._leafy[i] else (lit, 0)
            cv2.fillConvexPoly(target, self._to_pixels(self._rings[i], corner, step), value, cv2.LINE_8, 4)
        if leaves.any():
            spots = _cut_periodic(self._spots, corner, step, size)
            lit = np.where(leaves > 0, np.minimum(lit, spots), lit)
        return np.asarray(cv2.GaussianBlur(lit, (3, 3), 0.8), dtype=np.uint8)

    def _draw_gloss(self, corner: Floats, step: float, size: int) -> Bytes:
        wet = self.light.wet
        pools = _cut_periodic(self._textures.pools, corner, _COARSE, round(size * step / _COARSE) + 2)
        scale = step / _COARSE
        offset = (corner / _COARSE) % 1.0
        matrix = np.array([[scale, 0, offset[0] + scale / 2 - 0.5], [0, scale, offset[1] + scale / 2 - 0.5]])
        pools = cv2.warpAffine(
            pools, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        # The wetter it is, the more of the ground is under water.
        level = 128 + 40 * (1.5 - 1.2 * wet)
        return np.clip(90 * wet + (pools.astype(np.float32) - level) * 7, 60 * wet, 255).astype(np.uint8)

    def _upsample(self, coarse: Bytes, corner: Floats, step: float, size: int) -> Bytes:
        scale = step / _COARSE
        start = (corner - self.low) / _COARSE + scale / 2 - 0.5
        first = np.floor(start).astype(int) - 1
        count = int(size * scale) + 4
        rows, columns = coarse.shape
        v = np.clip(np.arange(first[1], first[1] + count), 0, rows - 1)
        u = np.clip(np.arange(first[0], first[0] + count), 0, columns - 1)
        part = np.ascontiguousarray(coarse[v[0] : v[-1] + 1, u[0] : u[-1] + 1])
        shift = start - (u[0], v[0])
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8
        )

    def _draw_open_sky(self, still: Solids, terrain: Terrain) -> Bytes:
        """Draw the share of the sky (0-255) open over each cell: blurs of what stands around, by its height."""
        heights = np.zeros(self._shape, dtype=np.uint8)
        corners = still.corners()[:, :4, :2]
        ground = terrain.height(still.place[:, :2])
        top = np.clip(still.z + still.height - ground, 0, 25)
        for i in np.argsort(top, kind="stable"):
            ring = self._to_pixels(corners[i], self.low, _COARSE)
            cv2.fillConvexPoly(heights, ring, int(top[i] * 10), cv2.LINE_8, 4)
        near = cv2.blur(np.minimum(heights, 40), (5, 5)).astype(np.float32) / 40
        wide = cv2.blur(cv2.blur(heights, (31, 31)), (31, 31)).astype(np.float32) / 250
        return np.asarray(np.clip(255 * (1 - 0.55 * near) * (1 - 0.9 * wide), 40, 255), dtype=np.uint8)

    def _draw_lamplight(self, terrain: Terrain, lamps: Floats) -> Bytes:
        """Draw the light of the street lamps on level ground, encoded as in `draw_tile`."""
        total = np.zeros(self._shape, dtype=np.float32)
        if not self.light.lamps:
            return total.astype(np.uint8)
        lamps = np.asarray(lamps, dtype=np.float64).reshape(-1, 3)
        above = lamps[:, 2] - terrain.height(lamps[:, :2])
        for (x, y, _), h in zip(lamps, np.maximum(above, 2.0), strict=True):
            u0, u1 = (int((x + d - self.low[0]) / _COARSE) for d in (-_LAMP_REACH, _LAMP_REACH))
            v0, v1 = (int((y + d - self.low[1]) / _COARSE) for d in (-_LAMP_REACH, _LAMP_REACH))
            u0, v0, u1, v1 = max(u0, 0), max(v0, 0), min(u1, self._shape[1]), min(v1, self._shape[0])
            if u0 >= u1 or v0 >= v1:
                continue
            dx = self.low[0] + (np.arange(u0, u1) + 0.5) * _COARSE - x
            dy = self.low[1] + (np.arange(v0, v1) + 0.5)[:, None] * _COARSE - y
            r2 = (dx * dx + dy * dy).astype(np.float32)
            # Cosine and distance make h / r^3; the reflector of a street lamp sends twice as much to the sides.
            light = _LAMP * 64 * h / (r2 + h * h) ** 1.5 * (1 + np.minimum(r2 / (h * h), 1.5))
            total[v0:v1, u0:u1] += light * np.clip(1 - r2 / _LAMP_REACH**2, 0, 1)
        return np.asarray(np.clip(255 * np.sqrt(total / LAMP_LIGHT), 0, 255), dtype=np.uint8)

    def _draw_shadow_heights(self, still: Solids, terrain: Terrain) -> Bytes:
        """Draw up to which height above the ground, encoded, each place lies in shadow; 0 is in the sun."""
        rows, columns = (round(side * _COARSE / _CUT) for side in self._shape)
        heights = np.zeros((rows, columns), dtype=np.uint8)
        # Eaves would streak the walls below them.
        tall = still.take((still.height > 0.4) & (still.kind != kinds.ROOF))
        rings, levels = slice_shadows(tall, terrain, self.light.sun)
        for ring, level in zip(rings, levels, strict=True):
            code = 1 + int(_HEIGHT_CODE * np.log2(1 + level))
            cv2.fillConvexPoly(heights, self._to_pixels(ring, self.low, _CUT), min(code, 255), cv2.LINE_8, 4)
        return heights


def _cut_periodic(tile: Bytes, corner: Floats, step: float, size: int) -> Bytes:
    """Cut a square that starts at `corner` from a texture that repeats every PERIOD metres."""
    period = round(PERIOD / step)
    if tile.shape[0] != period:
        raise ValueError(f"a texture of {tile.shape[0]} pixels does not repeat every {PERIOD} m at {step} m")
    x, y = np.floor(corner / step + 1e-6).astype(np.int64)
    columns = (x + np.arange(size)) % period
    rows = (y + np.arange(size)) % period
    return np.asarray(tile[rows[:, None], columns], dtype=np.uint8)
