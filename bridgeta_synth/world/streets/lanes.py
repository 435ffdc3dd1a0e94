"""The lane graph of a road network: lanes, which lanes follow each, and routes along them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgeta_synth.world.streets.network import RoadNetwork
from bridgeta_synth.world.streets.shapes import Points, arc_length, resample, rounded

STRAIGHT = math.radians(38)
_NEAR_CORNER = 9.5


@dataclass(frozen=True, eq=False)
class LaneGraph:
    """Centre lines of lanes and the paths between them.

    `lanes` are polylines `[n, 2]` in the direction of travel, points about 1 m apart, in global metres. `successors`
    holds for every lane the lanes that can be entered from its end, each with the path to it, from the lane's last
    point to the next lane's first.
    """

    lanes: tuple[Points, ...]
    successors: tuple[tuple[tuple[int, Points], ...], ...]

    def draw_route(self, lane: int, length: float, rng: np.random.Generator) -> Points:
        """Draw a route from the start of `lane`, `[n, 2]`, at least `length` metres long, points 0.5 m apart.

        It ends early only where a lane leads nowhere.
        """
        pieces = [self.lanes[lane]]
        total = arc_length(pieces[0])[-1]
        while total < length and self.successors[lane]:
            options = self.successors[lane]
            lane, crossing = options[int(rng.integers(len(options)))]
            following = self.lanes[lane]
            # The path's ends are the lanes' own.
            pieces += [crossing[1:-1], following]
            total += arc_length(crossing)[-1] + arc_length(following)[-1]
        return resample(np.concatenate(pieces), 0.5)


@dataclass(frozen=True)
class LaneKey:
    """A lane of a road: along the road (`ahead`) or against it, counted from the kerb."""

    road: int
    ahead: bool
    lane: int


@dataclass(frozen=True)
class Turn:
    """A way across a junction between two lanes; `angle` in radians, positive to the left."""

    start: LaneKey
    end: LaneKey
    angle: float


def _find_turns(network: RoadNetwork, road: int, ahead: bool) -> list[Turn]:
    """Find the turns that traffic of a road may make at its end.

    Straight on, a lane leads to the lane of the same number from the kerb. Turns towards the kerb lead from kerb lane
    to kerb lane, turns across the traffic from innermost to innermost. A lane without a turn of its own takes the one
    that crosses the fewest lanes.
    """
    here = network.roads[road]
    count = here.lanes(ahead)
    leaving = _heading(here.lane(ahead, 0)[-2:])
    by_lane: dict[int, list[Turn]] = {lane: [] for lane in range(count)}
    forced: list[tuple[LaneKey, float]] = []
    for arm in network.successors(road, ahead):
        angle = (arm.angle - leaving + math.pi) % (2 * math.pi) - math.pi
        last = network.roads[arm.road].lanes(arm.at_start) - 1
        if abs(angle) < STRAIGHT:
            for lane in range(count):
                target = LaneKey(arm.road, arm.at_start, min(lane, last))
                by_lane[lane].append(Turn(LaneKey(road, ahead, lane), target, angle))
                forced.append((target, angle))
            continue
        to_kerb = angle * network.driving_side < 0
        target = LaneKey(arm.road, arm.at_start, 0 if to_kerb else last)
        forced.append((target, angle))
        lane = 0 if to_kerb else count - 1
        by_lane[lane].append(Turn(LaneKey(road, ahead, lane), target, angle))
    for lane, own in by_lane.items():
        if not own:
            target, angle = min(
                forced, key=lambda option: abs(lane - (0 if option[1] * network.driving_side < 0 else count))
            )
            by_lane[lane] = [Turn(LaneKey(road, ahead, lane), target, angle)]
    return [turn for lane in range(count) for turn in by_lane[lane]]


def _heading(points: Points) -> float:
    x, y = points[-1] - points[0]
    return math.atan2(y, x)


def build_lane_graph(network: RoadNetwork) -> tuple[LaneGraph, dict[LaneKey, int], dict[LaneKey, list[Turn]]]:
    """Build the lane graph of a network, with the number of each lane and the turns that lead from it."""
    keys = [
        LaneKey(road.index, ahead, lane)
        for road in network.roads
        for ahead in (True, False)
        for lane in range(road.lanes(ahead))
    ]
    number = {key: i for i, key in enumerate(keys)}
    lanes = tuple(network.roads[key.road].lane(key.ahead, key.lane) for key in keys)
    by_lane: dict[LaneKey, list[Turn]] = {key: [] for key in keys}
    for road in network.roads:
        for ahead in (True, False):
            for turn in _find_turns(network, road.index, ahead) if road.lanes(ahead) else ():
                by_lane[turn.start].append(turn)
    successors = []
    for key in keys:
        ways = []
        for turn in by_lane[key]:
            before, after = lanes[number[key]], lanes[number[turn.end]]
            out, into = before[-1] - before[-2], after[1] - after[0]
            # A wider arc around the near corner would lead over its kerb.
            radius = _NEAR_CORNER if turn.angle * network.driving_side < 0 else math.inf
            path = rounded(before[-1], out / np.hypot(*out), after[0], into / np.hypot(*into), radius, 0.5)
            ways.append((number[turn.end], resample(path, 0.5)))
        successors.append(tuple(ways))
    return LaneGraph(lanes, tuple(successors)), number, by_lane
