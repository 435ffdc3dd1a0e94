"""Drivers keep their distance, wait at gates, and give way where routes meet."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_synth.traffic.collisions import overlaps
from bridgeta_synth.traffic.driving import Driver, Gates, drive, speed_limits
from bridgeta_synth.traffic.motion import Motion
from bridgeta_synth.traffic.routes import CROSS, FOLLOW, MERGE, Streets, find_meetings
from bridgeta_synth.world.streets.lanes import LaneGraph
from bridgeta_synth.world.streets.shapes import hermite, resample

_TIMES = np.arange(0.0, 20.0, 0.1)
_RNG = np.random.default_rng(0)


def _line(*points: tuple[float, float]) -> np.ndarray:
    return resample(np.array(points, dtype=np.float64), 1.0)


def _streets(lanes: list[np.ndarray], ways: dict[tuple[int, int], np.ndarray]) -> Streets:
    successors = tuple(tuple((to, path) for (lane, to), path in ways.items() if lane == k) for k in range(len(lanes)))
    return Streets(SimpleNamespace(lanes=LaneGraph(tuple(lanes), successors), polygons={}))


def _straight(length: float = 500.0) -> Streets:
    return _streets([_line((0, 0), (length, 0))], {})


def _crossroads() -> Streets:
    """From west to east (0 to 1) and from south to north (2 to 3), crossing at the origin; a right turn from 0."""
    lanes = [_line((-150, 0), (-10, 0)), _line((10, 0), (200, 0)), _line((0, -150), (0, -10)), _line((0, 10), (0, 200))]
    ways = {
        (0, 1): _line((-10, 0), (10, 0)),
        (2, 3): _line((0, -10), (0, 10)),
        (2, 1): hermite(np.array([0.0, -10]), np.array([0.0, 1]), np.array([10.0, 0]), np.array([1.0, 0])),
    }
    return _streets(lanes, ways)


def _driver(streets: Streets, lane: int, start: float, speed: float, cruise: float = 12.0, last: int = -1) -> Driver:
    """On a route of two lanes if `last` names the second."""
    for seed in range(50):
        route = streets.draw_route(lane, 300.0, np.random.default_rng(seed))
        if last < 0 or (last, -1) in route.segments:
            return Driver(route, start, speed, cruise, 2.3, 2.3)
    raise AssertionError("no such route")


def _collide(one: Driver, other: Driver, distance: np.ndarray) -> bool:
    tracks = [
        np.stack((m.x, m.y, m.yaw))
        for m in (Motion.along(d.route.path, s, 2.7) for d, s in zip((one, other), distance, strict=True))
    ]
    half = np.broadcast_to(np.array([[2.3], [0.9]]), (2, len(_TIMES)))
    return bool(overlaps(*tracks, half, half).any())


@given(
    gaps=st.lists(st.floats(3, 30), min_size=2, max_size=7),
    speeds=st.lists(st.floats(0, 13), min_size=8, max_size=8),
    cruises=st.lists(st.floats(3, 14), min_size=8, max_size=8),
)
@settings(max_examples=30)
def test_followers_keep_order_and_distance(gaps: list[float], speeds: list[float], cruises: list[float]) -> None:
    streets = _straight()
    at, drivers = 400.0, []
    for k, gap in enumerate([100.0, *gaps]):
        # Nobody starts faster than lets them halt behind the one in front.
        at -= gap + 4.6
        speed = min(speeds[k], math.sqrt(2 * 1.6 * (gap - 2)), cruises[k])
        drivers.append(_driver(streets, 0, at, speed, cruises[k]))
    distance = drive(streets, drivers, Gates(), _TIMES, 0.0)
    assert (np.diff(distance, axis=1) >= -1e-9).all()
    assert (distance[:-1] - distance[1:] - 4.6 > 0.8).all()


@given(start=st.floats(20, 120), speed=st.floats(0, 12))
@settings(max_examples=25)
def test_a_driver_stops_at_a_gate_until_it_opens(start: float, speed: float) -> None:
    streets, gates = _straight(), Gates()
    gates.close(0, 180.0, -100.0, 12.0)
    driver = _driver(streets, 0, start, speed)
    distance = drive(streets, [driver], gates, _TIMES, 0.0)[0]
    nose = distance + driver.front
    waits = _TIMES < 12
    assert nose[waits].max() < 180.0
    if start > 120:
        assert nose[waits].max() > 178.5
        assert nose[-1] > 190
    acceleration = np.diff(distance, 2) / 0.01
    assert acceleration.min() > -5.0
    assert acceleration.max() < 2.0


def test_a_driver_too_near_to_stop_passes_a_closing_signal() -> None:
    streets, gates = _straight(), Gates()
    gates.close(0, 110.0, 0.0, 30.0)
    distance = drive(streets, [_driver(streets, 0, 100.0, 12.0)], gates, _TIMES, 0.0)[0]
    assert distance[-1] > 200


def test_a_driver_stops_at_the_end_of_the_route() -> None:
    streets = _straight(120.0)
    driver = _driver(streets, 0, 20.0, 10.0)
    distance = drive(streets, [driver], Gates(), _TIMES, 0.0)[0]
    assert distance.max() + driver.front <= 120.0


@given(start=st.floats(80, 128), other=st.floats(80, 128), speed=st.floats(2, 11), cruise=st.floats(6, 13))
@settings(max_examples=40)
def test_crossing_routes_are_passed_one_after_the_other(
    start: float, other: float, speed: float, cruise: float
) -> None:
    streets = _crossroads()
    one = _driver(streets, 0, start, min(speed, math.sqrt(3 * (138 - start))), 10.0, last=1)
    two = _driver(streets, 2, other, min(speed, math.sqrt(3 * (138 - other))), cruise, last=3)
    distance = drive(streets, [one, two], Gates(), _TIMES, 0.0)
    assert not _collide(one, two, distance)
    # Nobody waits for ever.
    assert (distance[:, -1] > 150).all()


@given(start=st.floats(80, 128), other=st.floats(80, 128), speed=st.floats(2, 11))
@settings(max_examples=40)
def test_merging_routes_are_passed_one_after_the_other(start: float, other: float, speed: float) -> None:
    streets = _crossroads()
    one = _driver(streets, 0, start, min(speed, math.sqrt(3 * (138 - start))), 10.0, last=1)
    two = _driver(streets, 2, other, min(speed, math.sqrt(3 * (138 - other))), 10.0, last=1)
    distance = drive(streets, [one, two], Gates(), _TIMES, 0.0)
    assert not _collide(one, two, distance)
    assert (distance[:, -1] > 150).all()


def test_a_vehicle_waits_behind_one_that_turns_off_slowly() -> None:
    streets = _crossroads()
    slow, fast = _driver(streets, 2, 130.0, 1.0, 1.0, last=1), _driver(streets, 2, 100.0, 8.0, last=3)
    distance = drive(streets, [slow, fast], Gates(), _TIMES, 0.0)
    assert not _collide(slow, fast, distance)


def test_meetings_are_seen_from_both_sides() -> None:
    streets = _crossroads()
    routes = [
        _driver(streets, *way, 0.0, last=last).route for way, last in (((0, 0.0), 1), ((2, 0.0), 3), ((2, 0.0), 1))
    ]
    met = find_meetings(streets, routes)
    kinds = {(int(i), int(j)): set() for i in range(3) for j in range(3) if i != j}
    for kind, i, j in zip(met.kind, met.one, met.other, strict=True):
        kinds[int(i), int(j)].add(int(kind))
    assert kinds[0, 1] == kinds[1, 0] == {CROSS}
    assert kinds[1, 2] == kinds[2, 1] == {FOLLOW}
    # They come together and then share a lane.
    assert kinds[0, 2] == kinds[2, 0] == {MERGE, FOLLOW}


@pytest.mark.parametrize("radius", [8.0, 15.0, 40.0])
def test_bends_limit_lateral_acceleration_to_two_m_s2(radius: float) -> None:
    angle = np.linspace(0, math.pi / 2, 100)
    bend = np.array([60.0, radius]) + radius * np.stack((np.sin(angle), -np.cos(angle)), axis=1)
    streets = _streets([resample(np.concatenate((_line((0, 0), (59, 0)), bend)), 1.0)], {})
    limit = speed_limits(streets.draw_route(0, 10.0, _RNG), 14.0, 60 + radius)
    assert limit[0] == 14.0 or radius < 15
    assert limit[int(60 + radius * 0.7)] == pytest.approx(min(14.0, math.sqrt(2 * radius)), rel=0.08)
    # Before the bend speed falls by 1.5 m/s2 at most.
    assert (np.diff(limit**2) > -2 * 1.5 - 1e-6).all()
