"""One moment of a scene, as far as its light goes: where everybody is, and whose lamps are lit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.geometry.transforms import Matrix
from bridgeta_core.utils.arrays import Flags, Floats
from bridgeta_synth.render.looks.noise import to_planes
from bridgeta_synth.world.light import Light
from bridgeta_synth.world.solids import Solids

if TYPE_CHECKING:
    from bridgeta_synth.traffic.actors import Actor
    from bridgeta_synth.traffic.scene import Scene

Look = tuple[Tensor, Tensor | None]
"""Albedo `[3, n]` and, where something shines, the radiance that it emits or mirrors `[3, n]`."""

# Where the ego's headlights are, in its frame.
_HEADLIGHTS = (3.7, 0.0, 0.65)


@dataclass(frozen=True, eq=False)
class Lighting:
    """A scene's light at one moment. `driving` and `braking` `[actors + 1]` are 1 for actors with lamps or brake lamps
    lit; the last entry stands for scenery, which has none.
    """

    light: Light
    driving: Tensor
    braking: Tensor

    @classmethod
    def at(cls, scene: Scene, time: float, device: torch.device) -> Lighting:
        """Find whose lamps are on: all who drive, and the brake lamps of those who slow down or wait."""
        driving = [_drives(actor) for actor in scene.actors]
        braking = []
        for actor, drives in zip(scene.actors, driving, strict=True):
            speed = actor.motion.speed(time) if drives else 1.0
            braking.append(drives and (speed < 0.3 or actor.motion.speed(time + 0.3) < speed - 0.2))
        states = torch.tensor([[*driving, False], [*braking, False]], dtype=torch.float32, device=device)
        return cls(scene.light, states[0], states[1])

    def of_owner(self, states: Tensor, owner: Tensor) -> Tensor:
        """Look up the states `[n]` of the owners of hits; owner -1 is scenery."""
        return states.index_select(0, torch.where(owner < 0, len(states) - 1, owner))

    def reflect(self, up: Tensor) -> Tensor:
        """Estimate the radiance `[3, n]` from directions that climb by `up [n]` (-1 to 1).

        Above the roofs it is that of the sky, below them that of a street.
        """
        device = up.device
        zenith, horizon = to_planes(self.light.sky_colour, device), to_planes(self.light.horizon_colour, device)
        ambient = to_planes(self.light.ambient, device)
        sky = horizon + (zenith - horizon) * up.clamp(min=0).sqrt()
        street = 0.22 * (ambient + 0.4 * to_planes(self.light.sun_colour, device))
        # Roofs stand about 15 degrees high.
        return torch.lerp(street.expand_as(sky), sky, ((up - 0.10) * 5).clamp(0, 1))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where everybody is at one time: the ego's pose, the bodies of all actors, which of these move, and the headlights
    that are on, `lamps [k, 3]`: x, y and heading of the fronts of vehicles, the ego's among them.
    """

    ego: Matrix
    bodies: Solids
    moving: Flags
    lamps: Floats

    @classmethod
    def at(cls, scene: Scene, time: float) -> Snapshot:
        """Take the snapshot of a scene at seconds since the first keyframe."""
        ego, poses = scene.ego_pose(time), scene.poses(time)
        bodies = scene.bodies.transform(poses) if len(scene.bodies) else scene.bodies
        moving = np.array([not actor.is_still for actor in scene.actors], dtype=bool)
        lamps = [[*(ego @ (*_HEADLIGHTS, 1.0))[:2], math.atan2(ego[1, 0], ego[0, 0])]]
        for actor, pose in zip(scene.actors, poses, strict=True):
            if _drives(actor) and actor.manner == "vehicle":
                x, y = pose[:2, 3] + pose[:2, 0] * actor.size[1] / 2
                lamps.append([x, y, math.atan2(pose[1, 0], pose[0, 0])])
        return cls(ego, bodies, moving[bodies.owner] if len(bodies) else np.zeros(0, dtype=bool), np.array(lamps))


def _drives(actor: Actor) -> bool:
    return not actor.is_still and actor.manner in ("vehicle", "ridden")


@dataclass(frozen=True, eq=False)
class Headlights:
    """The ego's headlights, one row for each view: `place`, `ahead`, `left`, `up`, `[v, 3]` in the global frame."""

    place: Tensor
    ahead: Tensor
    left: Tensor
    up: Tensor

    @classmethod
    def at(cls, snapshots: Sequence[Snapshot], device: torch.device) -> Headlights:
        """Place the headlights as the ego stands at the snapshot of every view."""
        egos = np.stack([snapshot.ego for snapshot in snapshots]).astype(np.float64)
        place = egos[:, :3, 3] + egos[:, :3, :3] @ np.array(_HEADLIGHTS)
        vectors = (place, *(egos[:, :3, axis] for axis in range(3)))
        columns = [torch.from_numpy(v.astype(np.float32)).to(device) for v in vectors]
        return cls(*columns)

    def illuminate(self, points: Tensor, normal: Tensor, view: Tensor, retro: Tensor) -> Tensor:
        """Compute the radiance `[n]` of white surfaces at `points` with `normal`, both `[3, n]`.

        `retro [n]`: how many times more than such a surface they send back.
        """
        rel = [p - o.index_select(0, view) for p, o in zip(points, self.place.unbind(1), strict=True)]

        def along(axis: Tensor) -> Tensor:
            x, y, z = (plane.index_select(0, view) for plane in axis.unbind(1))
            return rel[0] * x + rel[1] * y + rel[2] * z

        ahead = along(self.ahead)
        left, up = along(self.left), along(self.up)
        distance = (ahead * ahead + left * left + up * up).clamp(min=1.0)
        cosine = -(rel[0] * normal[0] + rel[1] * normal[1] + rel[2] * normal[2]) * distance.rsqrt()
        room = ahead.clamp(min=0.1)
        wedge = 1 / (1 + (left / (1.0 + 0.30 * room)) ** 2) ** 3
        # Above the horizon only stray light is left.
        cut = ((0.01 * room + 0.1 - up) / (0.05 * room + 0.2)).clamp(0.05, 1.0)
        light = 60.0 / (60.0 + distance) * torch.exp(-room / 50) * wedge * cut * (ahead > 0)
        return light * (0.5 * cosine.clamp(min=0.0) + 0.1 * retro)
