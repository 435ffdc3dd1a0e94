from __future__ import annotations

import numpy as np
import pytest

from bridgeta_core.data.pointcloud import move, read_lidar
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.geometry import rigid, transform


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
    [(None, "cannot be read"), (b"", "is empty"), (b"x" * 39, r"of 39 bytes is truncated \(a point has 20\)")],
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
