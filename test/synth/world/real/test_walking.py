"""People walk along the edges of walkways and over crossings from kerb to kerb."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import Polygon, box

from bridgeta_synth.world.real.walking import find_footpaths, find_walking_axis, find_walking_line, outline_zebra_bars
from bridgeta_synth.world.streets.shapes import arc_length


def test_footpaths_keep_inside_walkways_and_off_their_edges() -> None:
    ring = box(0, 0, 100, 60).difference(box(3, 3, 97, 57))
    paths = find_footpaths(ring)
    points = np.concatenate(paths)
    assert shapely.contains_xy(ring, points).all()
    assert shapely.distance(shapely.boundary(ring), shapely.points(points)).min() > 0.6
    assert sum(arc_length(path)[-1] for path in paths) > 300
    assert max(arc_length(path)[-1] for path in paths) < 125
    steps = np.concatenate([np.diff(arc_length(path)) for path in paths])
    assert 0.9 < steps.mean() < 1.1


def test_narrow_walkways_have_no_footpath() -> None:
    assert find_footpaths(box(0, 0, 80, 1.2)) == []
    assert find_footpaths(Polygon()) == []


@settings(max_examples=40)
@given(
    length=st.floats(6, 30),
    width=st.floats(2.5, 5),
    turn=st.floats(-math.pi, math.pi),
    skew=st.floats(-0.4, 0.4),
)
def test_people_cross_the_traffic_from_kerb_to_kerb(length: float, width: float, turn: float, skew: float) -> None:
    traffic = np.array((-math.sin(turn), math.cos(turn)))
    road = affinity.rotate(box(-length / 2, -60, length / 2, 60), turn, (0, 0), use_radians=True)
    upright = affinity.skew(box(-length / 2, -width / 2, length / 2, width / 2), ys=skew, use_radians=True)
    crossing = affinity.rotate(upright, turn, (0, 0), use_radians=True)
    axis = find_walking_axis(crossing, traffic)
    assert abs(axis @ traffic) < 0.75
    line = find_walking_line(crossing, axis, road)
    # The middle of a skewed crossing runs along its skew.
    way = np.array((math.cos(turn), math.sin(turn))) + math.tan(skew) * traffic
    way /= np.linalg.norm(way)
    assert abs((line[-1] - line[0]) @ way) == pytest.approx(np.linalg.norm(line[-1] - line[0]), rel=1e-2)
    assert not shapely.contains_xy(road.buffer(-0.01), line[[0, -1]]).any()
    assert shapely.distance(road, shapely.points(line[[0, -1]])).max() < 0.5


def test_without_traffic_the_longer_axis_is_walked() -> None:
    np.testing.assert_allclose(abs(find_walking_axis(box(0, 0, 12, 3), None)), (1, 0), atol=1e-9)


def test_a_square_crossing_is_walked_across_the_traffic() -> None:
    np.testing.assert_allclose(abs(find_walking_axis(box(0, 0, 4, 4.5), np.array((0.0, 1.0)))), (1, 0), atol=1e-9)


def test_zebra_bars_lie_along_the_traffic_inside_the_crossing() -> None:
    crossing = box(0, 0, 10, 3)
    bars = outline_zebra_bars(crossing, np.array((1.0, 0.0)))
    assert len(bars) == 9
    for bar in bars:
        assert crossing.buffer(1e-6).contains(bar)
        x0, y0, x1, y1 = bar.bounds
        assert x1 - x0 == pytest.approx(0.5)
        assert y1 - y0 == pytest.approx(3)
