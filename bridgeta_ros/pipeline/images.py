"""Camera images as the messages of any library carry them, and their pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image import ImageError, image_to_cvimage
from rosbags.image.image import to_cvtype

from bridgeta_core.geometry.image_decoder import decode
from bridgeta_core.geometry.image_header import require_size
from bridgeta_core.utils.errors import BridgeTAError

Picture = NDArray[np.uint8]
Buffer = Any  # anything with the buffer protocol: bytes, array.array, ndarray

# RViz, image_view and most drivers mean these by OpenCV's names of plain matrices.
_GENERIC = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
_DEPTH = ("16UC1", "32FC1")
_SHOWN = 30  # characters of a message's text that are quoted


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG, PNG, WebP or BMP, with the format that the message states."""

    data: Buffer
    format: str = ""


@dataclass(frozen=True)
class RawImage:
    """Pixels as sensor_msgs/Image has them: `height` rows of `step` bytes."""

    height: int
    width: int
    encoding: str
    step: int
    data: Buffer
    is_bigendian: bool = False


def image_from_message(message: Any) -> EncodedImage | RawImage:
    """Take the image from a sensor_msgs CompressedImage or Image of any library, without copying its data."""
    if hasattr(message, "format"):
        return EncodedImage(message.data, message.format[:_SHOWN])
    return RawImage(
        int(message.height),
        int(message.width),
        message.encoding[:_SHOWN],
        int(message.step),
        message.data,
        bool(message.is_bigendian),
    )


def decode_image(
    image: EncodedImage | RawImage,
    size: tuple[int, int],
    reduction: int = 1,
    to_rgb: Callable[[RawImage], Picture] | None = None,
) -> Picture:
    """Decode an image of (width, height) `size` to pixels `[H, W, 3]` RGB, an encoded one at 1/reduction of its size.

    `to_rgb` decodes raw images; None takes `raw_to_rgb`. Raises BridgeTAError as `decode` and `raw_to_rgb` do, and
    before anything is decoded for an image of another size and for depth.
    """
    described = image.format if isinstance(image, EncodedImage) else image.encoding
    if described.startswith(_DEPTH):
        raise BridgeTAError(f"{described} is depth, not colour", fix="Choose the topic of the colour image")
    if isinstance(image, EncodedImage):
        return decode(image.data, reduction, size)
    require_size((image.width, image.height), size)
    picture = (to_rgb or raw_to_rgb)(image)
    if picture.dtype != np.uint8 or picture.shape != (image.height, image.width, 3):
        raise BridgeTAError(f"decodes to {picture.dtype} {list(picture.shape)}, not to uint8 RGB pixels")
    return picture


def remove_padding(image: RawImage) -> RawImage:
    """Remove the padding at the end of the rows, which not all decoders cope with, and name a generic encoding.

    Raises BridgeTAError for an encoding without colours or greys, and for data that is too short.
    """
    image = replace(image, encoding=_GENERIC.get(image.encoding, image.encoding))
    try:
        _, _, kind, channels = to_cvtype(image.encoding)
    except (ImageError, ValueError) as error:
        raise _unknown_encoding(image) from error
    data = np.frombuffer(image.data, dtype=np.uint8)
    row, height = image.width * channels * np.dtype(kind).itemsize, _count_rows(image)
    if row < 1 or image.height < 1 or image.step < row or data.size < height * image.step:
        raise BridgeTAError(
            f"raw image of {data.size} bytes cannot hold {image.width}x{image.height} pixels of "
            f"{image.encoding} in rows of {image.step} bytes"
        )
    rows = data[: height * image.step].reshape(height, image.step)[:, :row]
    return replace(image, step=row, data=np.ascontiguousarray(rows))


def _count_rows(image: RawImage) -> int:
    """Count the rows of bytes; some encodings store colours in half as many rows again, below the greys."""
    return image.height * 3 // 2 if image.encoding in ("nv12", "nv21") else image.height


def _unknown_encoding(image: RawImage) -> BridgeTAError:
    return BridgeTAError(
        f"image encoding {image.encoding!r} cannot be turned to colours",
        fix="Publish rgb8, bgr8, mono8, a Bayer pattern, YUV 4:2:2 or NV12, or JPEG",
    )


def raw_to_rgb(image: RawImage) -> Picture:
    """Decode a raw image to pixels `[H, W, 3]` RGB. Raises BridgeTAError as `remove_padding` does."""
    image = remove_padding(image)
    # The library swaps single bytes of big-endian images too, and counts the rows of colours as rows of the image.
    wide = np.dtype(to_cvtype(image.encoding)[2]).itemsize > 1
    image = replace(image, height=_count_rows(image), is_bigendian=image.is_bigendian and wide)
    try:
        picture = image_to_cvimage(image, "rgb8")
    except (ImageError, cv2.error) as error:
        raise _unknown_encoding(image) from error
    return np.ascontiguousarray(picture, dtype=np.uint8)
