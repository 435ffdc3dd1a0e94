"""Polylines, roads, the random network, lanes and routes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Polygon

from bridgeta_synth.world.streets.lanes import LaneGraph, LaneKey, build_lane_graph
from bridgeta_synth.world.streets.layouts import LAYOUTS
from bridgeta_synth.world.streets.network import RoadNetwork, build_network
from bridgeta_synth.world.streets.roads import Profile, Road
from bridgeta_synth.world.streets.shapes import (
    Points,
    arc_length,
    hermite,
    offset,
    resample,
    ribbon,
    rounded,
    tightest_radius,
)
from bridgeta_synth.world.streets.street_graph import StreetGraph

AHEAD = np.array([1.0, 0.0])


def arc(radius: float, turn: float, step: float = 0.5) -> Points:
    """A circular arc from the origin along x to the left."""
    angle = np.linspace(0, turn, max(3, round(radius * turn / step)))
    return radius * np.stack((np.sin(angle), 1 - np.cos(angle)), axis=1)


def straight_road(profile: Profile, driving_side: int = 1) -> Road:
    """A road of 100 m along x."""
    centre = np.stack((np.arange(101.0), np.zeros(101)), axis=1)
    return Road(0, 0, 1, centre, profile, driving_side, (20.0, 20.0))


@given(st.floats(10, 40), st.floats(0.2, 1.5))
@settings(max_examples=25, deadline=None)
def test_a_path_across_a_junction_leaves_and_arrives_with_the_given_headings(chord: float, turn: float) -> None:
    out = np.array([math.cos(turn), math.sin(turn)])
    path = hermite(np.zeros(2), AHEAD, chord * np.array([math.cos(turn / 2), math.sin(turn / 2)]), out)
    first, last = path[1] - path[0], path[-1] - path[-2]
    assert first @ AHEAD / np.linalg.norm(first) > 0.999
    assert last @ out / np.linalg.norm(last) > 0.999
    # A circular arc of that chord and turn.
    assert arc_length(path)[-1] == pytest.approx(chord * (turn / 2) / math.sin(turn / 2), rel=0.02)


@given(st.floats(0.6, 2.2), st.floats(5, 30), st.floats(5, 30), st.sampled_from((-1, 1)), st.floats(4, 40))
@settings(max_examples=40, deadline=None)
def test_a_rounded_corner_keeps_to_both_legs_and_to_its_radius(
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
@settings(max_examples=25, deadline=None)
def test_an_arc_has_its_radius_and_its_parallels_theirs(radius: float, turn: float) -> None:
    line = arc(radius, turn)
    assert tightest_radius(line) == pytest.approx(radius, rel=0.02)
    assert tightest_radius(offset(line, 3.0)) == pytest.approx(radius - 3.0, rel=0.05)


@given(st.floats(20, 200), st.floats(0.3, 2.0), st.floats(0.1, 6.0))
@settings(max_examples=25, deadline=None)
def test_a_ribbon_is_as_wide_as_it_should_be(radius: float, turn: float, width: float) -> None:
    band = Polygon(ribbon(arc(radius, turn), width))
    assert band.is_valid
    # The area between two concentric arcs.
    assert band.area == pytest.approx(radius * turn * width, rel=0.02)


def test_lanes_lie_side_by_side_between_the_kerb_and_the_island() -> None:
    road = straight_road(Profile(2, 1, 3.0, median=2.0))
    assert road.width == pytest.approx(3 * 3.0 + 2.0 + 2 * 0.3)
    # Traffic keeps right: ahead means y < 0.
    assert [road.lane(True, i)[0, 1] for i in (0, 1)] == pytest.approx([-5.8 + 0.3 + 1.5, -5.8 + 0.3 + 4.5])
    assert road.lane(False, 0)[0, 1] == pytest.approx(5.8 - 0.3 - 1.5)
    assert road.inner(False) - road.inner(True) == pytest.approx(2.0)
    assert road.lane(True, 0)[0, 0] == pytest.approx(20)
    assert road.lane(False, 0)[0, 0] == pytest.approx(80)


def test_traffic_keeps_to_its_side() -> None:
    for driving_side in (1, -1):
        road = straight_road(Profile(1, 1, 3.0), driving_side)
        assert driving_side * road.lane(True, 0)[0, 1] < 0 < driving_side * road.lane(False, 0)[0, 1]


@pytest.fixture(scope="module", params=[(seed, split) for seed in range(2) for split in range(3)])
def network(request: pytest.FixtureRequest) -> RoadNetwork:
    seed, split = request.param
    return build_network(np.random.default_rng([seed, split]), seed % 2 == 0, LAYOUTS[split], 18)


def test_junctions_have_three_or_four_arms_that_are_well_apart(network: RoadNetwork) -> None:
    for arms in network.arms.values():
        assert len(arms) in (3, 4)
        angles = np.array([arm.angle for arm in arms])
        gaps = (np.roll(angles, -1) - angles) % (2 * math.pi)
        assert gaps.sum() == pytest.approx(2 * math.pi)
        assert np.rad2deg(gaps.min()) >= 55


def test_roads_have_two_to_six_lanes_and_gentle_bends_and_join_junctions_only(network: RoadNetwork) -> None:
    for road in network.roads:
        assert 2 <= road.profile.ahead + road.profile.back <= 6
        assert tightest_radius(road.centre) >= 25
        assert road.span[1] - road.span[0] > 20
        assert {road.start, road.end} <= set(network.arms)


def test_outlines_of_roads_and_junctions_are_valid_and_do_not_overlap(network: RoadNetwork) -> None:
    strips = [Polygon(road.strip(*road.span, road.width / 2, -road.width / 2)) for road in network.roads]
    shapes = [*strips, *network.junctions.values()]
    assert all(shape.is_valid for shape in shapes)
    whole = shapely.union_all(shapes)
    assert whole.geom_type == "Polygon"
    assert whole.area == pytest.approx(sum(shape.area for shape in shapes), rel=1e-3)


def test_every_lane_leads_on_and_paths_join_it_to_the_next_one(network: RoadNetwork) -> None:
    graph, number, _ = build_lane_graph(network)
    assert set(number.values()) == set(range(len(graph.lanes)))
    paved = shapely.union_all(
        [Polygon(r.strip(*r.span, r.width / 2, -r.width / 2)) for r in network.roads] + [*network.junctions.values()]
    ).buffer(0.01)
    shapely.prepare(paved)
    for lane, ways in zip(graph.lanes, graph.successors, strict=True):
        assert ways
        for following, path in ways:
            np.testing.assert_allclose(path[0], lane[-1], atol=1e-6)
            np.testing.assert_allclose(path[-1], graph.lanes[following][0], atol=1e-6)
            assert shapely.contains_xy(paved, *path.T).all()
            assert tightest_radius(path) > 4


def test_turns_to_the_kerb_lead_from_kerb_lane_to_kerb_lane(network: RoadNetwork) -> None:
    _, _, turns = build_lane_graph(network)
    for lane, found in turns.items():
        for turn in found:
            if turn.angle * network.driving_side < -math.radians(38):
                assert turn.end.lane == 0
                # A lane with a way of its own does not turn across its neighbours.
                assert lane.lane == 0 or len(found) == 1
    assert all(isinstance(lane, LaneKey) for lane in turns)


def test_a_route_is_long_enough_smooth_and_in_steps_of_half_a_metre(network: RoadNetwork) -> None:
    graph, _, _ = build_lane_graph(network)
    rng = np.random.default_rng(0)
    for lane in rng.integers(len(graph.lanes), size=5):
        route = graph.draw_route(int(lane), 400.0, rng)
        steps = np.diff(route, axis=0)
        assert arc_length(route)[-1] >= 400
        np.testing.assert_allclose(np.hypot(*steps.T), 0.5, atol=0.03)
        heading = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
        assert np.rad2deg(np.abs(np.diff(heading)).max()) < 12


def test_a_route_ends_early_only_where_a_lane_leads_nowhere() -> None:
    first, second = np.stack((np.arange(21.0), np.zeros(21)), 1), np.stack((np.arange(30.0, 51.0), np.zeros(21)), 1)
    graph = LaneGraph((first, second), (((1, np.array([[20.0, 0.0], [30.0, 0.0]])),), ()))
    route = graph.draw_route(0, 1000.0, np.random.default_rng(0))
    np.testing.assert_allclose(route[[0, -1]], [[0, 0], [50, 0]])


def test_equal_seeds_give_equal_networks_and_others_do_not() -> None:
    a, b, c = (build_network(np.random.default_rng(seed), True, LAYOUTS[0], 14) for seed in (5, 5, 6))
    assert all(np.array_equal(p.centre, q.centre) for p, q in zip(a.roads, b.roads, strict=True))
    assert len(a.roads) != len(c.roads) or not np.array_equal(a.nodes, c.nodes)


@pytest.mark.parametrize("wanted", [12, 30, 50])
def test_the_number_of_junctions_is_about_what_was_asked_for(wanted: int) -> None:
    network = build_network(np.random.default_rng(wanted), True, LAYOUTS[0], wanted)
    assert 0.6 * wanted <= len(network.arms) <= 1.5 * wanted


def test_splits_differ_in_their_layouts() -> None:
    """Straightness of streets and the share of junctions of four arms."""
    crossings, bends = [], []
    for layout in LAYOUTS:
        graphs = [StreetGraph.draw(np.random.default_rng(seed), 40, layout) for seed in range(5)]
        arms = [len(graph.neighbours(node)) for graph in graphs for node in range(len(graph.nodes))]
        crossings.append(arms.count(4) / (arms.count(3) + arms.count(4)))
        bends.append(arms.count(2) / len(arms))
    assert crossings[1] < crossings[0] < crossings[2]
    assert bends[2] < bends[0] < bends[1]
