"""Random changes of training samples: the whole world is mirrored or turned, cameras and labels with it, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.data.mapmask import MapRaster
from bridgeta_core.geometry import Matrix, invert
from bridgeta_core.grid import BevGrid

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MIRROR_CAMERA = np.diag([-1.0, 1.0, 1.0, 1.0])  # of the optical frame: x to the left


@dataclass(frozen=True)
class Augment:
    """What may be changed: mirror left-right half of the time, turn by up to `rotate` degrees about the ego origin, and
    change brightness, contrast and saturation by up to the share `colour`.

    A change depends on nothing but (seed, epoch, sample), so a resumed run sees what an unbroken one does.
    """

    flip: bool = True
    rotate: float = 0.0
    colour: float = 0.0
    seed: int = 0

    def draw(self, epoch: int, sample: int) -> Change:
        """The change of one sample in one epoch."""
        random = np.random.default_rng((self.seed, epoch, sample))
        flip = random.random() < 0.5
        angle = math.radians(random.uniform(-self.rotate, self.rotate))
        gains = random.uniform(1 - self.colour, 1 + self.colour, 3)
        return Change(self.flip and flip, angle, *gains.tolist())


@dataclass(frozen=True)
class Change:
    """One drawn change: the world is turned by `angle` radians (counter-clockwise), then mirrored if `flip`.

    Mirroring the world and every image leaves proper pinhole cameras: the second mirror restores the handedness.
    """

    flip: bool = False
    angle: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @property
    def turn(self) -> Matrix:
        """turned_T_ego, the rotation alone."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])

    @property
    def world(self) -> Matrix:
        """changed_T_ego for points; it has determinant -1 when mirrored."""
        return np.diag([1.0, -1.0, 1.0, 1.0]) @ self.turn if self.flip else self.turn

    def images(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images `[N, h, w, 3]` RGB: colours changed alike in all cameras, and mirrored; may be a view."""
        gains = (self.brightness, self.contrast, self.saturation)
        if gains != (1.0, 1.0, 1.0):
            images = self._recolour(images)
        return images[:, :, ::-1] if self.flip else images

    def _recolour(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """All three gains as one affine map of RGB: saturation about the grey of a pixel, contrast about the mean."""
        n, h, w, _ = images.shape
        flat = images.reshape(n * h, w, 3)
        mean = float(_LUMINANCE @ cv2.mean(flat)[:3])
        matrix = self.saturation * np.eye(3) + (1 - self.saturation) * _LUMINANCE
        affine = np.empty((3, 4))
        affine[:, :3] = self.brightness * self.contrast * matrix
        affine[:, 3] = self.brightness * (1 - self.contrast) * mean
        return cv2.transform(flat, affine).reshape(images.shape)

    def intrinsics(self, intrinsics: Matrix, width: int) -> Matrix:
        """Intrinsics `[..., 3, 3]` of images `width` pixels wide: u becomes width - 1 - u."""
        if not self.flip:
            return intrinsics
        mirror_pixels = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
        return mirror_pixels @ intrinsics @ _MIRROR_CAMERA[:3, :3]

    def ego_T_cam(self, ego_T_cam: Matrix) -> Matrix:
        """Camera poses `[..., 4, 4]` in the changed world."""
        changed = self.world @ ego_T_cam
        return changed @ _MIRROR_CAMERA if self.flip else changed

    def masks(self, raster: MapRaster, global_T_ego: Matrix, grid: BevGrid) -> NDArray[np.uint8]:
        """Labels `[6, Y, X]` of the changed world: rasterised anew around the turned pose rather than resampled."""
        pose = global_T_ego @ invert(self.turn)
        if not self.flip:
            return raster.masks(pose, grid)
        mirrored = BevGrid(grid.x_min, grid.x_max, -grid.y_max, -grid.y_min, grid.resolution)
        return raster.masks(pose, mirrored)[:, ::-1]
