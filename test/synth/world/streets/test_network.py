"""Random road networks are valid, reproducible and of about the requested size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from bridgeta_synth.world.streets.layouts import LAYOUTS
from bridgeta_synth.world.streets.network import RoadNetwork, build_network
from bridgeta_synth.world.streets.shapes import (
    tightest_radius,
)


def test_junctions_have_three_or_four_arms_well_apart(network: RoadNetwork) -> None:
    for arms in network.arms.values():
        assert len(arms) in (3, 4)
        angles = np.array([arm.angle for arm in arms])
        gaps = (np.roll(angles, -1) - angles) % (2 * math.pi)
        assert gaps.sum() == pytest.approx(2 * math.pi)
        assert np.rad2deg(gaps.min()) >= 55


def test_roads_have_two_to_six_lanes_and_gentle_bends(network: RoadNetwork) -> None:
    for road in network.roads:
        assert 2 <= road.profile.ahead + road.profile.back <= 6
        assert tightest_radius(road.centre) >= 25
        assert road.span[1] - road.span[0] > 20
        assert {road.start, road.end} <= set(network.arms)


def test_roads_and_junctions_are_valid_and_do_not_overlap(network: RoadNetwork) -> None:
    strips = [Polygon(road.strip(*road.span, road.width / 2, -road.width / 2)) for road in network.roads]
    shapes = [*strips, *network.junctions.values()]
    assert all(shape.is_valid for shape in shapes)
    whole = shapely.union_all(shapes)
    assert whole.geom_type == "Polygon"
    assert whole.area == pytest.approx(sum(shape.area for shape in shapes), rel=1e-3)


def test_equal_seeds_give_equal_networks_and_others_do_not() -> None:
    a, b, c = (build_network(np.random.default_rng(seed), True, LAYOUTS[0], 14) for seed in (5, 5, 6))
    assert all(np.array_equal(p.centre, q.centre) for p, q in zip(a.roads, b.roads, strict=True))
    assert len(a.roads) != len(c.roads) or not np.array_equal(a.nodes, c.nodes)


@pytest.mark.parametrize("wanted", [12, 30, 50])
def test_the_number_of_junctions_is_about_as_requested(wanted: int) -> None:
    network = build_network(np.random.default_rng(wanted), True, LAYOUTS[0], wanted)
    assert 0.6 * wanted <= len(network.arms) <= 1.5 * wanted
