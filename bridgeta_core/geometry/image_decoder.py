"""Decode JPEG, PNG, WebP and BMP to RGB: pixels as they are stored, damage named, nothing printed."""

from __future__ import annotations

import re
import zlib

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray

from bridgeta_core.geometry.image_header import (
    NAMES,
    Buffer,
    ImageHeader,
    read_header,
    require_size,
    to_bytes,
    walk_jpeg,
)
from bridgeta_core.utils.errors import BridgeTAError

Image = NDArray[np.uint8]

# A calibration is for the pixels as they are stored, so EXIF does not turn them.
_FLAGS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
}
# What libjpeg warns of although the picture is whole: superfluous bytes, of which Logitech's webcams write up to nine
# before restart and end markers (more are the rest of data that was misread), and fields that nobody needs.
_STRAY = re.compile(r"(\d+) extraneous bytes ")
_MAX_STRAY = 9
_UNUSED = "SOS parameters for sequential"
_JPEG_OTHERS = frozenset({*range(0xE0, 0xF0), 0xFE}) - {0xEE}  # application segments and comments, but Adobe's colours
_MAX_CHUNKS = 20_000  # of a PNG; libpng writes one for every 8 kB
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})


def decode(data: Buffer, reduction: int = 1, size: tuple[int, int] | None = None) -> Image:
    """Decode a JPEG, PNG, WebP or BMP to RGB `[H, W, 3]`, at 1/reduction of its size (1, 2 or 4).

    `size` is the (width, height) that it must have. Bytes behind the end of the image are ignored. Raises BridgeTAError
    for data that is no image of these formats, truncated, damaged, of another size or larger than `MAX_PIXELS`; a wrong
    size costs no more than reading the header.
    """
    data = to_bytes(data)
    header = read_header(data)
    if size is not None:
        require_size((header.width, header.height), size)
    if header.kind == "jpeg":
        return _decode_jpeg(data, header, reduction)
    return _decode_other(_keep_png_pixels(data) if header.kind == "png" else data, header, reduction)


def is_truncated(data: bytes, header: ImageHeader) -> bool:
    """Tell, without decoding, whether a JPEG or PNG lacks its end. Zeros and a few bytes of any kind may follow it."""
    marker = {"jpeg": b"\xff\xd9", "png": b"IEND"}.get(header.kind, b"")
    return marker not in data.rstrip(b"\0")[-64:]


def _decode_jpeg(data: bytes, header: ImageHeader, reduction: int) -> Image:
    """Decode a JPEG by libjpeg-turbo. OpenCV has the same library, but prints its warnings instead of telling us."""
    segments = (data[start:end] for marker, start, end in walk_jpeg(data) if marker not in _JPEG_OTHERS)
    data = b"".join((data[:2], *segments))
    height, width = -(-header.height // reduction), -(-header.width // reduction)
    # With a buffer of this size no other picture can be decoded than the one that the header promises.
    options = {"min_height": height, "min_width": width, "buffer": np.empty((height, width, 3), np.uint8)}
    try:
        try:
            return simplejpeg.decode_jpeg(data, **options)
        except ValueError as error:
            if not _is_harmless(str(error)):
                raise
        return simplejpeg.decode_jpeg(data, **options, strict=False)
    except ValueError as error:
        if "Premature end of JPEG file" in str(error):
            raise BridgeTAError("JPEG is truncated (it has no end marker)") from None
        reason = _STRAY.sub("extraneous bytes ", str(error))  # without the number, so that equal reasons are counted
        raise BridgeTAError(f"JPEG is damaged ({reason})") from None


def _is_harmless(complaint: str) -> bool:
    stray = _STRAY.search(complaint)
    return _UNUSED in complaint if stray is None else int(stray[1]) <= _MAX_STRAY


def _keep_png_pixels(data: bytes) -> bytes:
    """Return a PNG with only the chunks that hold its pixels, their checksums verified.

    The rest (profiles, texts, orientation, animation) costs time, and libpng complains of much of it on stderr.
    """
    kept, position = [data[:8]], 8
    for _ in range(_MAX_CHUNKS):
        kind, end = (
            data[position + 4 : position + 8],
            position + 12 + int.from_bytes(data[position : position + 4], "big"),
        )
        if len(data) < end or not kind:
            raise BridgeTAError("PNG is truncated (it has no IEND chunk)")
        if kind in _PNG_PIXELS:
            if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise BridgeTAError(f"PNG is damaged (wrong checksum of {kind.decode()})")
            kept.append(data[position:end])
        if kind == b"IEND":
            return b"".join(kept)
        position = end
    raise BridgeTAError(f"PNG has more than {_MAX_CHUNKS:,} chunks")


def _decode_other(data: bytes, header: ImageHeader, reduction: int) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[reduction])
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != (header.height // reduction, header.width // reduction):
        raise BridgeTAError(f"{NAMES[header.kind]} is damaged (it cannot be decoded)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
