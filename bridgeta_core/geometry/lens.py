"""Lenses: undistortion, the pinhole camera in place of a fisheye one, and the part of an image that is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.rig import EQUIDISTANT, Camera, distort_radius
from bridgeta_core.geometry.transforms import ImageFit

# A pinhole image stretches the rim of a fisheye image and shows the rest so much smaller. 100 degrees of the horizon
# are little more than nuScenes' rear camera has (90), and four cameras still see all around. No image is wider or
# higher than 120 degrees, which leaves room for a cut with the horizon of a camera that looks steeply down.
_ALONG_HORIZON, _WIDEST = math.radians(50), math.radians(60)
# Where the horizon lies in the network's inputs from the top, on nuScenes' vehicles: row 60 of 256.
_HORIZON = 0.235
_BILINEAR = 0.7  # the smallest scale at which bilinear sampling still uses nearly all pixels
_WORTHWHILE = 0.75  # the largest scale to which resizing an image ahead is quicker and no less sharp
_OUTSIDE = -10_000.0  # a place beside every image
_SAMPLES = 2048  # of a radius, to find where a distortion folds back


def to_pinhole(camera: Camera) -> Camera:
    """Return the camera without distortion that the network is shown in place of this one; most stay as they are.

    An equidistant (fisheye) camera becomes one of the same pose and width, its axis in the middle, that shows what the
    lens does up to 50 degrees to either side along the horizon, and 60 degrees from the axis at most.
    """
    if camera.distortion_model != EQUIDISTANT:
        return replace(camera, distortion=())
    k = camera.intrinsics
    sides = [(k[0, 2] + 0.5) / k[0, 0], (camera.width - 0.5 - k[0, 2]) / k[0, 0]]
    ends = [(k[1, 2] + 0.5) / k[1, 1], (camera.height - 0.5 - k[1, 2]) / k[1, 1]]
    # Of a camera that looks down, the upper rows with the horizon are farther from the axis and so span less of it.
    level = float(np.hypot(*camera.ego_T_cam[:2, 2]))
    widest = min(_WIDEST, math.atan2(math.tan(_ALONG_HORIZON), level))
    focal = camera.width / 2 / math.tan(_find_angle(camera, max(sides), widest))
    height = max(1, round(2 * focal * math.tan(_find_angle(camera, max(ends), _WIDEST))))
    intrinsics = np.array([[focal, 0, (camera.width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Camera(camera.name, camera.width, height, intrinsics, camera.ego_T_cam)


def _find_angle(camera: Camera, radius: float, limit: float) -> float:
    """Return the angle in radians to the axis, of at most `limit`, that an equidistant lens images at `radius`.

    The radius is in focal lengths. A radius that the lens does not reach gives the largest angle.
    """
    angles = np.linspace(0, limit, _SAMPLES)
    radii = distort_radius(camera.distortion_model, camera.distortion, np.tan(angles))
    rising = int(np.argmax(np.diff(radii, append=-np.inf) <= 0)) + 1
    return float(np.interp(max(radius, radii[1]), radii[:rising], angles[:rising]))


def fit_camera(camera: Camera, size: tuple[int, int], margin: float) -> ImageFit:
    """Fit the pinhole image of a camera (`to_pinhole`) to a network input of `size` (width, height).

    It is cut at the row `crop_bottom` of the camera. Without one it is cut at the bottom, as nuScenes' are; that of an
    equidistant camera where its horizon lies as high as nuScenes'. `margin` is the resized width over the input width.
    """
    pinhole = to_pinhole(camera)
    fit = ImageFit.bottom((pinhole.width, pinhole.height), size, margin)
    if camera.crop_bottom is not None:
        bottom = camera.crop_bottom * fit.scale[1]
        if camera.distortion_model == EQUIDISTANT:
            y = (camera.crop_bottom - 0.5 - camera.intrinsics[1, 2]) / camera.intrinsics[1, 1]
            y = math.copysign(math.tan(_find_angle(camera, abs(y), _WIDEST)), y)
            bottom = (pinhole.intrinsics[1, 1] * y + pinhole.height / 2) * fit.scale[1]
        return replace(fit, offset=(fit.offset[0], round(bottom) - size[1]))
    if camera.distortion_model == EQUIDISTANT:
        return place_horizon(fit, pinhole)
    return fit


def place_horizon(fit: ImageFit, pinhole: Camera) -> ImageFit:
    """Move a fit up, within the image, until the horizon lies as high in the cut as on nuScenes' vehicles."""
    _, down, axis = pinhole.ego_T_cam[2, :3]  # how far the image's x, y and the optical axis rise in the ego frame
    y = -axis / down if down else 1e3 * axis  # where the middle column meets the horizon, at depth 1
    row = (pinhole.intrinsics[1, 1] * np.clip(y, -1e3, 1e3) + pinhole.intrinsics[1, 2] + 0.5) * fit.scale[1]
    top = min(max(round(row - _HORIZON * fit.size[1]), 0), fit.resized[1] - fit.size[1])
    return replace(fit, offset=(fit.offset[0], top))


@dataclass(frozen=True, eq=False)
class Undistortion:
    """How the image of a camera with lens distortion becomes a network input.

    The image is resized by `resize` and looked up at the places `maps` (of `cv2.remap`, fixed-point). `inside` `[h, w]`
    marks the pixels of the network input that lie in the image; the others are black.
    """

    resize: ImageFit
    maps: tuple[NDArray[np.int16], NDArray[np.uint16]]
    inside: NDArray[np.bool_]

    @classmethod
    def build(cls, camera: Camera, fit: ImageFit) -> Undistortion:
        """Build the map of the network input that `fit` cuts out of the camera's pinhole image, in some 40 ms."""
        pinhole = to_pinhole(camera)
        fitted = fit.matrix @ pinhole.intrinsics
        resized = fit.resized
        if camera.distortion_model == EQUIDISTANT:
            # The middle of a fisheye image becomes the smallest; there are no more pixels than these to be had.
            scale = fitted[0, 0] / (_BILINEAR * camera.intrinsics[0, 0])
            scale = scale if scale < _WORTHWHILE else 1.0
            resized = (max(1, round(scale * camera.width)), max(1, round(scale * camera.height)))
        resize = ImageFit((camera.width, camera.height), resized, (0, 0), resized)
        k, d = resize.matrix @ camera.intrinsics, np.array(camera.distortion)
        make = (
            cv2.fisheye.initUndistortRectifyMap
            if camera.distortion_model == EQUIDISTANT
            else cv2.initUndistortRectifyMap
        )
        x, y = make(k, d, np.eye(3), fitted, fit.size, cv2.CV_32FC1)
        with np.errstate(invalid="ignore"):
            inside = (x > -0.5) & (x < resized[0] - 0.5) & (y > -0.5) & (y < resized[1] - 0.5)
        inside &= _find_unfolded(camera, fitted, fit.size)
        maps = cv2.convertMaps(np.where(inside, x, _OUTSIDE), np.where(inside, y, _OUTSIDE), cv2.CV_16SC2)
        return cls(resize, maps, inside)

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and undistort an image of the camera, or a reduction of it, to the network input `[h, w, 3]`."""
        if picture.shape[1::-1] != self.resize.resized:
            picture = cv2.resize(picture, self.resize.resized, interpolation=cv2.INTER_AREA)
        return cv2.remap(picture, *self.maps, cv2.INTER_LINEAR)


def _find_unfolded(camera: Camera, intrinsics: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the pixels `[h, w]` of a pinhole image from which the distortion has not yet folded back to the middle.

    The polynomials of a calibration hold up to the rim of its images; farther out they may turn around, and show the
    scene there once more.
    """
    u, v = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in size))
    x, y = (u - intrinsics[0, 2]) / intrinsics[0, 0], (v - intrinsics[1, 2]) / intrinsics[1, 1]
    radius = np.hypot(x, y)
    samples = np.linspace(0, radius.max(), _SAMPLES)
    steps = np.diff(distort_radius(camera.distortion_model, camera.distortion, samples))
    folds = np.flatnonzero(~(steps > 0))
    return np.asarray(radius <= (samples[folds[0]] if folds.size else np.inf))
