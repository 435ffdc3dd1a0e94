"""Images of messages become the pixels that RViz shows, and bad ones are named before they are decoded."""

from __future__ import annotations

import array
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.images import EncodedImage, RawImage, decode_image, image_from_message, raw_to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def raw(pixels: np.ndarray, encoding: str, padding: int = 0, **changes) -> RawImage:
    rows = np.pad(pixels.reshape(len(pixels), -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=255)
    fields = {"height": len(pixels), "width": pixels.shape[1], "step": rows.shape[1], "data": rows.tobytes()}
    return RawImage(encoding=encoding, **{**fields, **changes})


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1].copy()),
        ("rgba8", np.dstack((RGB, np.full((6, 8), 255, np.uint8)))),
        ("bgra8", np.dstack((RGB[..., ::-1], np.full((6, 8), 255, np.uint8)))),
    ],
)
def test_colours_are_rgb_for_any_order_and_row_padding(encoding, pixels, padding):
    assert np.array_equal(raw_to_rgb(raw(pixels, encoding, padding)), RGB)


@pytest.mark.parametrize("padding", [0, 3])
def test_greys_become_three_equal_channels(padding):
    grey = RGB[..., 0].copy()
    assert np.array_equal(raw_to_rgb(raw(grey, "mono8", padding)), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("encoding", ["yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12"])
def test_yuv_of_a_grey_image_is_grey(encoding):
    # Full-range 128 in luma is 130 in colour by BT.601's video range, 1.164 (128 - 16).
    if encoding == "nv12":
        image = raw(np.full((9, 8), 128, np.uint8), "nv12", height=6)
    else:
        image = raw(np.full((6, 8, 2), 128, np.uint8), encoding)
    assert np.abs(raw_to_rgb(image).astype(int) - 130).max() <= 1
    assert raw_to_rgb(image).shape == (6, 8, 3)


def test_sixteen_bit_values_of_either_byte_order_are_scaled_down():
    values = np.full((4, 4), 0x8000, np.uint16)
    little = raw_to_rgb(raw(values, "mono16"))
    big = raw_to_rgb(raw(values.byteswap(), "mono16", is_bigendian=True))
    assert np.array_equal(little, big)
    assert little[0, 0, 0] in (127, 128)


@pytest.mark.parametrize("encoding", ["32FC1", "h264", ""])
def test_an_unknown_encoding_is_named(encoding):
    with pytest.raises(BridgeTAError, match=f"encoding '{encoding}'"):
        raw_to_rgb(raw(RGB[..., 0].astype(np.float32), encoding))


@pytest.mark.parametrize("changes", [{"data": b"123"}, {"step": 5}, {"height": 0}, {"width": 0}])
def test_a_raw_image_that_does_not_hold_its_pixels_is_refused(changes):
    with pytest.raises(BridgeTAError, match="cannot hold"):
        raw_to_rgb(raw(RGB, "rgb8", **changes))


@settings(max_examples=40)
@given(
    st.sampled_from(
        ["rgb8", "bgra8", "mono8", "yuv422", "nv12", "bayer_rggb8", "mono16", "8UC3", "8UC" + "9" * 5000, "x"]
    ),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 40),
    st.binary(max_size=400),
)
def test_arbitrary_raw_images_give_a_picture_or_our_error(encoding, height, width, step, data):
    try:
        picture = raw_to_rgb(RawImage(height, width, encoding, step, data))
    except BridgeTAError:
        return
    assert picture.shape == (height, width, 3)


def test_messages_of_any_library_are_read_through_the_buffer_protocol():
    class Raw:
        height, width, encoding, step, is_bigendian = 6, 8, "rgb8", 24, 0
        data = array.array("B", RGB.tobytes())

    class Compressed:
        format, data = "jpeg", array.array("B", b"\xff\xd8\xff\xd9")

    assert np.array_equal(raw_to_rgb(image_from_message(Raw())), RGB)
    assert isinstance(image_from_message(Compressed()), EncodedImage)


GREY = RGB[..., 0].copy()
ALPHA = np.full((6, 8), 7, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("8UC1", GREY, np.dstack([GREY] * 3)),
        ("8UC3", RGB[..., ::-1].copy(), RGB),
        ("8UC4", np.dstack((RGB[..., ::-1], ALPHA)), RGB),
    ],
)
def test_a_generic_encoding_is_read_as_rviz_reads_it(encoding, pixels, expected):
    assert np.array_equal(decode_image(raw(pixels, encoding, 2), (8, 6)), expected)


@pytest.mark.parametrize(
    "image",
    [
        raw(GREY.astype("<u2"), "16UC1"),
        raw(GREY.astype("<f4"), "32FC1"),
        EncodedImage(b"", "16UC1; png compressed "),
        EncodedImage(b"", "32FC1; compressedDepth png"),
    ],
)
def test_depth_is_no_picture(image):
    with pytest.raises(BridgeTAError, match=r"is depth, not colour\. Choose the topic of the colour image"):
        decode_image(image, (8, 6))


def test_an_image_of_another_size_is_not_decoded():
    def never(image):
        raise AssertionError("decoded")

    with pytest.raises(BridgeTAError, match="image has 8x6 pixels, its calibration is for 16x12"):
        decode_image(raw(RGB, "rgb8"), (16, 12), to_rgb=never)
    data = cv2.imencode(".jpg", RGB)[1].tobytes()
    with pytest.raises(BridgeTAError, match="image has 8x6 pixels, its calibration is for 16x12"):
        decode_image(EncodedImage(data[: data.index(b"\xff\xda") + 2], "jpeg"), (16, 12))


def test_long_texts_of_a_message_are_cut():
    class Message:
        format, data = "x" * 1_000_000, b""

    assert len(image_from_message(Message()).format) < 50
    with pytest.raises(BridgeTAError) as error:
        raw_to_rgb(replace(raw(RGB, "rgb8"), encoding="8UC" + "9" * 29))
    assert len(str(error.value)) < 300
