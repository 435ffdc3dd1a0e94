"""Shadows of solids fall on the terrain along the sun's rays."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_synth.render.shadows import (
    frustum_corners,
    hang_cables,
    outline_ellipsoids,
    project_to_ground,
    sun_drift,
)
from bridgeta_synth.world.solids import BODY, CROWN, SolidList
from bridgeta_synth.world.terrain import Terrain

FLAT = Terrain(np.zeros((260, 260), dtype=np.float32), 2.0, (-260.0, -260.0))
HILLS = Terrain.draw(np.random.default_rng(1), (100, 100))


def sun_at(elevation: float) -> tuple[float, float, float]:
    """Return the direction to a sun in the east at an elevation in degrees."""
    return math.cos(math.radians(elevation)), 0.0, math.sin(math.radians(elevation))


@given(
    point=st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 25)),
    azimuth=st.floats(-3.14, 3.14),
    elevation=st.floats(0.2, 1.4),
)
@settings(max_examples=60)
def test_a_points_shadow_lies_on_the_suns_ray(
    point: tuple[float, float, float], azimuth: float, elevation: float
) -> None:
    sun = (
        math.cos(elevation) * math.cos(azimuth),
        math.cos(elevation) * math.sin(azimuth),
        math.sin(elevation),
    )
    xy = np.array(point[:2])
    top = np.array((*xy, HILLS.height(xy) + point[2]))
    place = project_to_ground(top, HILLS, sun_drift(sun))
    on_ground = np.array((*place, HILLS.height(place)))
    way = top - on_ground
    # A slope of 6 % that the sun grazes leaves some centimetres.
    assert (
        np.linalg.norm(np.cross(way / np.linalg.norm(way), sun)) * np.linalg.norm(way)
        < 0.05 + 0.004 * point[2] / sun[2] ** 2
    )


def test_an_ellipsoids_outline_is_where_the_sun_grazes_it() -> None:
    solids = SolidList()
    solids.add(CROWN, (0, 0, 3.0), (4.0, 3.0, 2.0), (0.2, 0.3, 0.1), yaw=0.7, is_round=True)
    built, sun = solids.build(), sun_at(30)
    ring = outline_ellipsoids(built, sun)[0]
    local = (ring - (0, 0, 4.0)) @ built.axes[0]
    np.testing.assert_allclose((local / (2.0, 1.5, 1.0)) ** 2 @ np.ones(3), 1, atol=1e-9)
    normal = (local / np.square((2.0, 1.5, 1.0))) @ built.axes[0].T
    np.testing.assert_allclose(normal @ np.array(sun), 0, atol=1e-9)


def test_the_corners_of_a_tapered_box_are_on_it() -> None:
    solids = SolidList()
    solids.add(BODY, (1, 2, 0.5), (4.0, 2.0, 1.0), (1, 1, 1), yaw=0.3, lean=(0.5, 0.2, 0.1))
    corners = frustum_corners(solids.build())[0]
    local = (corners - (1, 2, 0.5)) @ solids.build().axes[0]
    np.testing.assert_allclose(local[4:, 2], 1.0)
    np.testing.assert_allclose(sorted(set(local[4:, 0].round(6))), (-1.8, 1.5))
    np.testing.assert_allclose(np.abs(local[4:, 1]), 0.9)


def test_cables_between_close_lamps_cast_shadow_lines() -> None:
    lamps = np.array([[0.0, 0.0, 8.0], [20.0, 0.0, 8.0], [200.0, 0.0, 8.0]])
    lines = [line for seed in range(30) for line in hang_cables(lamps, FLAT, sun_at(45), np.random.default_rng(seed))]
    assert 0 < len(lines) < 20
    for line in lines:
        np.testing.assert_allclose(line[[0, -1]], ((-8.0, 0.0), (12.0, 0.0)), atol=1e-6)
