from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.transforms import invert
from bridgeta_core.utils.errors import BridgeTAError

VERSION = "v1.0-mini"


def test_agrees_with_the_devkit_on_every_record(small_root):
    from nuscenes.nuscenes import NuScenes
    from pyquaternion import Quaternion

    devkit = NuScenes(VERSION, str(small_root), verbose=False)
    dataset = NuScenesDataset(small_root, VERSION)
    records = [record for scene in dataset.scenes for record in dataset.records(scene.name)]
    assert len(records) == len(devkit.sample_data)
    for record in records:
        data = devkit.get("sample_data", record.token)
        calibration = devkit.get("calibrated_sensor", data["calibrated_sensor_token"])
        pose = devkit.get("ego_pose", data["ego_pose_token"])
        assert str(record.path) == devkit.get_sample_data_path(record.token)
        assert (record.channel, record.stamp_us) == (data["channel"], data["timestamp"])
        assert (record.is_keyframe, record.width, record.height) == (
            data["is_key_frame"],
            data["width"],
            data["height"],
        )
        for matrix, row in ((record.ego_T_sensor, calibration), (record.global_T_ego, pose)):
            np.testing.assert_allclose(matrix[:3, :3], Quaternion(row["rotation"]).rotation_matrix, atol=1e-12)
            np.testing.assert_allclose(matrix[:3, 3], row["translation"])
        if calibration["camera_intrinsic"]:
            np.testing.assert_array_equal(record.intrinsics, calibration["camera_intrinsic"])
        else:
            assert record.intrinsics is None


def test_samples_agree_with_the_devkit_in_order_of_time(small_root):
    from nuscenes.nuscenes import NuScenes

    devkit = NuScenes(VERSION, str(small_root), verbose=False)
    dataset = NuScenesDataset(small_root, VERSION)
    assert len(dataset) == len(devkit.sample)
    for scene in dataset.scenes:
        stamps = [dataset[i].stamp_us for i in scene.samples]
        assert stamps == sorted(stamps)
        for i in scene.samples:
            sample = dataset[i]
            assert {c: r.token for c, r in sample.records.items()} == devkit.get("sample", sample.token)["data"]
            assert (sample.scene, sample.location) == (scene.name, scene.location)


def test_the_pose_of_a_sample_is_the_one_at_the_lidars_stamp(small_root):
    sample = NuScenesDataset(small_root, VERSION)[1]
    np.testing.assert_array_equal(sample.global_T_ego, sample.records["LIDAR_TOP"].global_T_ego)
    assert np.linalg.norm((invert(sample.global_T_ego) @ sample.records["CAM_FRONT"].global_T_ego)[:3, 3]) > 0.01


def test_a_rig_has_the_chosen_cameras_in_the_chosen_order(small_root):
    sample = NuScenesDataset(small_root, VERSION)[0]
    rig = sample.rig(["CAM_FRONT", "CAM_BACK"])
    assert rig.names == ("CAM_FRONT", "CAM_BACK")
    assert (rig.cameras[0].width, rig.cameras[0].height) == (64, 36)
    np.testing.assert_allclose(rig.cameras[0].ego_T_cam[:3, 2], (1, 0, 0), atol=1e-12)  # looks forward
    np.testing.assert_allclose(rig.cameras[1].ego_T_cam[:3, 2], (-1, 0, 0), atol=1e-12)
    with pytest.raises(BridgeTAError, match="has no CAM_LEFT; its sensors are CAM_BACK, CAM_FRONT, LIDAR_TOP"):
        sample.rig(["CAM_LEFT"])
    with pytest.raises(BridgeTAError, match="LIDAR_TOP is not a camera"):
        sample.rig(["LIDAR_TOP"])


@pytest.mark.parametrize(
    ("split", "positions"),
    [
        ("all", [0, 1, 2, 3]),
        ("mini_train", [0, 1]),
        ("mini_val", [2, 3]),
        ("scene-0103", [2, 3]),
        ("scene-0103, scene-0061", [0, 1, 2, 3]),
    ],
)
def test_selects_official_splits_and_scene_names(small_root, split, positions):
    assert NuScenesDataset(small_root, VERSION).select(split) == positions


@pytest.mark.parametrize(("split", "message"), [("test", "no scene of the official split"), ("scene-1", "no scene")])
def test_an_empty_or_unknown_selection_names_existing_scenes(small_root, split, message):
    with pytest.raises(BridgeTAError, match=f"{message}.*scene-0061, scene-0103") as error:
        NuScenesDataset(small_root, VERSION).select(split)
    assert error.value.exit_code == 2


def test_all_of_a_synthetic_root_is_in_the_split_that_it_was_made_as(small_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(small_root, root)
    (root / "synth.json").write_text(json.dumps({"generator": "bridgeta synth", "settings": {"split": "val"}}))
    dataset = NuScenesDataset(root, VERSION)
    assert dataset.select("val") == [0, 1, 2, 3]
    with pytest.raises(BridgeTAError, match=r"is the split 'val' of the synthetic world.*--split test") as error:
        dataset.select("test")
    assert error.value.exit_code == 2


def test_records_hold_sweeps_sorted_by_time_and_can_be_filtered(small_root):
    dataset = NuScenesDataset(small_root, VERSION)
    records = dataset.records("scene-0103")
    assert len(records) == 2 * 2 * 3
    assert [r.stamp_us for r in records] == sorted(r.stamp_us for r in records)
    front = dataset.records("scene-0103", ["CAM_FRONT"], keyframes_only=True)
    assert [(r.channel, r.is_keyframe) for r in front] == [("CAM_FRONT", True)] * 2
    with pytest.raises(BridgeTAError, match="has no RADAR"):
        dataset.records("scene-0103", ["RADAR"])


def test_sweeps_are_the_lidar_files_since_the_previous_keyframe(small_root):
    dataset = NuScenesDataset(small_root, VERSION)
    first, second = dataset.scenes[1].samples  # half a second apart, a sweep in the middle
    assert [r.token for r in dataset.lidar_sweeps(first, 9)] == ["scene-0103-0-LIDAR_TOP-0"]
    for most in (1, 9):
        tokens = [r.token for r in dataset.lidar_sweeps(second, most)]
        assert tokens == ["scene-0103-1-LIDAR_TOP-0", "scene-0103-0-LIDAR_TOP-1"]
    assert [r.token for r in dataset.lidar_sweeps(second, 0)] == ["scene-0103-1-LIDAR_TOP-0"]


def test_keyframes_that_follow_fast_count_as_sweeps(broken_root):
    """As in the devkit's chain of records; here everything happens at twice the speed, keyframes at 4 Hz."""
    path = broken_root / VERSION / "sample_data.json"
    rows = json.loads(path.read_text())
    start = min(row["timestamp"] for row in rows)
    for row in rows:
        row["timestamp"] = start + (row["timestamp"] - start) // 2
    path.write_text(json.dumps(rows))
    dataset = NuScenesDataset(broken_root, VERSION)
    tokens = [r.token for r in dataset.lidar_sweeps(1, 9)]
    assert tokens == [f"scene-0061-{t}" for t in ("1-LIDAR_TOP-0", "0-LIDAR_TOP-1", "0-LIDAR_TOP-0")]


def test_sweeps_of_a_root_without_lidar_are_refused(broken_root):
    path = broken_root / VERSION / "sample_data.json"
    path.write_text(json.dumps([row for row in json.loads(path.read_text()) if "LIDAR" not in row["token"]]))
    with pytest.raises(BridgeTAError, match=r"sample scene-0061-0.*has no LIDAR_TOP; its sensors are CAM_BACK"):
        NuScenesDataset(broken_root, VERSION).lidar_sweeps(0, 3)


def test_a_sample_is_found_by_token_beginning_or_position(small_root):
    dataset = NuScenesDataset(small_root, VERSION)
    assert dataset.find("scene-0103-1") == dataset.find("3") == 3
    assert dataset.find("scene-0061-0") == 0
    with pytest.raises(BridgeTAError, match="2 samples start with 'scene-0061'"):
        dataset.find("scene-0061")
    with pytest.raises(BridgeTAError, match=r"no sample 'x'.*scene-0061-0"):
        dataset.find("x")


def test_a_scene_knows_light_and_weather_from_its_description(small_root):
    assert [(s.description, s.night, s.rain) for s in NuScenesDataset(small_root, VERSION).scenes] == [
        ("Day", False, False),
        ("Night, rain", True, True),
    ]


def test_the_pose_of_a_sample_is_had_without_records(small_root):
    dataset = NuScenesDataset(small_root, "v1.0-mini")
    for position, sample in enumerate(dataset):
        np.testing.assert_array_equal(dataset.global_T_ego(position), sample.global_T_ego)


def test_tokens_and_scenes_are_had_without_records(small_root):
    dataset = NuScenesDataset(small_root, VERSION)
    assert [token.decode() for token in dataset.tokens] == [sample.token for sample in dataset]
    assert [dataset.scene_of(i).name for i in range(len(dataset))] == [sample.scene for sample in dataset]


def test_files_are_counted_by_channel(small_root):
    dataset = NuScenesDataset(small_root, VERSION)
    assert dataset.file_counts() == dict.fromkeys(("CAM_BACK", "CAM_FRONT", "LIDAR_TOP"), (4, 4))
    assert dataset.span_us == (dataset[0].stamp_us, dataset[3].stamp_us)


def test_names_of_scenes_need_no_devkit(small_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "nuscenes.utils.splits", None)
    assert NuScenesDataset(small_root, VERSION).select("scene-0103") == [2, 3]
    with pytest.raises(BridgeTAError, match=r"the official splits need the nuScenes devkit.*or name scenes"):
        NuScenesDataset(small_root, VERSION).select("mini_val")


def test_without_lidar_the_pose_nearest_to_the_sample_counts(broken_root):
    path = broken_root / VERSION / "sample_data.json"
    path.write_text(json.dumps([row for row in json.loads(path.read_text()) if "LIDAR" not in row["token"]]))
    dataset = NuScenesDataset(broken_root, VERSION)
    np.testing.assert_array_equal(dataset[0].global_T_ego, dataset[0].records["CAM_BACK"].global_T_ego)
    np.testing.assert_array_equal(dataset.global_T_ego(0), dataset[0].global_T_ego)


def test_a_missing_file_is_named_when_it_is_read(broken_root):
    record = NuScenesDataset(broken_root, VERSION)[0].records["CAM_FRONT"]
    assert record.read_bytes()[:2] == b"\xff\xd8"
    record.path.unlink()
    with pytest.raises(BridgeTAError, match=rf"{record.path.name}: CAM_FRONT file cannot be read.*[Dd]ownload"):
        record.read_bytes()


def test_the_real_keyframe(real_root):
    dataset = NuScenesDataset(real_root, VERSION)
    (sample,) = dataset
    assert (sample.scene, sample.location) == ("scene-0061", "singapore-onenorth")
    assert len(sample.camera_names) == 6
    front = sample.rig(["CAM_FRONT"]).cameras[0]
    assert (front.width, front.height) == (1600, 900)
    assert abs(front.ego_T_cam[0, 3] - 1.7) < 0.05  # the sensor sheet: 1.70 m before the rear axle
