from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bridgeta_core.config.experiment import AugmentConfig, ImageConfig, LidarConfig, LiftConfig
from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.maps.expansion import load_layers
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import ImageFit, invert, project, rigid, transform
from bridgeta_core.model.lift import LiftPlan, depth_bins
from bridgeta_core.utils.errors import BridgeTAError

WIDTH, HEIGHT = 64, 36
INTRINSICS = np.array([[50.0, 0.3, 30.0], [0, 45.0, 18.0], [0, 0, 1]])
EGO_T_CAM = rigid((1.7, 0.2, 1.5), (0.5, -0.5, 0.5, -0.5)) @ rigid((0, 0, 0), (0.9, 0.02, 0.3, 0.05))

shifts = st.tuples(st.floats(-5, 5), st.floats(-5, 5))
changes = st.builds(
    Change, flip=st.booleans(), angle=st.floats(-math.pi, math.pi), scale=st.floats(0.5, 1.5), shift=shifts
)


def augmenting(seed=0, **changes):
    """Build what draws these changes alone."""
    return Augment(AugmentConfig(**{"flip": True, "colour": 0.0, **changes}), seed)


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
def test_the_world_is_turned_mirrored_scaled_then_shifted(change, point):
    x, y, z = point
    cos, sin = math.cos(change.angle), math.sin(change.angle)
    turned = np.array([cos * x - sin * y, sin * x + cos * y, z])
    mirrored = turned * (1, -1 if change.flip else 1, 1)
    expected = change.scale * mirrored + (*change.shift, 0)
    np.testing.assert_allclose(transform(change.world, np.array(point)), expected, atol=1e-9)


@given(change=changes)
def test_the_lift_follows_the_changed_world(change):
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


@settings(max_examples=25)
@given(change=changes, x=st.floats(-20, 20), y=st.floats(-20, 20), heading=st.floats(-3, 3))
def test_labels_are_found_where_the_changed_world_has_them(small_root, change, x, y, heading):
    """What is deep inside or far outside an area before the change is so after it."""
    import shapely

    raster = MapRaster.load(small_root, "singapore-onenorth")
    grid = BevGrid(-40, 30, -20, 45, 0.5)  # not symmetric about the vehicle
    pose = rigid((x, y, 0), (math.cos(heading / 2), 0, 0, math.sin(heading / 2)))
    masks = change.rasterise(raster, pose, grid)
    assert masks.shape == (6, *grid.shape)
    areas = shapely.union_all(load_layers(small_root, "singapore-onenorth")["carpark_area"])
    outline = shapely.boundary(areas)
    centres_x, centres_y = grid.centres()
    changed = np.stack([*np.meshgrid(centres_x, centres_y), np.zeros(grid.shape)], axis=-1)[::7, ::7].reshape(-1, 3)
    places = shapely.points(transform(pose @ np.linalg.inv(change.world), changed)[:, :2])
    sure = shapely.distance(places, outline) > 1.5 * max(1.0, 1 / change.scale)
    np.testing.assert_array_equal(masks[4, ::7, ::7].reshape(-1)[sure], shapely.contains(areas, places)[sure])


def test_a_flip_of_a_symmetric_grid_mirrors_the_rows(small_root):
    raster = MapRaster.load(small_root, "boston-seaport")
    pose = rigid((3, 4, 0), (0.9, 0, 0, 0.3))
    plain = raster.rasterise(pose, BevGrid())
    np.testing.assert_array_equal(Change(flip=True).rasterise(raster, pose, BevGrid()), plain[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_a_shift_by_whole_cells_moves_the_labels_by_as_many(small_root, flip):
    raster = MapRaster.load(small_root, "boston-seaport")
    pose, grid = rigid((3, 4, 0), (1, 0, 0, 0)), BevGrid(-40, 30, -20, 45, 0.5)
    plain, moved = (Change(flip=flip, shift=shift).rasterise(raster, pose, grid) for shift in ((0, 0), (-2.5, 4.0)))
    inner = np.s_[:, 10:-10, 10:-10]
    # Not all of them: the patch cuts long edges elsewhere, and where they are cut their ends are rounded to cells.
    assert (np.roll(plain, (8, -5), (1, 2))[inner] != moved[inner]).mean() < 0.003
    assert (np.roll(plain, (7, -5), (1, 2))[inner] != moved[inner]).mean() > 0.006


def test_doubled_scale_labels_twice_as_many_cells(small_root):
    """In a world of twice the size a cell of 0.5 m shows what one of 0.25 m did."""
    raster = MapRaster.load(small_root, "boston-seaport")
    pose = rigid((3, 4, 0), (0.9, 0, 0, 0.3))
    twice = Change(scale=2.0).rasterise(raster, pose, BevGrid(-40, 40, -40, 40, 0.5))
    np.testing.assert_array_equal(twice, raster.rasterise(pose, BevGrid(-20, 20, -20, 20, 0.25)))


def test_half_of_the_draws_flip_and_angles_fill_their_range():
    augment = augmenting(flip=True, rotate=30, colour=0.2)
    drawn = [augment.draw(0, i) for i in range(2000)]
    assert 0.45 < np.mean([change.flip for change in drawn]) < 0.55
    angles = np.degrees([change.angle for change in drawn])
    assert angles.min() < -28
    assert angles.max() > 28
    gains = np.array([(change.brightness, change.contrast, change.saturation) for change in drawn])
    assert (gains.min(axis=0) < 0.82).all()
    assert (gains.max(axis=0) > 1.18).all()


def test_scales_fill_their_range_and_shifts_have_their_deviation():
    augment = augmenting(scale=0.1, translate=0.5)
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
    assert augmenting(rotate=30, colour=0.2, seed=3).draw(5, 17) == known
    drawn = augmenting(rotate=30, colour=0.2, scale=0.1, translate=0.5, seed=3).draw(5, 17)
    assert drawn != known
    assert replace(drawn, scale=1.0, shift=(0.0, 0.0)) == known


def test_a_draw_depends_on_seed_epoch_and_sample_alone():
    augment = augmenting(rotate=30, colour=0.2, seed=3)
    assert augment.draw(5, 17) == augmenting(rotate=30, colour=0.2, seed=3).draw(5, 17)
    others = [
        augment.draw(6, 17),
        augment.draw(5, 18),
        augmenting(rotate=30, colour=0.2, seed=4).draw(5, 17),
    ]
    assert augment.draw(5, 17) not in others


def test_what_is_off_does_nothing():
    assert augmenting(flip=False).draw(1, 2) == Change()
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    assert Change().images(images) is images


def test_brightness_scales_and_saturation_zero_is_grey():
    images = np.random.default_rng(0).integers(20, 120, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.testing.assert_allclose(Change(brightness=1.5).images(images), images * 1.5, atol=0.55)
    grey = Change(saturation=0.0).images(images)
    np.testing.assert_allclose(grey[..., 0], images @ np.array([0.299, 0.587, 0.114]), atol=0.55)
    assert (grey == grey[..., :1]).all()


def test_zero_contrast_leaves_the_mean_grey_in_range():
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    flat = Change(contrast=0.0).images(images)
    assert np.ptp(flat) == 0
    assert abs(float(flat[0, 0, 0, 0]) - (images @ np.array([0.299, 0.587, 0.114])).mean()) < 0.6
    bright = Change(brightness=3.0).images(np.full((1, 2, 2, 3), 200, dtype=np.uint8))
    assert (bright == 255).all()


def test_front_and_back_change_places_half_of_the_time():
    """Without it no sample is mirrored so; with it all four ways of mirroring are as frequent."""
    ahead_left = np.array([10.0, 1.0, 0.0])
    places = []
    for augment in (
        augmenting(flip=False, flip_x=True),
        augmenting(flip_x=True),
    ):
        seen = [transform(augment.draw(0, i).world, ahead_left).round(6) for i in range(1000)]
        places.append({tuple(place): 0 for place in seen})
        for place in seen:
            places[-1][tuple(place)] += 1
    assert set(places[0]) == {(10, 1, 0), (-10, 1, 0)}
    assert set(places[1]) == {(10, 1, 0), (-10, 1, 0), (10, -1, 0), (-10, -1, 0)}
    assert all(450 < count < 550 for count in places[0].values())
    assert all(200 < count < 300 for count in places[1].values())


def test_angles_lie_about_straight_ahead_and_straight_back():
    drawn = [augmenting(rotate=45, flip_x=True).draw(0, i) for i in range(1000)]
    ahead = np.array([change.world[0, 0] for change in drawn])
    assert np.abs(ahead).min() > math.cos(math.radians(45)) - 1e-9
    assert 0.45 < (ahead > 0).mean() < 0.55


FITS = {name: ImageFit.bottom((1600, 900), (704, 256), 768 / 704) for name in ("CAM_FRONT", "CAM_BACK")}
PROTOCOL = {"image_resize": [0.38 / 0.48, 0.55 / 0.48], "image_flip": True, "image_rotate": 5.4}


def test_images_are_drawn_as_bevfusion_draws_them():
    """Resize 0.38 to 0.55; the cut 704x256 at the bottom, anywhere from left to right; half mirrored; 5.4 degrees."""
    fits = [fit for i in range(1000) for fit in augmenting(**PROTOCOL).draw_fits(FITS, 0, i).values()]
    scales = np.array([fit.scale for fit in fits])
    np.testing.assert_allclose([scales.min(), scales.max()], (0.38, 0.55), atol=2e-3)
    np.testing.assert_allclose(np.histogram(scales, 4)[0] / scales.size, 0.25, atol=0.04)
    assert all(fit.offset[1] == fit.resized[1] - 256 for fit in fits)
    places = np.array([fit.offset[0] / (fit.resized[0] - 704) for fit in fits if fit.resized[0] > 740])
    assert (places.min(), places.max()) == pytest.approx((0, 1), abs=0.02)
    np.testing.assert_allclose(np.histogram(places, 4)[0] / len(places), 0.25, atol=0.05)
    assert 0.45 < np.mean([fit.mirrored for fit in fits]) < 0.55
    angles = np.degrees([fit.angle for fit in fits])
    assert (angles.min(), angles.max()) == pytest.approx((-5.4, 5.4), abs=0.1)


def test_camera_sample_epoch_and_seed_each_change_the_draw():
    augment = augmenting(**PROTOCOL, seed=3)
    drawn = augment.draw_fits(FITS, 5, 17)
    assert drawn["CAM_FRONT"] != drawn["CAM_BACK"]
    assert drawn == augmenting(**PROTOCOL, seed=3).draw_fits(FITS, 5, 17)
    others = [(augment, 6, 17), (augment, 5, 18), (augmenting(**PROTOCOL, seed=4), 5, 17)]
    assert all(other.draw_fits(FITS, epoch, sample) != drawn for other, epoch, sample in others)


def test_images_without_their_augmentation_are_fitted_as_ever():
    assert augmenting(rotate=30, flip_x=True).draw_fits(FITS, 5, 17) == FITS


def test_what_images_draw_does_not_change_what_the_world_does():
    assert augmenting(rotate=30, **PROTOCOL, seed=3).draw(5, 17) == augmenting(rotate=30, seed=3).draw(5, 17)


@pytest.mark.parametrize("name", ["image_flip", "image_rotate"])
def test_what_is_off_does_not_change_what_images_draw_else(name):
    whole, part = (augmenting(**options).draw_fits(FITS, 0, 1) for options in (PROTOCOL, {**PROTOCOL, name: 0}))
    field = {"image_flip": "mirrored", "image_rotate": "angle"}[name]
    assert {camera: replace(fit, **{field: 0}) for camera, fit in whole.items()} == part


@pytest.mark.parametrize("factors", [[0.8], [1.2, 0.8], [0.8, 1.0, 1.2]])
def test_what_is_no_range_of_factors_is_refused(factors):
    with pytest.raises(BridgeTAError, match=r"data\.augment\.image_resize = \[.*is not a range.*such as") as caught:
        augmenting(image_resize=list(factors))
    assert caught.value.exit_code == 2


SIZE = (48, 32)
image_fits = st.builds(
    lambda factor, place, mirrored, angle: replace(
        ImageFit.bottom((WIDTH, HEIGHT), SIZE, 1.1).resize(factor, place), mirrored=mirrored, angle=angle
    ),
    st.floats(0.7, 1.6),
    st.floats(0, 1),
    st.booleans(),
    st.floats(-0.5, 0.5),
)


@given(
    change=changes, fit=image_fits, u=st.integers(0, SIZE[0] - 1), v=st.integers(0, SIZE[1] - 1), bin=st.integers(0, 14)
)
def test_the_lift_of_an_augmented_image_follows_the_scene(change, fit, u, v, bin):
    """A feature in pixel (u, v) of the network's input, seen at some depth: its cell is that of the scene's point that
    the camera sees there, found through the source image, in the changed world.
    """
    config = LiftConfig(depth_max=31.0, depth_step=2.0, grid=BevGrid(-90, 80, -70, 100, 0.5), z_min=-99, z_max=99)
    k = change.intrinsics(fit.matrix @ INTRINSICS, SIZE[0])
    plan = LiftPlan.build(
        torch.from_numpy(np.ascontiguousarray(k))[None, None],
        torch.from_numpy(change.ego_T_cam(EGO_T_CAM))[None, None],
        SIZE[::-1],  # a feature per pixel
        SIZE[::-1],
        config,
    )
    # Back to the source image step by step: the mirror of the world, the turn, the mirror of the image, cut and resize.
    x, y = SIZE[0] - 1 - u if change.flip else u, v
    turn = cv2.getRotationMatrix2D(((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2), math.degrees(fit.angle), 1)
    x, y = turn @ (x, y, 1)
    x = SIZE[0] - 1 - x if fit.mirrored else x
    x, y = ((p + o + 0.5) / s - 0.5 for p, o, s in zip((x, y), fit.offset, fit.scale, strict=True))
    depth = depth_bins(config).numpy()[bin]
    point = transform(EGO_T_CAM, depth * (np.linalg.inv(INTRINSICS) @ (x, y, 1)))
    cell = config.grid.to_cells(transform(change.world, point)[None, :2])[0]
    column, row = np.floor(cell).astype(int)
    rows, columns = config.grid.shape
    assume(np.abs(cell - np.round(cell)).min() > 1e-3 and 0 <= column < columns and 0 <= row < rows)
    entry = np.flatnonzero(plan.spread.source.numpy() == (v * SIZE[0] + u) * plan.bins + bin)
    assert plan.spread.col[entry].tolist() == [row * columns + column]
    # The ground is met where the ray of that pixel of the source meets it.
    slope = (EGO_T_CAM[:3, :3] @ np.linalg.inv(INTRINSICS) @ (x, y, 1))[2]
    height = EGO_T_CAM[2, 3]
    assert float(plan.ground[0, 0, v, u]) == pytest.approx(-slope / height, rel=1e-4, abs=1e-5)


def test_all_parts_of_an_augmented_frame_agree(broken_root, map_sheet):
    """A white dot on the ground in the picture: a LiDAR point on it is seen on the dot, and its label is under it. The
    map has car parks 8 m wide, every 16 m.
    """
    sheet = map_sheet()
    for x in range(-160, 160, 16):
        sheet.polygon("carpark_area", [(x, -99), (x + 8, -99), (x + 8, 99), (x, 99)])
    sheet.write(broken_root, "singapore-onenorth")
    grid, image = BevGrid(-40, 40, -40, 40, 0.5), ImageConfig(width=192, height=96, margin=1.1)
    augment = augmenting(rotate=45, scale=0.1, translate=0.5, flip_x=True, **PROTOCOL)
    keyframe = LidarConfig(sweeps=0, ego_radius=0.0)
    data = FrameDataset(
        NuScenesDataset(broken_root, "v1.0-mini"), "scene-0061", ["CAM_FRONT"], image, grid, augment, keyframe
    )
    sample = data.sample(0)
    camera, lidar = sample.record("CAM_FRONT"), sample.record("LIDAR_TOP")
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    random, labels = np.random.default_rng(0), []
    for epoch in range(150):
        ground = np.array([random.uniform(3, 35), random.uniform(-20, 20), 0.0])
        (u, v), depth = project(camera.intrinsics, transform(invert(camera.ego_T_sensor), ground))
        along = transform(sample.global_T_ego, ground)[0] % 16
        if depth < 1 or not (5 < u < WIDTH - 6 and 5 < v < HEIGHT - 6) or min(along % 8, 8 - along % 8) < 1.5:
            continue
        dot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 4)
        camera.path.write_bytes(cv2.imencode(".png", dot.astype(np.uint8))[1].tobytes())
        np.array([*transform(invert(lidar.ego_T_sensor), ground), 0, 0], dtype="<f4").tofile(lidar.path)
        data.set_epoch(epoch)
        frame = data[0]
        point = frame.points[0, :3].double().numpy()
        cam_T_ego = np.linalg.inv(frame.ego_T_cam[0].double().numpy())
        pixel, _ = project(frame.intrinsics[0].double().numpy(), transform(cam_T_ego, point))
        column, row = np.floor(grid.to_cells(point[None, :2]))[0].astype(int)
        if not (12 < pixel[0] < 180 and 12 < pixel[1] < 84 and 0 <= column < 160 and 0 <= row < 160):
            continue
        weight = frame.images[0, 0].double().numpy()
        rows, columns = np.indices(weight.shape)
        seen = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        np.testing.assert_allclose(seen, pixel, atol=0.25)
        assert frame.labels[4, row, column] == (along < 8)
        labels.append(along < 8)
    assert min(labels.count(True), labels.count(False)) > 10
