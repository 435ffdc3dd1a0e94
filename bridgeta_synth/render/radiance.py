"""The light that reaches cameras: radiance of what rays met, from all that shines in a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bridgeta_synth.render.ground import Ground, extent
from bridgeta_synth.render.looks.mood import Mood
from bridgeta_synth.render.looks.noise import pick
from bridgeta_synth.render.looks.paint import Paint
from bridgeta_synth.render.looks.sky import sky
from bridgeta_synth.render.looks.snapshot import Beams, beams_of, instant_at, mood_at
from bridgeta_synth.render.looks.texture import textures
from bridgeta_synth.render.mirror import mirrored_views, unsharp
from bridgeta_synth.render.moving_light import BEAM_COLOUR, MovingLight
from bridgeta_synth.render.rays.ground_shape import Surface
from bridgeta_synth.render.rays.ray_caster import GROUND, KERB, NOTHING, Traced, pieces, trace
from bridgeta_synth.render.rays.solid_hits import SolidHits, SolidLooks
from bridgeta_synth.render.shading import by_kind, shade
from bridgeta_synth.render.static_light import LAMP_LIGHT, StaticLight
from bridgeta_synth.seeds import Seed
from bridgeta_synth.traffic.scene import Scene
from bridgeta_synth.world.materials import lidar_reflectivity
from bridgeta_synth.world.solids import Solids

_REACH = 160.0
_DITHER = 1 << 20
_LIDAR_FOOTPRINT = 0.003
# How far behind its edge a kerb shows the stone that it is of.
_KERB_DEPTH = 0.09


class Painter:
    """Paints what rays of one scene met. What holds for the whole scene is prepared once.

    `still` are the solids that never move, in the global frame: scenery and parked vehicles.
    """

    def __init__(self, scene: Scene, seed: Seed, still: Solids, surface: Surface, device: torch.device) -> None:
        self.scene, self.light, self.device = scene, scene.light, device
        self._surface = surface
        times = np.linspace(-0.1, scene.duration + 0.1, 64)
        path = np.array([scene.ego_pose(float(time))[:2, 3] for time in times])
        forward = scene.ego_pose(0.0)[:2, 0]
        low, high = extent(path, _REACH)
        texture = textures(seed)
        town = scene.town
        rng = np.random.default_rng([*seed, 3, scene.index, 1])
        self._static = StaticLight(town.terrain, still, town.lamps, self.light, texture, low, high, rng, device)
        heading = math.atan2(forward[1], forward[0])
        paint = Paint(town.surface, texture, seed, scene.index, heading, low, high)
        self._ground = Ground(paint, self._static, path, device, _REACH)
        rng = np.random.default_rng([*seed, 5])
        self._dither = torch.from_numpy(rng.random(_DITHER, dtype=np.float32)).to(device)

    def radiance(self, traced: Traced, times: Sequence[float]) -> Tensor:
        """Linear radiance `[n, 3]` along the rays of `traced.views`, seen at `times`, one for each view.

        The result is a view of three planes `[3, n]`.
        """
        mood = mood_at(self.scene, times[0], self.device)
        instants = [instant_at(self.scene, time) for time in times]
        moving = MovingLight(instants, self.scene.town.terrain, self.light, self.device)
        beams = beams_of(instants, self.device) if self.light.lamps else None
        mirror = None
        if self.light.wet > 0:
            below = trace(None, traced.solids.instants, mirrored_views(traced.views, instants), self.device)
            mirror = unsharp(self._shaded(below, mood, beams, None, None), below, traced)
        result = self._shaded(traced, mood, beams, moving, mirror)
        _soften_edges(result, traced)
        return result.T

    def reflectivity(self, traced: Traced, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """LiDAR reflectivity (0-255) `[m]` and unit normals `[m, 3]`, global, of what the `chosen [m]` rays met.

        Water on the ground lets less light come back.
        """
        reflectivity = torch.zeros(len(chosen), device=self.device)
        normal = torch.zeros(3, len(chosen), device=self.device)
        row = traced.row.index_select(0, chosen)
        ground = ((row == GROUND) | (row == KERB)).nonzero()[:, 0]
        if len(ground):
            ray = chosen.index_select(0, ground)
            reach, way = traced.distance.index_select(0, ray), _planes(traced.direction, ray)
            x, y, _ = _ends(traced, ray, way, reach)
            back_x, back_y = self._surface.outward(x, y)
            face = (row.index_select(0, ground) == KERB).float()
            # A kerb's face is of the stone behind its edge.
            x, y = x + _KERB_DEPTH * face * back_x, y + _KERB_DEPTH * face * back_y
            size = reach * _LIDAR_FOOTPRINT
            step = torch.zeros(2, len(ray), device=self.device)
            looked = self._ground.look(x, y, step, size, torch.zeros_like(size))
            reflectivity[ground] = looked[3] * 255 * (1 - 0.75 * looked[7])
            upright = self._surface.normal(x, y).T
            normal[:, ground] = torch.lerp(upright, torch.stack((-back_x, -back_y, torch.zeros_like(x))), face)
        solid = (row >= 0).nonzero()[:, 0]
        if len(solid):
            ray, rows = chosen.index_select(0, solid), row.index_select(0, solid)
            reach, way = traced.distance.index_select(0, ray), _planes(traced.direction, ray)
            hits = SolidHits.of(traced.solids, SolidLooks.of(traced.solids), rows, way * reach, way, reach)
            table = lidar_reflectivity(traced.solids.solids.kind)
            index = traced.solids.index(rows)
            reflectivity[solid] = torch.from_numpy(table).to(self.device).index_select(0, index)
            normal[:, solid] = hits.normal
        return reflectivity, normal.T

    def _shaded(
        self, traced: Traced, mood: Mood, beams: Beams | None, moving: MovingLight | None, mirror: Tensor | None
    ) -> Tensor:
        """Radiance `[3, n]` of all rays; without moving light, rays that end on the ground are left black."""
        result = torch.zeros(3, len(traced.row), device=self.device)
        looks = SolidLooks.of(traced.solids)
        focal = torch.tensor([float(1 / v.intrinsics[0, 0]) for v in traced.views], device=self.device)
        for piece in pieces(len(traced.row), self.device):
            row = traced.row[piece]
            start = piece.start
            part = result[:, piece]
            # Cameras look along planes of directions, so whole columns are cheap.
            for kind in (NOTHING, GROUND, KERB, 0):
                found = ((row >= 0) if kind == 0 else (row == kind)).nonzero()[:, 0]
                if not len(found) or (kind in (GROUND, KERB) and moving is None):
                    continue
                if kind == 0:
                    solid = traced.solids.index(row.index_select(0, found))
                    found = found.index_select(0, by_kind(looks.kind.index_select(0, solid)))
                ray = found + start
                direction = _planes(traced.direction, ray)
                length = (direction * direction).sum(dim=0).sqrt()
                way = direction / length
                if kind == NOTHING:
                    colour = sky(way, self.light)
                else:
                    reach = traced.distance.index_select(0, ray)
                    view = traced.view.index_select(0, ray)
                    pixel = reach * focal.index_select(0, view)
                    dither = self._dither.index_select(0, ray & (_DITHER - 1))
                    points = _ends(traced, ray, direction, reach)
                    if kind == 0:
                        step = direction * reach
                        hits = SolidHits.of(traced.solids, looks, row.index_select(0, found), step, way, pixel)
                        colour = shade(hits, points, mood, self._static, beams, view)
                    elif kind == GROUND:
                        assert moving is not None
                        shown = None if mirror is None else mirror.index_select(1, ray)
                        colour = self._on_ground(points, way, pixel, dither, view, moving, shown)
                    else:
                        assert moving is not None
                        colour = self._on_kerb(points, way, pixel, dither, view, moving)
                    colour = self._through_air(colour, reach * length)
                for plane, values in zip(part, colour, strict=True):
                    plane.index_copy_(0, found, values)
        return result

    def _through_air(self, colour: Tensor, distance: Tensor) -> Tensor:
        veil = 1 - torch.exp(distance * (-1 / self.light.haze))
        horizon = torch.tensor(self.light.horizon_colour, device=self.device)[:, None] * 0.9
        return torch.lerp(colour, horizon.expand_as(colour), veil)

    def _colour(self, colour: tuple[float, float, float]) -> Tensor:
        return torch.tensor(colour, device=self.device)[:, None]

    def _on_ground(
        self,
        points: Tensor,
        way: Tensor,
        pixel: Tensor,
        dither: Tensor,
        view: Tensor,
        moving: MovingLight,
        mirror: Tensor | None,
    ) -> Tensor:
        x, y = points[0], points[1]
        _, slope_x, slope_y = self._surface.terrain(x, y)
        upright = (1 + slope_x * slope_x + slope_y * slope_y).rsqrt()
        # How fast the ray comes closer to the ground: the cosine of its angle with the normal.
        cosine = ((slope_x * way[0] + slope_y * way[1] - way[2]) * upright).clamp(min=1e-4)
        stretch = (pixel / cosine).clamp(max=40.0)
        looked = self._ground.look(x, y, way[:2] * stretch, pixel, dither)
        albedo = looked[:3] * _grain(x, y, pixel)
        sun, sky_share, beam = moving.at(x, y, view)
        light = self.light
        falling = self._colour(light.ambient) * (looked[5] * sky_share)
        if max(light.sun_colour) > 0:
            sx, sy, sz = light.sun
            facing = ((sz - slope_x * sx - slope_y * sy) * upright).clamp(min=0)
            falling = falling + self._colour(light.sun_colour) * (facing * looked[4] * sun)
        if light.lamps:
            lamp = LAMP_LIGHT * looked[6] * looked[6]
            falling = falling + self._colour(light.lamp_colour) * lamp + self._colour(BEAM_COLOUR) * beam
        if mirror is None:
            return albedo * falling
        gloss = looked[7]
        # Water fills the pores: less light comes back out of them.
        albedo = albedo * (1 - 0.5 * gloss)
        fresnel = 0.02 + 0.98 * (1 - cosine) ** 5
        return torch.lerp(albedo * falling, mirror, gloss * fresnel * 0.95)

    def _on_kerb(
        self, points: Tensor, way: Tensor, pixel: Tensor, dither: Tensor, view: Tensor, moving: MovingLight
    ) -> Tensor:
        """The upright face of a kerb: of the stone that lies behind its edge, lit from the side."""
        ax, ay = self._surface.outward(points[0], points[1])
        x, y = points[0] + _KERB_DEPTH * ax, points[1] + _KERB_DEPTH * ay
        # Seen at an angle, a pixel covers a stretch along the kerb.
        cosine = (ax * way[0] + ay * way[1]).clamp(min=0.05)
        stretch = (pixel / cosine).clamp(max=3.0)
        looked = self._ground.look(x, y, torch.stack((-ay, ax)) * stretch, pixel, dither)
        sun, sky_share, beam = moving.at(points[0], points[1], view)
        light = self.light
        falling = self._colour(light.ambient) * (0.5 * looked[5] * sky_share)
        if max(light.sun_colour) > 0:
            facing = (-ax * light.sun[0] - ay * light.sun[1]).clamp(min=0) + 0.05
            falling = falling + self._colour(light.sun_colour) * (facing * looked[4] * sun)
        if light.lamps:
            falling = falling + self._colour(light.lamp_colour) * (0.6 * LAMP_LIGHT * looked[6] * looked[6])
            falling = falling + self._colour(BEAM_COLOUR) * (2.0 * beam)
        return looked[:3] * falling


def _planes(vectors: Tensor, index: Tensor) -> Tensor:
    """Chosen vectors of `[n, 3]` as planes `[3, m]`."""
    return torch.stack([plane.index_select(0, index) for plane in vectors.unbind(1)])


def _ends(traced: Traced, ray: Tensor, direction: Tensor, reach: Tensor) -> Tensor:
    """Where rays end, `[3, m]` in the global frame."""
    view = traced.view.index_select(0, ray)
    origin = torch.stack([plane.index_select(0, view) for plane in traced.origin.unbind(1)])
    return origin + direction * reach


def _grain(x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    """Stones of the size of a fingertip, a factor `[n]` around 1 that fades as pixels grow."""
    cell = ((y * 80).int() & 1023) * 1024 + ((x * 80).int() & 1023)
    return 1 + 0.07 * pick(cell).clamp(-2.5, 2.5) * (0.02 / pixel).clamp(max=1.0)


def _soften_edges(image: Tensor, traced: Traced) -> None:
    """Blend the pixels of radiance `[3, n]` at the borders between solids with their neighbours, in place."""
    row = traced.row.view(-1, traced.height, traced.width)
    border = torch.zeros(row.shape, dtype=torch.bool, device=row.device)
    across, down = row[:, :, 1:] != row[:, :, :-1], row[:, 1:] != row[:, :-1]
    border[:, :, 1:] |= across
    border[:, :, :-1] |= across
    border[:, 1:] |= down
    border[:, :-1] |= down
    # At the image's own border neighbours are missing.
    border[:, 0] = border[:, -1] = border[:, :, 0] = border[:, :, -1] = False
    chosen = border.view(-1).nonzero()[:, 0]
    for plane in image:
        around = sum(plane.index_select(0, chosen + step) for step in (-1, 1, -traced.width, traced.width))
        plane.index_copy_(0, chosen, 0.5 * plane.index_select(0, chosen) + 0.125 * around)
