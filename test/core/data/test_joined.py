"""Several roots as one dataset: every sample is the one of its root, under a name of its own."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

from bridgeta_core.config.experiment import ImageConfig, LabelConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.joined import JoinedDataset, open_roots
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

VERSION, GRID = "v1.0-mini", BevGrid(-20, 20, -20, 20, 1.0)


@pytest.fixture(scope="module")
def alone(small_root, other_root):
    return [open_roots("nuscenes", [root], VERSION) for root in (small_root, other_root)]


@pytest.fixture(scope="module")
def joined(small_root, other_root):
    return open_roots("nuscenes", [small_root, other_root], VERSION)


def test_one_root_is_opened_as_it_is(alone):
    assert not isinstance(alone[0], JoinedDataset)
    assert alone[0].parts == (range(4),)


def test_samples_follow_each_other_root_by_root(alone, joined):
    assert joined.parts == (range(4), range(4, 8))
    assert joined.tokens.tolist() == [*alone[0].tokens.tolist(), *alone[1].tokens.tolist()]
    for position in range(8):
        own, there = divmod(position, 4)
        sample, expected = joined[position], alone[own][there]
        assert (sample.token, sample.stamp_us, sample.records.keys()) == (
            expected.token,
            expected.stamp_us,
            expected.records.keys(),
        )
        assert np.array_equal(joined.global_T_ego(position), alone[own].global_T_ego(there))
        sweeps, wanted = (d.lidar_sweeps(p, 9) for d, p in ((joined, position), (alone[own], there)))
        assert [record.path for record in sweeps] == [record.path for record in wanted]
    assert joined[-1].token == joined[7].token
    with pytest.raises(IndexError):
        joined[8]


def test_equal_names_of_scenes_and_maps_are_kept_apart(alone, joined):
    names = [scene.name for scene in joined.scenes]
    assert names == ["root/scene-0061", "root/scene-0103", "other/scene-0061", "other/scene-0103"]
    for position in range(8):
        scene = joined.scene_of(position)
        assert position in scene.samples
        assert joined[position].scene == scene.name
        assert joined[position].location == scene.location
        own, there = divmod(position, 4)
        before = alone[own][there].location
        assert joined.map_files(scene.location) == alone[own].map_files(before)
        pose, labels = joined.global_T_ego(position), LabelConfig()
        masks, expected = (
            d.raster(place, labels).rasterise(pose, GRID)
            for d, place in ((joined, scene.location), (alone[own], before))
        )
        assert np.array_equal(masks, expected)


def test_a_selection_holds_for_every_root(joined):
    assert joined.select("all") == list(range(8))
    assert joined.select("mini_train") == [0, 1, 4, 5]
    assert joined.select("scene-0103") == [2, 3, 6, 7]
    assert joined.select("other/scene-0061,root/scene-0103") == [2, 3, 4, 5]
    with pytest.raises(BridgeTAError, match="no scene 'nowhere'"):
        joined.select("nowhere")


def test_frames_are_those_of_the_roots(alone, joined):
    frames, *parts = (
        FrameDataset(d, "all", ("CAM_FRONT",), ImageConfig(width=32, height=32), GRID) for d in (joined, *alone)
    )
    for position in range(8):
        own, there = divmod(position, 4)
        assert frames[position].labels.equal(parts[own][there].labels)
        assert frames[position].images.equal(parts[own][there].images)


def test_it_can_be_sent_to_loader_processes(joined):
    again = pickle.loads(pickle.dumps(joined))
    assert again[5].token == joined[5].token


def test_roots_of_one_name_are_told_by_their_folders(small_root, other_root, tmp_path):
    for name, root in (("a", small_root), ("b", other_root)):
        shutil.copytree(root, tmp_path / name / "root")
    joined = open_roots("nuscenes", [tmp_path / "a/root", tmp_path / "b/root"], VERSION)
    assert joined.scenes[0].name == "a/root/scene-0061"
    assert joined.raster(joined.scenes[3].location, LabelConfig()).location == "boston-seaport"


def test_a_root_that_comes_twice_is_refused(small_root):
    with pytest.raises(BridgeTAError, match=f"{small_root}: this root comes twice") as raised:
        open_roots("nuscenes", [small_root, small_root], VERSION)
    assert raised.value.exit_code == 2
    with pytest.raises(BridgeTAError, match=r"comes twice .*\(data.train_root\) or not \(data.unlabelled_root\)"):
        open_roots("nuscenes", [small_root], VERSION, [small_root])


@pytest.mark.parametrize("mode", ["compatible", "bevfusion", "exact"])
def test_maps_of_unlabelled_roots_are_empty_and_never_read(small_root, fleet_root, mode):
    joined, labels = open_roots("nuscenes", [small_root], VERSION, [fleet_root]), LabelConfig(mode=mode)
    place = joined.scenes[2].location
    assert place == "fleet/singapore-onenorth"
    raster = joined.raster(place, labels)
    assert raster.known == (False,) * 6
    assert not raster.rasterise(joined.global_T_ego(4), GRID).any()
    assert joined.map_files(place) == []
    assert any(joined.raster(joined.scenes[0].location, labels).known)
    assert joined.map_files(joined.scenes[0].location)


def test_samples_know_the_root_that_they_are_from(alone, joined):
    for position in range(8):
        dataset, own = joined.find_origin(position)
        assert (dataset.root, own) == (alone[position // 4].root, position % 4)
    assert alone[1].find_origin(3) == (alone[1], 3)


def test_roots_of_the_same_drives_are_refused(small_root, broken_root):
    with pytest.raises(BridgeTAError, match="have samples in common"):
        open_roots("nuscenes", [small_root, broken_root], VERSION)
