"""Fit camera images to network inputs: the same code for training, evaluation and the vehicle."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.image_decoder import Image, decode
from bridgeta_core.geometry.image_header import Buffer
from bridgeta_core.geometry.lens import fit_camera, to_pinhole
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit

_BILINEAR = 0.7  # the smallest scale at which bilinear sampling still uses nearly all pixels


def fit_images(rig: Rig, size: tuple[int, int], margin: float) -> dict[str, ImageFit]:
    """Fit the images of every camera of a rig to network inputs of `size` (width, height), by name in the rig's order.

    `margin` is the resized width over the input width (see `lens.fit_camera`).
    """
    return {camera.name: fit_camera(camera, size, margin) for camera in rig.cameras}


def fit_intrinsics(rig: Rig, fits: Iterable[ImageFit]) -> NDArray[np.float64]:
    """Return the intrinsics `[N, 3, 3]` of the network inputs of a rig; `fits` are in the rig's order."""
    return np.stack([fit.matrix @ to_pinhole(camera).intrinsics for fit, camera in zip(fits, rig.cameras, strict=True)])


def choose_reduction(fit: ImageFit) -> int:
    """Choose the largest decoder reduction (1, 2 or 4) that leaves at least as many pixels as `fit` resizes to.

    It divides the source's size. Otherwise a JPEG decoder adds pixels that lie partly outside the image, and all others
    are up to a pixel away from where `fit.matrix` says.
    """
    return next(r for r in (4, 2, 1) if r == 1 or (max(fit.scale) * r <= 1.0 and not any(s % r for s in fit.source)))


def apply_fit(image: Image, fit: ImageFit) -> Image:
    """Resize, cut, mirror and turn an RGB image of the source's aspect ratio (any reduction of it) to `[h, w, 3]`."""
    if fit.angle:
        return _warp(image, fit)
    if image.shape[1::-1] != fit.resized:
        image = cv2.resize(image, fit.resized, interpolation=cv2.INTER_AREA)
    image = _cut(image, fit)
    return cast(Image, cv2.flip(image, 1)) if fit.mirrored else np.ascontiguousarray(image)


def _cut(image: Image, fit: ImageFit) -> Image:
    (ox, oy), (w, h) = fit.offset, fit.size
    if ox >= 0 and oy >= 0 and ox + w <= image.shape[1] and oy + h <= image.shape[0]:
        return image[oy : oy + h, ox : ox + w]
    canvas = np.zeros((h, w, 3), dtype=np.uint8)
    left, top = max(ox, 0), max(oy, 0)
    part = image[top : oy + h, left : ox + w] if oy + h > 0 and ox + w > 0 else image[:0]
    canvas[top - oy : top - oy + part.shape[0], left - ox : left - ox + part.shape[1]] = part
    return canvas


def _warp(image: Image, fit: ImageFit) -> Image:
    """Apply a fit by one bilinear resampling; where that would skip pixels, to a finer raster that is then averaged."""
    scale = max(fit.resized[0] / image.shape[1], fit.resized[1] / image.shape[0])
    fine = math.ceil(_BILINEAR / scale)
    whole = ImageFit(fit.source, (image.shape[1], image.shape[0]), (0, 0), fit.size)
    finer = ImageFit(fit.size, (fine * fit.size[0], fine * fit.size[1]), (0, 0), fit.size)
    matrix = finer.matrix @ fit.matrix @ np.linalg.inv(whole.matrix)
    result = cv2.warpAffine(image, matrix[:2], finer.resized, flags=cv2.INTER_LINEAR)
    return cast(Image, result if fine == 1 else cv2.resize(result, fit.size, interpolation=cv2.INTER_AREA))


def to_planes(images: Image) -> Image:
    """Copy images `[N, h, w, 3]` to `[N, 3, h, w]`, ten times as fast as a transposed copy."""
    n, h, w, channels = images.shape
    result = np.empty((n, channels, h, w), dtype=np.uint8)
    for image, parts in zip(images, result, strict=True):
        cv2.split(image, list(parts))
    return result


def from_planes(planes: Image) -> Image:
    """Copy images `[N, 3, h, w]` to `[N, h, w, 3]`, the inverse of `to_planes`."""
    n, channels, h, w = planes.shape
    result = np.empty((n, h, w, channels), dtype=np.uint8)
    for image, parts in zip(result, planes, strict=True):
        cv2.merge(list(parts), image)
    return result


def decode_and_fit(data: Buffer, fit: ImageFit) -> Image:
    """Decode an encoded image at the coarsest sufficient scale and fit it to the network input `[h, w, 3]` RGB.

    Raises BridgeTAError as `decode` does, and when the image does not have the size that `fit` was made for.
    """
    return apply_fit(decode(data, choose_reduction(fit), fit.source), fit)
