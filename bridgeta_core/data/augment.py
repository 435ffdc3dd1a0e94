"""Change training samples at random, exactly.

The whole world is turned, mirrored, scaled and shifted, with its cameras, points and labels. Every image is resized,
cut, mirrored and turned by itself, with its intrinsics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bridgeta_core.config.experiment import AugmentConfig
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import ImageFit, Matrix, invert
from bridgeta_core.utils.arrays import Bytes
from bridgeta_core.utils.errors import BridgeTAError

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MIRROR_CAMERA = np.diag([-1.0, 1.0, 1.0, 1.0])  # of the optical frame: x to the left


@dataclass(frozen=True)
class Augment:
    """Draws the random changes that the settings allow.

    A change depends on (seed, epoch, sample) alone, so that a resumed run sees what an unbroken one does. Raises
    BridgeTAError (exit code 2) when `image_resize` is not a range.
    """

    settings: AugmentConfig
    seed: int = 0

    def __post_init__(self) -> None:
        factors = self.settings.image_resize
        if len(factors) not in (0, 2) or factors != sorted(factors):
            raise BridgeTAError(
                f"data.augment.image_resize = {factors} is not a range of factors",
                fix="Give the smallest and the largest, such as [0.8, 1.15], or [] for none",
                exit_code=2,
            )

    def draw(self, epoch: int, sample: int) -> Change:
        """Draw the change of one sample's world in one epoch."""
        settings, random = self.settings, np.random.default_rng((self.seed, epoch, sample))
        flip = random.random() < 0.5
        angle = math.radians(random.uniform(-settings.rotate, settings.rotate))
        brightness, contrast, saturation = random.uniform(1 - settings.colour, 1 + settings.colour, 3).tolist()
        # Newer changes are drawn later: without them a seed draws the same as before.
        scale = random.uniform(1 - settings.scale, 1 + settings.scale)
        x, y = random.normal(0, settings.translate, 2).tolist()
        flip = settings.flip and flip
        if settings.flip_x and random.random() < 0.5:
            # A front-back mirror is half a turn, then a left-right mirror.
            flip, angle = not flip, angle + math.pi
        return Change(flip, angle, brightness, contrast, saturation, scale, (x, y))

    def draw_fits(self, fits: Mapping[str, ImageFit], epoch: int, sample: int) -> dict[str, ImageFit]:
        """Draw how the images of one sample become network inputs in one epoch, each by a draw of its own.

        `fits` are those without augmentation.
        """
        # A stream of its own, so that the world's draws do not depend on the cameras.
        random = np.random.default_rng(np.random.SeedSequence((self.seed, epoch, sample), spawn_key=(1,)))
        drawn = {name: self._draw_fit(fit, random) for name, fit in fits.items()}
        if not (step := self.settings.image_shift):
            return drawn
        # Alike in all cameras, and of few values: every new value costs a plan of the lift.
        right, down = (step * random.integers(-1, 2, 2)).tolist()
        return {name: fit.shift(right, down) for name, fit in drawn.items()}

    def _draw_fit(self, fit: ImageFit, random: np.random.Generator) -> ImageFit:
        factor, place, side, turn = random.random(4).tolist()
        if self.settings.image_resize:
            low, high = self.settings.image_resize
            fit = fit.resize(low + (high - low) * factor, place)
        angle = math.radians(self.settings.image_rotate * (2 * turn - 1))
        return replace(fit, mirrored=self.settings.image_flip and side < 0.5, angle=angle)


@dataclass(frozen=True)
class Change:
    """One drawn change of the world; the grid stays where it is.

    The world is turned by `angle` radians (counter-clockwise), then mirrored if `flip`, then scaled by `scale` about
    the ego origin, then shifted by `shift` metres (x, y). Mirroring the world and every image leaves proper pinhole
    cameras: the second mirror restores the handedness. A scaled world with scaled cameras in it gives the same images.
    """

    flip: bool = False
    angle: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def mirrors(self) -> tuple[bool, bool] | None:
        """Whether x and whether y of the world change their sign; None where that is not all that changes."""
        if self.scale != 1 or self.shift != (0, 0) or self.angle not in (0, math.pi):
            return None
        turned = self.angle != 0
        return turned, turned != self.flip

    @property
    def turn(self) -> Matrix:
        """turned_T_ego, the rotation alone."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])

    @property
    def world(self) -> Matrix:
        """changed_T_ego for points: a similarity, of negative determinant when mirrored."""
        side = -self.scale if self.flip else self.scale
        result: Matrix = np.diag([self.scale, side, self.scale, 1.0]) @ self.turn
        result[:2, 3] = self.shift
        return result

    def images(self, images: Bytes) -> Bytes:
        """Recolour images `[N, h, w, 3]` RGB, alike in all cameras, and mirror them."""
        gains = (self.brightness, self.contrast, self.saturation)
        if gains != (1.0, 1.0, 1.0):
            images = self._recolour(images)
        return np.stack([cv2.flip(image, 1) for image in images]) if self.flip else images

    def _recolour(self, images: Bytes) -> Bytes:
        """Apply all gains as one affine map of RGB: saturation about the grey of a pixel, contrast about the mean."""
        n, h, w, _ = images.shape
        flat = images.reshape(n * h, w, 3)
        mean = float(_LUMINANCE @ cv2.mean(flat)[:3])
        matrix = self.saturation * np.eye(3) + (1 - self.saturation) * _LUMINANCE
        affine = np.empty((3, 4))
        affine[:, :3] = self.brightness * self.contrast * matrix
        affine[:, 3] = self.brightness * (1 - self.contrast) * mean
        return cv2.transform(flat, affine).reshape(images.shape)

    def intrinsics(self, intrinsics: Matrix, width: int) -> Matrix:
        """Mirror intrinsics `[..., 3, 3]` of images `width` pixels wide: u becomes width - 1 - u."""
        if not self.flip:
            return intrinsics
        mirror_pixels = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
        return mirror_pixels @ intrinsics @ _MIRROR_CAMERA[:3, :3]

    def ego_T_cam(self, ego_T_cam: Matrix) -> Matrix:
        """Move camera poses `[..., 4, 4]` with the world.

        They map the camera's own metres, in which depths are unchanged, to the world's. In a scaled world they are
        therefore similarities: their 3x3 part is a rotation times `scale`.
        """
        changed = self.world @ ego_T_cam
        return changed @ _MIRROR_CAMERA if self.flip else changed

    def rasterise(self, raster: MapRaster, global_T_ego: Matrix, grid: BevGrid) -> Bytes:
        """Rasterise the labels `[6, Y, X]` of the changed world around the turned pose, instead of resampling them.

        They show the part of the mirrored world that scaling and shifting bring under `grid`. In mode `compatible`
        lines keep their width in cells.
        """
        pose = global_T_ego @ invert(self.turn)
        side = -self.scale if self.flip else self.scale
        x, y = self.shift
        x_min, x_max = (grid.x_min - x) / self.scale, (grid.x_max - x) / self.scale
        y_min, y_max = sorted(((grid.y_min - y) / side, (grid.y_max - y) / side))
        labels = raster.rasterise(pose, BevGrid(x_min, x_max, y_min, y_max, grid.resolution / self.scale))
        return labels[:, ::-1] if self.flip else labels
