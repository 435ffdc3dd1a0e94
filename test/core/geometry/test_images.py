from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bridgeta_core.geometry.images import apply_fit, choose_reduction, decode_and_fit, to_planes
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.utils.errors import BridgeTAError


def smooth(width, height):
    """An image without detail finer than the coarsest reduction, in which red goes right and green goes down."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 60)], axis=-1).round().astype(np.uint8)


def encode(image, suffix=".jpg"):
    return cv2.imencode(suffix, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


@pytest.mark.parametrize(
    ("source", "size", "margin", "expected"),
    [
        ((1600, 900), (704, 256), 768 / 704, 2),
        ((1600, 900), (352, 128), 1.0, 4),
        ((1600, 900), (401, 128), 1.0, 2),
        ((400, 225), (352, 128), 1.0, 1),
        ((64, 36), (352, 128), 1.0, 1),
        ((400, 225), (64, 32), 1.0, 1),
        ((1600, 902), (352, 128), 1.0, 2),
    ],
)
def test_decodes_no_larger_than_needed_and_never_smaller(source, size, margin, expected):
    assert choose_reduction(ImageFit.bottom(source, size, margin)) == expected


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("source", [(640, 360), (641, 361), (320, 180), (160, 90)])
def test_the_picture_moves_as_the_matrix_says(source, suffix):
    """A pixel of the network's input shows what the intrinsics' transform says it does, at every reduction."""
    fit = ImageFit.bottom(source, (128, 48), margin=1.25)
    seen = decode_and_fit(encode(smooth(*source), suffix), fit)
    assert seen.shape == (48, 128, 3)
    u, v = np.meshgrid(np.arange(128), np.arange(48))
    there = np.linalg.inv(fit.matrix) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1).astype(float)
    red, green = there[0] / (source[0] - 1) * 255, there[1] / (source[1] - 1) * 255
    np.testing.assert_allclose(seen[..., 0].ravel(), red, atol=4)
    np.testing.assert_allclose(seen[..., 1].ravel(), green, atol=4)


def test_what_lies_outside_the_image_is_black():
    fit = ImageFit.bottom((160, 40), (80, 60))  # the resized image is only 20 pixels high
    seen = decode_and_fit(encode(smooth(160, 40)), fit)
    assert seen.shape == (60, 80, 3)
    assert not seen[:40].any()
    assert seen[40:, 40:, 2].min() > 40


def test_a_cut_wholly_outside_is_black():
    assert not apply_fit(smooth(20, 20), ImageFit((20, 20), (20, 20), (30, 30), (8, 8))).any()


def test_an_image_that_does_not_fit_its_calibration_is_refused():
    fit = ImageFit.bottom((1600, 900), (352, 128))
    with pytest.raises(BridgeTAError, match=r"its calibration is for 1600x900.*CameraInfo"):
        decode_and_fit(encode(smooth(640, 480)), fit)


def dot(size, place, width):
    """A grey image with one soft white dot at a pixel, `width` pixels its standard deviation."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    value = 40 + 200 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * width**2))
    return np.repeat(value.round().astype(np.uint8)[..., None], 3, axis=-1)


def centre(image):
    """Where the one dot of an image is, pixels."""
    weight = np.clip(image[..., 1].astype(float) - 60, 0, None)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


suffixes = st.sampled_from([".jpg", ".png"])
fits = st.builds(
    lambda source, size, margin, factor, place, mirrored, angle: replace(
        ImageFit.bottom(source, size, margin).resize(factor, place), mirrored=mirrored, angle=angle
    ),
    st.sampled_from([(640, 360), (400, 226), (241, 161)]),
    st.sampled_from([(128, 48), (96, 64)]),
    st.floats(1, 1.3),
    st.floats(0.75, 1.5),
    st.floats(0, 1),
    st.booleans(),
    st.one_of(st.just(0.0), st.floats(-0.3, 0.3), st.floats(-math.pi, math.pi)),
)


@settings(max_examples=150)
@given(
    fit=fits, place=st.tuples(st.floats(0.15, 0.85), st.floats(0.15, 0.85)), suffix=st.sampled_from([".jpg", ".png"])
)
def test_a_dot_lands_where_the_matrix_of_its_fit_says(fit, place, suffix):
    """Whatever the decoder's reduction, the resizing, the cut, the mirror and the turn."""
    there = np.array(place) * fit.size
    here = np.linalg.inv(fit.matrix) @ (*there, 1)
    width = 2 / max(fit.scale)
    assume(all(3 * width < x < s - 3 * width for x, s in zip(here, fit.source, strict=False)))
    seen = decode_and_fit(encode(dot(fit.source, here, width), suffix), fit)
    assert seen.shape == (fit.size[1], fit.size[0], 3)
    np.testing.assert_allclose(centre(seen), there, atol=0.1)


@settings(max_examples=50)
@given(fit=fits)
def test_black_is_what_the_matrix_takes_from_outside_the_image(fit):
    seen = apply_fit(np.full((fit.source[1], fit.source[0], 3), 200, np.uint8), fit)
    u, v = np.meshgrid(np.arange(fit.size[0]), np.arange(fit.size[1]))
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    x, y, _ = np.linalg.inv(fit.matrix) @ pixels
    beyond = np.maximum.reduce([-0.5 - x, x - fit.source[0] + 0.5, -0.5 - y, y - fit.source[1] + 0.5]) * max(fit.scale)
    seen = seen.reshape(-1, 3)
    assert (seen[beyond < -1] == 200).all()
    assert not seen[beyond > 1].any()


def test_a_mirrored_image_is_the_other_way_round_to_the_bit():
    fit = ImageFit.bottom((160, 90), (64, 32), 1.2)
    seen = apply_fit(smooth(160, 90), replace(fit, mirrored=True))
    np.testing.assert_array_equal(seen, apply_fit(smooth(160, 90), fit)[:, ::-1])
    assert seen.flags.c_contiguous


@pytest.mark.parametrize("factor", [0.25, 0.4, 0.52, 0.68, 0.8])
def test_a_turned_image_has_no_more_noise_than_a_resized_one(factor):
    """Detail that the network's pixels cannot show is averaged rather than sampled."""
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    fit = ImageFit.bottom((640, 360), (round(640 * factor), round(360 * factor)))
    resized, turned = apply_fit(noise, fit), apply_fit(noise, replace(fit, angle=1e-3))
    assert turned[8:-8, 8:-8].std() < 1.15 * resized[8:-8, 8:-8].std()


def test_planes_hold_a_colour_each():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_planes(images), images.transpose(0, 3, 1, 2))
