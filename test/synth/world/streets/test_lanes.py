"""Lanes lead into each other, and routes follow them."""

from __future__ import annotations

import math

import numpy as np
import shapely
from shapely.geometry import Polygon

from bridgeta_synth.world.streets.lanes import LaneGraph, LaneKey, build_lane_graph
from bridgeta_synth.world.streets.network import RoadNetwork
from bridgeta_synth.world.streets.shapes import (
    arc_length,
    tightest_radius,
)


def test_paths_join_every_lane_to_the_next(network: RoadNetwork) -> None:
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


def test_a_route_is_long_and_smooth_in_steps_of_half_a_metre(network: RoadNetwork) -> None:
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
