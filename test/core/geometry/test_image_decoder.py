"""Decoded images are the stored pixels; what is damaged is refused, what is only unusual is not."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.geometry.image_decoder import decode, is_truncated
from bridgeta_core.geometry.image_header import read_header
from bridgeta_core.utils.errors import BridgeTAError

SUFFIXES = (".jpg", ".png", ".webp", ".bmp")
NOISE = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
SMOOTH = cv2.GaussianBlur(NOISE, (0, 0), 3)
X, Y = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 36))
GRADIENT = np.stack([X, Y, np.full_like(X, 60)], axis=-1).round().astype(np.uint8)  # red goes right, green goes down


def encode(image, suffix=".jpg", *options):
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []  # of which OpenCV 4.14 warns elsewhere
    return cv2.imencode(suffix, image[..., ::-1], [*quality, *options])[1].tobytes()


def insert(data, marker, extra):
    """Put bytes in front of the first marker of a kind."""
    place = data.index(b"\xff" + marker)
    return data[:place] + extra + data[place:]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def turn_by_exif(data, suffix):
    """Put an EXIF orientation of 180 degrees into an image."""
    tiff = bytes.fromhex("49492a00080000000100120103000100000003000000") + bytes(4)
    if suffix == ".jpg":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff + data[2:]
    if suffix == ".png":
        return data[:33] + chunk(b"eXIf", tiff) + data[33:]
    height, width = (struct.pack("<I", size - 1)[:3] for size in GRADIENT.shape[:2])
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + width + height
    body = b"WEBP" + extended + data[12:] + b"EXIF" + struct.pack("<I", len(tiff)) + tiff
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_decodes_to_rgb(suffix):
    np.testing.assert_allclose(decode(encode(GRADIENT, suffix)).astype(int), GRADIENT, atol=8)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_decodes_at_reduced_scale(reduction, suffix):
    assert decode(encode(GRADIENT, suffix), reduction).shape == (36 // reduction, 64 // reduction, 3)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)])
@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("size", [(160, 90), (161, 91), (3, 5), (1, 1)])
def test_a_jpeg_has_the_pixels_that_opencv_gives(size, reduction, options):
    data = encode(cv2.resize(SMOOTH, size), ".jpg", *options)
    flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}[reduction]
    np.testing.assert_array_equal(decode(data, reduction)[..., ::-1], cv2.imdecode(np.frombuffer(data, np.uint8), flag))


def test_a_grey_jpeg_has_three_equal_channels():
    picture = decode(cv2.imencode(".jpg", SMOOTH[..., 0])[1].tobytes())
    assert picture.shape == (90, 160, 3)
    assert (picture == picture[..., :1]).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_pixels_stay_as_stored_whatever_exif_says(suffix):
    data = encode(GRADIENT, suffix)
    np.testing.assert_array_equal(decode(turn_by_exif(data, suffix)), decode(data))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("padding", [1, 63, 64, 4096, 1_000_000])
def test_zeros_behind_the_end_are_accepted(suffix, padding):
    data = encode(SMOOTH, suffix)
    padded = data + bytes(padding)
    np.testing.assert_array_equal(decode(padded), decode(data))
    assert not is_truncated(padded, read_header(padded))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_image_is_refused(suffix, kept):
    data = encode(NOISE, suffix)
    with pytest.raises(BridgeTAError, match="is truncated"):
        decode(data[: int(len(data) * kept)])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_told_without_decoding(suffix):
    data = encode(NOISE, suffix)
    assert is_truncated(data[: len(data) // 2], read_header(data))
    assert is_truncated(data[: len(data) // 2] + bytes(4096), read_header(data))


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)])
@pytest.mark.parametrize("place", [0.35, 0.5, 0.7])
def test_a_jpeg_that_is_broken_in_the_middle_is_refused(place, options, capfd):
    data = encode(NOISE, ".jpg", *options)
    start = int(len(data) * place)
    with pytest.raises(BridgeTAError, match="JPEG is damaged"):
        decode(data[:start] + bytes(2000) + data[start + 2000 :])
    assert capfd.readouterr() == ("", "")


def test_reasons_of_damage_can_be_counted():
    data, reasons = encode(NOISE), set()
    for start in range(10_000, 14_000, 100):
        with pytest.raises(BridgeTAError) as error:
            decode(data[:start] + bytes(2000) + data[start + 2000 :])
        reasons.add(error.value.what)
    assert len(reasons) <= 3


@pytest.mark.parametrize("place", range(41, 3000, 137))
def test_a_changed_byte_of_a_png_is_found(place, capfd):
    data = bytearray(encode(SMOOTH, ".png"))
    data[place] ^= 0x10
    with pytest.raises(BridgeTAError, match="PNG is damaged"):
        decode(bytes(data))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)])
@pytest.mark.parametrize(
    ("marker", "count"), [(b"\xd9", 1), (b"\xd9", 9), (b"\xdb", 1), (b"\xdb", 600), (b"\xc4", 33), (b"\xda", 5)]
)
def test_superfluous_bytes_of_webcams_do_no_harm(marker, count, options):
    data = encode(SMOOTH, ".jpg", *options)
    padded = data[:-2] + b"\x55" * count + data[-2:] if marker == b"\xd9" else insert(data, marker, b"\x55" * count)
    np.testing.assert_array_equal(decode(padded), decode(data))


def test_an_unusual_version_of_jfif_does_no_harm():
    data = encode(SMOOTH)
    place = data.index(b"JFIF") + 5
    np.testing.assert_array_equal(decode(data[:place] + b"\x07" + data[place + 1 :]), decode(data))


def test_a_motion_jpeg_without_huffman_tables_is_decoded():
    data = encode(SMOOTH)
    first = data.index(b"\xff\xc4")
    tables = data[first : data.index(b"\xff\xda")]
    np.testing.assert_array_equal(decode(data.replace(tables, b"")), decode(data))


def test_profiles_and_texts_of_a_png_are_passed_over(capfd):
    data = encode(SMOOTH, ".png")
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    bomb = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(100_000_000)))
    animation = chunk(b"acTL", struct.pack(">II", 1000, 0))
    np.testing.assert_array_equal(decode(data[:33] + profile + bomb + animation + data[33:]), decode(data))
    assert capfd.readouterr() == ("", "")


def test_a_png_of_sixteen_bits_keeps_its_upper_byte():
    data = cv2.imencode(".png", SMOOTH[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(decode(data), SMOOTH)


@pytest.mark.parametrize("data", [b"\x00", b"hello" * 100, b"II*\0" + bytes(100), b"GIF89a" + bytes(100)])
def test_what_is_not_an_image_is_refused(data):
    with pytest.raises(BridgeTAError, match="is not a JPEG, PNG, WebP or BMP image"):
        decode(data)


def test_no_data_is_no_image():
    with pytest.raises(BridgeTAError, match="holds no data"):
        decode(b"")


def test_another_size_is_refused_before_the_pixels_are_looked_at():
    data = encode(SMOOTH)
    scan = data.index(b"\xff\xda")
    with pytest.raises(BridgeTAError, match="image has 160x90 pixels, its calibration is for 1600x900"):
        decode(data[: scan + 2], size=(1600, 900))


@settings(max_examples=200)
@given(
    suffix=st.sampled_from(SUFFIXES),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
    kept=st.floats(0, 1),
    reduction=st.sampled_from([1, 2, 4]),
)
def test_any_changed_image_gives_a_picture_or_our_error(suffix, edits, kept, reduction):
    data = bytearray(encode(GRADIENT, suffix))
    for place, content in edits:
        start = int(place * (len(data) - 1))
        data[start : start + len(content)] = content
    try:
        picture = decode(bytes(data)[: round(kept * len(data))], reduction, (64, 36))
    except BridgeTAError:
        return
    assert picture.shape == (36 // reduction, 64 // reduction, 3)
