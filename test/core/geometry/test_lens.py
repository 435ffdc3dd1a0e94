"""Lenses become pinhole cameras as OpenCV's models say, and the crop shows the ground."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bridgeta_core.geometry.images import fit_images, fit_intrinsics
from bridgeta_core.geometry.lens import Undistortion, fit_camera, to_pinhole
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import ImageFit, project, transform

SIZE, MARGIN = (704, 256), 768 / 704
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # base_link <- optical frame, looking ahead


def look(pitch: float, yaw: float = 0.0, height: float = 1.0):
    """Place a camera that looks `pitch` degrees down."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZY", (yaw, pitch), degrees=True).as_matrix() @ OPTICAL
    pose[2, 3] = height
    return pose


def fisheye(width=1280, height=800, focal=320.0, d=(0.05, -0.01, 0.002, -0.001), pitch=30.0, **changes):
    k = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    return Camera("side", width, height, k, look(pitch), d, "equidistant", **changes)


lenses = st.builds(
    fisheye,
    width=st.sampled_from([640, 1280, 1920]),
    height=st.sampled_from([480, 800, 1080, 1536]),
    focal=st.floats(200, 700),
    d=st.tuples(st.floats(-0.05, 0.1), st.floats(-0.02, 0.02), st.floats(-0.005, 0.005), st.floats(-0.002, 0.002)),
    pitch=st.floats(-10, 90),
)


def read_maps(undistortion: Undistortion):
    """Return where the maps of cv2.remap point, in pixels of the camera's image `[h, w, 2]`."""
    whole, fraction = undistortion.maps
    places = whole + np.stack((fraction & 31, fraction >> 5), axis=-1) / 32
    matrix = np.linalg.inv(undistortion.resize.matrix)
    return places * (matrix[0, 0], matrix[1, 1]) + matrix[:2, 2]


@settings(max_examples=40)
@given(lenses)
def test_a_fisheye_map_agrees_with_cv2_fisheye_to_a_tenth_of_a_pixel(camera):
    fit = fit_camera(camera, SIZE, MARGIN)
    undistortion = Undistortion.build(camera, fit)
    v, u = np.nonzero(undistortion.inside)
    assume(v.size)
    (matrix,) = fit_intrinsics(Rig((camera,)), [fit])
    rays = np.stack((u, v, np.ones_like(u)), axis=1) @ np.linalg.inv(matrix).T
    nothing = np.zeros(3)
    expected, _ = cv2.fisheye.projectPoints(
        rays[:, None], nothing, nothing, camera.intrinsics, np.array(camera.distortion)
    )
    assert np.abs(read_maps(undistortion)[v, u] - expected[:, 0]).max() < 0.1


@settings(max_examples=40)
@given(lenses)
def test_a_fisheye_is_shown_no_farther_than_60_degrees_from_its_axis(camera):
    pinhole = to_pinhole(camera)
    assert np.array_equal(pinhole.ego_T_cam, camera.ego_T_cam)
    assert not pinhole.is_distorted
    k = pinhole.intrinsics
    assert k[0, 0] == k[1, 1]
    assert pinhole.width / 2 <= k[0, 0] * np.tan(np.radians(60)) * 1.001
    assert pinhole.height / 2 <= k[0, 0] * np.tan(np.radians(60)) + 1


@pytest.mark.parametrize("pitch", [0, 15, 30, 45])
def test_a_fisheye_shows_a_hundred_degrees_of_the_horizon(pitch):
    pinhole = to_pinhole(fisheye(pitch=pitch))
    angle = np.radians(50)
    side = (1e6 * np.array((np.cos(angle), np.sin(angle), 0))) @ pinhole.ego_T_cam[:3, :3]
    (u, _), depth = project(pinhole.intrinsics, side)
    assert depth > 0
    assert abs(u - -0.5) < 1


def test_a_narrow_equidistant_lens_is_shown_to_its_rim():
    camera = fisheye(1600, 900, focal=1000.0, d=(0.0,) * 4)
    pinhole = to_pinhole(camera)
    assert np.isclose(pinhole.width / 2 / pinhole.intrinsics[0, 0], np.tan(800 / 1000), rtol=1e-4)
    assert np.isclose(pinhole.height / 2 / pinhole.intrinsics[1, 1], np.tan(450 / 1000), rtol=2e-3)


@pytest.mark.parametrize("pitch", [-5, 0, 10, 20, 30, 45, 50])
def test_the_crop_of_a_fisheye_has_the_horizon_a_quarter_from_its_top(pitch):
    camera = fisheye(pitch=pitch)
    fit = fit_camera(camera, SIZE, MARGIN)
    horizon = (np.array((1e6, 0.0, 1.0)) - camera.ego_T_cam[:3, 3]) @ camera.ego_T_cam[:3, :3]
    (u, v), depth = project(fit_intrinsics(Rig((camera,)), [fit])[0], horizon)
    assert depth > 0
    assert 0.15 * SIZE[1] < v < 0.3 * SIZE[1]
    assert np.isclose(u, 351.5, atol=1)


@pytest.mark.parametrize("pitch", range(-90, 91, 15))
def test_the_crop_of_a_fisheye_stays_in_its_image_at_any_pitch(pitch):
    camera = fisheye(pitch=pitch)
    fit = fit_camera(camera, SIZE, MARGIN)
    assert fit.offset[1] >= 0
    assert fit.offset[1] + SIZE[1] <= fit.resized[1]
    assert Undistortion.build(camera, fit).inside.mean() > 0.95


@pytest.mark.parametrize("turn", [np.eye(3), np.diag([1.0, -1, -1]), np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])])
def test_a_fisheye_without_a_horizon_in_sight_has_a_crop_too(turn):
    pose = np.eye(4)
    pose[:3, :3] = turn
    fit = fit_camera(replace(fisheye(), ego_T_cam=pose), SIZE, MARGIN)
    assert 0 <= fit.offset[1] <= fit.resized[1] - SIZE[1]


def test_a_fisheye_image_becomes_what_a_pinhole_camera_sees():
    camera = fisheye(pitch=0)

    def colour(x, y):
        return np.stack([127 + 100 * np.sin(w) for w in (9 * x, 9 * y, 6 * (x + y))], -1)

    u, v = np.meshgrid(np.arange(1280.0), np.arange(800.0))
    rays = cv2.fisheye.undistortPoints(
        np.stack((u, v), -1).reshape(-1, 1, 2), camera.intrinsics, np.array(camera.distortion)
    ).reshape(800, 1280, 2)
    image = colour(rays[..., 0], rays[..., 1]).clip(0, 255).astype(np.uint8)
    fit = fit_camera(camera, SIZE, MARGIN)
    undistortion = Undistortion.build(camera, fit)
    u, v = np.meshgrid(np.arange(704.0), np.arange(256.0))
    x, y, _ = np.linalg.inv(fit.matrix @ to_pinhole(camera).intrinsics) @ np.stack(
        (u.ravel(), v.ravel(), u.ravel() ** 0)
    )
    expected = colour(x, y).reshape(256, 704, 3)
    difference = np.abs(undistortion.apply(image) - expected)[undistortion.inside]
    assert difference.mean() < 1
    assert np.percentile(difference, 99.9) < 6


@pytest.mark.parametrize("d", [(-0.33, 0.12, 0.0005, -0.0003, -0.02), (0.4, 0.1, 0.0, 0.0, 0.05)])
def test_a_polynomial_map_agrees_with_cv2(d):
    k = np.array([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]])
    camera = Camera("front", 1600, 900, k, look(0), d)
    fit = fit_camera(camera, SIZE, MARGIN)
    assert fit == ImageFit.bottom((1600, 900), SIZE, MARGIN)
    undistortion = Undistortion.build(camera, fit)
    v, u = np.nonzero(undistortion.inside)
    rays = np.stack((u, v, np.ones_like(u)), axis=1) @ np.linalg.inv(fit.matrix @ k).T
    expected = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), k, np.array(d))[0][:, 0]
    assert np.abs(read_maps(undistortion)[v, u] - expected).max() < 0.1
    assert undistortion.inside.mean() > 0.9


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", (-0.6, 0.0, 0.0, 0.0)),
        ("rational_polynomial", (0.0, 0.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0)),
        ("equidistant", (-0.9, 0.0, 0.0, 0.0)),
    ],
)
def test_a_distortion_that_folds_back_shows_nothing_twice(model, d):
    k = np.array([[500.0, 0, 639.5], [0, 500.0, 359.5], [0, 0, 1]])
    camera = Camera("front", 1280, 720, k, look(0), d, model)
    undistortion = Undistortion.build(camera, fit_camera(camera, SIZE, MARGIN))
    places = read_maps(undistortion)
    assert 0.05 < undistortion.inside.mean() < 1
    for row, inside in zip(places[..., 0], undistortion.inside, strict=True):
        assert (np.diff(row[inside]) > -0.1).all()  # fixed-point places
    white = undistortion.apply(np.full((720, 1280, 3), 255, np.uint8))
    assert not white[cv2.erode((~undistortion.inside).astype(np.uint8), np.ones((3, 3))) > 0].any()


@pytest.mark.parametrize("height", [400, 600, 1024, 1440])
def test_a_crop_ends_at_the_row_that_is_asked_for(height):
    k = np.array([[512.0, 0, 511.5], [0, 512, height / 2 - 0.5], [0, 0, 1]])
    for bottom in (height, height - 100, height // 2):
        camera = Camera("front", 1024, height, k, look(0), crop_bottom=bottom)
        fit = fit_images(Rig((camera,)), SIZE, MARGIN)["front"]
        # The lower edge of the last row of pixels in the network input is that of the row above `bottom`.
        edge = np.linalg.inv(fit.matrix) @ (0, SIZE[1] - 0.5, 1)
        assert abs(edge[1] - (bottom - 0.5)) <= 0.5 / fit.scale[1] + 1e-6


def test_an_absurd_lens_is_still_answered():
    camera = fisheye(d=(1e300,) * 4)
    assert Undistortion.build(camera, fit_camera(camera, SIZE, MARGIN)).inside.shape == (256, 704)


def test_the_crop_of_a_fisheye_ends_at_the_row_of_its_own_image():
    camera = fisheye(crop_bottom=650)
    undistortion = Undistortion.build(camera, fit_camera(camera, SIZE, MARGIN))
    assert abs(read_maps(undistortion)[-1, SIZE[0] // 2, 1] - 649.5) < 2


def test_the_ground_under_a_fisheye_projects_into_its_network_input():
    camera = fisheye(pitch=30)
    fit = fit_camera(camera, SIZE, MARGIN)
    undistortion = Undistortion.build(camera, fit)
    point = np.array((4.0, 1.0, 0.0))
    local = transform(np.linalg.inv(camera.ego_T_cam), point)
    (u, v), _ = project(fit_intrinsics(Rig((camera,)), [fit])[0], local)
    image, _ = cv2.fisheye.projectPoints(
        local[None, None], np.zeros(3), np.zeros(3), camera.intrinsics, np.array(camera.distortion)
    )
    picture = np.zeros((800, 1280, 3), np.uint8)
    cv2.circle(picture, tuple(np.round(image.ravel()).astype(int).tolist()), 6, (255, 255, 255), cv2.FILLED)
    seen = undistortion.apply(picture)[..., 0].astype(float)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    assert np.isclose((seen * columns).sum() / seen.sum(), u, atol=0.6)
    assert np.isclose((seen * rows).sum() / seen.sum(), v, atol=0.6)
