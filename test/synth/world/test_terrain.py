"""Hills are smooth and as steep as stated, and vehicles stand on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_synth.world.terrain import MAX_SLOPE, Terrain


def _terrain(seed: int = 4, relief: float = 1.0) -> Terrain:
    return Terrain.draw(np.random.default_rng(seed), (300.0, 200.0), relief)


@given(seed=st.integers(0, 1000), relief=st.floats(0.05, 1.0))
@settings(max_examples=15)
def test_the_steepest_slope_is_six_percent_times_the_relief(seed: int, relief: float) -> None:
    terrain = _terrain(seed, relief)
    dy, dx = np.gradient(terrain.heights.astype(np.float64), terrain.step)
    assert np.hypot(dx, dy).max() == pytest.approx(relief * MAX_SLOPE, rel=1e-3)


def test_crests_and_dips_are_within_fifty_metres() -> None:
    terrain = _terrain()
    x = np.arange(0, 300, 2.0)
    for y in range(0, 200, 20):
        slope = np.diff(terrain.height(np.stack((x, np.full_like(x, y)), axis=1)))
        turns = np.flatnonzero(np.diff(np.sign(slope)))
        assert np.diff(turns * 2.0).mean() < 100


def test_zero_relief_is_flat() -> None:
    assert not _terrain(relief=0.0).heights.any()


def test_heights_match_the_nodes_and_are_level_beyond_them() -> None:
    terrain = _terrain()
    rows, columns = terrain.heights.shape
    x = terrain.origin[0] + terrain.step * np.arange(columns)
    y = terrain.origin[1] + terrain.step * np.arange(rows)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    np.testing.assert_allclose(terrain.height(grid), terrain.heights, atol=1e-5)
    assert terrain.height(np.array([x[-1] + 500, y[3]])) == pytest.approx(terrain.heights[3, -1], abs=1e-4)


def test_an_extent_elsewhere_has_its_own_origin() -> None:
    terrain = Terrain.draw(np.random.default_rng(1), (100.0, 80.0), origin=(2000.0, 900.0), margin=50.0)
    assert terrain.origin == (1950.0, 850.0)
    assert terrain.heights.shape == (91, 101)


@given(
    x=st.floats(0, 300),
    y=st.floats(0, 200),
    yaw=st.floats(-math.pi, math.pi),
    length=st.floats(2, 6),
    width=st.floats(1.2, 2.2),
)
@settings(max_examples=50)
def test_the_wheels_of_a_vehicle_stand_on_the_ground(
    x: float, y: float, yaw: float, length: float, width: float
) -> None:
    terrain = _terrain()
    pose = terrain.pose(x, y, yaw, length, width)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert math.atan2(pose[1, 0], pose[0, 0]) == pytest.approx(yaw, abs=1e-9)
    wheels = np.array([(i * length / 2, j * width / 2, 0, 1) for i in (1, -1) for j in (1, -1)]) @ pose.T
    # Four wheels on a surface that is no plane: one may hang by millimetres.
    np.testing.assert_allclose(wheels[:, 2], terrain.height(wheels[:, :2]), atol=0.01)


def test_poses_broadcast() -> None:
    poses = _terrain().pose(np.zeros((5, 1)), np.arange(3.0), 0.1)
    assert poses.shape == (5, 3, 4, 4)
