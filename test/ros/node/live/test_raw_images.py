"""Raw images: the live node, with cv_bridge, takes every encoding that the replay takes, and sees the same pixels."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

WIDTH, HEIGHT = 12, 8
# encoding -> bytes per pixel of a row, rows of the buffer per row of the image
ENCODINGS = {
    "rgb8": (3, 1.0),
    "bgr8": (3, 1.0),
    "rgba8": (4, 1.0),
    "bgra8": (4, 1.0),
    "mono8": (1, 1.0),
    "bayer_rggb8": (1, 1.0),
    "bayer_bggr8": (1, 1.0),
    "bayer_gbrg8": (1, 1.0),
    "bayer_grbg8": (1, 1.0),
    "yuv422_yuy2": (2, 1.0),
    "yuv422": (2, 1.0),
    "uyvy": (2, 1.0),
    "yuyv": (2, 1.0),
    "nv12": (1, 1.5),
    "nv21": (1, 1.5),
    "8UC1": (1, 1.0),
    "8UC3": (3, 1.0),
    "8UC4": (4, 1.0),
    "mono16": (2, 1.0),
    "rgb16": (6, 1.0),
}


@pytest.mark.parametrize("padding", [0, 4], ids=["packed", "padded"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_node_and_the_replay_see_the_same_pixels(encoding: str, padding: int) -> None:
    from bridgeta_ros.node.inputs import make_raw_decoder
    from bridgeta_ros.pipeline.images import RawImage, raw_to_rgb

    depth, rows = ENCODINGS[encoding]
    step = WIDTH * depth + padding
    data = np.random.default_rng(3).integers(0, 256, round(HEIGHT * rows) * step, dtype=np.uint8)
    image = RawImage(HEIGHT, WIDTH, encoding, step, data.tobytes())
    seen = make_raw_decoder()(image)
    assert seen.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(seen, raw_to_rgb(image))


def test_cv_bridge_is_not_asked_under_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridgeta_ros.node import inputs

    monkeypatch.setitem(sys.modules, "cv_bridge", types.SimpleNamespace(CvBridge=pytest.fail))
    monkeypatch.setattr(np, "__version__", "2.0.0")
    assert inputs.make_raw_decoder() is inputs.raw_to_rgb
