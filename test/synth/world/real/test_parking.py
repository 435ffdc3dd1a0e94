"""Bays fill car parks without leaving them or touching each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import Polygon, box

from bridgeta_synth.world.real.parking import find_bays


@settings(max_examples=40)
@given(length=st.floats(4, 70), depth=st.floats(2, 45), turn=st.floats(-3, 3))
def test_bays_lie_inside_and_apart(length: float, depth: float, turn: float) -> None:
    outline = affinity.rotate(box(0, 0, length, depth), turn, use_radians=True)
    shapes = [found.outline for found in find_bays(outline)]
    for shape in shapes:
        assert outline.buffer(0.2).contains(shape)
    # On a grid: without one, GEOS 3.11 loses some of several rectangles that share edges.
    whole = shapely.union_all(shapes, grid_size=1e-4)
    assert whole.area == pytest.approx(sum(s.area for s in shapes), abs=0.05)


@pytest.mark.parametrize(
    ("depth", "count", "across"), [(2.5, 5, False), (5.2, 11, True), (16.0, 22, True), (26.5, 33, True)]
)
def test_depth_decides_about_rows_and_aisles(depth: float, count: int, across: bool) -> None:
    bays = [found.bay for found in find_bays(box(0, 0, 30, depth))]
    assert len(bays) == count
    # Cars stand along the kerb in a narrow strip, and side by side elsewhere.
    assert all(abs(math.cos(bay.yaw)) < 1e-6 if across else abs(math.sin(bay.yaw)) < 1e-6 for bay in bays)
    assert all(bay.kerbside != across for bay in bays)


def test_slivers_hold_no_cars() -> None:
    assert find_bays(box(0, 0, 30, 1.0)) == []
    assert find_bays(Polygon([(0, 0), (6, 0), (0, 4)])) == []


def test_lines_lie_between_neighbouring_bays() -> None:
    one, following = find_bays(box(0, 0, 30, 5.2))[:2]
    np.testing.assert_allclose(one.lines[1], following.lines[0])
    for line in one.lines:
        assert shapely.distance(one.outline.exterior, shapely.points(line)).max() < 1e-9
