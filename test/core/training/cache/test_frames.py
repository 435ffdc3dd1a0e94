"""Frames on disk: equal to decoded ones, shared where they are the same, built again where they are not."""

from __future__ import annotations

import os
import pickle
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bridgeta_core.config.experiment import AugmentConfig, ImageConfig, LabelConfig, LidarConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.joined import open_roots
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Taps
from bridgeta_core.training.cache import frames as cached_frames
from bridgeta_core.training.cache.frames import CachedFrames, check_augment
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


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": True, "colour": 0.0},
        {"flip": False, "colour": 0.3},
        {"flip": False, "colour": 0.0, "image_shift": 3},
        {"flip": True, "flip_x": True, "colour": 0.2, "image_flip": True, "image_shift": 5},
        {"flip": True, "rotate": 20.0, "scale": 0.1, "translate": 0.5},
    ],
    ids=["mirrored", "recoloured", "shifted", "all at once", "in a turned and scaled world"],
)
def test_augmented_frames_from_the_cache_equal_the_datasets(small_root, tmp_path, changes):
    decoded = dataset(small_root, augment=Augment(AugmentConfig(**changes), seed=3), lidar=LIDAR)
    cached = CachedFrames(decoded, tmp_path)
    cached.add_points(LIDAR)
    plain = dataset(small_root, lidar=LIDAR)
    everything, changed = ("images", "intrinsics", "ego_T_cam", "labels", "known", "points"), 0
    for epoch in range(4):
        decoded.set_epoch(epoch)
        for i in range(4):
            assert same(cached[i], decoded[i], everything)
            changed += not same(decoded[i], plain[i], ("images", "intrinsics", "labels"))
    assert changed > 4
    assert all(same(cached.unaugmented()[i], plain[i], everything) for i in range(4))


def test_a_mirrored_frame_has_the_mirrored_taps_of_the_plain_one(small_root, tmp_path):
    settings = AugmentConfig(flip=True, flip_x=True, colour=0.2, image_shift=2, image_flip=True)
    frames = dataset(small_root, augment=Augment(settings), lidar=LIDAR)
    cached = CachedFrames(frames, tmp_path)

    def uneven(batch) -> Taps:
        """Taps that differ from cell to cell."""
        return Taps(*(tap * torch.arange(1.0, 1 + tap[0].numel()).view(tap[0].shape) for tap in teacher(batch)))

    cached.add_taps(uneven, "abc", LIDAR, size=3)
    seen = set()
    for epoch in range(4):
        frames.set_epoch(epoch)
        for i in range(4):
            world = frames.augment.draw(epoch, i).world.round(9)
            seen.add((x := world[0, 0], y := world[1, 1]))
            axes = [axis for axis, sign in ((-1, x), (-2, y)) if sign < 0]
            for tap, plain in zip(cached[i].taps, cached.unaugmented()[i].taps, strict=True):
                assert torch.equal(tap, plain.flip(axes))
    assert seen == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_taps_of_a_symmetric_network_follow_the_mirror(small_root, tmp_path):
    """Taps that only gather labels, as a network would that cannot tell left from right, equal those of the mirrored
    frame."""
    frames = dataset(small_root, augment=Augment(AugmentConfig(flip=True, colour=0.0)), lidar=LIDAR)
    cached = CachedFrames(frames, tmp_path)

    def gather(batch) -> Taps:
        labels = batch.labels.float()
        return Taps(torch.nn.functional.avg_pool2d(labels, 5), labels.cumsum(-1), labels)

    cached.add_taps(gather, "abc", LIDAR, size=3)
    for epoch in range(3):
        frames.set_epoch(epoch)
        for i in range(4):
            expected = gather(collate_with_taps([frames[i]]))
            assert all(torch.equal(tap, other[0].half()) for tap, other in zip(cached[i].taps, expected, strict=True))


def test_shifted_images_get_folders_of_their_own_and_taps_do_not(small_root, folder):
    before = set(folder.iterdir())
    shifted = Augment(AugmentConfig(image_shift=2))
    CachedFrames(dataset(small_root, augment=shifted), folder).add_taps(teacher, "abc", LIDAR, size=3)
    assert sorted(path.name.split("-")[2] for path in set(folder.iterdir()) - before) == ["frames", "frames"]
    before = set(folder.iterdir())
    CachedFrames(dataset(small_root, augment=Augment(AugmentConfig(flip=True, colour=0.2))), folder)
    assert set(folder.iterdir()) == before


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


def test_other_lists_of_roots_share_the_cache(small_root, other_root, fleet_root, folder, tmp_path):
    def open_cache(*roots: Path, unlabelled: tuple[Path, ...] = ()) -> CachedFrames:
        joined = open_roots("nuscenes", roots, "v1.0-mini", unlabelled)
        frames = FrameDataset(joined, "all", ("CAM_FRONT", "CAM_BACK"), IMAGE, BevGrid(resolution=4.0))
        cache = CachedFrames(frames, tmp_path)
        cache.add_points(LIDAR)
        assert all(same(cache[i], frames[i]) for i in range(len(frames)))
        return cache

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = set(tmp_path.iterdir())
    open_cache(other_root, small_root)
    added = set(tmp_path.iterdir()) - before
    assert [path.name.split("-")[2] for path in added] == [
        "frames",
        "frames",
    ]  # its points are copies of the small root's
    assert open_cache(small_root, unlabelled=(other_root,))[4].known.any() == 0  # not with the labels of the other list
    more = set(tmp_path.iterdir()) - before - added
    assert [path.name.split("-")[2] for path in more] == ["frames", "frames"]
    assert not open_cache(small_root, unlabelled=(fleet_root,))[4].labels.any()


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


WORLD = {"rotate": 5.0, "scale": 0.1, "translate": 0.2}


@pytest.mark.parametrize(
    ("changes", "features", "named"),
    [
        ({"flip": True, "flip_x": True, "colour": 0.2, "image_flip": True, "image_shift": 4}, BevGrid(), []),
        (WORLD, None, []),
        (WORLD, BevGrid(), ["rotate=0", "scale=0", "translate=0"]),
        ({"image_resize": [0.9, 1.1], "image_rotate": 2.0}, None, ["image_resize=[]", "image_rotate=0"]),
        ({"image_rotate": 2.0, "scale": 0.1}, BevGrid(), ["image_rotate=0", "scale=0"]),
        ({"flip": True, "flip_x": True}, BevGrid(x_min=-49, x_max=51), ["flip_x=false"]),
        ({"flip": True, "flip_x": True}, BevGrid(y_min=-49, y_max=51), ["flip=false"]),
        ({"flip": False, "flip_x": True}, BevGrid(y_min=-49, y_max=51), []),
    ],
)
def test_exactly_what_the_cache_cannot_follow_is_refused(changes, features, named):
    grids = () if features is None else (BevGrid(), features)
    with nullcontext() if not named else pytest.raises(BridgeTAError) as caught:
        check_augment(AugmentConfig(**changes), grids)
    if named:
        assert str(caught.value.fix).endswith(f"set {' '.join(f'data.augment.{change}' for change in named)}")
        assert caught.value.exit_code == 2


def test_a_refused_run_leaves_nothing_behind(two_scenes, tmp_path):
    with pytest.raises(BridgeTAError, match=r"resized or turned need their files.*data\.augment\.image_rotate=0$"):
        train_student(two_scenes(f"data.cache={tmp_path / 'cache'}", "data.augment.image_rotate=3"), tmp_path / "run")
    assert not list(tmp_path.iterdir())
