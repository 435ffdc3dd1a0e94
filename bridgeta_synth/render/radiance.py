"""Radiance and LiDAR reflectivity of what rays hit, under everything that shines in a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bridgeta_synth.render.ground import Ground, find_extent
from bridgeta_synth.render.lens import enlarge
from bridgeta_synth.render.looks.noise import hash_normal, to_planes
from bridgeta_synth.render.looks.paint import GroundPainter, make_textures
from bridgeta_synth.render.looks.sky import render_sky
from bridgeta_synth.render.looks.snapshot import Headlights, Lighting, Snapshot
from bridgeta_synth.render.moving_light import BEAM_COLOUR, MovingLight
from bridgeta_synth.render.rays.ground_shape import GroundShape
from bridgeta_synth.render.rays.ray_caster import GROUND, KERB, NOTHING, Traced, View, iter_chunks, trace_views
from bridgeta_synth.render.rays.solid_hits import SolidHits, SolidLooks
from bridgeta_synth.render.shading import shade, sort_by_kind
from bridgeta_synth.render.static_light import LAMP_LIGHT, StaticLight
from bridgeta_synth.seeds import Seed
from bridgeta_synth.traffic.scene import Scene
from bridgeta_synth.world.materials import lidar_reflectivity
from bridgeta_synth.world.solids import Solids

_REACH = 160.0
_DITHER = 1 << 20
_LIDAR_FOOTPRINT = 0.003
# How far behind its edge the stone of a kerb is looked up.
_KERB_DEPTH = 0.09
# Stands for all rows of solids.
_SOLID = 0

# How much smaller the views of the mirrored scene are.
_MIRROR_SCALE = 4


class Shader:
    """Shades what the rays of one scene hit. Whatever holds for the whole scene is prepared once.

    `still` are the solids that never move, in the global frame: scenery and parked vehicles.
    """

    def __init__(
        self, scene: Scene, seed: Seed, still: Solids, ground_shape: GroundShape, device: torch.device
    ) -> None:
        self.scene, self.light, self.device = scene, scene.light, device
        self._ground_shape = ground_shape
        times = np.linspace(-0.1, scene.duration + 0.1, 64)
        path = np.array([scene.ego_pose(float(time))[:2, 3] for time in times])
        forward = scene.ego_pose(0.0)[:2, 0]
        low, high = find_extent(path, _REACH)
        texture = make_textures(seed)
        town = scene.town
        rng = np.random.default_rng([*seed, 3, scene.index, 1])
        self._static = StaticLight(town.terrain, still, town.lamps, self.light, texture, low, high, rng, device)
        heading = math.atan2(forward[1], forward[0])
        paint = GroundPainter(town.surface, texture, seed, scene.index, heading, low, high)
        self._ground = Ground(paint, self._static, path, device, _REACH)
        rng = np.random.default_rng([*seed, 5])
        self._dither = torch.from_numpy(rng.random(_DITHER, dtype=np.float32)).to(device)

    def compute_radiance(self, traced: Traced, times: Sequence[float]) -> Tensor:
        """Compute linear radiance `[n, 3]` along the rays of `traced.views`, seen at `times`, one for each view.

        The result is a view of three planes `[3, n]`.
        """
        lighting = Lighting.at(self.scene, times[0], self.device)
        snapshots = [Snapshot.at(self.scene, time) for time in times]
        moving = MovingLight(snapshots, self.scene.town.terrain, self.light, self.device)
        headlights = Headlights.at(snapshots, self.device) if self.light.lamps else None
        mirror = None
        if self.light.wet > 0:
            below = trace_views(None, traced.solids.solids_by_view, _mirror_views(traced.views, snapshots), self.device)
            mirror = _spread_reflection(self._shade_all(below, lighting, headlights, None, None), below, traced)
        result = self._shade_all(traced, lighting, headlights, moving, mirror)
        _soften_edges(result, traced)
        return result.T

    def look_up_reflectivity(self, traced: Traced, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Look up LiDAR reflectivity (0-255) `[m]` and global unit normals `[m, 3]` where the `chosen [m]` rays hit.

        Water on the ground reduces the light that returns.
        """
        reflectivity = torch.zeros(len(chosen), device=self.device)
        normal = torch.zeros(3, len(chosen), device=self.device)
        row = traced.row.index_select(0, chosen)
        ground = ((row == GROUND) | (row == KERB)).nonzero()[:, 0]
        if len(ground):
            ray = chosen.index_select(0, ground)
            reach, way = traced.distance.index_select(0, ray), _gather(traced.direction, ray)
            x, y, _ = _end_points(traced, ray, way, reach)
            back_x, back_y = self._ground_shape.kerb_direction(x, y)
            face = (row.index_select(0, ground) == KERB).float()
            # A kerb's face shows the stone behind its edge.
            x, y = x + _KERB_DEPTH * face * back_x, y + _KERB_DEPTH * face * back_y
            size = reach * _LIDAR_FOOTPRINT
            step = torch.zeros(2, len(ray), device=self.device)
            looked = self._ground.look_up(x, y, step, size, torch.zeros_like(size))
            reflectivity[ground] = looked[3] * 255 * (1 - 0.75 * looked[7])
            upright = self._ground_shape.normal(x, y).T
            normal[:, ground] = torch.lerp(upright, torch.stack((-back_x, -back_y, torch.zeros_like(x))), face)
        solid = (row >= 0).nonzero()[:, 0]
        if len(solid):
            ray, rows = chosen.index_select(0, solid), row.index_select(0, solid)
            reach, way = traced.distance.index_select(0, ray), _gather(traced.direction, ray)
            hits = SolidHits.of(traced.solids, SolidLooks.of(traced.solids), rows, way * reach, way, reach)
            table = lidar_reflectivity(traced.solids.solids.kind)
            index = traced.solids.solid_of(rows)
            reflectivity[solid] = torch.from_numpy(table).to(self.device).index_select(0, index)
            normal[:, solid] = hits.normal
        return reflectivity, normal.T

    def _shade_all(
        self,
        traced: Traced,
        lighting: Lighting,
        headlights: Headlights | None,
        moving: MovingLight | None,
        mirror: Tensor | None,
    ) -> Tensor:
        """Compute radiance `[3, n]` of all rays; without moving light, rays that end on the ground stay black."""
        result = torch.zeros(3, len(traced.row), device=self.device)
        looks = SolidLooks.of(traced.solids)
        focal = torch.tensor([float(1 / v.intrinsics[0, 0]) for v in traced.views], device=self.device)
        for chunk in iter_chunks(len(traced.row), self.device):
            row = traced.row[chunk]
            start = chunk.start
            part = result[:, chunk]
            # Directions are stored as planes, so selecting from each is cheap.
            for kind in (NOTHING, GROUND, KERB, _SOLID):
                found = ((row >= 0) if kind == _SOLID else (row == kind)).nonzero()[:, 0]
                if not len(found) or (kind in (GROUND, KERB) and moving is None):
                    continue
                if kind == _SOLID:
                    solid = traced.solids.solid_of(row.index_select(0, found))
                    found = found.index_select(0, sort_by_kind(looks.kind.index_select(0, solid)))
                ray = found + start
                direction = _gather(traced.direction, ray)
                length = (direction * direction).sum(dim=0).sqrt()
                way = direction / length
                if kind == NOTHING:
                    colour = render_sky(way, self.light)
                else:
                    reach = traced.distance.index_select(0, ray)
                    view = traced.view.index_select(0, ray)
                    pixel = reach * focal.index_select(0, view)
                    dither = self._dither.index_select(0, ray & (_DITHER - 1))
                    points = _end_points(traced, ray, direction, reach)
                    if kind == _SOLID:
                        step = direction * reach
                        hits = SolidHits.of(traced.solids, looks, row.index_select(0, found), step, way, pixel)
                        colour = shade(hits, points, lighting, self._static, headlights, view)
                    elif kind == GROUND:
                        assert moving is not None
                        shown = None if mirror is None else mirror.index_select(1, ray)
                        colour = self._shade_ground(points, way, pixel, dither, view, moving, shown)
                    else:
                        assert moving is not None
                        colour = self._shade_kerb(points, way, pixel, dither, view, moving)
                    colour = self._add_haze(colour, reach * length)
                for plane, values in zip(part, colour, strict=True):
                    plane.index_copy_(0, found, values)
        return result

    def _add_haze(self, colour: Tensor, distance: Tensor) -> Tensor:
        veil = 1 - torch.exp(distance * (-1 / self.light.haze))
        horizon = to_planes(self.light.horizon_colour, self.device) * 0.9
        return torch.lerp(colour, horizon.expand_as(colour), veil)

    def _shade_ground(
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
        _, slope_x, slope_y = self._ground_shape.sample_terrain(x, y)
        upright = (1 + slope_x * slope_x + slope_y * slope_y).rsqrt()
        # The cosine of the angle between the ray and the normal.
        cosine = ((slope_x * way[0] + slope_y * way[1] - way[2]) * upright).clamp(min=1e-4)
        stretch = (pixel / cosine).clamp(max=40.0)
        looked = self._ground.look_up(x, y, way[:2] * stretch, pixel, dither)
        albedo = looked[:3] * _grain(x, y, pixel)
        sun, sky_share, beam = moving.at(x, y, view)
        light = self.light
        falling = to_planes(light.ambient, self.device) * (looked[5] * sky_share)
        if max(light.sun_colour) > 0:
            sx, sy, sz = light.sun
            facing = ((sz - slope_x * sx - slope_y * sy) * upright).clamp(min=0)
            falling = falling + to_planes(light.sun_colour, self.device) * (facing * looked[4] * sun)
        if light.lamps:
            lamp = LAMP_LIGHT * looked[6] * looked[6]
            falling = (
                falling + to_planes(light.lamp_colour, self.device) * lamp + to_planes(BEAM_COLOUR, self.device) * beam
            )
        if mirror is None:
            return albedo * falling
        gloss = looked[7]
        # Water fills the pores: less light comes back out of them.
        albedo = albedo * (1 - 0.5 * gloss)
        fresnel = 0.02 + 0.98 * (1 - cosine) ** 5
        return torch.lerp(albedo * falling, mirror, gloss * fresnel * 0.95)

    def _shade_kerb(
        self, points: Tensor, way: Tensor, pixel: Tensor, dither: Tensor, view: Tensor, moving: MovingLight
    ) -> Tensor:
        """Shade the upright face of a kerb: of the stone that lies behind its edge, lit from the side."""
        ax, ay = self._ground_shape.kerb_direction(points[0], points[1])
        x, y = points[0] + _KERB_DEPTH * ax, points[1] + _KERB_DEPTH * ay
        # Seen at an angle, a pixel covers a stretch along the kerb.
        cosine = (ax * way[0] + ay * way[1]).clamp(min=0.05)
        stretch = (pixel / cosine).clamp(max=3.0)
        looked = self._ground.look_up(x, y, torch.stack((-ay, ax)) * stretch, pixel, dither)
        sun, sky_share, beam = moving.at(points[0], points[1], view)
        light = self.light
        falling = to_planes(light.ambient, self.device) * (0.5 * looked[5] * sky_share)
        if max(light.sun_colour) > 0:
            facing = (-ax * light.sun[0] - ay * light.sun[1]).clamp(min=0) + 0.05
            falling = falling + to_planes(light.sun_colour, self.device) * (facing * looked[4] * sun)
        if light.lamps:
            falling = falling + to_planes(light.lamp_colour, self.device) * (0.6 * LAMP_LIGHT * looked[6] * looked[6])
            falling = falling + to_planes(BEAM_COLOUR, self.device) * (2.0 * beam)
        return looked[:3] * falling


def _gather(vectors: Tensor, index: Tensor) -> Tensor:
    """Select vectors of `[n, 3]` as planes `[3, m]`."""
    return torch.stack([plane.index_select(0, index) for plane in vectors.unbind(1)])


def _end_points(traced: Traced, ray: Tensor, direction: Tensor, reach: Tensor) -> Tensor:
    """Compute where rays end, `[3, m]` in the global frame."""
    view = traced.view.index_select(0, ray)
    origin = torch.stack([plane.index_select(0, view) for plane in traced.origin.unbind(1)])
    return origin + direction * reach


def _grain(x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    """Vary the ground by fingertip-sized stones: a factor `[n]` around 1 that fades as pixels grow."""
    cell = ((y * 80).int() & 1023) * 1024 + ((x * 80).int() & 1023)
    return 1 + 0.07 * hash_normal(cell).clamp(-2.5, 2.5) * (0.02 / pixel).clamp(max=1.0)


def _soften_edges(image: Tensor, traced: Traced) -> None:
    """Blend the pixels of radiance `[3, n]` at the borders between solids with their neighbours, in place."""
    row = traced.row.view(-1, traced.height, traced.width)
    border = torch.zeros(row.shape, dtype=torch.bool, device=row.device)
    across, down = row[:, :, 1:] != row[:, :, :-1], row[:, 1:] != row[:, :-1]
    border[:, :, 1:] |= across
    border[:, :, :-1] |= across
    border[:, 1:] |= down
    border[:, :-1] |= down
    # Pixels at the image's own border lack neighbours.
    border[:, 0] = border[:, -1] = border[:, :, 0] = border[:, :, -1] = False
    chosen = border.view(-1).nonzero()[:, 0]
    for plane in image:
        around = sum(plane.index_select(0, chosen + step) for step in (-1, 1, -traced.width, traced.width))
        plane.index_copy_(0, chosen, 0.5 * plane.index_select(0, chosen) + 0.125 * around)


def _mirror_views(views: Sequence[View], snapshots: Sequence[Snapshot]) -> list[View]:
    """Place small views as if the ground below the ego were a mirror, one for each view."""
    result = []
    for view, snapshot in zip(views, snapshots, strict=True):
        normal, place = snapshot.ego[:3, 2], snapshot.ego[:3, 3]
        reflection = np.eye(4)
        reflection[:3, :3] -= 2 * np.outer(normal, normal)
        reflection[:3, 3] = 2 * normal * (normal @ place)
        scale = np.diag((1 / _MIRROR_SCALE, 1 / _MIRROR_SCALE, 1.0))
        # Resizing keeps the image's corners in place, not its pixels' centres.
        scale[:2, 2] = 0.5 / _MIRROR_SCALE - 0.5
        size = math.ceil(view.width / _MIRROR_SCALE), math.ceil(view.height / _MIRROR_SCALE)
        result.append(View(reflection @ view.global_T_cam, scale @ view.intrinsics, *size))
    return result


def _spread_reflection(image: Tensor, small: Traced, full: Traced) -> Tensor:
    """Spread the radiance `[3, n]` of mirrored views, `small`, over the rays of the full ones: stretched towards the
    viewer, as the ripples of wet asphalt do with lights.
    """
    image = image.view(3, -1, small.height, small.width).transpose(0, 1)
    for _ in range(2):
        image = functional.avg_pool2d(functional.pad(image, (0, 0, 3, 3), mode="replicate"), (7, 1), stride=1)
    return enlarge(image, _MIRROR_SCALE, full.height, full.width).transpose(0, 1).reshape(3, -1)
