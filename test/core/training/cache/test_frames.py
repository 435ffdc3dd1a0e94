"""Frames on disk: equal to decoded ones, shared where they are the same, built again where they are not."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bridgeta_core.config.experiment import AugmentConfig, ImageConfig, LabelConfig, LidarConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Taps
from bridgeta_core.training.cache import frames as cached_frames
from bridgeta_core.training.cache.frames import CachedFrames
from bridgeta_core.training.cache.taps import BatchWithTaps, FrameWithTaps, collate_with_taps
from bridgeta_core.training.train import train_student
from bridgeta_core.utils.errors import BridgeTAError

LIDAR = LidarConfig(sweeps=1)
EXACT = LabelConfig(mode="exact", line_width=4.0)
IMAGE = ImageConfig(width=32, height=32, margin=1.0)


def dataset(root: Path, scenes: str = "all", **options) -> FrameDataset:
    image = options.pop("image", IMAGE)
    cameras = ("CAM_FRONT", "CAM_BACK")
    return FrameDataset(NuScenesDataset(root, "v1.0-mini"), scenes, cameras, image, BevGrid(resolution=4.0), **options)


def teacher(batch) -> Taps:
    """Taps that tell the batch's frames apart, by images and points."""
    mean = batch.images.float().mean((1, 2, 3, 4)) + torch.stack([points[:, 0].mean() for points in batch.points])
    return Taps(*(mean.view(-1, 1, 1, 1) * torch.ones(1, c, 2, 2) for c in (3, 4, 6)))


@pytest.fixture(scope="module")
def folder(small_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    cache = CachedFrames(dataset(small_root), folder)
    cache.add_points(LIDAR)
    cache.add_taps(teacher, "abc", LIDAR, size=3)
    return folder


@pytest.fixture
def cached(small_root, folder, monkeypatch) -> CachedFrames:
    def forbidden(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cached_frames, "build_once", forbidden)
    return CachedFrames(dataset(small_root), folder)


def same(a, b, names=("images", "intrinsics", "ego_T_cam", "labels", "known")) -> bool:
    return a.token == b.token and all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def test_cached_frames_equal_the_datasets(small_root, cached):
    decoded = dataset(small_root)
    assert len(cached) == len(decoded) == 4
    assert all(same(cached[i], decoded[i]) for i in range(4))
    assert cached[0].points is None


def test_building_a_cache_draws_no_random_numbers(small_root, tmp_path):
    before = torch.get_rng_state()
    cache = CachedFrames(dataset(small_root), tmp_path)
    cache.add_points(LIDAR)
    cache.add_taps(teacher, "abc", LIDAR, size=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_cached_frames_are_never_augmented(small_root, folder, cached):
    augmented = dataset(small_root, augment=Augment(AugmentConfig(flip=True, rotate=20, colour=0.0)))
    assert same(CachedFrames(augmented, folder)[1], cached[1])
    assert augmented.augment is not None


def test_cached_points_equal_those_of_a_dataset_with_lidar(small_root, cached):
    decoded = dataset(small_root, lidar=LIDAR)
    cached.add_points(LIDAR)
    assert all(same(cached[i], decoded[i], ("points",)) for i in range(4))


def test_cached_taps_are_the_teachers_in_half_precision(small_root, cached):
    decoded = collate_with_taps([dataset(small_root, lidar=LIDAR)[i] for i in range(4)])
    cached.add_taps(teacher, "abc", LIDAR, size=3)
    batch = collate_with_taps([cached[i] for i in range(4)])
    assert isinstance(batch, BatchWithTaps)
    assert batch.points is None
    taps = batch.to("cpu").taps
    for name in ("F", "D", "Z"):
        assert torch.equal(getattr(taps, name), getattr(teacher(decoded), name).half())


def test_frames_with_and_without_taps_make_a_batch_without(cached):
    plain = cached[0]
    cached.add_taps(teacher, "abc", LIDAR, size=3)
    assert isinstance(cached[1], FrameWithTaps)
    assert not isinstance(collate_with_taps([plain, cached[1]]), BatchWithTaps)


def test_another_choice_of_scenes_shares_the_cache(small_root, folder, cached):
    some = CachedFrames(dataset(small_root, "scene-0103"), folder)
    assert [some[i].token for i in range(2)] == ["scene-0103-0", "scene-0103-1"]
    assert same(some[1], cached[3])


@pytest.mark.parametrize(
    ("change", "adds"),
    [
        (lambda cache, root: CachedFrames(dataset(root, image=replace(IMAGE, width=64)), cache), 2),
        (lambda cache, root: CachedFrames(dataset(root, labels=EXACT), cache), 2),
        (lambda cache, root: CachedFrames(dataset(root, labels=replace(EXACT, line_width=5.0)), cache), 2),
        (lambda cache, root: CachedFrames(dataset(root, labels=LabelConfig(line_width=5.0)), cache), 0),
        (lambda cache, root: CachedFrames(dataset(root), cache).add_points(replace(LIDAR, sweeps=0)), 2),
        (lambda cache, root: CachedFrames(dataset(root), cache).add_taps(teacher, "d", LIDAR, 2), 2),
        (lambda cache, root: CachedFrames(dataset(root), cache).add_points(replace(LIDAR, z_min=0.0)), 0),
    ],
    ids=[
        "other images",
        "exact labels",
        "wider exact lines",
        "wider lines where they mean nothing",
        "other sweeps",
        "another teacher",
        "a setting of the network",
    ],
)
def test_settings_that_matter_get_their_own_folders(small_root, folder, change, adds):
    before = set(folder.iterdir())
    change(folder, small_root)
    assert len(set(folder.iterdir()) - before) == adds


def test_a_file_that_changed_is_decoded_again(broken_root, tmp_path):
    image = next((broken_root / "samples" / "CAM_FRONT").glob("scene-0061-0*"))
    CachedFrames(dataset(broken_root), tmp_path)
    before = set(tmp_path.iterdir())
    os.utime(image, (1, 1))
    CachedFrames(dataset(broken_root), tmp_path)
    assert [path.name[:10] for path in set(tmp_path.iterdir()) - before] == ["scene-0061"]


def test_a_cached_image_that_was_zeroed_is_named(small_root, tmp_path):
    CachedFrames(dataset(small_root), tmp_path)
    path = next(tmp_path.glob("scene-0061-frames-*/images.npy"))
    path.write_bytes(path.read_bytes()[:-1000] + bytes(1000))
    damaged = CachedFrames(dataset(small_root), tmp_path)
    with pytest.raises(BridgeTAError, match=rf"{path}: is damaged in row 1"):
        damaged[1]


@pytest.mark.parametrize("name", ["images", "masks", "known_crc32"])
def test_a_cache_that_lost_a_file_is_built_again(small_root, tmp_path, caplog, name):
    before = CachedFrames(dataset(small_root), tmp_path)
    expected = [before[i] for i in range(4)]
    path = next(tmp_path.glob(f"scene-0061-frames-*/{name}.npy"))
    path.unlink()
    after = CachedFrames(dataset(small_root), tmp_path)
    assert "is missing" in caplog.text
    assert "It is built again" in caplog.text
    assert all(same(after[i], expected[i]) for i in range(4))


def test_processes_share_the_work(small_root, tmp_path):
    for rank in (1, 0):
        assert len(CachedFrames(dataset(small_root), tmp_path, rank=rank, world=2)) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pickled_cache_does_not_contain_the_arrays(cached):
    closed = pickle.dumps(cached)
    frame = cached[2]
    assert len(pickle.dumps(cached)) == len(closed)
    assert same(pickle.loads(pickle.dumps(cached))[2], frame)


def test_taps_beyond_half_precision_are_an_error(small_root, tmp_path):
    cache = CachedFrames(dataset(small_root), tmp_path)

    def large(batch) -> Taps:
        return Taps(*(1e6 * tap for tap in teacher(batch)[:3]))

    with pytest.raises(BridgeTAError, match="float16"):
        cache.add_taps(large, "abc", LIDAR, size=2)


def test_augmentation_must_be_off(two_scenes, tmp_path):
    with pytest.raises(BridgeTAError, match=r"set data\.augment\.flip=false data\.augment\.colour=0$") as caught:
        train_student(two_scenes(f"data.cache={tmp_path / 'cache'}"), tmp_path / "run")
    assert caught.value.exit_code == 2
    cache = [f"data.cache={tmp_path / 'cache'}", "data.augment.flip=false", "data.augment.colour=0"]
    with pytest.raises(BridgeTAError, match=r"set data\.augment\.flip_x=false data\.augment\.image_resize=\[\]$"):
        train_student(
            two_scenes(*cache, "data.augment.image_resize=[0.9,1.1]", "data.augment.flip_x=true"), tmp_path / "run"
        )
