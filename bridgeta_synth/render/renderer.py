"""Render camera images and LiDAR sweeps of a scene by ray casting in torch on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.utils.arrays import Bytes, Floats, Ints
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.render.camera_look import develop
from bridgeta_synth.render.lidar import Lidar
from bridgeta_synth.render.radiance import Shader
from bridgeta_synth.render.rays.ground_shape import GroundShape
from bridgeta_synth.render.rays.ray_caster import Traced, View, trace_views
from bridgeta_synth.seeds import Seed
from bridgeta_synth.traffic.scene import Scene
from bridgeta_synth.world.solids import Solids

_SIGHT = 160.0
_NOISE_STREAM = 9


@dataclass(frozen=True)
class CameraView:
    """A camera's image `[h, w, 3]` uint8 RGB, its depth `[h, w]` float32 in metres along the optical axis (inf: sky),
    and per actor the pixels that show it and the pixels that would show it were nothing in front, both `[actors]`.
    """

    image: Bytes
    depth: NDArray[np.float32]
    visible: Ints
    unoccluded: Ints


class SceneRenderer:
    """Renders one scene. Whatever holds for the whole scene (ground, scenery, tables) is prepared once.

    `width` and `height` are the images' size in pixels. Equal arguments give equal images on one kind of device.
    """

    def __init__(self, scene: Scene, seed: Seed, width: int, height: int, device: torch.device) -> None:
        self.scene, self.seed, self.size, self.device = scene, seed, (width, height), device
        times = np.linspace(-0.1, scene.duration + 0.1, 64)
        path = np.array([scene.ego_pose(time)[:2, 3] for time in times])
        town = scene.town
        away = np.min(np.hypot(town.solids.x[:, None] - path[::8, 0], town.solids.y[:, None] - path[::8, 1]), axis=1)
        self._scenery = town.solids.take(away < _SIGHT + 20)
        self.ground_shape = GroundShape(town.terrain, town.kerb, town.paved, path, device)
        self.shader = Shader(scene, seed, self._collect_still(), self.ground_shape, device)
        self._lidar = Lidar(device)

    def _collect_still(self) -> Solids:
        """Collect scenery and the actors that never move."""
        bodies = self.scene.bodies
        still = np.array([actor.is_still for actor in self.scene.actors], dtype=bool)
        if not len(bodies) or not still[bodies.owner].any():
            return self._scenery
        return Solids.join([self._scenery, bodies.take(still[bodies.owner]).transform(self.scene.poses(0.0))])

    def collect_solids(self, poses: Sequence[Floats], place: Floats) -> list[Solids]:
        """Collect the solids within sight of a place, once for each of the actors' `poses`, `[actors, 4, 4]`."""
        far = np.hypot(self._scenery.x - place[0], self._scenery.y - place[1]) >= _SIGHT
        scenery = self._scenery.take(~far)
        if not len(self.scene.bodies):
            return [scenery] * len(poses)
        near = np.hypot(*(poses[0][:, :2, 3] - place[:2]).T) < _SIGHT
        bodies = self.scene.bodies.take(near[self.scene.bodies.owner])
        return [Solids.join([scenery, bodies.transform(pose)]) for pose in poses]

    def render_cameras(self, shots: Sequence[tuple[facts.CameraFacts, float]]) -> list[CameraView]:
        """Render cameras, each at its time: all at once on a GPU, in turn on a CPU, whose caches are small."""
        if self.device.type == "cpu":
            return [view for shot in shots for view in self._render_together([shot])]
        return self._render_together(shots)

    def _render_together(self, shots: Sequence[tuple[facts.CameraFacts, float]]) -> list[CameraView]:
        width, height = self.size
        times = [time for _, time in shots]
        egos = [self.scene.ego_pose(time) for time in times]
        views = [
            View(ego @ camera.ego_T_cam, camera.intrinsics(width, height), width, height)
            for ego, (camera, _) in zip(egos, shots, strict=True)
        ]
        solids = self.collect_solids([self.scene.poses(time) for time in times], egos[0][:2, 3])
        traced = trace_views(self.ground_shape, solids, views, self.device)
        radiance = self.shader.compute_radiance(traced, times)
        result = []
        for i, (camera, time) in enumerate(shots):
            part = radiance[i * width * height : (i + 1) * width * height]
            # Colours are stored as planes, and the images stay planes.
            part = part.T.reshape(3, height, width).permute(1, 2, 0)
            image = develop(part, self.scene.looks[camera.channel], self.scene.light, self._noise_seed(camera, time))
            depth = traced.distance.view(-1, height, width)[i]
            visible, unoccluded = self._visibility(traced, i)
            result.append(CameraView(image.cpu().numpy(), depth.cpu().numpy(), visible, unoccluded))
        return result

    def _noise_seed(self, camera: facts.CameraFacts, time: float) -> int:
        channel = facts.CAMERAS.index(camera)
        # Stamps may lie before the first keyframe, but seeds may not be negative.
        words = [*self.seed, _NOISE_STREAM, self.scene.index, channel, round(time * 1e6) + 1_000_000]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def render_sweep(self, time: float) -> NDArray[np.float32]:
        """Render a sweep `[n, 5]` in the sensor's frame at its stamp (seconds since the first keyframe): x, y, z in
        metres, intensity 0-255, ring 0-31.
        """
        poses = self.scene.observed_poses(time)
        solids = self.collect_solids([poses], self.scene.ego_pose(time)[:2, 3])[0]
        words = [*self.seed, 6, self.scene.index, round(time * 1e6) + 1_000_000]
        rng = np.random.default_rng(words)
        return self._lidar.sweep(
            self.scene.ego_pose, time, self.ground_shape, solids, self.shader, self.scene.light, rng
        )

    def _visibility(self, traced: Traced, view: int) -> tuple[Ints, Ints]:
        count, solids = len(self.scene.actors), traced.solids
        owner = torch.from_numpy(solids.solids.owner).to(self.device)
        main = torch.from_numpy(solids.solids.main).to(self.device)
        size = traced.width * traced.height
        chosen = main[solids.solid_of(traced.pair_row)] & (traced.pair_ray // size == view)
        actor = owner[solids.solid_of(traced.pair_row[chosen])]
        shown = traced.row[traced.pair_ray[chosen]]
        seen = (shown >= 0) & (owner[solids.solid_of(shown.clamp(min=0))] == actor)
        unoccluded: Tensor = torch.bincount(actor, minlength=count)
        visible: Tensor = torch.bincount(actor[seen], minlength=count)
        return visible.cpu().numpy(), unoccluded.cpu().numpy()
