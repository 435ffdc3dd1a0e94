"""A cell is seen if a camera looks at it and the LiDAR's beams reach it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import ImageConfig, LiftConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.sample import LIDAR
from bridgeta_core.evaluation.seen import SeenCells, find_in_sight
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-40, 40, -40, 40, 1.0)
ORIGIN = np.array([1.0, 0.5, 1.8])


def scan(reach, elevations=(-2.0,)):
    """Return a ring of points per elevation in degrees, at `reach(azimuth)` metres from the LiDAR."""
    azimuth = np.linspace(-np.pi, np.pi, 4000, endpoint=False)
    distance = reach(azimuth)
    rings = [
        np.column_stack(
            (distance * np.cos(azimuth), distance * np.sin(azimuth), distance * np.tan(np.radians(elevation)))
        )
        for elevation in elevations
    ]
    return np.concatenate(rings) + ORIGIN


def distances(grid=GRID):
    x, y = np.meshgrid(*grid.centres())
    return np.hypot(x - ORIGIN[0], y - ORIGIN[1]), np.arctan2(y - ORIGIN[1], x - ORIGIN[0])


def test_a_round_wall_hides_what_is_behind_it():
    seen = find_in_sight(scan(lambda azimuth: np.full_like(azimuth, 20.0)), ORIGIN, GRID)
    distance, _ = distances()
    assert seen[distance < 20].all()
    assert not seen[distance > 21.5].any()


@given(st.floats(-3, 3), st.floats(0.1, 1.0))
def test_a_wall_hides_its_own_directions_alone(azimuth, width):
    def away(angles):
        return np.abs((angles - azimuth + np.pi) % (2 * np.pi) - np.pi)

    def reach(angles):
        return np.where(away(angles) < width, 10.0, 80.0)

    seen = find_in_sight(scan(reach), ORIGIN, GRID)
    distance, direction = distances()
    behind = (away(direction) < width - 0.1) & (distance > 12)
    assert not seen[behind].any()
    beside = away(direction) > width + 0.1
    assert seen[beside].all()


def test_beams_that_rise_say_nothing_about_the_ground():
    low, high = (lambda azimuth, r=r: np.full_like(azimuth, r) for r in (10.0, 80.0))
    points = np.concatenate((scan(low), scan(high, elevations=(3.0,))))
    seen = find_in_sight(points, ORIGIN, GRID)
    assert not seen[distances()[0] > 12].any()


def test_a_cell_with_a_return_is_seen():
    points = np.concatenate((scan(lambda azimuth: np.full_like(azimuth, 10.0)), [[30.5, 0.5, 6.0], [300, 0, 9]]))
    seen = find_in_sight(points, ORIGIN, GRID)
    row, column = np.nonzero(seen & (distances()[0] > 12))
    assert (row.tolist(), column.tolist()) == ([40], [70])


@pytest.mark.parametrize("count", [0, 1])
def test_without_returns_on_the_grid_nothing_around_the_lidar_is_seen(count):
    seen = find_in_sight(np.full((count, 5), 500.0), ORIGIN, GRID)
    assert not seen[distances()[0] > 1].any()


def test_a_camera_that_looks_ahead_sees_nothing_behind(small_root):
    cells, frames = make_cells(small_root)
    in_view, seen = cells.find_in_view(frames.sample(0)), cells.find(frames.sample(0))
    assert not in_view[:, :30].any()
    assert in_view[35:45, 55:60].all()
    assert (seen <= in_view).all()
    assert 0 < seen.sum() < in_view.sum()


def test_a_sample_without_lidar_hides_nothing_and_is_counted(small_root):
    cells, frames = make_cells(small_root)
    sample = frames.sample(0)
    records = {name: record for name, record in sample.records.items() if name != LIDAR}
    found = cells.find(replace(sample, records=records))
    np.testing.assert_array_equal(found, cells.find_in_view(sample))
    assert cells.without_lidar == 1


def test_a_lidar_file_that_cannot_be_read_is_an_error(small_root, tmp_path):
    cells, frames = make_cells(small_root)
    sample = frames.sample(0)
    lost = replace(sample.record(LIDAR), path=tmp_path / "none.pcd.bin")
    with pytest.raises(BridgeTAError, match=r"none\.pcd\.bin"):
        cells.find(replace(sample, records={**sample.records, LIDAR: lost}))


def test_every_rig_has_its_own_view(small_root):
    cells, frames = make_cells(small_root)
    sample = frames.sample(0)
    front, back = sample.record("CAM_FRONT"), sample.record("CAM_BACK")
    turned = replace(sample, records={**sample.records, "CAM_FRONT": replace(back, channel="CAM_FRONT")})
    ahead, behind = cells.find_in_view(sample), cells.find_in_view(turned)
    assert not (ahead & behind).any()
    np.testing.assert_array_equal(cells.find_in_view(sample), ahead)
    assert front.intrinsics is not None


def make_cells(root):
    image = ImageConfig(48, 32, margin=1.0)
    frames = FrameDataset(NuScenesDataset(root, "v1.0-mini"), "all", ("CAM_FRONT",), image, GRID)
    return SeenCells(frames, LiftConfig()), frames
