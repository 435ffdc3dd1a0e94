"""A spinning LiDAR: cast beams sector by sector, find what returns, and undo the ego's motion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bridgeta_core.geometry.transforms import Matrix, invert, rigid, transform
from bridgeta_core.utils.arrays import Floats
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.render.radiance import Shader
from bridgeta_synth.render.rays.ground_shape import GroundShape
from bridgeta_synth.render.rays.ray_caster import GROUND, Traced, bound_in_sweep, cast_rays, rotate
from bridgeta_synth.world.light import Light
from bridgeta_synth.world.solids import Solids

# The ego moves by less than 5 cm while the beams turn through one sector.
_SECTORS = 12
_RANGE_NOISE = 0.012
_INTENSITY_NOISE = 2.5
# This share of the returns is lost although they are strong enough.
_DROPOUT = 0.006
# The weakest detectable return: reflectivity 1 (of 255) at this many metres, seen at a right angle.
_SENSITIVE = 22.0
# The share of beams mirrored away on soaked ground at the lowest angles.
_MIRRORED = 0.6
# Mean metres to the raindrop that returns a beam, and the share of beams that hit one in heavy rain.
_DROP_DISTANCE, _DROP_SHARE = 5.0, 0.012


class Lidar:
    """The sensor: 32 beams x 1,080 azimuths, ordered by ascending azimuth from the seam of a turn."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ego_T_lidar = rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
        self._columns = facts.LIDAR_AZIMUTHS // _SECTORS
        step = 2 * np.pi / facts.LIDAR_AZIMUTHS
        # Azimuths of the ego frame are turned by the sensor's own heading in its frame.
        heading = np.arctan2(self.ego_T_lidar[1, 0], self.ego_T_lidar[0, 0])
        self._start = facts.SWEEP_SEAM - heading
        azimuth = self._start + (np.arange(facts.LIDAR_AZIMUTHS) + 0.5) * step
        e = facts.LIDAR_ELEVATIONS[:, None]
        beams = np.stack(np.broadcast_arrays(np.cos(e) * np.cos(azimuth), np.cos(e) * np.sin(azimuth), np.sin(e)), -1)
        # Ordered by sector, then beam, then azimuth.
        by_sector = beams.reshape(32, _SECTORS, self._columns, 3).transpose(1, 0, 2, 3)
        self._beams = by_sector.reshape(_SECTORS, -1, 3)
        self._ring = np.tile(np.repeat(np.arange(32), self._columns), _SECTORS)
        centre = facts.SWEEP_SEAM + (np.arange(_SECTORS) + 0.5) * self._columns * step
        self._delay = facts.sweep_delay(centre)

    def sweep(
        self,
        ego_pose: Callable[[float], Matrix],
        time: float,
        ground_shape: GroundShape,
        solids: Solids,
        shader: Shader,
        light: Light,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Take a sweep `[n, 5]` stamped `time`: x, y, z (metres), intensity (0-255) and ring in the sensor's frame.

        `ego_pose` gives global_T_ego at a time. Every sector is seen from where the sensor was then, and its points are
        brought to the frame of the stamp, as in nuScenes. `solids` hold every actor where the beams passed it.
        """
        poses = [ego_pose(time + float(delay)) @ self.ego_T_lidar for delay in self._delay]
        traced = self._trace(poses, ground_shape, solids)
        reflectivity, facing = self._look_up_surfaces(traced, shader)
        distance = traced.distance.cpu().numpy().astype(np.float64)
        returned = (distance > facts.LIDAR_RANGE[0]) & (distance < facts.LIDAR_RANGE[1])
        reach = np.where(returned, distance, 1.0)
        strength = reflectivity * facing * np.square(_SENSITIVE / reach)
        # Rain absorbs some of the light on its way there and back, and sometimes a drop returns it.
        strength *= np.exp(-0.012 * light.rain * reach)
        # Wet ground mirrors a beam that arrives at a low angle away from the sensor.
        mirrored = _MIRRORED * light.wet * (1 - facing) * (traced.row == GROUND).cpu().numpy()
        returned &= strength > rng.uniform(0.3, 1.0, len(strength))
        returned &= rng.random(len(strength)) > _DROPOUT + mirrored
        drop = rng.exponential(_DROP_DISTANCE, len(strength)) + facts.LIDAR_RANGE[0]
        wet = (rng.random(len(strength)) < _DROP_SHARE * light.rain) & (drop < np.where(returned, distance, 20.0))
        intensity = np.where(wet, 3.0, reflectivity * np.sqrt(facing)) + rng.normal(0, _INTENSITY_NOISE, len(strength))
        reach = np.where(wet, drop, reach) + rng.normal(0, _RANGE_NOISE, len(strength))
        lidar_T_global = invert(ego_pose(time) @ self.ego_T_lidar)
        local = self._beams * reach.reshape(_SECTORS, -1, 1)
        placed = [transform(lidar_T_global @ pose, points) for pose, points in zip(poses, local, strict=True)]
        points = np.empty((len(strength), 5), dtype=np.float32)
        points[:, :3] = np.concatenate(placed)
        points[:, 3] = np.clip(np.round(intensity), 0, 255)
        points[:, 4] = self._ring
        return points[returned | wet]

    def _trace(self, poses: list[Matrix], ground_shape: GroundShape, solids: Solids) -> Traced:
        planes, rectangles, indices = [], [], []
        step = 2 * np.pi / facts.LIDAR_AZIMUTHS
        corners = solids.corners()
        for sector, pose in enumerate(poses):
            beams = torch.from_numpy(self._beams[sector].astype(np.float32)).to(self.device)
            planes.append(rotate(beams, pose[:3, :3]).T)
            start = self._start + sector * self._columns * step
            boxes, which = bound_in_sweep(
                solids, corners, invert(pose), start, self._columns, facts.LIDAR_AZIMUTHS, facts.LIDAR_ELEVATIONS
            )
            rectangles.append(boxes)
            indices.append(which)
        origins = np.stack([pose[:3, 3] for pose in poses])
        directions = torch.cat(planes, dim=1).T
        return cast_rays(
            ground_shape, [solids] * len(poses), origins, directions, self._columns, 32, rectangles, indices
        )

    def _look_up_surfaces(self, traced: Traced, shader: Shader) -> tuple[Floats, Floats]:
        """Look up reflectivity (0-255) and cosine of the angle of incidence of what the beams hit, both `[n]`."""
        reflectivity, facing = torch.zeros_like(traced.distance), torch.ones_like(traced.distance)
        hit = (traced.distance < facts.LIDAR_RANGE[1]).nonzero()[:, 0]
        if len(hit):
            reflectivity[hit], normal = shader.look_up_reflectivity(traced, hit)
            facing[hit] = (traced.direction[hit] * normal).sum(dim=1).abs().clamp(min=0.02)
        return reflectivity.cpu().numpy().astype(np.float64), facing.cpu().numpy().astype(np.float64)
