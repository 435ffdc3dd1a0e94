from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.mapmask import MapRaster
from bridgeta_core.geometry import invert, project, rigid, transform
from bridgeta_core.grid import BevGrid

WIDTH, HEIGHT = 64, 36
INTRINSICS = np.array([[50.0, 0.3, 30.0], [0, 45.0, 18.0], [0, 0, 1]])
EGO_T_CAM = rigid((1.7, 0.2, 1.5), (0.5, -0.5, 0.5, -0.5)) @ rigid((0, 0, 0), (0.9, 0.02, 0.3, 0.05))

changes = st.builds(Change, flip=st.booleans(), angle=st.floats(-math.pi, math.pi))


@given(change=changes, point=st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.floats(-2, 6)))
def test_a_changed_point_is_seen_at_the_changed_pixel(change, point):
    pixel, depth = project(INTRINSICS, transform(invert(EGO_T_CAM), np.array(point)))
    assume(depth > 0.5)
    changed_cam_T_ego = invert(change.ego_T_cam(EGO_T_CAM))
    changed_point = transform(change.world, np.array(point))
    seen, changed_depth = project(change.intrinsics(INTRINSICS, WIDTH), transform(changed_cam_T_ego, changed_point))
    expected = (WIDTH - 1 - pixel[0], pixel[1]) if change.flip else pixel
    np.testing.assert_allclose(seen, expected, atol=1e-6, rtol=1e-9)
    assert changed_depth == pytest.approx(depth)


@given(change=changes)
def test_cameras_stay_proper_pinhole_cameras(change):
    rotation = change.ego_T_cam(EGO_T_CAM)[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert change.intrinsics(INTRINSICS, WIDTH)[0, 0] > 0


def test_a_flipped_image_shows_each_pixel_at_its_mirrored_place():
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    flipped = Change(flip=True).images(images)
    np.testing.assert_array_equal(flipped[1, 7, WIDTH - 1 - 5], images[1, 7, 5])


@settings(max_examples=25, deadline=None)
@given(change=changes, x=st.floats(-20, 20), y=st.floats(-20, 20), heading=st.floats(-3, 3))
def test_labels_are_found_where_the_changed_world_has_them(small_root, change, x, y, heading):
    """What is deep inside or far outside an area before the change is so after it."""
    import shapely

    raster = MapRaster.load(small_root, "singapore-onenorth")
    grid = BevGrid(-40, 30, -20, 45, 0.5)  # not symmetric about the vehicle
    pose = rigid((x, y, 0), (math.cos(heading / 2), 0, 0, math.sin(heading / 2)))
    masks = change.masks(raster, pose, grid)
    assert masks.shape == (6, *grid.shape)
    areas = shapely.union_all(raster._layers["carpark_area"][0].shapes)
    outline = shapely.boundary(areas)
    centres_x, centres_y = grid.centres()
    changed = np.stack([*np.meshgrid(centres_x, centres_y), np.zeros(grid.shape)], axis=-1)[::7, ::7].reshape(-1, 3)
    places = shapely.points(transform(pose @ np.linalg.inv(change.world), changed)[:, :2])
    sure = shapely.distance(places, outline) > 1.5
    np.testing.assert_array_equal(masks[4, ::7, ::7].reshape(-1)[sure], shapely.contains(areas, places)[sure])


def test_a_flip_of_a_symmetric_grid_mirrors_the_rows(small_root):
    raster = MapRaster.load(small_root, "boston-seaport")
    pose = rigid((3, 4, 0), (0.9, 0, 0, 0.3))
    plain = raster.masks(pose, BevGrid())
    np.testing.assert_array_equal(Change(flip=True).masks(raster, pose, BevGrid()), plain[:, ::-1])


def test_half_of_the_draws_flip_and_angles_fill_their_range():
    augment = Augment(flip=True, rotate=30, colour=0.2)
    drawn = [augment.draw(0, i) for i in range(2000)]
    assert 0.45 < np.mean([change.flip for change in drawn]) < 0.55
    angles = np.degrees([change.angle for change in drawn])
    assert angles.min() < -28
    assert angles.max() > 28
    gains = np.array([(change.brightness, change.contrast, change.saturation) for change in drawn])
    assert (gains.min(axis=0) < 0.82).all()
    assert (gains.max(axis=0) > 1.18).all()


def test_a_draw_depends_on_seed_epoch_and_sample_alone():
    augment = Augment(rotate=30, colour=0.2, seed=3)
    assert augment.draw(5, 17) == Augment(rotate=30, colour=0.2, seed=3).draw(5, 17)
    others = [augment.draw(6, 17), augment.draw(5, 18), Augment(rotate=30, colour=0.2, seed=4).draw(5, 17)]
    assert augment.draw(5, 17) not in others


def test_what_is_off_does_nothing():
    assert Augment(flip=False).draw(1, 2) == Change()
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    assert Change().images(images) is images


def test_brightness_scales_and_saturation_zero_is_grey():
    images = np.random.default_rng(0).integers(20, 120, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.testing.assert_allclose(Change(brightness=1.5).images(images), images * 1.5, atol=0.55)
    grey = Change(saturation=0.0).images(images)
    np.testing.assert_allclose(grey[..., 0], images @ np.array([0.299, 0.587, 0.114]), atol=0.55)
    assert (grey == grey[..., :1]).all()


def test_contrast_zero_leaves_the_mean_grey_and_values_stay_in_range():
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    flat = Change(contrast=0.0).images(images)
    assert np.ptp(flat) == 0
    assert abs(float(flat[0, 0, 0, 0]) - (images @ np.array([0.299, 0.587, 0.114])).mean()) < 0.6
    bright = Change(brightness=3.0).images(np.full((1, 2, 2, 3), 200, dtype=np.uint8))
    assert (bright == 255).all()
