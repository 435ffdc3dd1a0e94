from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bridgeta_core.config import LiftConfig
from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.mapmask import MapRaster
from bridgeta_core.geometry import invert, project, rigid, transform
from bridgeta_core.grid import BevGrid
from bridgeta_core.model.lift import LiftPlan, depth_bins

WIDTH, HEIGHT = 64, 36
INTRINSICS = np.array([[50.0, 0.3, 30.0], [0, 45.0, 18.0], [0, 0, 1]])
EGO_T_CAM = rigid((1.7, 0.2, 1.5), (0.5, -0.5, 0.5, -0.5)) @ rigid((0, 0, 0), (0.9, 0.02, 0.3, 0.05))

shifts = st.tuples(st.floats(-5, 5), st.floats(-5, 5))
changes = st.builds(
    Change, flip=st.booleans(), angle=st.floats(-math.pi, math.pi), scale=st.floats(0.5, 1.5), shift=shifts
)


@given(change=changes, point=st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.floats(-2, 6)))
def test_a_changed_point_is_seen_at_the_changed_pixel(change, point):
    pixel, depth = project(INTRINSICS, transform(invert(EGO_T_CAM), np.array(point)))
    assume(depth > 0.5)
    changed_cam_T_ego = np.linalg.inv(change.ego_T_cam(EGO_T_CAM))  # in metres of the camera
    changed_point = transform(change.world, np.array(point))
    seen, changed_depth = project(change.intrinsics(INTRINSICS, WIDTH), transform(changed_cam_T_ego, changed_point))
    expected = (WIDTH - 1 - pixel[0], pixel[1]) if change.flip else pixel
    np.testing.assert_allclose(seen, expected, atol=1e-6, rtol=1e-9)
    assert changed_depth == pytest.approx(depth)


@given(change=changes)
def test_cameras_stay_proper_pinhole_cameras(change):
    rotation = change.ego_T_cam(EGO_T_CAM)[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, change.scale**2 * np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(change.scale**3)
    assert change.intrinsics(INTRINSICS, WIDTH)[0, 0] > 0


def test_a_flipped_image_shows_each_pixel_at_its_mirrored_place():
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    flipped = Change(flip=True).images(images)
    np.testing.assert_array_equal(flipped[1, 7, WIDTH - 1 - 5], images[1, 7, 5])


@given(change=changes, point=st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.floats(-2, 6)))
def test_the_world_is_turned_then_mirrored_then_scaled_then_shifted(change, point):
    x, y, z = point
    cos, sin = math.cos(change.angle), math.sin(change.angle)
    turned = np.array([cos * x - sin * y, sin * x + cos * y, z])
    mirrored = turned * (1, -1 if change.flip else 1, 1)
    expected = change.scale * mirrored + (*change.shift, 0)
    np.testing.assert_allclose(transform(change.world, np.array(point)), expected, atol=1e-9)


@settings(deadline=None)
@given(change=changes)
def test_the_lift_puts_every_depth_of_a_pixels_ray_where_the_changed_world_has_it(change):
    """Depths are the camera's own, which a change leaves alone; where they lie in the BEV follows it."""
    config = LiftConfig(depth_max=31.0, depth_step=2.0, grid=BevGrid(-60, 50, -40, 70, 0.5), z_min=-99, z_max=99)
    k, pose = INTRINSICS, EGO_T_CAM

    def plan(k, pose):
        k, pose = torch.from_numpy(np.ascontiguousarray(k)), torch.from_numpy(pose)
        return LiftPlan.build(k[None, None], pose[None, None], (1, 1), (HEIGHT, WIDTH), config)  # one cell: the middle

    changed = plan(change.intrinsics(k, WIDTH), change.ego_T_cam(pose))
    ray = np.linalg.inv(k) @ ((WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1)
    depths = depth_bins(config).numpy()
    points = transform(change.world @ pose, depths[:, None] * ray)
    cells = config.grid.to_cells(points[:, :2])
    assume(np.abs(cells - np.round(cells)).min() > 1e-3)
    column, row = np.floor(cells).astype(int).T
    rows, columns = config.grid.shape
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    found = dict(zip(changed.spread.source.tolist(), changed.spread.col.tolist(), strict=True))
    assert found == {int(i): int(row[i] * columns + column[i]) for i in np.flatnonzero(inside)}
    # The ground is met at the same depth as ever.
    torch.testing.assert_close(changed.ground, plan(k, pose).ground, rtol=1e-4, atol=1e-6)


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
    sure = shapely.distance(places, outline) > 1.5 * max(1.0, 1 / change.scale)
    np.testing.assert_array_equal(masks[4, ::7, ::7].reshape(-1)[sure], shapely.contains(areas, places)[sure])


def test_a_flip_of_a_symmetric_grid_mirrors_the_rows(small_root):
    raster = MapRaster.load(small_root, "boston-seaport")
    pose = rigid((3, 4, 0), (0.9, 0, 0, 0.3))
    plain = raster.masks(pose, BevGrid())
    np.testing.assert_array_equal(Change(flip=True).masks(raster, pose, BevGrid()), plain[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_a_shift_by_whole_cells_moves_the_labels_by_as_many(small_root, flip):
    raster = MapRaster.load(small_root, "boston-seaport")
    pose, grid = rigid((3, 4, 0), (1, 0, 0, 0)), BevGrid(-40, 30, -20, 45, 0.5)
    plain, moved = (Change(flip=flip, shift=shift).masks(raster, pose, grid) for shift in ((0, 0), (-2.5, 4.0)))
    inner = np.s_[:, 10:-10, 10:-10]
    # Not all of them: the patch cuts long edges elsewhere, and where they are cut their ends are rounded to cells.
    assert (np.roll(plain, (8, -5), (1, 2))[inner] != moved[inner]).mean() < 0.003
    assert (np.roll(plain, (7, -5), (1, 2))[inner] != moved[inner]).mean() > 0.006


def test_what_is_twice_as_large_is_labelled_on_twice_as_many_cells(small_root):
    """In a world of twice the size a cell of 0.5 m shows what one of 0.25 m did."""
    raster = MapRaster.load(small_root, "boston-seaport")
    pose = rigid((3, 4, 0), (0.9, 0, 0, 0.3))
    twice = Change(scale=2.0).masks(raster, pose, BevGrid(-40, 40, -40, 40, 0.5))
    np.testing.assert_array_equal(twice, raster.masks(pose, BevGrid(-20, 20, -20, 20, 0.25)))


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


def test_scales_fill_their_range_and_shifts_have_their_deviation():
    augment = Augment(scale=0.1, translate=0.5)
    drawn = [augment.draw(0, i) for i in range(2000)]
    scales = np.array([change.scale for change in drawn])
    assert 0.9 <= scales.min() < 0.905
    assert 1.095 < scales.max() <= 1.1
    shifts = np.array([change.shift for change in drawn])
    np.testing.assert_allclose(shifts.std(axis=0), 0.5, rtol=0.1)
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=0.05)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.1


def test_scale_and_shift_do_not_change_what_else_a_seed_draws():
    """The numbers are those of version 0.1, which knew neither."""
    known = Change(False, 0.14432149941038533, 0.8951007178995308, 1.049840792515428, 0.9758632280989056)
    assert Augment(rotate=30, colour=0.2, seed=3).draw(5, 17) == known
    drawn = Augment(rotate=30, colour=0.2, seed=3, scale=0.1, translate=0.5).draw(5, 17)
    assert drawn != known
    assert replace(drawn, scale=1.0, shift=(0.0, 0.0)) == known


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
