"""Read the size of a JPEG, PNG, WebP or BMP from its header, before anything is decoded.

The bytes come from outside. A header that claims an enormous picture, or has structure without end, costs no more here
than a good one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bridgeta_core.utils.errors import BridgeTAError

Kind = Literal["jpeg", "png", "webp", "bmp"]
Buffer = Any  # anything with the buffer protocol: bytes, array.array, ndarray

MAX_PIXELS = 2**25  # an 8K image, 7680x4320, fits
NAMES: dict[Kind, str] = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP", "bmp": "BMP"}

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes, of all versions
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_SEGMENTS = 1000  # of a JPEG; a colour profile and a preview take some dozens
_MAX_SCANS = 100  # of a JPEG; a progressive one has about ten, and each is a pass over the whole picture
# Start of frame: baseline, extended, progressive, and these with arithmetic coding. 0xC4, 0xC8 and 0xCC are others.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment
_END, _SCAN = 0xD9, 0xDA


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an encoded image says."""

    kind: Kind
    width: int
    height: int


def to_bytes(data: Buffer) -> bytes:
    """Return the bytes of a buffer; those of `bytes` are not copied."""
    return data if isinstance(data, bytes) else memoryview(data).tobytes()


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded image.

    Raises BridgeTAError for data of another format, for a header that is cut off, and for a size that is nothing or
    more than `MAX_PIXELS`.
    """
    if data[:2] == b"\xff\xd8":
        header = _read_jpeg(data)
    elif data[:8] == _PNG:
        header = _read_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _read_webp(data)
    elif data[:2] == b"BM":
        header = _read_bmp(data)
    else:
        raise BridgeTAError("is not a JPEG, PNG, WebP or BMP image" if data else "holds no data")
    if header.width < 1 or header.height < 1:
        raise BridgeTAError(f"{NAMES[header.kind]} has no pixels ({header.width}x{header.height})")
    if header.width * header.height > MAX_PIXELS:
        raise BridgeTAError(
            f"image has {header.width}x{header.height} pixels, more than the {MAX_PIXELS:,} that are decoded"
        )
    return header


def require_size(found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raise BridgeTAError when an image does not have the (width, height) that its calibration is for."""
    if found != expected:
        raise BridgeTAError(
            f"image has {found[0]}x{found[1]} pixels, its calibration is for {expected[0]}x{expected[1]}",
            fix="Use the CameraInfo of this image size",
        )


def _truncated(kind: Kind) -> BridgeTAError:
    return BridgeTAError(f"{NAMES[kind]} is truncated (it ends in its header)")


def walk_jpeg(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the segments of a JPEG up to its first scan, of which the end is the data's.

    The grammar is that of ITU-T T.81, annex B. Superfluous bytes between segments are passed over, as libjpeg does.
    """
    position = 2
    for _ in range(_MAX_SEGMENTS):
        start = data.find(b"\xff", position)
        marker = data[start + 1] if 0 <= start < len(data) - 1 else _END
        if marker == _END:
            raise _truncated("jpeg")
        if marker == 0xFF:  # a fill byte in front of a marker
            position = start + 1
        elif marker == 0 or marker in _STANDALONE:
            position = start + 2
        elif marker == _SCAN:
            yield marker, start, len(data)
            return
        else:
            position = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
            if position > len(data):
                raise _truncated("jpeg")
            yield marker, start, position
    raise BridgeTAError(f"JPEG has more than {_MAX_SEGMENTS} segments before its first scan")


def _read_jpeg(data: bytes) -> ImageHeader:
    """Find the frame header and require what every camera's JPEG has."""
    height = width = components = scans = 0
    is_progressive = False
    for marker, start, end in walk_jpeg(data):
        if marker in _FRAMES and end >= start + 10:
            _, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
            is_progressive = marker in _PROGRESSIVE
        elif marker == _SCAN and (is_progressive or data[start + 4 : start + 5] != bytes([components])):
            scans = data.count(b"\xff\xda", start)
    if components not in (1, 3):
        raise BridgeTAError(f"JPEG has {components} colour components, 1 (grey) or 3 are decoded")
    if scans > _MAX_SCANS:
        raise BridgeTAError(f"JPEG has {scans} scans, more than the {_MAX_SCANS} that are decoded")
    return ImageHeader("jpeg", width, height)


def _read_png(data: bytes) -> ImageHeader:
    """Read the first chunk, which must be IHDR (PNG specification, 11.2.2)."""
    if len(data) < 33:
        raise _truncated("png")
    if data[12:16] != b"IHDR":
        raise BridgeTAError("PNG is damaged (its first chunk is not IHDR)")
    return ImageHeader("png", *struct.unpack_from(">II", data, 16))


def _read_webp(data: bytes) -> ImageHeader:
    """Read the frame header of the first chunk (RFC 9649)."""
    if len(data) < 30:
        raise _truncated("webp")
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X":
        if body[0] & 0x02:
            raise BridgeTAError("WebP is an animation, not an image")
        return ImageHeader("webp", 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
    if chunk == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return ImageHeader("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        return ImageHeader("webp", width, height)
    raise BridgeTAError("WebP is damaged (it begins with no frame)")


def _read_bmp(data: bytes) -> ImageHeader:
    """Read the bitmap's header, of OS/2 or Windows, and require that its rows are there."""
    if len(data) < 54:
        raise _truncated("bmp")
    start, size = struct.unpack_from("<II", data, 10)
    if size not in _BMP_HEADERS:
        raise BridgeTAError(f"BMP is damaged (its header has {size} bytes)")
    if size == 12:
        (width, height, _, depth), compression = struct.unpack_from("<HHHH", data, 18), 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (0, 3):
        raise BridgeTAError(f"BMP is compressed (method {compression}), which is not decoded")
    height = abs(height)  # a negative height counts rows from the top
    if len(data) < start + (max(width, 0) * depth + 31) // 32 * 4 * height:
        raise BridgeTAError(f"BMP is truncated (it holds less than {width}x{height} pixels)")
    return ImageHeader("bmp", width, height)
