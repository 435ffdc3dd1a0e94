from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.pointcloud import merge_sweeps, move, read_lidar
from bridgeta_core.data.sample import SensorRecord
from bridgeta_core.geometry.transforms import invert, rigid, transform
from bridgeta_core.utils.errors import BridgeTAError

EGO_T_LIDAR = rigid((0.9, 0.1, 1.8), (0.7, 0.02, 0.01, -0.7))


def record(lag: float, global_T_ego: np.ndarray) -> SensorRecord:
    stamp = 1_600_000_000_000_000 - round(lag * 1e6)
    return SensorRecord("LIDAR_TOP", Path("x"), stamp, False, "t", 0, 0, None, EGO_T_LIDAR, global_T_ego)


def test_reads_what_the_devkit_reads(real_root):
    from nuscenes.utils.data_classes import LidarPointCloud

    (path,) = (real_root / "samples" / "LIDAR_TOP").iterdir()
    points = read_lidar(path)
    assert points.shape == (34688, 5)
    np.testing.assert_array_equal(points[:, :4], LidarPointCloud.from_file(str(path)).points.T)
    assert set(np.unique(points[:, 4])) == set(range(32))


def test_may_be_written_to(tmp_path):
    np.arange(10, dtype="<f4").tofile(tmp_path / "a.pcd.bin")
    points = read_lidar(tmp_path / "a.pcd.bin")
    points += 1
    assert points[1, 4] == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "is empty"), (bytes(range(39)), r"of 39 bytes is truncated \(a point has 20\)")],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "sweep.pcd.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BridgeTAError, match=rf"sweep.pcd.bin: LiDAR file {message}.*[Dd]ownload"):
        read_lidar(path)


def test_moving_takes_the_place_along_and_leaves_the_rest():
    points = np.random.default_rng(0).normal(0, 10, (20, 5)).astype(np.float32)
    ego_T_lidar = rigid((1, 2, 3), (0.7, 0.1, 0.2, -0.6))
    moved = move(ego_T_lidar, points)
    np.testing.assert_allclose(moved[:, :3], transform(ego_T_lidar, points[:, :3]), atol=1e-5)
    np.testing.assert_array_equal(moved[:, 3:], points[:, 3:])
    assert moved.dtype == np.float32


poses = st.builds(
    lambda x, y, z, heading: rigid((1000 + x, 2000 + y, z), (np.cos(heading / 2), 0.01, 0, np.sin(heading / 2))),
    st.floats(-9, 9),
    st.floats(-9, 9),
    st.floats(-1, 1),
    st.floats(-3, 3),
)


@given(trajectory=st.lists(poses, min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_what_stands_still_stays_in_place_over_the_sweeps(trajectory, seed):
    """Points of the world that every sweep sees lie at one place in the keyframe's frame, however the vehicle drove."""
    world = np.random.default_rng(seed).uniform((960, 1960, -1), (1040, 2040, 5), (20, 3))
    records = [record(0.05 * i, pose) for i, pose in enumerate(trajectory)]
    sweeps = []
    for each in records:
        seen = transform(invert(each.global_T_ego @ EGO_T_LIDAR), world)
        sweeps.append(np.column_stack([seen, np.full(20, 77.0), np.arange(20)]).astype(np.float32))
    merged = merge_sweeps(records, sweeps, 0.0).reshape(len(records), 20, 5)
    expected = transform(invert(trajectory[0]), world)
    np.testing.assert_allclose(merged[..., :3], np.broadcast_to(expected, (len(records), 20, 3)), atol=1e-3)
    assert (merged[..., 3] == 77).all()
    np.testing.assert_allclose(merged[..., 4], np.broadcast_to(0.05 * np.arange(len(records)), (20, len(records))).T)
    assert merged.dtype == np.float32


def test_what_hits_the_vehicle_is_dropped_from_every_sweep():
    """Near is meant in the frame of the LiDAR, as a square."""
    points = np.array([(0.9, -0.9, 0, 1, 0), (1.0, 0, 0, 2, 0), (0, -1.1, 0, 3, 0), (0, 0, 9, 4, 0)], dtype=np.float32)
    records = [record(0, np.eye(4)), record(0.05, rigid((3, 0, 0), (1, 0, 0, 0)))]
    assert merge_sweeps(records, [points, points], 1.0)[:, 3].tolist() == [2, 3, 2, 3]
    assert len(merge_sweeps(records, [points, points], 0.0)) == 8


def test_close_points_of_the_keyframe_can_stay():
    points = np.array([(0.5, 0.5, 0, 1, 0), (2, 0, 0, 2, 0)], dtype=np.float32)
    records = [record(0, np.eye(4)), record(0.05, np.eye(4))]
    assert merge_sweeps(records, [points, points], 1.0, keep_close=True)[:, 3].tolist() == [1, 2, 2]


def test_a_mount_takes_the_lidar_to_be_level_in_its_place():
    """The keyframe's points keep their places in the LiDAR's frame; earlier ones are where it would have seen them."""
    points = np.array([(3, 0, 0, 1, 0), (0, 7, 0, 2, 0), (0, 0, -1.5, 3, 0)], dtype=np.float32)
    moved = rigid((1, 2, 0), (0.9, 0, 0, 0.1))
    records = [record(0, np.eye(4)), record(0.05, moved)]
    merged = merge_sweeps(records, [points, points], 0.0, mount=(0.94, 0.1, 1.84))
    np.testing.assert_allclose(merged[:3, :3], [(0.94, -2.9, 1.84), (7.94, 0.1, 1.84), (0.94, 0.1, 0.34)], atol=1e-5)
    seen = transform(invert(EGO_T_LIDAR) @ moved @ EGO_T_LIDAR, points[:, :3].astype(np.float64))
    expected = np.stack([seen[:, 1] + 0.94, 0.1 - seen[:, 0], seen[:, 2] + 1.84], axis=1)
    np.testing.assert_allclose(merged[3:, :3], expected, atol=1e-5)


@pytest.mark.parametrize("sweeps", [0, 1, 4, 9])
def test_merged_sweeps_equal_the_devkits(synthetic_root, sweeps):
    from nuscenes.nuscenes import NuScenes
    from nuscenes.utils.data_classes import LidarPointCloud

    nusc = NuScenes("v1.0-mini", str(synthetic_root), verbose=False)
    dataset = NuScenesDataset(synthetic_root, "v1.0-mini")
    several = 0
    for position in range(len(dataset)):
        records = dataset.lidar_sweeps(position, sweeps)
        ours = merge_sweeps(records, [read_lidar(r.path) for r in records], 1.0)
        cloud, lag = LidarPointCloud.from_file_multisweep(
            nusc, nusc.get("sample", dataset[position].token), "LIDAR_TOP", "LIDAR_TOP", sweeps + 1, 1.0
        )
        theirs = transform(records[0].ego_T_sensor, cloud.points[:3].T)  # they are in the frame of the LiDAR
        np.testing.assert_allclose(ours[:, :3], theirs, atol=1e-3)
        np.testing.assert_array_equal(ours[:, 3], cloud.points[3])
        np.testing.assert_allclose(ours[:, 4], lag[0], atol=1e-6)
        several = max(several, len(records))
    assert several == sweeps + 1
