"""Lanes follow each other across junctions, on paths that can be driven."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from bridgeta_synth.world.real.centrelines import Strip
from bridgeta_synth.world.real.connections import connect
from bridgeta_synth.world.streets.shapes import tightest_radius

HALF, ARM = 7.0, 60.0  # metres: half the road's width and the distance of the junction's mouths


def lane(start: tuple[float, float], end: tuple[float, float], width: float = 3.5) -> Strip:
    points = np.linspace(start, end, 40)
    way = (points[-1] - points[0]) / np.linalg.norm(points[-1] - points[0])
    left = width / 2 * np.array((-way[1], way[0]))
    return Strip(points, points + left, points - left)


@pytest.fixture
def crossroads() -> tuple[dict[str, Strip], BaseGeometry]:
    """Two lanes each way on four arms, traffic on the right; "s1 in" comes from the south in the lane at the kerb."""
    strips = {}
    for name, turn in (("s", 0), ("e", 1), ("n", 2), ("w", 3)):
        c, s = np.cos(turn * np.pi / 2), np.sin(turn * np.pi / 2)
        for number, x in ((1, 5.25), (2, 1.75)):
            for way, points in (("in", ((x, -ARM), (x, -12))), ("out", ((-x, -12), (-x, -ARM)))):
                a, b = ((c * px - s * py, s * px + c * py) for px, py in points)
                strips[f"{name}{number} {way}"] = lane(a, b)
    road = unary_union([box(-HALF, -ARM, HALF, ARM), box(-ARM, -HALF, ARM, HALF)]).buffer(6).buffer(-6)
    return strips, road


def following(crossroads: tuple[dict[str, Strip], BaseGeometry]) -> dict[str, set[str]]:
    strips, road = crossroads
    names = list(strips)
    successors = connect(list(strips.values()), road)
    return {name: {names[j] for j, _ in follow} for name, follow in zip(names, successors, strict=True)}


def test_turns_lead_from_outermost_to_outermost_lane(
    crossroads: tuple[dict[str, Strip], BaseGeometry],
) -> None:
    follows = following(crossroads)
    assert follows["s1 in"] == {"n1 out", "e1 out"}
    assert follows["s2 in"] == {"n2 out", "w2 out"}
    assert follows["e1 in"] == {"w1 out", "n1 out"}


def test_lanes_that_leave_the_junction_have_no_successor(
    crossroads: tuple[dict[str, Strip], BaseGeometry],
) -> None:
    follows = following(crossroads)
    assert all(not follows[name] for name in follows if name.endswith("out"))


def test_paths_are_smooth_and_stay_on_the_road(
    crossroads: tuple[dict[str, Strip], BaseGeometry],
) -> None:
    strips, road = list(crossroads[0].values()), crossroads[1]
    found = 0
    for strip, follow in zip(strips, connect(strips, road), strict=True):
        for j, path in follow:
            found += 1
            np.testing.assert_allclose(path[0], strip.centre[-1])
            np.testing.assert_allclose(path[-1], strips[j].centre[0])
            assert tightest_radius(path) > 4
            assert shapely.length(shapely.linestrings(path).intersection(road)) > 0.9 * shapely.length(
                shapely.linestrings(path)
            )
            first = (path[1] - path[0]) / np.linalg.norm(path[1] - path[0])
            assert first @ strip.leaving > 0.95
    assert found == 16


def test_a_lane_that_meets_another_leads_into_it() -> None:
    one, other = lane((0, 0), (50, 0)), lane((50, 0), (90, 0))
    successors = connect([one, other], box(-1, -2, 91, 2))
    assert [j for j, _ in successors[0]] == [1]
    assert successors[1] == ()


def test_no_path_crosses_a_block_or_other_lanes() -> None:
    one, between, other = lane((0, 0), (20, 0)), lane((22, 0), (34, 0)), lane((36, 0), (60, 0))
    assert [j for j, _ in connect([one, between, other], box(-1, -2, 61, 2))[0]] == [1]
    gap = unary_union([box(-1, -2, 20, 2), box(36, -2, 61, 2)])
    assert connect([one, other], gap) == ((), ())


def test_no_lanes_have_no_successors() -> None:
    assert connect([], box(0, 0, 1, 1)) == ()
