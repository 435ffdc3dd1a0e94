"""The ground below the map's lines, from LiDAR points alone."""

from __future__ import annotations

import numpy as np

from bridgeta_core.view.ground import GroundHeight


def _hills(xy: np.ndarray) -> np.ndarray:
    # Level at the vehicle, which stands on it.
    return 0.7 * (1 - np.cos(xy[:, 0] / 14)) + 0.02 * xy[:, 1]


def _rings(rng: np.random.Generator) -> np.ndarray:
    """Points on the hills where a LiDAR of 32 beams sees them, roughly: rings that are the wider apart the further."""
    radius = 1.84 / np.tan(np.deg2rad(np.arange(2.0, 31, 1.33)))
    angle = np.linspace(-np.pi, np.pi, 1080)
    xy = np.concatenate([r * np.stack((np.cos(angle), np.sin(angle)), axis=1) for r in radius])
    return np.column_stack((xy, _hills(xy) + rng.normal(0, 0.01, len(xy))))


def test_ground_follows_hills_but_not_walls_and_cars() -> None:
    rng = np.random.default_rng(0)
    ground = _rings(rng)
    wall = np.column_stack((rng.uniform(-40, 40, 4000), rng.normal(9, 0.05, 4000), rng.uniform(0, 4, 4000)))
    wall[:, 2] += _hills(wall)
    car = np.column_stack((rng.uniform(10, 14.5, 800), rng.uniform(-3, -1.2, 800), rng.uniform(0.4, 1.5, 800)))
    car[:, 2] += _hills(car)
    behind = ground[:, 1] < 9
    height = GroundHeight(np.concatenate((ground[behind], wall, car)))
    x, y = np.meshgrid(np.arange(-24, 25, 2.0), np.arange(-24, 8, 2.0))
    places = np.stack((x.ravel(), y.ravel()), axis=1)
    error = np.abs(height(places) - _hills(places))
    assert np.median(error) < 0.05
    assert error.max() < 0.25


def test_a_level_plane_stays_one_however_far() -> None:
    points = _rings(np.random.default_rng(1))
    points[:, 2] = 0
    places = np.array([(0.0, 0.0), (30, -20), (60, 60), (200, 0)])
    np.testing.assert_allclose(GroundHeight(points)(places), 0, atol=1e-6)


def test_without_points_the_ground_is_level() -> None:
    np.testing.assert_allclose(GroundHeight(np.zeros((0, 4)))(np.array([(10.0, 3.0)])), 0, atol=1e-6)


def test_many_places_at_once_are_those_one_by_one() -> None:
    height = GroundHeight(_rings(np.random.default_rng(2)))
    places = np.random.default_rng(3).uniform(-50, 50, (20_000, 2))
    np.testing.assert_allclose(height(places)[[0, 9000, 19_999]], [height(places[[i]])[0] for i in (0, 9000, 19_999)])
