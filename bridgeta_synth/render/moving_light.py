"""Light that changes over time: shadows and headlights of moving actors, on a small map around the ego.

The map holds three channels of 8 bits in one 32-bit number: the share of the sun that passes the movers, the share of
the sky that is open beside and below bodies, and the light of headlights (the square root of its share of BEAM_LIGHT).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.utils.arrays import Bytes, Floats
from bridgeta_synth.render.looks.snapshot import Snapshot
from bridgeta_synth.render.shadows import outline_shadows
from bridgeta_synth.world import solids as kinds
from bridgeta_synth.world.light import Light
from bridgeta_synth.world.solids import Solids
from bridgeta_synth.world.terrain import Terrain

BEAM_LIGHT = 0.5
BEAM_COLOUR = (1.0, 0.96, 0.86)
"""Radiance of a white surface in a headlight's beam that a stored value of 255 means, and the light's colour."""

_STEP, _SIZE = 0.14, 800
_BEAM_STEP = 0.28
_BEAM_REACH, _BEAM_SIDE = 44.8, 11.2
_LARGE = (kinds.BODY, kinds.TRUCK, kinds.BUS, kinds.CARGO)


class MovingLight:
    """Moving light around the ego, one map for the snapshot of each view."""

    def __init__(self, snapshots: Sequence[Snapshot], terrain: Terrain, light: Light, device: torch.device) -> None:
        low = np.stack([snapshot.ego[:2, 3] - _STEP * _SIZE / 2 for snapshot in snapshots])
        maps = [_draw_map(snapshot, corner, terrain, light) for snapshot, corner in zip(snapshots, low, strict=True)]
        self._low = torch.from_numpy(low.astype(np.float32)).to(device)
        self._map = torch.from_numpy(np.stack(maps).reshape(-1)).to(device)

    def at(self, x: Tensor, y: Tensor, view: Tensor) -> Tensor:
        """Look up sun, sky and headlights `[3, n]` at places of the ground, at the snapshot of each ray's `view [n]`.

        The first two are shares; the third is radiance of a white surface, without colour.
        """
        u = ((x - self._low[:, 0].index_select(0, view)) * (1 / _STEP) - 0.5).clamp(0, _SIZE - 1.001)
        v = ((y - self._low[:, 1].index_select(0, view)) * (1 / _STEP) - 0.5).clamp(0, _SIZE - 1.001)
        column, row = u.int(), v.int()
        u, v = u - column, v - row
        at = (view.int() * _SIZE + row) * _SIZE + column
        result = torch.zeros(4, len(x), device=x.device)
        for step, weight in ((0, (1 - u) * (1 - v)), (1, u * (1 - v)), (_SIZE, (1 - u) * v), (_SIZE + 1, u * v)):
            corner = self._map.index_select(0, at + step)
            result.addcmul_(corner.view(torch.uint8).view(-1, 4).T, weight, value=1 / 255)
        result[2] = BEAM_LIGHT * result[2] * result[2]
        return result[:3]


def _draw_map(snapshot: Snapshot, low: Floats, terrain: Terrain, light: Light) -> NDArray[np.int32]:
    """Draw the map `[size, size]` of one snapshot; row 0 is at the smallest y."""
    result = np.full((_SIZE, _SIZE, 4), 255, dtype=np.uint8)
    bodies = snapshot.bodies
    reach = _STEP * _SIZE / 2
    near = np.hypot(bodies.x - low[0] - reach, bodies.y - low[1] - reach) < reach + 25
    if max(light.sun_colour) > 0:
        sun = np.full((_SIZE, _SIZE), 255, dtype=np.uint8)
        # Wheels add no shadow to that of the bodies above them.
        shading = near & snapshot.moving & (bodies.height > 0.08) & (bodies.kind != kinds.WHEEL)
        for ring in outline_shadows(bodies.take(shading), terrain, light.sun):
            cv2.fillConvexPoly(sun, _to_pixels(ring, low, _STEP), 0, cv2.LINE_8, 4)
        result[..., 0] = cv2.blur(sun, (2, 2))
    result[..., 1] = _draw_open_sky(bodies.take(near & bodies.main & (bodies.height > 0.3)), low)
    result[..., 2] = _draw_headlights(snapshot.lamps, low) if light.lamps else 0
    # The border stands for everything beyond it.
    result[[0, -1]] = result[:, [0, -1]] = (255, 255, 0, 0)
    return result.view(np.int32)[..., 0]


def _to_pixels(ring: Floats, low: Floats, step: float) -> NDArray[np.int32]:
    return np.round(((ring - low) / step - 0.5) * 16).astype(np.int32)


def _draw_open_sky(bodies: Solids, low: Floats) -> Bytes:
    """Draw how much of the sky the ground below and beside bodies sees."""
    sky = np.full((_SIZE, _SIZE), 255, dtype=np.uint8)
    rings = _to_pixels(bodies.corners()[:, :4, :2], low, _STEP)
    for ring, large in zip(rings, np.isin(bodies.kind, _LARGE), strict=True):
        cv2.fillConvexPoly(sky, ring, 25 if large else 130, cv2.LINE_8, 4)
    return np.asarray(cv2.blur(cv2.blur(sky, (3, 3)), (5, 5)), dtype=np.uint8)


def _draw_headlights(lamps: Floats, low: Floats) -> Bytes:
    """Draw the light of headlights on the ground, encoded."""
    count = _SIZE // 2
    total = np.zeros((count, count), dtype=np.float32)
    beam = _make_beam()
    for x, y, heading in lamps:
        c, s = np.cos(heading), np.sin(heading)
        # Map cells to metres ahead and to the left, and on to cells of the beam.
        turn = np.array(((c, s), (-s, c)))
        start = turn @ (low + _BEAM_STEP / 2 - (x, y)) / _BEAM_STEP + (0, _BEAM_SIDE / _BEAM_STEP) - 0.5
        matrix = np.concatenate((turn, start[:, None]), axis=1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        total += cv2.warpAffine(beam, matrix, (count, count), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    encoded = np.clip(255 * np.sqrt(total / BEAM_LIGHT), 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(encoded, (_SIZE, _SIZE), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


@lru_cache(maxsize=1)
def _make_beam() -> NDArray[np.float32]:
    """Model a vehicle's two low beams on level ground, `[left, ahead]`: bright nearby, then a wedge that fades."""
    ahead = (np.arange(round(_BEAM_REACH / _BEAM_STEP)) + 0.5) * _BEAM_STEP
    left = (np.arange(round(2 * _BEAM_SIDE / _BEAM_STEP)) + 0.5)[:, None] * _BEAM_STEP - _BEAM_SIDE
    rising = np.clip((ahead - 0.8) / 4, 0, 1) ** 2
    along = rising * 100 / (100 + ahead**2) * np.exp(-ahead / 40)
    wide = 1.0 + 0.30 * ahead
    across = 1 / (1 + (left / wide) ** 2) ** 3
    fade = np.clip((_BEAM_SIDE - np.abs(left)) / 3, 0, 1) * np.clip((_BEAM_REACH - ahead) / 10, 0, 1)
    return np.asarray(0.26 * along * across * fade, dtype=np.float32)
