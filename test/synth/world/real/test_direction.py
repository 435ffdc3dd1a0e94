"""Dividers, medians, kerbs and other lanes decide about the directions of lanes."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import LineString, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from bridgeta_synth.world.real.centrelines import Strip, find_strip
from bridgeta_synth.world.real.direction import Surroundings, orient_strips

NOTHING = LineString()


def lanes(*boxes: tuple[float, float, float, float]) -> list[Strip]:
    strips = [find_strip(box(*corners)) for corners in boxes]
    return [strip for strip in strips if strip is not None]


def eastward(strips: list[Strip]) -> list[bool]:
    return [bool(strip.centre[-1, 0] > strip.centre[0, 0]) for strip in strips]


@pytest.mark.parametrize("driving_side", [1, -1])
def test_the_road_divider_lies_on_the_side_away_from_the_kerb(driving_side: int) -> None:
    street = lanes((0, 0, 80, 3.5), (0, 3.5, 80, 7))
    around = Surroundings(LineString([(0, 3.5), (80, 3.5)]), NOTHING, NOTHING, box(0, 0, 80, 7))
    found, sure = orient_strips(street, around, driving_side)
    assert eastward(found) == ([True, False] if driving_side > 0 else [False, True])
    assert (sure > 0.5).all()


@pytest.mark.parametrize("driving_side", [1, -1])
def test_lanes_beside_a_lane_divider_run_the_same_way(driving_side: int) -> None:
    street = lanes((0, 0, 80, 3.5), (0, 3.5, 80, 7), (0, 7, 80, 10.5), (0, 10.5, 80, 14))
    dashed = unary_union([LineString([(0, y), (80, y)]) for y in (3.5, 10.5)])
    around = Surroundings(LineString([(0, 7), (80, 7)]), dashed, NOTHING, box(0, 0, 80, 14))
    found, _ = orient_strips(street, around, driving_side)
    assert eastward(found) == [driving_side > 0, driving_side > 0, driving_side < 0, driving_side < 0]


@pytest.mark.parametrize("driving_side", [1, -1])
def test_lanes_beyond_a_median_run_the_other_way(driving_side: int) -> None:
    carriageways = lanes((0, 0, 80, 3.5), (0, 9.5, 80, 13))
    road: BaseGeometry = unary_union([box(0, 0, 80, 3.5), box(0, 9.5, 80, 13)])
    found, sure = orient_strips(carriageways, Surroundings(NOTHING, NOTHING, NOTHING, road), driving_side)
    assert eastward(found) == [driving_side > 0, driving_side < 0]
    assert (sure > 0.3).all()


def test_a_lane_straight_across_a_junction_runs_the_same_way() -> None:
    street = lanes((0, 0, 40, 3.5), (0, 3.5, 40, 7), (65, 0, 100, 3.5))
    road = unary_union([box(0, 0, 65, 7), box(60, 0, 100, 3.5)])
    found, _ = orient_strips(street, Surroundings(LineString([(0, 3.5), (40, 3.5)]), NOTHING, NOTHING, road), 1)
    assert eastward(found) == [True, False, True]


def test_lanes_end_at_their_stop_line() -> None:
    stop = box(34, -0.2, 38, 7.2)
    around = Surroundings(NOTHING, LineString([(0, 3.5), (40, 3.5)]), stop, box(0, 0, 60, 7))
    found, sure = orient_strips(lanes((0, 0, 40, 3.5), (0, 3.5, 40, 7)), around, 1)
    assert eastward(found) == [True, True]
    assert (sure > 0.3).all()


def test_without_evidence_the_direction_is_unsure() -> None:
    _, sure = orient_strips(lanes((0, 0, 40, 3.5)), Surroundings(NOTHING, NOTHING, NOTHING, box(-50, -50, 90, 60)), 1)
    assert sure[0] < 0.05


def test_the_order_of_outline_points_does_not_matter() -> None:
    street = lanes((0, 0, 80, 3.5), (0, 3.5, 80, 7))
    around = Surroundings(LineString([(0, 3.5), (80, 3.5)]), NOTHING, NOTHING, box(0, 0, 80, 7))
    one, _ = orient_strips(street, around, 1)
    other, _ = orient_strips([strip.reversed() for strip in street], around, 1)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.centre, b.centre)


def test_no_lanes_have_no_directions() -> None:
    assert orient_strips([], Surroundings(NOTHING, NOTHING, NOTHING, box(0, 0, 1, 1)), 1)[0] == []
