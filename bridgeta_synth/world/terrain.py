"""The height of the bare ground: a smooth field of hills and dips that roads, vehicles and sensors follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.arrays import Floats

MAX_SLOPE = 0.06
_STEP = 2.0
_WAVES = 28
# Metres. A crest and the next dip are about half a wavelength apart, so that some lie within 50 m.
_WAVELENGTHS = (75.0, 220.0)


@dataclass(frozen=True, eq=False)
class Terrain:
    """Heights of the carriageways' level over global x and y, all in metres.

    `heights [rows, columns]` float32 are nodes at `origin` + `step` * (column, row). Between nodes the surface is
    bilinear; beyond the outermost ones it is level. Renderer, poses of vehicles and bases of houses share this surface.
    """

    heights: NDArray[np.float32]
    step: float
    origin: tuple[float, float]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        extent: tuple[float, float],
        relief: float = 1.0,
        origin: tuple[float, float] = (0.0, 0.0),
        margin: float = 240.0,
    ) -> Terrain:
        """Draw random hills over `extent` (width, height) from `origin`, and `margin` metres around.

        A sum of plane waves of random direction and phase whose steepest slope is `relief` times 6 %; 0 is flat.
        """
        start = (origin[0] - margin, origin[1] - margin)
        columns, rows = (math.ceil((side + 2 * margin) / _STEP) + 1 for side in extent)
        x = _STEP * np.arange(columns)
        y = _STEP * np.arange(rows)[:, None]
        shape = (_WAVES,)
        length = np.exp(rng.uniform(math.log(_WAVELENGTHS[0]), math.log(_WAVELENGTHS[1]), shape))
        direction, phase = rng.uniform(0, 2 * np.pi, shape), rng.uniform(0, 2 * np.pi, shape)
        # Amplitudes proportional to wavelengths make all waves equally steep.
        share = rng.uniform(0.3, 1.0, shape)
        heights = np.zeros((rows, columns))
        for wave in range(_WAVES):
            k = 2 * np.pi / length[wave]
            along_x, along_y = k * np.cos(direction[wave]), k * np.sin(direction[wave])
            heights += share[wave] / k * np.sin(along_x * x + along_y * y + phase[wave])
        dy, dx = np.gradient(heights, _STEP)
        steepest = float(np.hypot(dx, dy).max())
        heights *= relief * MAX_SLOPE / steepest
        return cls(heights.astype(np.float32), _STEP, start)

    def height(self, xy: Floats) -> Floats:
        """Return heights `[...]` at places `[..., 2]`."""
        rows, columns = self.heights.shape
        u = np.clip((xy[..., 0] - self.origin[0]) / self.step, 0, columns - 1.000001)
        v = np.clip((xy[..., 1] - self.origin[1]) / self.step, 0, rows - 1.000001)
        column, row = u.astype(np.int64), v.astype(np.int64)
        u, v = u - column, v - row
        flat, at = self.heights.reshape(-1), row * columns + column
        low = flat[at] * (1 - u) + flat[at + 1] * u
        high = flat[at + columns] * (1 - u) + flat[at + columns + 1] * u
        return np.asarray(low * (1 - v) + high * v, dtype=np.float64)

    def pose(
        self,
        x: Floats | float,
        y: Floats | float,
        yaw: Floats | float,
        length: Floats | float = 2.8,
        width: Floats | float = 1.6,
    ) -> Floats:
        """Return global_T_body `[..., 4, 4]` of vehicles with four wheels on the ground, `length` by `width` apart.

        The origin is midway between the wheels at (x, y), at their mean height; x points forward, z up from the plane
        of the wheels. All arguments broadcast.
        """
        x, y, yaw, length, width = np.broadcast_arrays(
            *(np.asarray(v, dtype=np.float64) for v in (x, y, yaw, length, width))
        )
        ahead = np.stack((np.cos(yaw), np.sin(yaw)), axis=-1)
        left = np.stack((-ahead[..., 1], ahead[..., 0]), axis=-1)
        middle = np.stack((x, y), axis=-1)
        half_l, half_w = 0.5 * length[..., None], 0.5 * width[..., None]
        fl, fr, bl, br = (
            self.height(middle + i * half_l * ahead + j * half_w * left)
            for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        )
        forward = np.concatenate((length[..., None] * ahead, ((fl + fr - bl - br) / 2)[..., None]), axis=-1)
        across = np.concatenate((width[..., None] * left, ((fl + bl - fr - br) / 2)[..., None]), axis=-1)
        up = np.cross(forward, across)
        forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
        up /= np.linalg.norm(up, axis=-1, keepdims=True)
        pose = np.zeros((*x.shape, 4, 4))
        pose[..., :3, 0], pose[..., :3, 1], pose[..., :3, 2] = forward, np.cross(up, forward), up
        pose[..., 0, 3], pose[..., 1, 3], pose[..., 2, 3] = x, y, (fl + fr + bl + br) / 4
        pose[..., 3, 3] = 1
        return pose
