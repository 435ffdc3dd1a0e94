from __future__ import annotations

import gc
import re
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bridgeta_core.config.experiment import AugmentConfig, ImageConfig, LabelConfig, LidarConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import FrameDataset, collate
from bridgeta_core.data.maps.expansion import load_layers
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import decode_and_fit
from bridgeta_core.geometry.transforms import ImageFit, invert, transform
from bridgeta_core.utils.errors import BridgeTAError

VERSION, CAMERAS = "v1.0-mini", ("CAM_BACK", "CAM_FRONT")
IMAGE = ImageConfig(width=48, height=32, margin=1.0)
GRID = BevGrid(-30, 30, -20, 20, 1.0)
KEYFRAME = LidarConfig(sweeps=0, ego_radius=0.0)


def augmenting(seed=0, **changes):
    """Build what draws these changes alone."""
    return Augment(AugmentConfig(**{"flip": True, "colour": 0.0, **changes}), seed)


def dataset(root, scenes="all", augment=None, cameras=CAMERAS, **more):
    return FrameDataset(NuScenesDataset(root, VERSION), scenes, cameras, IMAGE, GRID, augment, **more)


def test_a_frame_holds_what_the_network_takes(small_root):
    data = dataset(small_root, lidar=KEYFRAME)
    frame, sample = data[2], data.sample(2)
    fit = ImageFit.bottom((64, 36), (48, 32))
    assert frame.token == sample.token == "scene-0103-0"
    assert frame.images.shape == (2, 3, 32, 48)
    for i, name in enumerate(CAMERAS):
        record = sample.records[name]
        picture = decode_and_fit(record.read_bytes(), fit)
        np.testing.assert_array_equal(frame.images[i].permute(1, 2, 0), picture)
        np.testing.assert_allclose(frame.intrinsics[i], fit.matrix @ record.intrinsics, rtol=1e-6)
        np.testing.assert_allclose(frame.ego_T_cam[i], record.ego_T_sensor, rtol=1e-6)
    raster = MapRaster.load(small_root, "boston-seaport")
    np.testing.assert_array_equal(frame.labels, raster.rasterise(sample.global_T_ego, GRID))
    assert tuple(frame.known.tolist()) == raster.known
    assert not frame.known.all()
    assert frame.points.shape == (50, 5)
    kinds = (frame.images.dtype, frame.intrinsics.dtype, frame.ego_T_cam.dtype, frame.labels.dtype, frame.known.dtype)
    assert kinds == (torch.uint8, torch.float32, torch.float32, torch.uint8, torch.bool)


def test_points_are_in_the_ego_frame_and_follow_the_augmentation(small_root):
    plain = dataset(small_root, lidar=KEYFRAME)[0]
    record = dataset(small_root).sample(0).record("LIDAR_TOP")
    read = np.fromfile(record.path, dtype="<f4").reshape(-1, 5)
    np.testing.assert_allclose(plain.points[:, :3], transform(record.ego_T_sensor, read[:, :3]), atol=1e-4)
    np.testing.assert_array_equal(plain.points[:, 3], read[:, 3])
    assert (plain.points[:, 4] == 0).all()
    data = dataset(small_root, augment=augmenting(rotate=90, scale=0.3, translate=2.0), lidar=KEYFRAME)
    epoch = next(e for e in range(9) if data.augment.draw(e, 0).flip)
    data.set_epoch(epoch)
    change = data.augment.draw(epoch, 0)
    np.testing.assert_allclose(data[0].points[:, :3], transform(change.world, plain.points[:, :3].numpy()), atol=1e-4)


def test_points_come_from_the_sweeps_between_the_keyframes(small_root):
    data = dataset(small_root, lidar=LidarConfig(sweeps=9, ego_radius=0.0))
    assert [len(data[i].points) for i in range(4)] == [50, 100, 50, 100]
    points = data[1].points
    np.testing.assert_array_equal(points[:50], dataset(small_root, lidar=KEYFRAME)[1].points)
    assert (points[50:, 4] == 0.25).all()
    assert torch.equal(data[1].points, points)


def test_points_that_hit_the_vehicle_are_left_out(small_root):
    data = dataset(small_root, lidar=LidarConfig(sweeps=0, ego_radius=15.0))
    record = data.sample(0).record("LIDAR_TOP")
    near = (np.abs(np.fromfile(record.path, dtype="<f4").reshape(-1, 5)[:, :2]) < 15).all(axis=1)
    assert near.any()
    everything = dataset(small_root, lidar=KEYFRAME)[0].points
    assert torch.equal(data[0].points, everything[torch.from_numpy(~near)])


def test_a_root_without_its_sweeps_gives_keyframes_and_says_so(broken_root, caplog):
    shutil.rmtree(broken_root / "sweeps")
    data = dataset(broken_root, lidar=LidarConfig(sweeps=9))
    assert re.search(r"scene-0061 has no LiDAR sweeps .* teacher\.lidar\.sweeps = 9 adds nothing", caplog.text)
    assert (data[1].points[:, 4] == 0).all()


def test_no_warning_where_sweeps_exist_or_are_not_wanted(small_root, caplog):
    dataset(small_root, lidar=LidarConfig(sweeps=9))
    dataset(small_root, lidar=LidarConfig(sweeps=0))
    dataset(small_root)
    assert not caplog.records


def test_a_single_sweep_that_is_missing_is_named(broken_root):
    (broken_root / "sweeps" / "LIDAR_TOP" / "scene-0061-0-LIDAR_TOP-1.pcd.bin").unlink()
    data = dataset(broken_root, lidar=LidarConfig(sweeps=1))
    with pytest.raises(BridgeTAError, match=r"scene-0061-0-LIDAR_TOP-1\.pcd\.bin: LiDAR file cannot be read"):
        data[1]


def test_a_label_stays_under_its_point_whatever_the_change(small_root):
    """Points deep inside a labelled area, or far from any, are so in every augmented frame."""
    import shapely

    data, augment = dataset(small_root), augmenting(rotate=180, scale=0.3, translate=3.0)
    raster, sample = data.maps["singapore-onenorth"], data.sample(0)
    areas = shapely.union_all(load_layers(small_root, "singapore-onenorth")["carpark_area"])
    points = np.random.default_rng(0).uniform((-60, -60, 0), (60, 60, 0), (4000, 3))
    places = shapely.points(transform(sample.global_T_ego, points)[:, :2])
    sure = shapely.distance(places, shapely.boundary(areas)) > 3.5  # cells are 1 m, and 1 / 0.7 m before scaling
    inside = shapely.contains(areas, places)
    checked = 0
    for epoch in range(12):
        change = augment.draw(epoch, 0)
        masks = change.rasterise(raster, sample.global_T_ego, GRID)
        column, row = np.floor(GRID.to_cells(transform(change.world, points)[:, :2])).astype(int).T
        seen = sure & (column >= 0) & (column < GRID.shape[1]) & (row >= 0) & (row < GRID.shape[0])
        np.testing.assert_array_equal(masks[4][row[seen], column[seen]], inside[seen])
        checked += seen.sum()
        assert 0.02 < inside[seen].mean() < 0.98
    assert checked > 1000


def test_augmented_cameras_see_a_point_at_the_mirrored_pixel(small_root):
    plain = dataset(small_root)[0]
    data = dataset(small_root, augment=augmenting(rotate=180, scale=0.4, translate=3.0))
    for epoch in range(6):
        data.set_epoch(epoch)
        frame, change = data[0], data.augment.draw(epoch, 0)
        for i in range(len(CAMERAS)):
            cam_T_ego = invert(plain.ego_T_cam[i].double().numpy())
            point = transform(invert(cam_T_ego), np.array([1.0, 0.5, 8.0]))
            u, v, w = plain.intrinsics[i].numpy() @ transform(cam_T_ego, point)
            changed_cam_T_ego = np.linalg.inv(frame.ego_T_cam[i].double().numpy())  # a similarity
            there = transform(changed_cam_T_ego, transform(change.world, point))
            seen = frame.intrinsics[i].numpy() @ there
            expected = (47 - u / w if change.flip else u / w, v / w)
            np.testing.assert_allclose(seen[:2] / seen[2], expected, atol=1e-3)


def test_images_are_augmented_singly_with_their_intrinsics(small_root):
    augment = Augment(
        AugmentConfig(flip=False, image_resize=[0.8, 1.2], image_flip=True, image_rotate=10.0, colour=0.0)
    )
    data = dataset(small_root, augment=augment)
    sample, plain = data.sample(1), dataset(small_root)[1]
    data.set_epoch(3)
    frame = data[1]
    fits = augment.draw_fits({name: ImageFit.bottom((64, 36), (48, 32)) for name in CAMERAS}, 3, 1)
    for i, name in enumerate(CAMERAS):
        record = sample.records[name]
        picture = decode_and_fit(record.read_bytes(), fits[name])
        np.testing.assert_array_equal(frame.images[i].permute(1, 2, 0), picture)
        np.testing.assert_allclose(frame.intrinsics[i], fits[name].matrix @ record.intrinsics, rtol=1e-5, atol=1e-5)
    for same in ("ego_T_cam", "labels"):
        assert torch.equal(getattr(frame, same), getattr(plain, same))


def test_the_epoch_reaches_persistent_workers(small_root):
    data = dataset(small_root, augment=augmenting(rotate=45, colour=0.3, image_rotate=5.0))
    loader = DataLoader(data, 4, collate_fn=collate, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        (batch,) = loader
        seen.append(batch)
        torch.testing.assert_close(batch.images[1], data[1].images)
    assert torch.equal(seen[0].images, seen[2].images)
    assert torch.equal(seen[0].labels, seen[2].labels)
    assert not torch.equal(seen[0].ego_T_cam, seen[1].ego_T_cam)
    assert not torch.equal(seen[0].intrinsics, seen[1].intrinsics)


def test_batches_stack_frames_and_keep_points_apart(small_root):
    data = dataset(small_root, lidar=KEYFRAME)
    frames = [data[0], data[3]]
    batch = collate(frames)
    assert batch.images.shape == (2, 2, 3, 32, 48)
    assert batch.labels.shape == (2, 6, *GRID.shape)
    assert batch.tokens == ["scene-0061-0", "scene-0103-1"]
    assert torch.equal(batch.known[1], frames[1].known)
    assert torch.equal(batch.points[1], frames[1].points)
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.points[0].device.type} == {"meta"}
    assert moved.tokens == batch.tokens
    assert collate([dataset(small_root)[0]]).points is None


def test_labels_are_made_as_the_settings_say(small_root):
    settings = LabelConfig(mode="exact", line_width=3.0)
    data = dataset(small_root, labels=settings)
    raster = MapRaster.load(small_root, "singapore-onenorth", settings)
    expected = raster.rasterise(data.sample(0).global_T_ego, GRID)
    np.testing.assert_array_equal(data[0].labels, expected)
    np.testing.assert_array_equal(data.read_labels(0)[0], expected)
    assert (expected != dataset(small_root).read_labels(0)[0]).any()


def test_lines_narrower_than_a_cell_are_refused_with_both_keys(small_root):
    narrow = r"labels\.line_width = 0\.9 m is less than a cell, grid\.resolution = 1 m: dividers would vanish"
    with pytest.raises(BridgeTAError, match=narrow) as caught:
        dataset(small_root, labels=LabelConfig(mode="exact", line_width=0.9))
    assert caught.value.exit_code == 2
    dataset(small_root, labels=LabelConfig(line_width=0.9))  # mode compatible draws lines 2 cells wide


def test_lines_as_wide_as_a_cell_may_be_scaled(small_root):
    augment = augmenting(scale=0.4)
    data = dataset(small_root, augment=augment, labels=LabelConfig(mode="exact", line_width=1.0))
    assert min(augment.draw(0, i).scale for i in range(4)) < 0.9
    assert all(data[i].labels[5].any() for i in (0, 1))


def test_labels_need_no_images(broken_root):
    for path in (broken_root / "samples").rglob("*.jpg"):
        path.unlink()
    data = dataset(broken_root, cameras=())
    masks, known = data.read_labels(3)
    assert masks.shape == (6, *GRID.shape)
    assert known.tolist() == [True, True, True, False, True, True]


def test_only_the_maps_of_the_chosen_scenes_are_needed(broken_root):
    (broken_root / "maps" / "expansion" / "boston-seaport.json").unlink()
    assert len(dataset(broken_root, "mini_train")) == 2
    with pytest.raises(BridgeTAError, match=r"boston-seaport\.json: the map expansion is missing"):
        dataset(broken_root, "mini_val")


def test_a_camera_that_the_samples_lack_is_said_at_once(small_root):
    with pytest.raises(BridgeTAError, match="has no CAM_LEFT; its sensors are CAM_BACK, CAM_FRONT"):
        FrameDataset(NuScenesDataset(small_root, VERSION), "all", ("CAM_LEFT",), IMAGE, GRID)


def test_a_selection_without_samples_is_an_error(small_root):
    with pytest.raises(BridgeTAError, match="hold no samples"):
        dataset(small_root, ",")


def _missing(path):
    path.unlink()


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-300])


def _not_an_image(path):
    path.write_bytes(b"hello")


def _other_size(path):
    import cv2

    cv2.imwrite(str(path), np.zeros((30, 30, 3), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, "CAM_FRONT file cannot be read"),
        (_truncated, "truncated"),
        (_not_an_image, "is not a JPEG, PNG, WebP or BMP image"),
        (_other_size, "30x30 pixels, its calibration is for 64x36"),
    ],
)
def test_a_bad_image_is_named(broken_root, damage, message):
    data = dataset(broken_root)
    path = data.sample(0).records["CAM_FRONT"].path
    damage(path)
    with pytest.raises(BridgeTAError, match=message) as error:
        data[0]
    assert str(error.value).startswith(f"{path}: ")


def test_an_error_of_a_loader_process_is_as_short_as_ours(broken_root):
    data = dataset(broken_root)
    path = data.sample(0).records["CAM_FRONT"].path
    path.unlink()
    with pytest.raises(BridgeTAError) as error:
        next(iter(DataLoader(data, 4, collate_fn=collate, num_workers=1)))
    assert str(error.value).startswith(f"{path}: CAM_FRONT file cannot be read")
    assert "Traceback" not in str(error.value)
    error.value.__traceback__ = None
    del error
    gc.collect()  # of the loader, which would otherwise live on into processes that later tests fork
