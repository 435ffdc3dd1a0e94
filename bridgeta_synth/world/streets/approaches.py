"""Approaches to junctions: pedestrian crossings, stop lines, and who has to wait there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_synth.world.materials import WHITE, YELLOW, ZEBRA
from bridgeta_synth.world.streets.marking import DOTTED, SOLID, WORN, Marks
from bridgeta_synth.world.streets.network import RoadNetwork
from bridgeta_synth.world.streets.roads import SHOULDER, Arm, Road
from bridgeta_synth.world.streets.shapes import Points, lines_of

_CROSSING_GAP, _STOP_GAP, _STOP_PAINT = 0.6, 1.0, 0.4  # metres
_LONG = 80.0  # metres of road that a crossing between junctions needs


@dataclass(frozen=True)
class Post:
    """A traffic signal or sign beside the road; `yaw` is where it faces, radians."""

    kind: str
    x: float
    y: float
    yaw: float


@dataclass(eq=False)
class Approaches:
    """Crossings and stop lines of a network: map areas, walking lines from kerb to kerb, posts.

    `gaps` are the stretches (from, to) of each road, junctions included, where no divider runs.
    """

    crossings: list[Polygon] = field(default_factory=list)
    stop_lines: list[Polygon] = field(default_factory=list)
    walks: list[Points] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    gaps: dict[int, list[tuple[float, float]]] = field(default_factory=dict)


def plan_approaches(network: RoadNetwork, marks: Marks, rng: np.random.Generator) -> Approaches:
    """Plan the crossings, stop lines and posts of all junctions and roads; paint goes to `marks`."""
    builder = _Builder(network, marks, rng)
    for arms in network.arms.values():
        builder.add_junction(arms)
    for road in network.roads:
        builder.add_midblock_crossing(road)
    return builder.result


class _Builder:
    def __init__(self, network: RoadNetwork, marks: Marks, rng: np.random.Generator) -> None:
        self.network, self.marks, self.rng = network, marks, rng
        self.result = Approaches(gaps={road.index: [] for road in network.roads})

    def add_junction(self, arms: tuple[Arm, ...]) -> None:
        """Plan all arms of a junction: signals for all, or the narrower roads give way to the wider ones."""
        rng, roads = self.rng, self.network.roads
        signals = rng.random() < (0.6 if len(arms) == 4 else 0.35)
        zebra = bool(rng.random() < 0.6)
        widths = sorted((roads[arm.road].width for arm in arms), reverse=True)
        for arm in arms:
            road = roads[arm.road]
            s, outward = (road.span[0], 1) if arm.at_start else (road.span[1], -1)
            s += outward * _CROSSING_GAP
            has_crossing = rng.random() < (0.8 if signals else 0.5)
            if has_crossing:
                s = self._add_crossing(road, s, outward, zebra) + outward * _STOP_GAP
            minor = road.width < widths[1] + 0.1
            stops = signals or has_crossing or (minor and rng.random() < 0.8)
            if stops and road.lanes(not arm.at_start):
                kind = "signal" if signals else "sign" if minor else "crossing"
                s = self._add_stop_line(road, s, outward, not arm.at_start, kind)
            self.result.gaps[road.index].append((0.0, s) if arm.at_start else (s, road.length))
        if signals and len(arms) == 4 and rng.random() < 0.22:
            road = roads[arms[0].road]
            node = road.start if arms[0].at_start else road.end
            self._paint_keep_clear_box(self.network.junctions[node].buffer(-2.5))

    def _paint_keep_clear_box(self, area: BaseGeometry) -> None:
        """Hatch an area in yellow: lines that are no dividers."""
        low_x, low_y, high_x, high_y = area.bounds
        middle = np.array((low_x + high_x, low_y + high_y)) / 2
        reach, turn = math.hypot(high_x - low_x, high_y - low_y) / 2, float(self.rng.uniform(0, math.pi))
        wear = float(self.rng.choice((0.0, 0.4, 0.9)))
        for heading in (turn, turn + math.pi / 2):
            along = np.array((math.cos(heading), math.sin(heading)))
            across = np.array((-along[1], along[0]))
            for shift in np.arange(-reach, reach, 2.4):
                ends = middle + shift * across + np.array([[-reach], [reach]]) * along
                for line in lines_of(LineString(ends).intersection(area), 1.0):
                    self.marks.stroke(line, 0.14, YELLOW, wear)

    def add_midblock_crossing(self, road: Road) -> None:
        """Put a crossing in the middle of some long roads."""
        if road.span[1] - road.span[0] < _LONG or self.rng.random() > 0.25:
            return
        middle = float(self.rng.uniform(0.4, 0.6)) * road.length
        first = middle - 1.8
        last = self._add_crossing(road, first, 1, True)
        start, end = first - _STOP_GAP, last + _STOP_GAP
        if road.lanes(True):
            start = self._add_stop_line(road, start, -1, True, "crossing")
        if road.lanes(False):
            end = self._add_stop_line(road, end, 1, False, "crossing")
        self.result.gaps[road.index].append((start, end))

    def _add_crossing(self, road: Road, s: float, outward: int, zebra: bool) -> float:
        """Add a crossing that begins at `s` and extends `outward` (+1 or -1); return where it ends."""
        rng, half = self.rng, road.width / 2
        depth = float(rng.uniform(2.8, 4.2))
        low, high = sorted((s, s + outward * depth))
        self.result.crossings.append(Polygon(road.strip(low, high, half - 0.1, -half + 0.1)))
        middle = (low + high) / 2
        self.result.walks.append(road.at(np.full(2, middle), np.array([half, -half])))
        wear = float(rng.choice((0.0, 0.2, 0.7)))
        across = [road.at(np.full(2, at), np.array([half - 0.2, -half + 0.2])) for at in (low + 0.1, high - 0.1)]
        if zebra:
            worn = self.rng.random(64) < wear
            for i, lateral in enumerate(np.arange(-half + 0.5, half - 0.9, 1.05)):
                strip = road.strip(low, high, lateral, lateral + 0.5)
                self.marks.add_ring(WORN[ZEBRA] if worn[i % 64] else ZEBRA, strip)
            if rng.random() < 0.3:
                for line in across:
                    self.marks.paint(line, SOLID, WHITE, wear, 0.2)
        else:
            style = SOLID if rng.random() < 0.6 else DOTTED
            for line in across:
                self.marks.paint(line, style, WHITE, wear, 0.3)
        return s + outward * depth

    def _add_stop_line(self, road: Road, s: float, outward: int, ahead: bool, kind: str) -> float:
        """Add a stop line for the traffic that comes from `outward`; return where its paint ends."""
        rng, half = self.rng, road.width / 2
        edge, inner = road.side(ahead) * (half - SHOULDER), road.inner(ahead)
        # The map's area is where vehicles wait, not just the paint.
        depth = float(rng.uniform(2.4, 4.6))
        low, high = sorted((s, s + outward * depth))
        self.result.stop_lines.append(Polygon(road.strip(low, high, edge, inner)))
        middle = s + outward * _STOP_PAINT / 2
        line = road.at(np.full(2, middle), np.array([edge, inner]))
        wear = float(rng.choice((0.0, 0.3, 0.9)))
        self.marks.paint(line, DOTTED if kind == "sign" and rng.random() < 0.4 else SOLID, WHITE, wear, _STOP_PAINT)
        if kind == "signal" or (kind == "sign" and rng.random() < 0.8):
            x, y, yaw = road.pose(s + outward * _STOP_PAINT, road.side(ahead) * (half + 0.6))
            # Posts face the traffic that has to wait.
            self.result.posts.append(Post(kind, x, y, yaw if outward > 0 else yaw + math.pi))
        return s + outward * (_STOP_PAINT + 0.2)
