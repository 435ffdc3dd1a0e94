"""docs/drives.py, the example of a dataset of one's own, and what it builds on."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from own_drives import CAMERAS, DOCS, ROAD, SOURCE, START, STEP, write_drives
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.config.experiment import ImageConfig, LidarConfig
from bridgeta_core.data.dataset import ListDataset, open_dataset
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.sample import Sample, SensorRecord
from bridgeta_core.deploy.weights import read_info
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-20, 20, -20, 20, 1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_drives(tmp_path_factory.mktemp("own"))


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))


def test_the_example_of_training_on_own_data_runs(root, tmp_path, capsys):
    main = runpy.run_path(str(DOCS.parent / "examples" / "train_own_data.py"))["main"]
    main(str(root), str(tmp_path / "run"), *CAMERAS)
    assert f"{tmp_path / 'run' / 'student.safetensors'}: " in capsys.readouterr().out
    assert read_info(tmp_path / "run" / "student.safetensors").cameras == CAMERAS


def test_the_example_has_at_most_sixty_lines():
    assert len((DOCS / "drives.py").read_text().splitlines()) <= 60


def test_samples_stand_in_scenes_in_order_of_time(root):
    dataset = open_dataset(SOURCE, root, "")
    assert [(scene.name, scene.samples) for scene in dataset.scenes] == [("monday", range(3)), ("tuesday", range(3, 6))]
    assert [dataset[i].stamp_us for i in range(3)] == [START, START + STEP, START + 2 * STEP]
    assert dataset.select("tuesday") == [3, 4, 5]
    assert dataset.find("tuesday-5200000") == 4
    with pytest.raises(BridgeTAError, match="no scene 'friday'"):
        dataset.select("friday")


def test_frames_have_the_vehicles_cameras_and_the_maps_labels(root):
    data = FrameDataset(open_dataset(SOURCE, root, ""), "all", CAMERAS, ImageConfig(width=64, height=32), GRID)
    frame = data[1]
    assert frame.images.shape == (3, 3, 32, 64)
    x, y = GRID.centres()
    seen = shapely.contains_xy(ROAD, *np.meshgrid(x + 2.0, y + 1.0))  # the vehicle stands at (2, 1)
    inner = np.abs(y + 1.0) < 3  # the rasteriser rounds borders to cells
    np.testing.assert_array_equal(frame.labels[0].numpy()[inner], seen[inner])
    assert not frame.labels[0].numpy()[np.abs(y + 1.0) > 6].any()
    assert frame.known.tolist() == [True, False, False, False, False, True]


def test_earlier_samples_are_the_sweeps_of_a_fast_lidar(root):
    data = FrameDataset(
        open_dataset(SOURCE, root, ""), "monday", CAMERAS, ImageConfig(), GRID, lidar=LidarConfig(ego_radius=0.0)
    )
    lags = [sorted(set(data[i].points[:, 4].tolist())) for i in range(3)]
    np.testing.assert_allclose(lags[2], [0, 0.2, 0.4], atol=1e-6)
    assert [len(lag) for lag in lags] == [1, 2, 3]


def test_pictures_training_and_evaluation_take_it(root, tmp_path):
    """As a user would, in a process of its own."""
    settings = ["grid.resolution=2.0", "data.batch_size=2", "data.workers=0", "train.epochs=1", "labels.cache=labels"]
    cameras = f"data.cameras=[{','.join(CAMERAS)}]"
    roots = [f"data.train_root={root}", f"data.val_root={root}"]
    commands = (
        ["view", str(root), "sheet.png", "--check", "--source", SOURCE],
        ["view", str(root), "sample.png", "--source", SOURCE],
        ["train", "student", "tiny", f"data.source={SOURCE}", *roots, cameras, *settings, "--out", "run"],
        ["eval", "run/student.safetensors", str(root), "--source", SOURCE],
        ["bag", str(root), "bag", "--scene", "monday", "--source", SOURCE],
        ["replay", "bag", "bev", "--weights", "run/student.safetensors"],
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DOCS), str(DOCS.parent)])}
    for command in commands:
        call = [sys.executable, "-c", "from bridgeta_ros.cli import main; main()", *command]
        result = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert len(list((tmp_path / "labels").iterdir())) == 2


def test_the_files_of_a_scene_come_by_time_and_channel(root):
    data = open_dataset(SOURCE, root, "")
    records = data.records("monday")
    assert len(records) == 3 * (len(CAMERAS) + 1)
    assert [record.stamp_us for record in records] == sorted(record.stamp_us for record in records)
    assert {record.channel for record in data.records("monday", ["rear"], keyframes_only=True)} == {"rear"}
    with pytest.raises(BridgeTAError, match="scene tuesday: has no LIDAR_TOP; its sensors are bumper, front, rear"):
        data.records("tuesday", ["LIDAR_TOP"])


@pytest.mark.parametrize("name", ["drives", "drives:Nothing", "nowhere:Drives", "json:loads", ":", "drives:Rig"])
def test_a_source_that_is_none_is_one_message(root, name):
    with pytest.raises(BridgeTAError, match=r"source") as caught:
        open_dataset(name, root, "")
    assert caught.value.exit_code == 2


def test_a_root_that_is_none_is_one_message(tmp_path):
    with pytest.raises(BridgeTAError, match="not a folder"):
        open_dataset(SOURCE, tmp_path / "nothing", "")


@pytest.mark.parametrize("file", ["map.geojson", "monday/poses.csv", "rig.yaml"])
def test_a_truncated_file_is_one_message(root, tmp_path, file):
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    content = (broken / file).read_bytes()
    (broken / file).write_bytes(content[: len(content) // 2 + 2])
    with pytest.raises(BridgeTAError, match=r"broken") as caught:
        FrameDataset(open_dataset(SOURCE, broken, ""), "all", CAMERAS, ImageConfig(), GRID)
    assert file == "rig.yaml" or "drives.py line" in str(caught.value)
    assert "\n" not in str(caught.value) or file == "rig.yaml"  # YAML's own message shows the place below


def test_boxes_are_nuscenes_own(root):
    result = CliRunner().invoke(app, ["view", str(root), "x.png", "--source", SOURCE, "--boxes"])
    assert result.exit_code == 2
    assert "--boxes" in result.stderr


def a_sample(scene="a", stamp=0, token=None, location="world"):
    return Sample(token or f"{scene}-{stamp}", scene, location, stamp, {})


class Plain(ListDataset):
    """Without a map."""

    def read_map(self, location, labels):
        raise BridgeTAError("has no map", where=self.root)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "holds no sample"),
        ([a_sample(), a_sample(stamp=1, token="a-0")], "same token"),
        ([a_sample(), a_sample(stamp=1, location="elsewhere")], "elsewhere and in world"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(tmp_path, samples, message):
    with pytest.raises(BridgeTAError, match=message):
        Plain(tmp_path, samples)


ORTHONORMAL = rigid((1, 2, 3), (0.5, 0.5, -0.5, 0.5))
NO_TRANSFORMS = {
    "zero": np.zeros((4, 4)),
    "of 3x4": np.eye(4)[:3],
    "scaled": np.diag([1000.0, 1000, 1000, 1]),
    "mirrored": np.diag([1.0, 1, -1, 1]),
    "NaN": np.full((4, 4), np.nan),
}


@pytest.mark.parametrize("name", ["ego_T_sensor", "global_T_ego"])
@pytest.mark.parametrize("wrong", NO_TRANSFORMS.values(), ids=NO_TRANSFORMS)
def test_a_pose_that_is_no_rigid_transform_is_named_with_its_file(tmp_path, name, wrong):
    good = SensorRecord("LIDAR_TOP", tmp_path / "1.bin", 0, True, "1", 0, 0, None, ORTHONORMAL, ORTHONORMAL)
    bad = replace(good, path=tmp_path / "2.bin", **{name: wrong})
    samples = [replace(a_sample(stamp=i), records={"LIDAR_TOP": r}) for i, r in enumerate([good, bad])]
    assert len(Plain(tmp_path, samples[:1])) == 1
    with pytest.raises(BridgeTAError, match=f"2.bin: {name} of LIDAR_TOP is no rigid transform"):
        Plain(tmp_path, samples)


def test_a_pose_without_rotation_names_the_line_that_read_it(root, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    (broken / "tuesday" / "poses.csv").write_text(f"{START},1,2,0,0,0,0,0\n")
    with pytest.raises(BridgeTAError, match=r"broken: .*not a rigid transform, drives.py line"):
        open_dataset(SOURCE, broken, "")


def test_descriptions_tell_light_and_weather(tmp_path):
    dataset = Plain(tmp_path, [a_sample("a"), a_sample("b")], {"b": "Night after rain"})
    assert [(scene.night, scene.rain) for scene in dataset.scenes] == [(False, False), (True, True)]


def test_a_changed_map_is_noticed(root):
    files = open_dataset(SOURCE, root, "").map_files("world")
    assert [path.name for path in files] == ["map.geojson", "rig.yaml"]
