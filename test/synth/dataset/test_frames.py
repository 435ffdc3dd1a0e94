"""Frames without files: equal to those of the written root but for JPEG, each scene prepared once per epoch."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import AugmentConfig, ImageConfig, LidarConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import Frame, FrameDataset, collate
from bridgeta_core.data.maps.expansion import read_layers
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.datasheet import DATA_SHEET
from bridgeta_synth.dataset.frames import FreshTowns, SceneShuffle, SyntheticFrames
from bridgeta_synth.dataset.map_expansion import build_expansion
from bridgeta_synth.dataset.world import LruCache
from bridgeta_synth.settings import SynthSettings

IMAGE = ImageConfig(width=320, height=128, margin=1.1)
GRID = BevGrid(-30.0, 50.0, -40.0, 40.0, 0.5)
CAMERAS = ("CAM_FRONT", "CAM_BACK_LEFT")
KEYFRAME = LidarConfig(sweeps=0)
AUGMENT = Augment(
    AugmentConfig(
        rotate=20.0,
        scale=0.1,
        translate=0.5,
        colour=0.0,
        image_resize=[0.8, 1.2],
        image_flip=True,
        image_rotate=5.4,
    ),
    seed=5,
)


@pytest.fixture(scope="module")
def settings(synthetic_root: Path) -> SynthSettings:
    """Read the settings of the written root."""
    return SynthSettings(**json.loads((synthetic_root / DATA_SHEET).read_text())["settings"])


@pytest.fixture(scope="module")
def rendered(settings: SynthSettings) -> SyntheticFrames:
    return SyntheticFrames(settings, IMAGE, GRID, CAMERAS, lidar=KEYFRAME)


@pytest.fixture(scope="module")
def written(synthetic_root: Path, settings: SynthSettings) -> FrameDataset:
    return FrameDataset(NuScenesDataset(synthetic_root, settings.version), "all", CAMERAS, IMAGE, GRID, lidar=KEYFRAME)


def assert_equal_but_for_jpeg(ours: Frame, theirs: Frame) -> None:
    assert ours.token == theirs.token
    for name in ("intrinsics", "ego_T_cam", "labels", "known", "points"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b), name
    assert ours.images.shape == theirs.images.shape
    assert ours.images.dtype == theirs.images.dtype
    difference = (ours.images.int() - theirs.images.int()).abs().float()
    assert difference.mean() < 4
    assert difference.quantile(0.99) < 25


@pytest.mark.parametrize("position", [0, 3])
def test_frames_equal_those_of_the_written_root(
    rendered: SyntheticFrames, written: FrameDataset, position: int
) -> None:
    assert len(rendered) == len(written)
    assert_equal_but_for_jpeg(rendered[position], written[position])


def test_augmented_frames_equal_those_of_the_written_root(rendered: SyntheticFrames, written: FrameDataset) -> None:
    ours, theirs = copy.copy(rendered), copy.copy(written)
    ours.augment = theirs.augment = AUGMENT
    for dataset in (ours, theirs):
        dataset.set_epoch(2)
    assert_equal_but_for_jpeg(ours[1], theirs[1])


def test_samples_are_those_of_the_index(rendered: SyntheticFrames, written: FrameDataset) -> None:
    for position in range(len(written)):
        ours, theirs = rendered.sample(position), written.sample(position)
        assert (ours.scene, ours.location, ours.stamp_us) == (theirs.scene, theirs.location, theirs.stamp_us)
        assert set(ours.records) == set(theirs.records)
        for channel, record in ours.records.items():
            assert record.token == theirs.records[channel].token
            assert record.stamp_us == theirs.records[channel].stamp_us
            assert record.path == theirs.records[channel].path.relative_to(written.dataset.root)
            np.testing.assert_array_equal(record.global_T_ego, theirs.records[channel].global_T_ego)


def test_tags_are_the_words_of_the_description(rendered: SyntheticFrames, written: FrameDataset) -> None:
    description = written.dataset.scenes[0].description.lower()
    assert rendered.tags(0) == tuple(word for word in ("night", "rain") if word in description)


def test_a_loader_process_gives_the_same_frames(rendered: SyntheticFrames) -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(rendered, [2]), num_workers=1, collate_fn=collate)
    batch = next(iter(loader))
    assert torch.equal(batch.images[0], rendered[2].images)


def test_positions_beyond_the_end_are_refused(rendered: SyntheticFrames) -> None:
    with pytest.raises(IndexError):
        rendered[len(rendered)]


def test_unknown_cameras_devices_and_missing_points_are_refused(settings: SynthSettings) -> None:
    with pytest.raises(BridgeTAError, match="device tpu is not usable"):
        SyntheticFrames(settings, IMAGE, GRID, device="tpu")
    with pytest.raises(BridgeTAError, match="CAM_ROOF"):
        SyntheticFrames(settings, IMAGE, GRID, ["CAM_ROOF"])
    with pytest.raises(BridgeTAError, match="no cameras"):
        SyntheticFrames(settings, IMAGE, GRID, [])
    with pytest.raises(BridgeTAError, match="lidar"):
        SyntheticFrames(SynthSettings(scenes=1, lidar=False), IMAGE, GRID, lidar=KEYFRAME)
    with pytest.raises(BridgeTAError, match=r"not 9 LiDAR sweeps.*teacher\.lidar\.sweeps=0"):
        SyntheticFrames(settings, IMAGE, GRID, lidar=LidarConfig(sweeps=9))


@pytest.mark.cuda
def test_a_gpu_renders_what_a_cpu_does(settings: SynthSettings, rendered: SyntheticFrames) -> None:
    frame = SyntheticFrames(settings, IMAGE, GRID, CAMERAS, device="cuda", lidar=KEYFRAME)[0]
    assert frame.images.device.type == "cuda"
    difference = (frame.images.cpu().int() - rendered[0].images.int()).abs().float()
    assert difference.mean() < 2
    assert torch.equal(frame.labels.cpu(), rendered[0].labels)


@given(
    scenes=st.integers(1, 30),
    duration=st.floats(0, 4),
    size=st.integers(1, 5),
    batch=st.integers(1, 6),
    workers=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_shuffling_prepares_each_scene_once_per_process(
    scenes: int, duration: float, size: int, batch: int, workers: int, seed: int
) -> None:
    settings = SynthSettings(scenes=scenes, duration=duration)
    frames = SyntheticFrames(settings, IMAGE, GRID, open_scenes=size)
    shuffle = SceneShuffle(frames, seed, batch, workers)
    order = list(shuffle)
    assert sorted(order) == list(range(len(frames)))
    assert order == list(shuffle)
    prepared: list[int] = []
    kept = [LruCache(prepared.append, size) for _ in range(workers)]
    # Until the processes run out of work, which they do at different times, they take turns in batches.
    even = min(len(range(worker, scenes, workers)) for worker in range(workers)) * settings.keyframes // batch
    for number in range(even * workers):
        for position in order[number * batch : (number + 1) * batch]:
            kept[number % workers](frames.scene_of(position))
    assert len(prepared) == len(set(prepared))


def test_epochs_and_seeds_differ_in_their_order() -> None:
    frames = SyntheticFrames(SynthSettings(scenes=12), IMAGE, GRID)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        shuffle = SceneShuffle(frames, seed)
        shuffle.set_epoch(epoch)
        orders.append(tuple(shuffle))
    assert len(set(orders)) == 3


def test_a_fresh_town_has_evenly_spaced_frames_of_the_drives_in_one_city(monkeypatch) -> None:
    few = ["data.fresh.drives=1", "data.fresh.frames=2", "data.fresh.duration=1"]
    small = ["model.image.width=64", "model.image.height=32", "grid.resolution=2", "labels.mode=exact"]
    experiment = config.load(config.Experiment, "tiny", [*few, *small])
    towns = FreshTowns.build(experiment, KEYFRAME, Augment(AugmentConfig(flip=False, colour=0.0)))
    world = towns._open(6)
    monkeypatch.setattr(towns, "_open", lambda _: world)
    town = towns[6]
    assert towns.size == len(town) == 2
    third = [2 * world.settings.keyframes + keyframe for keyframe in (0, 2)]
    assert [frame.token for frame in town] == [world.sample(position).token for position in third]
    assert {world.sample(position).location for position in third} == {facts.LOCATIONS[2][0]}
    layers = read_layers(build_expansion(world.world.town(2), world.settings.seeds))
    exact = MapRaster("", layers, experiment.labels).rasterise(world.sample(third[0]).global_T_ego, experiment.grid)
    np.testing.assert_array_equal(town[0].labels, exact)


def test_fresh_towns_of_other_numbers_and_seeds_are_other_worlds() -> None:
    experiment = config.load(config.Experiment, "tiny", [])
    elsewhere = replace(experiment, train=replace(experiment.train, seed=1))
    seeds = [
        FreshTowns(settings, None, Augment(experiment.data.augment))._open(town).settings.seed
        for settings in (experiment, elsewhere)
        for town in (0, 3, 4, 8)
    ]
    assert seeds[0] == seeds[1]  # cities of one world
    assert len(set(seeds)) == 6


def test_fresh_towns_have_no_sweeps_between_keyframes() -> None:
    experiment = config.load(config.Experiment, "tiny", [])
    with pytest.raises(BridgeTAError, match=r"not 3 LiDAR sweeps") as caught:
        FreshTowns.build(experiment, LidarConfig(sweeps=3), Augment(experiment.data.augment))
    assert caught.value.exit_code == 2
