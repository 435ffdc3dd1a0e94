"""Motions in the plane over time, and poses on the ground interpolated between samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.streets.shapes import Points, arc_length

# Motions are sampled every STEP seconds from LEAD seconds before the first keyframe to LEAD after the last.
STEP = 0.05
LEAD = 0.5


def sample_times(duration: float) -> Floats:
    """Return the times of a motion's samples, seconds since the first keyframe, `[steps]`."""
    return -LEAD + STEP * np.arange(math.ceil((duration + 2 * LEAD) / STEP) + 1)


@dataclass(frozen=True, eq=False)
class Motion:
    """A motion in the plane: x and y in global metres and yaw in radians without jumps, each `[steps]`.

    It is sampled at `sample_times`; a motion at rest has one sample.
    """

    x: Floats
    y: Floats
    yaw: Floats

    @classmethod
    def still(cls, x: float, y: float, yaw: float) -> Motion:
        """Build a motion at rest."""
        return cls(np.array([x]), np.array([y]), np.array([yaw]))

    @classmethod
    def along(cls, path: Points, distance: Floats, base: float, lateral: float = 0.0, forward: float = 0.0) -> Motion:
        """Build the motion of the middle between two axles, `base` metres apart, that follow a path `[n, 2]`.

        `distance [steps]` is the distance along the path, which is extended straight beyond its ends. `lateral` moves
        everything to the left; `forward` moves the tracked point ahead of the middle.
        """
        s = arc_length(path)
        ends = []
        for reach in (0.5 * base, -0.5 * base):
            at = distance + reach
            over = at - np.clip(at, s[0], s[-1])
            x, y = np.interp(at, s, path[:, 0]), np.interp(at, s, path[:, 1])
            first, last = path[1] - path[0], path[-1] - path[-2]
            way = np.where((over < 0)[:, None], first / np.linalg.norm(first), last / np.linalg.norm(last))
            ends.append(np.stack((x, y), axis=1) + over[:, None] * way)
        chord = ends[0] - ends[1]
        yaw = np.unwrap(np.arctan2(chord[:, 1], chord[:, 0]))
        ahead = np.stack((np.cos(yaw), np.sin(yaw)), axis=1)
        left = np.stack((-ahead[:, 1], ahead[:, 0]), axis=1)
        middle = 0.5 * (ends[0] + ends[1]) + forward * ahead + lateral * left
        return cls(middle[:, 0].copy(), middle[:, 1].copy(), yaw)

    @property
    def is_still(self) -> bool:
        """Whether it never moves."""
        return len(self.x) == 1

    def at(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """Return x, y and yaw, each `[t]`, at times in seconds since the first keyframe."""
        grid = -LEAD + STEP * np.arange(len(self.x))
        return np.interp(times, grid, self.x), np.interp(times, grid, self.y), np.interp(times, grid, self.yaw)

    def speed(self, time: float) -> float:
        """Return the speed at a time, m/s."""
        x, y, _ = self.at(np.array([time - STEP, time + STEP]))
        return math.hypot(x[1] - x[0], y[1] - y[0]) / (2 * STEP)

    def sampled(self, steps: int) -> Floats:
        """Return x, y and yaw of `steps` samples, `[3, steps]`."""
        return np.stack([np.broadcast_to(v, steps) if self.is_still else v for v in (self.x, self.y, self.yaw)])


class Tracks:
    """Poses of `n` bodies over time, from samples `poses [n, steps, 4, 4]` that are STEP seconds apart.

    Places and the forward and up axes are interpolated linearly, and the axes are made orthonormal again.
    """

    def __init__(self, poses: Floats) -> None:
        # Place, forward and up axis side by side, so that one look-up fetches all.
        self._samples = np.ascontiguousarray(
            np.concatenate((poses[..., :3, 3], poses[..., :3, 0], poses[..., :3, 2]), axis=-1)
        )

    def poses(self, times: float | Floats) -> Floats:
        """Return global_T_body `[n, 4, 4]` at seconds since the first keyframe: one time for all, or `[n]` times."""
        count, steps = self._samples.shape[:2]
        place = np.broadcast_to((np.asarray(times, dtype=np.float64) + LEAD) / STEP, (count,))
        place = np.clip(place, 0, max(0.0, steps - 1.0))
        index = np.minimum(place.astype(np.int64), max(0, steps - 2))
        share = (place - index)[:, None]
        every = np.arange(count)
        low, high = self._samples[every, index], self._samples[every, np.minimum(index + 1, steps - 1)]
        mixed = low + share * (high - low)
        forward, up = mixed[:, 3:6], mixed[:, 6:9]
        forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
        left = np.cross(up, forward)
        left /= np.linalg.norm(left, axis=1, keepdims=True)
        result = np.zeros((count, 4, 4))
        result[:, :3, 0], result[:, :3, 1], result[:, :3, 2] = forward, left, np.cross(forward, left)
        result[:, :3, 3], result[:, 3, 3] = mixed[:, :3], 1
        return result
