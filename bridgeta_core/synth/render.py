"""Camera images and LiDAR sweeps of a scene, by ray casting in torch on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.geometry import invert, rigid
from bridgeta_core.synth import nuscenes_facts as facts
from bridgeta_core.synth.cast import GROUND, NOTHING, Hits, SolidTensors, camera_rectangles, cast, lidar_rectangles
from bridgeta_core.synth.ground import SHADE, Ground
from bridgeta_core.synth.scene import Scene
from bridgeta_core.synth.shading import Surface, shade_solids, sky
from bridgeta_core.synth.solids import Solids

_SIGHT = 160.0
# LiDAR reflectivity (0-255) by kind of solid, in the order of the kinds in `solids`.
_REFLECTIVITY = (28, 18, 35, 20, 4, 14, 22, 18, 20, 35, 40, 12, 45)


@dataclass(frozen=True)
class CameraView:
    """A camera's picture: `image [h, w, 3]` uint8 RGB, `depth [h, w]` float32 metres along the optical axis (inf: sky),
    and per actor the pixels that show it and that would show it were nothing in front, both `[actors]`.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    visible: NDArray[np.int64]
    unoccluded: NDArray[np.int64]


class SceneRenderer:
    """Renders one scene. What holds for the whole scene (ground, scenery, ray directions) is prepared once."""

    def __init__(self, scene: Scene, seed: int, width: int, height: int, device: torch.device) -> None:
        self.scene, self.size, self.device = scene, (width, height), device
        x, y, _ = scene.ego.at(np.linspace(-0.1, scene.duration, 64))
        path = np.stack((x, y), axis=1)
        scenery = scene.town.solids
        away = np.min(np.hypot(scenery.x[:, None] - x[::8], scenery.y[:, None] - y[::8]), axis=1)
        self._scenery = scenery.take(away < _SIGHT + 20)
        azimuth, elevation = scene.sun
        self.sun = np.array(
            (math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation))
        )
        still = np.array([a.manner == "parked" for a in scene.actors], dtype=bool)
        parked = scene.bodies.take(still[scene.bodies.owner]) if len(scene.bodies) else scene.bodies
        bodies = parked.moved(*scene.poses(0.0)) if len(parked) else parked
        shadows = _shadows(Solids.join([self._scenery, bodies]), self.sun)
        self.ground = Ground(scene.town.surface, shadows, path, seed, device)
        self._movers = scene.bodies.take(~still[scene.bodies.owner]) if len(scene.bodies) else scene.bodies
        self._rays = {camera.channel: self._camera_rays(camera) for camera in facts.CAMERAS}
        azimuths = -np.pi + (np.arange(facts.LIDAR_AZIMUTHS) + 0.5) * (2 * np.pi / facts.LIDAR_AZIMUTHS)
        e = facts.LIDAR_ELEVATIONS[:, None]
        beams = np.stack(
            np.broadcast_arrays(np.cos(e) * np.cos(azimuths), np.cos(e) * np.sin(azimuths), np.sin(e)), axis=-1
        )
        self._beams = torch.from_numpy(beams.reshape(-1, 3).astype(np.float32)).to(device)
        generator = np.random.default_rng([seed, 5])
        self._dither = torch.from_numpy(generator.random(width * height, dtype=np.float32)).to(device)
        self._grain = torch.from_numpy(generator.standard_normal(1 << 18).astype(np.float32)).to(device)

    def _camera_rays(self, camera: facts.CameraFacts) -> Tensor:
        width, height = self.size
        inverse = np.linalg.inv(camera.intrinsics(width, height))
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        rays = np.stack((u, v, np.ones_like(u)), axis=-1).reshape(-1, 3) @ inverse.T
        return torch.from_numpy(rays.astype(np.float32)).to(self.device)

    def solids(self, time: float) -> Solids:
        """All solids where they are at seconds since the first keyframe."""
        if not len(self.scene.bodies):
            return self._scenery
        return Solids.join([self._scenery, self.scene.bodies.moved(*self.scene.poses(time))])

    def camera(self, camera: facts.CameraFacts, time: float) -> CameraView:
        """The picture of a camera at seconds since the first keyframe."""
        width, height = self.size
        global_T_cam = self.scene.ego_pose(time) @ camera.ego_T_cam
        everything = self.solids(time)
        in_sight = np.hypot(everything.x - global_T_cam[0, 3], everything.y - global_T_cam[1, 3]) < _SIGHT
        everything = everything.take(in_sight)
        intrinsics = camera.intrinsics(width, height)
        rectangles = camera_rectangles(everything, invert(global_T_cam), intrinsics, width, height)
        origin_at = global_T_cam[:3, 3]
        tensors = SolidTensors(everything, origin_at, self.device)
        origin = torch.from_numpy(origin_at.astype(np.float32)).to(self.device)
        rotation = torch.from_numpy(global_T_cam[:3, :3].astype(np.float32)).to(self.device)
        directions = _rotate(self._rays[camera.channel], rotation)
        hits = cast(self.ground, tensors, origin, directions, width, rectangles, np.arange(len(everything)))
        colour = self._colours(hits, tensors, origin, directions, intrinsics[0, 0], time)
        image = colour.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8).view(height, width, 3).cpu().numpy()
        visible, unoccluded = self._visibility(hits, everything)
        return CameraView(image, hits.distance.view(height, width).cpu().numpy(), visible, unoccluded)

    def lidar(self, time: float, noise_seed: int) -> NDArray[np.float32]:
        """A sweep `[n, 5]` in the sensor frame: x, y, z in metres, intensity 0-255, ring 0-31; ordered by azimuth."""
        global_T_lidar = self.scene.ego_pose(time) @ rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
        everything = self.solids(time)
        near = np.hypot(everything.x - global_T_lidar[0, 3], everything.y - global_T_lidar[1, 3])
        everything = everything.take(near < facts.LIDAR_RANGE[1] + 20)
        rectangles, indices = lidar_rectangles(
            everything, invert(global_T_lidar), facts.LIDAR_AZIMUTHS, facts.LIDAR_ELEVATIONS
        )
        tensors = SolidTensors(everything, global_T_lidar[:3, 3], self.device)
        origin = torch.from_numpy(global_T_lidar[:3, 3].astype(np.float32)).to(self.device)
        rotation = torch.from_numpy(global_T_lidar[:3, :3].astype(np.float32)).to(self.device)
        directions = _rotate(self._beams, rotation)
        hits = cast(self.ground, tensors, origin, directions, facts.LIDAR_AZIMUTHS, rectangles, indices)
        reach = hits.distance
        reflectivity = torch.zeros_like(reach)
        on_ground = ((hits.solid == GROUND) & (reach < facts.LIDAR_RANGE[1])).nonzero()[:, 0]
        if len(on_ground):
            xy = origin[:2] + reach[on_ground, None] * directions[on_ground, :2]
            still = torch.zeros_like(xy)
            size = reach[on_ground] * 0.003
            looked = self.ground.look(xy, still, size, size, torch.zeros_like(size))
            reflectivity[on_ground] = looked[:, 3] * 255
        table = torch.tensor(_REFLECTIVITY, dtype=torch.float32, device=self.device)
        kinds = torch.from_numpy(everything.kind).to(self.device)
        on_solid = (hits.solid >= 0).nonzero()[:, 0]
        reflectivity[on_solid] = table[kinds[hits.solid[on_solid]]]
        rng = np.random.default_rng([noise_seed, 6])
        distance = reach.cpu().numpy().astype(np.float64)
        valid = (distance > facts.LIDAR_RANGE[0]) & (distance < facts.LIDAR_RANGE[1])
        # A weak return from far away is lost.
        strength = reflectivity.cpu().numpy() / 255 * np.square(60 / np.where(valid, distance, 1.0))
        valid &= strength > rng.random(len(distance)) * 0.06
        distance = np.where(valid, distance, 0) + rng.normal(0, 0.008, len(distance))
        points = np.empty((len(distance), 5), dtype=np.float32)
        points[:, :3] = self._beams.cpu().numpy() * distance[:, None]
        points[:, 3] = np.clip(reflectivity.cpu().numpy() + rng.normal(0, 2, len(distance)), 0, 255).round()
        points[:, 4] = np.repeat(np.arange(32), facts.LIDAR_AZIMUTHS)
        by_azimuth = np.arange(len(points)).reshape(32, -1).T.ravel()
        return points[by_azimuth][valid[by_azimuth]]

    def _visibility(self, hits: Hits, solids: Solids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        count = len(self.scene.actors)
        owner = torch.from_numpy(solids.owner).to(self.device)
        main = torch.from_numpy(solids.main).to(self.device)[hits.pair_solid]
        actor = owner[hits.pair_solid[main]]
        shown = hits.solid[hits.pair_ray[main]]
        seen = (shown >= 0) & (owner[shown.clamp(min=0)] == actor)
        unoccluded = torch.bincount(actor, minlength=count)
        visible = torch.bincount(actor[seen], minlength=count)
        return visible.cpu().numpy(), unoccluded.cpu().numpy()

    def _colours(
        self, hits: Hits, solids: SolidTensors, origin: Tensor, directions: Tensor, focal: float, time: float
    ) -> Tensor:
        """Colours `[n, 3]` in [0, 1] of a camera's rays, whose directions have length 1 along the optical axis."""
        lengths = directions.norm(dim=1)
        colour = torch.empty(len(directions), 3, device=self.device)
        empty = (hits.solid == NOTHING).nonzero()[:, 0]
        on_ground = (hits.solid == GROUND).nonzero()[:, 0]
        on_solid = (hits.solid >= 0).nonzero()[:, 0]
        sun = torch.from_numpy(self.sun.astype(np.float32)).to(self.device)
        colour[empty] = sky(directions[empty] / lengths[empty, None], sun, self._grain)
        t, d = hits.distance[on_ground], directions[on_ground]
        xy = origin[:2] + t[:, None] * d[:, :2]
        flat = d[:, :2].norm(dim=1).clamp(min=1e-6)
        across = t / focal
        lengthwise = (across * lengths[on_ground] / (-d[:, 2]).clamp(min=1e-5)).clamp(max=60.0)
        looked = self.ground.look(xy, d[:, :2] / flat[:, None], across, lengthwise, self._dither[on_ground])[:, :3]
        looked *= self._moving_shadows(xy, time)[:, None]
        colour[on_ground] = looked
        if len(on_solid):
            surface = Surface.of(solids, hits.solid[on_solid], origin, directions[on_solid], hits.distance[on_solid])
            footprint = hits.distance[on_solid] / focal
            colour[on_solid] = shade_solids(surface, sun, footprint, self._grain)
        met = (hits.solid != NOTHING).nonzero()[:, 0]
        distance = hits.distance[met] * lengths[met]
        haze = 1 - torch.exp(-distance / 420.0)
        horizon = torch.tensor((0.74, 0.79, 0.85), device=self.device)
        colour[met] = colour[met] + haze[:, None] * (horizon - colour[met])
        return colour

    def _moving_shadows(self, xy: Tensor, time: float) -> Tensor:
        """Brightness `[n]` of ground places under the shadows of what moves, and of the dark under all vehicles."""
        light = torch.ones(xy.shape[0], device=self.device)
        if not len(self._movers) or not xy.shape[0]:
            return light
        movers = self._movers.moved(*self.scene.poses(time))
        fx, fy = -self.sun[0] / self.sun[2], -self.sun[1] / self.sun[2]
        low, high = xy.min(dim=0).values.cpu().numpy(), xy.max(dim=0).values.cpu().numpy()
        for i in np.flatnonzero(movers.main):
            x, y, top = movers.x[i], movers.y[i], movers.z[i] + movers.height[i]
            radius = math.hypot(movers.front[i], movers.side[i]) + top * math.hypot(fx, fy)
            if x + radius < low[0] or x - radius > high[0] or y + radius < low[1] or y - radius > high[1]:
                continue
            dx, dy = xy[:, 0] - float(x), xy[:, 1] - float(y)
            close = (dx * dx + dy * dy < radius * radius).nonzero()[:, 0]
            if not len(close):
                continue
            dx, dy = dx[close], dy[close]
            c, s = math.cos(movers.yaw[i]), math.sin(movers.yaw[i])
            px, py = c * dx + s * dy, c * dy - s * dx
            # A place is in shadow if the way to the sun crosses the body's outline below its top.
            qx, qy = -(c * fx + s * fy) * top, -(c * fy - s * fx) * top
            enter, leave = torch.zeros_like(px), torch.ones_like(px)
            for p, q, half in ((px, qx, movers.front[i]), (py, qy, movers.side[i])):
                q = q if abs(q) > 1e-6 else 1e-6
                t1, t2 = (-half - p) / q, (half - p) / q
                enter = torch.maximum(enter, torch.minimum(t1, t2))
                leave = torch.minimum(leave, torch.maximum(t1, t2))
            light[close] = torch.where(enter < leave, torch.minimum(light[close], torch.tensor(SHADE)), light[close])
        return light


def _rotate(rays: Tensor, rotation: Tensor) -> Tensor:
    # Written out: a matrix product may sum in another order on another number of threads.
    x, y, z = rays[:, 0:1], rays[:, 1:2], rays[:, 2:3]
    return x * rotation[:, 0] + y * rotation[:, 1] + z * rotation[:, 2]


def _shadows(solids: Solids, sun: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Outlines `[n, 2]` of the solids' shadows on the ground."""
    corners = solids.corners()
    round_ones = np.flatnonzero(solids.round)
    flat = corners[..., :2] - corners[..., 2:] * (sun[:2] / sun[2])
    result = []
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for i in range(len(solids)):
        if solids.lean_front[i] > 0.5 or solids.lean_side[i] > 0.5:
            taper = corners[i].copy()
            middle = taper[:4, :2].mean(axis=0)
            taper[4:, :2] = middle + 0.25 * (taper[4:, :2] - middle)
            flat[i] = taper[:, :2] - taper[:, 2:] * (sun[:2] / sun[2])
        result.append(cv2.convexHull(flat[i].astype(np.float32))[:, 0].astype(np.float64))
    for i in round_ones:
        # The sun's direction lengthens an ellipsoid's outline along itself.
        height = solids.z[i] + solids.height[i] / 2
        centre = np.array((solids.x[i], solids.y[i])) - height * sun[:2] / sun[2]
        along = sun[:2] / np.linalg.norm(sun[:2])
        stretch = math.hypot(solids.front[i], solids.height[i] / 2 * math.hypot(*sun[:2]) / sun[2])
        ring = (
            np.cos(angles)[:, None] * along * stretch
            + np.sin(angles)[:, None] * np.array((-along[1], along[0])) * solids.side[i]
        )
        result[i] = centre + ring
    return result
