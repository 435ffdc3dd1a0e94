"""The size of an image is read from its header alone."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.geometry.image_header import MAX_PIXELS, ImageHeader, read_header, require_size
from bridgeta_core.utils.errors import BridgeTAError

KINDS = {".jpg": "jpeg", ".png": "png", ".webp": "webp", ".bmp": "bmp"}
FRAME = b"\xff\xc0\0\x11\x08%s\x03\x01\x22\0\x02\x11\x01\x03\x11\x01"


def encode(width, height, suffix, *options):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def claim(kind, width, height):
    """Return the header of an image of some size, with nothing behind it."""
    if kind == "jpeg":
        return b"\xff\xd8" + FRAME % struct.pack(">HH", height, width) + b"\xff\xda\0\x0c"
    if kind == "png":
        return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0" + bytes(4)
    if kind == "webp":
        sizes = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        return b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + sizes
    return b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, width, height, 1, 24, 0) + bytes(20)


@settings(max_examples=100)
@given(width=st.integers(1, 300), height=st.integers(1, 300), suffix=st.sampled_from([*KINDS]))
def test_the_size_is_that_of_the_encoded_picture(width, height, suffix):
    header = read_header(encode(width, height, suffix))
    assert header == ImageHeader(KINDS[suffix], width, height)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 50)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
    ],
)
def test_variants_of_a_format_are_known(suffix, options):
    assert read_header(encode(33, 17, suffix, *options)) == ImageHeader(KINDS[suffix], 33, 17)


def test_bitmaps_are_read_from_the_top_or_the_bottom():
    data = encode(30, 20, ".bmp")
    assert read_header(data[:22] + struct.pack("<i", -20) + data[26:]) == ImageHeader("bmp", 30, 20)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("size", [(30_000, 30_000), (16_384, 16_384), (MAX_PIXELS // 1000 + 1, 1000)])
def test_an_enormous_picture_is_refused(kind, size):
    with pytest.raises(BridgeTAError, match=f"image has {size[0]}x{size[1]} pixels, more than the 33,554,432"):
        read_header(claim(kind, *size))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_an_image_of_8k_is_accepted(kind):
    assert read_header(claim(kind, 7680, 4320)) == ImageHeader(kind, 7680, 4320)


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp"])
def test_no_pixels_are_no_image(kind):
    with pytest.raises(BridgeTAError, match="has no pixels"):
        read_header(claim(kind, 0, 10))


@pytest.mark.parametrize("suffix", KINDS)
def test_a_header_that_is_cut_off_is_refused(suffix):
    data = encode(40, 30, suffix)
    for size in range(12, 25):
        with pytest.raises(BridgeTAError, match="is truncated"):
            read_header(data[:size])


def test_a_size_in_a_preview_is_not_that_of_the_picture():
    preview = claim("jpeg", 160, 120)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview
    data = encode(40, 30, ".jpg")
    assert read_header(data[:2] + exif + data[2:]) == ImageHeader("jpeg", 40, 30)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8" + b"\xff\xfe\0\x02" * 100_000, "more than 1000 segments"),
        (b"\xff\xd8" + b"\xff\0" * 1_000_000, "more than 1000 segments"),
        (claim("jpeg", 40, 30) + b"\x01" + b"\xff\xda" * 5000, "JPEG has 5001 scans"),
        (claim("jpeg", 40, 30).replace(b"\xc0", b"\xc2") + b"\x03" + b"\xff\xda" * 5000, "JPEG has 5001 scans"),
        (claim("jpeg", 40, 30).replace(b"\x03\x01\x22", b"\x04\x01\x22"), "4 colour components"),
        (b"\xff\xd8\xff\xd9", "is truncated"),
        (b"\xff\xd8" + b"\xff" * 500, "is truncated"),
        (b"\xff\xd8\xff\xda" + bytes(100), "0 colour components"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "its first chunk is not IHDR"),
        (claim("webp", 40, 30).replace(b"\x0a\0\0\0\0", b"\x0a\0\0\0\x02"), "WebP is an animation"),
        (b"RIFF\x16\0\0\0WEBPXXXX" + bytes(30), "begins with no frame"),
        (claim("bmp", 40, 30)[:30] + b"\x01" + bytes(5000), "BMP is compressed"),
        (claim("bmp", 40, 30).replace(b"\x28", b"\xff"), "its header has 255 bytes"),
    ],
)
def test_hostile_structure_is_named(data, message):
    with pytest.raises(BridgeTAError, match=message):
        read_header(data)


@settings(max_examples=300)
@given(
    start=st.sampled_from([claim(kind, 64, 36) for kind in KINDS.values()]), rest=st.binary(max_size=100), cut=st.data()
)
def test_any_bytes_give_a_header_or_our_error(start, rest, cut):
    data = start[: cut.draw(st.integers(0, len(start)))] + rest
    try:
        header = read_header(data)
    except BridgeTAError:
        return
    assert 0 < header.width * header.height <= MAX_PIXELS


def test_a_size_that_is_not_the_calibrations_is_named():
    require_size((64, 36), (64, 36))
    with pytest.raises(
        BridgeTAError, match=r"image has 64x36 pixels, its calibration is for 36x64\. Use the CameraInfo"
    ):
        require_size((64, 36), (36, 64))
