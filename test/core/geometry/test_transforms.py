from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation

from bridgeta_core.geometry.transforms import ImageFit, invert, planar, project, quaternion, rigid, transform, yaw
from bridgeta_core.utils.errors import BridgeTAError

metres = st.floats(-1e4, 1e4)
translations = st.tuples(metres, metres, metres)
components = st.floats(-1, 1)
quaternions = st.tuples(components, components, components, components).filter(lambda q: np.linalg.norm(q) > 0.05)
poses = st.builds(rigid, translations, quaternions)


@given(translations, quaternions)
def test_rigid_agrees_with_pyquaternion(t, q):
    expected = Quaternion(*q).normalised.transformation_matrix
    expected[:3, 3] = t
    np.testing.assert_allclose(rigid(t, q), expected, atol=1e-9)


@given(quaternions)
def test_quaternion_agrees_with_scipy_and_has_positive_w(q):
    pose = rigid((0, 0, 0), q)
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    ours = quaternion(pose)
    assert ours[0] >= 0
    assert abs(ours @ (w, x, y, z)) == pytest.approx(1)
    np.testing.assert_allclose(rigid((0, 0, 0), ours), pose, atol=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_quaternion_of_a_half_turn(axis):
    """The trace is -1 there, which naive formulas divide by."""
    expected = np.zeros(4)
    expected[1 + axis] = 1
    np.testing.assert_allclose(np.abs(quaternion(rigid((0, 0, 0), expected))), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("t", "q"), [((0, 0, 0), (0, 0, 0, 0)), ((0, 0, math.nan), (1, 0, 0, 0)), ((0, 0, 0), (math.inf, 0, 0, 0))]
)
def test_what_is_not_a_transform_is_refused(t, q):
    with pytest.raises(BridgeTAError, match="not a rigid transform"):
        rigid(t, q)


@given(poses, st.lists(translations, min_size=1, max_size=4))
def test_the_inverse_undoes(pose, points):
    np.testing.assert_allclose(transform(invert(pose), transform(pose, np.array(points))), points, atol=1e-6)
    np.testing.assert_allclose(invert(pose), np.linalg.inv(pose), atol=1e-6)


@given(poses, poses, translations)
def test_transforms_chain_by_their_names(a_T_b, b_T_c, point_c):
    point_c = np.array(point_c)
    expected = (a_T_b @ b_T_c @ np.append(point_c, 1))[:3]
    np.testing.assert_allclose(transform(a_T_b, transform(b_T_c, point_c)), expected, atol=1e-6)


def test_transform_takes_any_leading_axes():
    pose = rigid((1, 2, 3), (1, 0.2, 0, 0.4))
    points = np.random.default_rng(0).normal(size=(2, 3, 5, 3))
    assert transform(pose, points).shape == points.shape
    np.testing.assert_allclose(transform(pose, points)[1, 2, 3], transform(pose, points[1, 2, 3]))


@given(poses)
def test_yaw_equals_pyquaternions_heading_of_the_x_axis(pose):
    ahead = pose[:2, 0]
    assume(np.linalg.norm(ahead) > 1e-3)
    heading = Quaternion(*quaternion(pose)).rotate(np.array([1.0, 0, 0]))
    difference = yaw(pose) - math.atan2(heading[1], heading[0])
    assert math.remainder(difference, 2 * math.pi) == pytest.approx(0, abs=1e-6)  # straight back is pi and -pi


@given(translations, st.floats(-3.1, 3.1), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_planar_keeps_place_and_heading_and_drops_roll_and_pitch(t, heading, pitch, roll):
    w, x, y, z = np.roll(Rotation.from_euler("ZYX", (heading, pitch, roll)).as_quat(), 1)
    level = planar(rigid(t, (w, x, y, z)))
    expected = rigid(t, (math.cos(heading / 2), 0, 0, math.sin(heading / 2)))
    np.testing.assert_allclose(level, expected, atol=1e-9)


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.5, 50)), min_size=1, max_size=6))
def test_projection_agrees_with_opencv(points):
    intrinsics = np.array([[1266.4, 0, 816.3], [0, 1260.1, 491.5], [0, 0, 1]])
    pixels, depth = project(intrinsics, np.array(points))
    expected, _ = cv2.projectPoints(np.array(points), np.zeros(3), np.zeros(3), intrinsics, None)
    np.testing.assert_allclose(pixels, expected[:, 0], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(depth, np.array(points)[:, 2])


def test_points_behind_the_camera_are_finite_with_their_depth():
    pixels, depth = project(np.diag([100.0, 100, 1]), np.array([[1, 1, 0], [1, 1, -5], [1, 1, 5]]))
    assert np.isfinite(pixels).all()
    assert (depth > 0).tolist() == [False, False, True]


def test_the_fit_of_the_protocol():
    fit = ImageFit.bottom((1600, 900), (704, 256), margin=768 / 704)
    assert fit.resized == (768, 432)
    assert fit.offset == (32, 176)
    assert fit.scale == (0.48, 0.48)


sizes = st.tuples(st.integers(16, 2000), st.integers(16, 1200))


@given(sizes, st.tuples(st.integers(16, 800), st.integers(16, 400)), st.floats(1, 2))
def test_a_fit_is_centred_and_keeps_the_bottom(source, size, margin):
    fit = ImageFit.bottom(source, size, margin)
    assert fit.offset[1] + fit.size[1] == fit.resized[1]
    left, right = fit.offset[0], fit.resized[0] - fit.size[0] - fit.offset[0]
    assert 0 <= right - left <= 1
    assert fit.resized[0] / source[0] == pytest.approx(margin * size[0] / source[0], abs=0.51 / source[0])


@given(sizes, st.tuples(st.integers(16, 800), st.integers(16, 400)), st.floats(1, 2))
def test_the_matrix_maps_image_corners_to_resized_corners(source, size, margin):
    fit = ImageFit.bottom(source, size, margin)
    outer = np.array([[-0.5, source[0] - 0.5], [-0.5, source[1] - 0.5], [1, 1]])
    mapped = (fit.matrix @ outer)[:2] + np.array(fit.offset)[:, None]
    np.testing.assert_allclose(mapped, [[-0.5, fit.resized[0] - 0.5], [-0.5, fit.resized[1] - 0.5]], atol=1e-6)


def test_a_training_fit_of_the_protocol():
    """Resize 0.55 of 0.38 to 0.55, a quarter of the way from the left, is 880x495 cut at (44, 239)."""
    fit = ImageFit.bottom((1600, 900), (704, 256), margin=768 / 704).resize(0.55 / 0.48, 0.25)
    assert (fit.resized, fit.offset) == ((880, 495), (44, 239))


@given(sizes, st.tuples(st.integers(16, 800), st.integers(16, 400)), st.floats(0.5, 2), st.floats(0, 1))
def test_a_resized_fit_keeps_the_bottom_and_stays_in_range(source, size, factor, place):
    fit = ImageFit.bottom(source, size, 1.2)
    other = fit.resize(factor, place)
    assert other.offset[1] + other.size[1] == other.resized[1]
    over = other.resized[0] - other.size[0]
    assert min(over, 0) <= other.offset[0] <= max(over, 0)
    assert fit.resize(factor, 0).offset[0] == 0
    assert fit.resize(factor, 1).offset[0] == over
    assert other.resized[0] == pytest.approx(factor * fit.resized[0], abs=0.51)


@given(
    sizes,
    st.tuples(st.integers(16, 800), st.integers(16, 400)),
    st.floats(0.5, 2),
    st.floats(0, 1),
    st.booleans(),
    st.floats(-math.pi, math.pi),
)
def test_the_matrix_is_that_of_bevfusions_image_augmentation(source, size, factor, place, mirrored, angle):
    """Its ImageAug3D composes rotation and translation in coordinates whose origin is the image's corner; and it turns
    the other way round.
    """
    fit = replace(ImageFit.bottom(source, size, 1.2).resize(factor, place), mirrored=mirrored, angle=angle)
    rotation = np.diag(fit.scale)
    translation = -np.array(fit.offset, dtype=float)
    if mirrored:
        a, b = np.array([[-1, 0], [0, 1]]), np.array([size[0], 0])
        rotation, translation = a @ rotation, a @ translation + b
    theta = -angle
    a = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
    b = np.array(size) / 2
    b = a @ -b + b
    rotation, translation = a @ rotation, a @ translation + b
    pixels = np.random.default_rng(0).uniform(0, 1, (5, 2)) * source
    expected = (pixels + 0.5) @ rotation.T + translation - 0.5
    np.testing.assert_allclose(pixels @ fit.matrix[:2, :2].T + fit.matrix[:2, 2], expected, atol=1e-8)
    np.testing.assert_array_equal(fit.matrix[2], (0, 0, 1))
