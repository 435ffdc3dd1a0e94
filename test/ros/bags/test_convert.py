"""A nuScenes keyframe as a bag, read back by the MCAP project's own readers."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from bag_fakes import FakeRuntime
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import Reader

from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.images import decode_and_fit
from bridgeta_core.geometry.transforms import invert, project, rigid, transform
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag
from bridgeta_ros.bags.io import create_bag, open_bag
from bridgeta_ros.bags.replay import replay

VERSION, SCENE = "v1.0-mini", "scene-0061"
CAMERAS = ("cam_front", "cam_front_left", "cam_front_right", "cam_back", "cam_back_left", "cam_back_right")


@pytest.fixture(scope="module")
def bag(real_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("bag") / "real"
    return write_scene_bag(real_root, VERSION, SCENE, out, progress=False)


@pytest.fixture(scope="module")
def read(bag):
    """Read messages by topic as the PyPI `mcap` reader gives them, each with its log time."""
    found = defaultdict(list)
    with (bag.path / "real.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages():
            found[channel.topic].append((message.log_time, decoded))
    return found


@pytest.fixture(scope="module")
def tables(real_root):
    """Read the nuScenes tables themselves: the record of each channel with its sensor and ego pose joined."""
    content = {n: json.loads((real_root / VERSION / f"{n}.json").read_text()) for n in NAMES}
    by_token = {name: {row["token"]: row for row in rows} for name, rows in content.items()}
    joined = {}
    for record in content["sample_data"]:
        calibrated = by_token["calibrated_sensor"][record["calibrated_sensor_token"]]
        channel = by_token["sensor"][calibrated["sensor_token"]]["channel"].lower()
        joined[channel] = (record, calibrated, by_token["ego_pose"][record["ego_pose_token"]])
    return joined


NAMES = ("sample_data", "calibrated_sensor", "sensor", "ego_pose")


def pose(entry):
    t, q = entry.transform.translation, entry.transform.rotation
    return rigid((t.x, t.y, t.z), (q.w, q.x, q.y, q.z))


def static_poses(read):
    ((_, message),) = read["/tf_static"]
    return {(e.header.frame_id, e.child_frame_id): pose(e) for e in message.transforms}


def stamp(message):
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_has_its_original_jpeg_at_its_own_stamp(real_root, read, tables, camera):
    record, _, _ = tables[camera]
    ((log_time, message),) = read[f"/{camera}/image/compressed"]
    assert bytes(message.data) == (real_root / record["filename"]).read_bytes()
    assert message.format == "jpeg"
    assert stamp(message) == log_time == 1000 * record["timestamp"]
    assert message.header.frame_id == camera


@pytest.mark.parametrize("camera", CAMERAS)
def test_camera_info_holds_the_calibration_of_the_tables(read, tables, camera):
    record, calibrated, _ = tables[camera]
    ((log_time, message),) = read[f"/{camera}/camera_info"]
    k = np.array(calibrated["camera_intrinsic"])
    assert np.array_equal(np.reshape(message.k, (3, 3)), k)
    assert np.array_equal(np.reshape(message.p, (3, 4)), np.column_stack((k, np.zeros(3))))
    assert np.array_equal(np.reshape(message.r, (3, 3)), np.eye(3))
    assert list(message.d) == [0] * 5
    assert (message.width, message.height, message.distortion_model) == (1600, 900, "plumb_bob")
    assert stamp(message) == log_time == 1000 * record["timestamp"]
    assert message.header.frame_id == camera


def test_the_transform_tree_is_connected_and_equals_the_tables(read, tables):
    static = static_poses(read)
    assert {parent for parent, _ in static} == {"base_link"}
    assert {child for _, child in static} == set(tables)
    for (_, child), found in static.items():
        _, calibrated, _ = tables[child]
        assert np.allclose(found, rigid(calibrated["translation"], calibrated["rotation"]))
    moving = {stamp(e): (e, pose(e)) for _, m in read["/tf"] for e in m.transforms}
    assert {(e.header.frame_id, e.child_frame_id) for e, _ in moving.values()} == {("map", "base_link")}
    assert set(moving) == {1000 * record["timestamp"] for record, _, _ in tables.values()}
    for record, _, ego in tables.values():
        assert np.allclose(moving[1000 * record["timestamp"]][1], rigid(ego["translation"], ego["rotation"]))


def test_lidar_points_project_into_the_front_camera_by_the_bag_alone(real_root, read, tables):
    ((_, cloud),) = read["/lidar_top/points"]
    raw = np.fromfile(real_root / tables["lidar_top"][0]["filename"], np.float32).reshape(-1, 5)
    offsets = {f.name: f.offset for f in cloud.fields}
    xyz = np.stack(
        [np.ndarray(cloud.width, "<f4", bytes(cloud.data), offsets[n], (cloud.point_step,)) for n in "xyz"], 1
    )
    assert np.array_equal(xyz, raw[:, :3])
    static = static_poses(read)
    points = transform(invert(static["base_link", "cam_front"]) @ static["base_link", "lidar_top"], xyz)
    ((_, info),) = read["/cam_front/camera_info"]
    pixels, depth = project(np.reshape(info.k, (3, 3)), points)
    inside = (depth > 1) & (pixels >= 0).all(1) & (pixels < (1600, 900)).all(1)
    assert 2500 < inside.sum() < 4500  # of 34,688 points; a wrong axis gives none, or twice as many


def test_classes_that_the_map_lacks_are_unknown_ground_truth(bag, read):
    for name in CLASS_NAMES:
        ((_, grid),) = read[f"/bev/ground_truth/{name}"]
        values = set(np.unique(np.array(grid.data)).tolist())
        assert values == ({0, 100} if name in ("drivable_area", "divider") else {-1})
        assert (grid.info.width, grid.info.height, grid.info.resolution) == (200, 200, 0.5)
        assert grid.header.frame_id == "base_link"
    assert any("ped_crossing" in remark and "unknown" in remark for remark in bag.remarks)


def test_messages_are_in_the_order_of_their_stamps(bag):
    with open_bag(bag.path) as source:
        times = [ns for _, ns, _ in source.raw(set(source.topics))]
        assert times == sorted(times)
        assert len(times) == sum(bag.counts.values())
    with Reader(bag.path) as recorded:
        latched = {c.topic for c in recorded.connections if c.ext.offered_qos_profiles[0].durability.value == 1}
        assert QosDurability.TRANSIENT_LOCAL.value == 1
        assert "/tf_static" in latched
        assert "/tf" not in latched
        assert all(topic == topic.lower() for topic in source.topics)


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", "mcap"), ("sqlite3", "db3")])
def test_humble_gets_its_own_version_in_either_storage(real_root, tmp_path, storage, suffix):
    settings = SceneBagSettings(storage, "humble", lidar=False)
    content = write_scene_bag(real_root, VERSION, SCENE, tmp_path / "b", settings, progress=False)
    text = (tmp_path / "b" / "metadata.yaml").read_text()
    assert "version: 8" in text
    assert f"- b.{suffix}" in text
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [f"b.{suffix}", "metadata.yaml"]
    assert "/lidar_top/points" not in content.counts
    with open_bag(tmp_path / "b") as source:
        assert source.count(["/cam_front/image/compressed"]) == 1


@pytest.fixture
def broken(real_root, tmp_path):
    """Copy the root, to damage it."""
    root = tmp_path / "root"
    shutil.copytree(real_root, root, copy_function=lambda a, b: Path(b).symlink_to(a))
    return root


class Recorder(FakeRuntime):
    """Records the inputs that the network gets."""

    given: ClassVar[list] = []

    def infer(self, images, rig):
        self.given.append((images, rig))
        return super().infer(images, rig)


def test_the_replay_gives_the_network_the_pixels_of_the_files(real_root, bag, tmp_path):
    runtime = Recorder([name.upper() for name in CAMERAS])
    replay(bag.path, tmp_path / "out", runtime, progress=False)
    sample = NuScenesDataset(real_root, VERSION)[0]
    expected = sample.rig(runtime.info.cameras)
    ((images, rig),) = runtime.given
    assert rig.names == CAMERAS
    for got, image, camera, fit in zip(rig.cameras, images, expected.cameras, runtime.fits(expected), strict=True):
        assert np.array_equal(got.intrinsics, camera.intrinsics)
        assert np.allclose(got.ego_T_cam, camera.ego_T_cam, atol=1e-9)
        assert np.array_equal(image, decode_and_fit(sample.records[camera.name].read_bytes(), fit))
    with open_bag(tmp_path / "out") as out:
        ((_, time, _),) = out.raw({"/bev/navigation"})
        assert time == 1000 * sample.records["CAM_BACK_LEFT"].stamp_us  # the newest of the six


def replace(root: Path, pattern: str, content: bytes | None) -> Path:
    (path,) = root.glob(pattern)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8 cut"])
def test_a_bad_image_file_stops_the_bag_with_its_path(broken, tmp_path, content):
    path = replace(broken, "samples/CAM_BACK/*", content)
    with pytest.raises(BridgeTAError, match=re.escape(path.name)):
        write_scene_bag(broken, VERSION, SCENE, tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root"]


def test_a_truncated_lidar_file_stops_the_bag_with_its_path(broken, tmp_path):
    path = replace(broken, "samples/LIDAR_TOP/*", b"123")
    with pytest.raises(BridgeTAError, match=re.escape(path.name)):
        write_scene_bag(broken, VERSION, SCENE, tmp_path / "out", progress=False)


def test_without_a_map_expansion_the_bag_has_no_ground_truth(broken, tmp_path):
    replace(broken, "maps/expansion/singapore-onenorth.json", None)
    content = write_scene_bag(broken, VERSION, SCENE, tmp_path / "out", progress=False)
    assert not any("ground_truth" in topic for topic in content.counts)
    assert "no map expansion of singapore-onenorth" in content.remarks[0]


def test_an_older_map_expansion_is_refused(broken, tmp_path):
    replace(broken, "maps/expansion/singapore-onenorth.json", b'{"version": "1.2"}')
    with pytest.raises(BridgeTAError, match=r"v1\.2"):
        write_scene_bag(broken, VERSION, SCENE, tmp_path / "out", progress=False)


def test_an_existing_bag_is_kept_unless_it_may_be_replaced(tmp_path):
    for overwrite in (False, True):
        with create_bag(tmp_path / "b", overwrite=overwrite) as (writer, _):
            writer.add_topic("/tf", "tf2_msgs/msg/TFMessage")
        with pytest.raises(BridgeTAError, match="already exists"), create_bag(tmp_path / "b"):
            pass
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["b.mcap", "metadata.yaml"]


def test_a_folder_that_is_no_bag_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"1")
    with pytest.raises(BridgeTAError, match="something else"), create_bag(tmp_path / "photos", overwrite=True):
        pass
    assert (tmp_path / "photos" / "me.jpg").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ValueError])
def test_an_interrupted_bag_leaves_nothing_behind(tmp_path, error):
    expected = BridgeTAError if isinstance(error, OSError) else error

    def write():
        with create_bag(tmp_path / "b") as (writer, _):
            writer.add_topic("/tf", "tf2_msgs/msg/TFMessage")
            raise error

    with pytest.raises(expected):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"storage": "rosbag1"}, {"distro": "foxy"}])
def test_an_unknown_storage_or_distro_is_refused(tmp_path, options):
    with pytest.raises(BridgeTAError, match="is not one of"), create_bag(tmp_path / "b", **options):
        pass
