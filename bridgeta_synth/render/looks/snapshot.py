"""One time of a scene, as far as its light goes: who is where, and whose lamps are lit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.geometry.transforms import Matrix
from bridgeta_synth.render.looks.mood import Mood
from bridgeta_synth.world.solids import Solids

if TYPE_CHECKING:
    from bridgeta_synth.traffic.actors import Actor
    from bridgeta_synth.traffic.scene import Scene

# Where the ego's headlights are, in its frame.
_HEADLIGHTS = (3.7, 0.0, 0.65)


@dataclass(frozen=True, eq=False)
class Instant:
    """Who is where at one time: the ego's pose, the bodies of all actors, which of these move, and the headlights
    that are on, `lamps [k, 3]`: x, y and heading of the fronts of vehicles, the ego's among them.
    """

    ego: Matrix
    bodies: Solids
    moving: NDArray[np.bool_]
    lamps: NDArray[np.float64]


def instant_at(scene: Scene, time: float) -> Instant:
    """A scene at seconds since the first keyframe."""
    ego, poses = scene.ego_pose(time), scene.poses(time)
    bodies = scene.bodies.transform(poses) if len(scene.bodies) else scene.bodies
    moving = np.array([not actor.is_still for actor in scene.actors], dtype=bool)
    lamps = [[*(ego @ (*_HEADLIGHTS, 1.0))[:2], math.atan2(ego[1, 0], ego[0, 0])]]
    for actor, pose in zip(scene.actors, poses, strict=True):
        if _drives(actor) and actor.manner == "vehicle":
            x, y = pose[:2, 3] + pose[:2, 0] * actor.size[1] / 2
            lamps.append([x, y, math.atan2(pose[1, 0], pose[0, 0])])
    return Instant(ego, bodies, moving[bodies.owner] if len(bodies) else np.zeros(0, dtype=bool), np.array(lamps))


def mood_at(scene: Scene, time: float, device: torch.device) -> Mood:
    """Whose lamps are on: of all who drive, brake lamps of those who slow down or wait."""
    driving = [_drives(actor) for actor in scene.actors]
    braking = []
    for actor, drives in zip(scene.actors, driving, strict=True):
        speed = actor.motion.speed(time) if drives else 1.0
        braking.append(drives and (speed < 0.3 or actor.motion.speed(time + 0.3) < speed - 0.2))
    states = torch.tensor([[*driving, False], [*braking, False]], dtype=torch.float32, device=device)
    return Mood(scene.light, states[0], states[1])


def _drives(actor: Actor) -> bool:
    return not actor.is_still and actor.manner in ("vehicle", "ridden")


@dataclass(frozen=True, eq=False)
class Beams:
    """The ego's headlights, one for each view: `place`, `ahead`, `left`, `up`, each `[v, 3]` in the global frame."""

    place: Tensor
    ahead: Tensor
    left: Tensor
    up: Tensor

    def on(self, points: Tensor, normal: Tensor, view: Tensor, retro: Tensor) -> Tensor:
        """Radiance `[n]` of white surfaces at `points`, with `normal` (both `[3, n]`); `retro [n]` is how many times
        more than such a surface they send back.
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


def beams_of(instants: Sequence[Instant], device: torch.device) -> Beams:
    """The ego's headlights at the instant of every view."""
    egos = np.stack([instant.ego for instant in instants]).astype(np.float64)
    place = egos[:, :3, 3] + egos[:, :3, :3] @ np.array(_HEADLIGHTS)
    vectors = (place, *(egos[:, :3, axis] for axis in range(3)))
    columns = [torch.from_numpy(v.astype(np.float32)).to(device) for v in vectors]
    return Beams(*columns)
