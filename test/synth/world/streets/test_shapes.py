"""Polylines, arcs and bands; clean polygons and outlines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, Polygon, box

from bridgeta_synth.world.streets.shapes import (
    Points,
    arc_length,
    hermite,
    offset,
    outlines,
    parts,
    resample,
    ribbon,
    rounded,
    tightest_radius,
)

AHEAD = np.array([1.0, 0.0])


def arc(radius: float, turn: float, step: float = 0.5) -> Points:
    """A circular arc from the origin along x to the left."""
    angle = np.linspace(0, turn, max(3, round(radius * turn / step)))
    return radius * np.stack((np.sin(angle), 1 - np.cos(angle)), axis=1)


@given(st.floats(10, 40), st.floats(0.2, 1.5))
@settings(max_examples=25)
def test_a_hermite_path_has_the_given_headings_at_its_ends(chord: float, turn: float) -> None:
    out = np.array([math.cos(turn), math.sin(turn)])
    path = hermite(np.zeros(2), AHEAD, chord * np.array([math.cos(turn / 2), math.sin(turn / 2)]), out)
    first, last = path[1] - path[0], path[-1] - path[-2]
    assert first @ AHEAD / np.linalg.norm(first) > 0.999
    assert last @ out / np.linalg.norm(last) > 0.999
    # A circular arc of that chord and turn.
    assert arc_length(path)[-1] == pytest.approx(chord * (turn / 2) / math.sin(turn / 2), rel=0.02)


@given(st.floats(0.6, 2.2), st.floats(5, 30), st.floats(5, 30), st.sampled_from((-1, 1)), st.floats(4, 40))
@settings(max_examples=40)
def test_a_rounded_corner_follows_both_legs_and_its_radius(
    turn: float, before: float, after: float, side: int, radius: float
) -> None:
    out = np.array([math.cos(turn), side * math.sin(turn)])
    end = before * AHEAD + after * out
    path = rounded(np.zeros(2), AHEAD, end, out, radius, 0.25)
    np.testing.assert_allclose(path[[0, -1]], [np.zeros(2), end], atol=1e-9)
    legs = LineString([(0, 0), before * AHEAD, end])
    # The arc lies on the inner side, at most the corner's distance from the legs' corner.
    cut = min(before, after, radius * math.tan(turn / 2))
    assert legs.hausdorff_distance(LineString(path)) < cut
    assert arc_length(path)[-1] < before + after
    assert legs.buffer(1e-6).contains(shapely.Point(path[0]))
    expected = cut / math.tan(turn / 2)
    assert tightest_radius(resample(path, 0.25)) > 0.55 * expected


@given(st.floats(8, 200), st.floats(0.5, 2.5))
@settings(max_examples=25)
def test_an_offset_arc_changes_its_radius_by_the_offset(radius: float, turn: float) -> None:
    line = arc(radius, turn)
    assert tightest_radius(line) == pytest.approx(radius, rel=0.02)
    assert tightest_radius(offset(line, 3.0)) == pytest.approx(radius - 3.0, rel=0.05)


@given(st.floats(20, 200), st.floats(0.3, 2.0), st.floats(0.1, 6.0))
@settings(max_examples=25)
def test_a_ribbon_has_the_given_width(radius: float, turn: float, width: float) -> None:
    band = Polygon(ribbon(arc(radius, turn), width))
    assert band.is_valid
    # The area between two concentric arcs.
    assert band.area == pytest.approx(radius * turn * width, rel=0.02)


def test_outlines_have_the_area_on_their_left() -> None:
    area = box(0, 0, 40, 30).difference(box(10, 10, 30, 20))
    rings = outlines(area)
    assert len(rings) == 2
    for ring in rings:
        way = ring[6] - ring[5]
        left = ring[5] + 0.5 * np.array((-way[1], way[0]))
        assert area.contains(Point(left))


def test_parts_are_valid_and_on_the_millimetre_grid() -> None:
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10.00049)])
    found = parts(bow_tie)
    assert all(p.is_valid for p in found)
    corners = np.concatenate([np.asarray(p.exterior.coords) for p in found])
    np.testing.assert_allclose(corners, np.round(corners, 3), atol=1e-9)
