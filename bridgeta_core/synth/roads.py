"""The road network of a town: a jittered grid of junctions, curved roads between them, lanes and routes along them."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

SHOULDER = 0.3
FILLET = 7.0
# Lanes forward and backward, and how often: town-wide classes of streets.
_STREETS = (((1, 1), 0.18), ((2, 1), 0.18), ((2, 2), 0.34), ((3, 2), 0.12), ((3, 3), 0.18))


def arc_length(points: Points) -> NDArray[np.float64]:
    """Distance along a polyline `[n, 2]` of each of its points, `[n]`."""
    return np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))


def resample(points: Points, step: float) -> Points:
    """The polyline with points about `step` metres apart, both ends kept."""
    s = arc_length(points)
    return at_distance(points, np.linspace(0.0, s[-1], max(2, round(s[-1] / step) + 1)))


def at_distance(points: Points, distance: NDArray[np.float64]) -> Points:
    """Points of a polyline at given distances along it, clamped to its ends."""
    s = arc_length(points)
    return np.stack((np.interp(distance, s, points[:, 0]), np.interp(distance, s, points[:, 1])), axis=-1)


def tangents(points: Points) -> Points:
    """Unit directions of travel at the points of a polyline."""
    t = np.gradient(points, axis=0)
    return t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)


def offset(points: Points, lateral: float) -> Points:
    """The polyline moved sideways by `lateral` metres, positive to the left of its direction."""
    t = tangents(points)
    return points + lateral * np.stack((-t[:, 1], t[:, 0]), axis=1)


def hermite(p0: Points, t0: Points, p1: Points, t1: Points, step: float = 0.5) -> Points:
    """A smooth path from `p0` heading `t0` (unit) to `p1` heading `t1`; nearly circular for a right angle."""
    chord = float(np.linalg.norm(p1 - p0))
    turn = math.acos(float(np.clip(t0 @ t1, -1, 1)))
    scale = chord * (1 + 0.17 * turn / (math.pi / 2))
    u = np.linspace(0, 1, max(4, round(chord / step) + 1))[:, None]
    return (
        (2 * u**3 - 3 * u**2 + 1) * p0
        + (u**3 - 2 * u**2 + u) * scale * t0
        + (3 * u**2 - 2 * u**3) * p1
        + (u**3 - u**2) * scale * t1
    )


@dataclass(frozen=True, eq=False)
class Road:
    """A two-way road between junctions `start` and `end`.

    `centre` runs from node to node, `[n, 2]` metres in the town's frame, 1 m apart. `trim` holds the metres at either
    end that belong to the junctions. `keep` is +1 where traffic keeps right and -1 where it keeps left.
    """

    index: int
    start: int
    end: int
    centre: Points
    forward: int
    backward: int
    lane_width: float
    keep: int
    trim: tuple[float, float] = (0.0, 0.0)

    @property
    def width(self) -> float:
        """Kerb to kerb, metres."""
        return (self.forward + self.backward) * self.lane_width + 2 * SHOULDER

    @property
    def length(self) -> float:
        """Node to node along the centre, metres."""
        return float(arc_length(self.centre)[-1])

    def section(self, s0: float, s1: float) -> Points:
        """The centre between two distances from the start node, about 1 m apart."""
        return at_distance(self.centre, np.linspace(s0, s1, max(2, round((s1 - s0) / 1.0) + 1)))

    def line(self, s0: float, s1: float, lateral: float) -> Points:
        """A line parallel to the centre between two distances; `lateral` is positive to the left."""
        # Offsetting the whole centre first keeps the normals at the cut ends the same as those of the neighbours.
        full = offset(self.centre, lateral)
        s = arc_length(self.centre)
        d = np.linspace(s0, s1, max(2, round((s1 - s0) / 1.0) + 1))
        return np.stack((np.interp(d, s, full[:, 0]), np.interp(d, s, full[:, 1])), axis=1)

    def strip(self, s0: float, s1: float, lateral0: float, lateral1: float) -> Points:
        """The ring `[n, 2]` of a strip of the road's surface."""
        return np.concatenate((self.line(s0, s1, lateral0), self.line(s0, s1, lateral1)[::-1]))

    def divider_lateral(self) -> float:
        """Where the two directions meet."""
        return -self.keep * (self.width / 2 - SHOULDER - self.forward * self.lane_width)

    def lane_dividers(self) -> list[float]:
        """Lateral positions between lanes of one direction."""
        edge = self.width / 2 - SHOULDER
        ahead = [-self.keep * (edge - i * self.lane_width) for i in range(1, self.forward)]
        return ahead + [self.keep * (edge - i * self.lane_width) for i in range(1, self.backward)]

    def lanes(self, ahead: bool) -> int:
        """Number of lanes in one direction."""
        return self.forward if ahead else self.backward

    def lane(self, ahead: bool, lane: int) -> Points:
        """Centre of a lane between the junctions in its direction of travel; lane 0 is the one at the kerb."""
        q = self.width / 2 - SHOULDER - (lane + 0.5) * self.lane_width
        points = self.line(self.trim[0], self.length - self.trim[1], (-self.keep if ahead else self.keep) * q)
        return points if ahead else points[::-1]


@dataclass(frozen=True)
class Arm:
    """One road as seen from a junction: `at_start` says which end of the road meets it, `angle` where it leaves to."""

    road: int
    at_start: bool
    angle: float


@dataclass(frozen=True, eq=False)
class RoadNetwork:
    """Junctions `nodes [n, 2]`, their arms sorted counter-clockwise, and the roads between them."""

    nodes: Points
    arms: dict[int, tuple[Arm, ...]]
    roads: tuple[Road, ...]
    keep: int

    def next_lane(self, road: int, ahead: bool, lane: int, rng: np.random.Generator) -> tuple[int, bool, int, Points]:
        """A lane that can be entered from this lane's end: (road, ahead, lane, path across the junction).

        Turns to the kerb's side leave from and enter the kerb lane, turns across the traffic the innermost.
        """
        here = self.roads[road]
        node = here.end if ahead else here.start
        path = here.lane(ahead, lane)
        leaving = path[-1] - path[-2]
        leaving = leaving / np.linalg.norm(leaving)
        innermost = here.lanes(ahead) - 1
        options, any_way = [], []
        for arm in self.arms[node]:
            if arm.road == road and arm.at_start != ahead:
                continue
            other = self.roads[arm.road]
            if not other.lanes(arm.at_start):
                continue
            heading = np.array([math.cos(arm.angle), math.sin(arm.angle)])
            turn = math.atan2(leaving[0] * heading[1] - leaving[1] * heading[0], float(leaving @ heading))
            if abs(turn) > math.radians(150):
                continue
            last = other.lanes(arm.at_start) - 1
            if abs(turn) < math.radians(40):
                options.append((arm, min(lane, last)))
            elif turn * self.keep < 0:
                any_way.append((arm, 0))
                if lane == 0:
                    options.append((arm, 0))
            else:
                any_way.append((arm, last))
                if lane == innermost:
                    options.append((arm, last))
        options = options or any_way
        arm, target = options[int(rng.integers(len(options)))]
        entering = self.roads[arm.road].lane(arm.at_start, target)
        heading = entering[1] - entering[0]
        return (
            arm.road,
            arm.at_start,
            target,
            hermite(path[-1], leaving, entering[0], heading / np.linalg.norm(heading)),
        )

    def route(self, road: int, ahead: bool, lane: int, length: float, rng: np.random.Generator) -> Points:
        """A path `[n, 2]` along lanes and across junctions, points 0.5 m apart, at least `length` metres long."""
        pieces, total = [self.roads[road].lane(ahead, lane)], 0.0
        total = arc_length(pieces[0])[-1]
        while total < length:
            road, ahead, lane, crossing = self.next_lane(road, ahead, lane, rng)
            following = self.roads[road].lane(ahead, lane)
            pieces += [crossing[1:-1], following]
            total += arc_length(crossing)[-1] + arc_length(following)[-1]
        return resample(np.concatenate(pieces), 0.5)


def _rounded(points: Points, radius: float) -> Points:
    """Corners of a polyline replaced by parabolas that start up to `radius` metres before them."""
    result = [points[0]]
    for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
        a, b = before - corner, after - corner
        cut = min(radius, 0.45 * float(np.linalg.norm(a)), 0.45 * float(np.linalg.norm(b)))
        p = corner + a / np.linalg.norm(a) * cut
        q = corner + b / np.linalg.norm(b) * cut
        u = np.linspace(0, 1, 24)[:, None]
        result.extend((1 - u) ** 2 * p + 2 * u * (1 - u) * corner + u**2 * q)
    result.append(points[-1])
    return np.array(result)


def _edges(columns: int, rows: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """A grid's edges with some of the inner ones removed; two or more are left at every node."""
    right = [(r * columns + c, r * columns + c + 1) for r in range(rows) for c in range(columns - 1)]
    up = [(r * columns + c, (r + 1) * columns + c) for r in range(rows - 1) for c in range(columns)]
    edges = right + up
    degree = np.bincount(np.array(edges).ravel(), minlength=columns * rows)
    removed: set[tuple[int, int]] = set()
    for index in rng.permutation(len(edges)):
        a, b = edges[index]
        on_rim = (b == a + 1 and a // columns in (0, rows - 1)) or (b != a + 1 and a % columns in (0, columns - 1))
        if not on_rim and min(degree[a], degree[b]) >= 3 and degree[a] + degree[b] >= 7:
            removed.add((a, b))
            degree[[a, b]] -= 1
        if len(removed) >= 0.09 * len(edges):
            break
    return [edge for edge in edges if edge not in removed]


def _chains(edges: list[tuple[int, int]], count: int) -> list[list[int]]:
    """Node sequences between junctions; nodes where only two edges meet lie inside a chain."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    chains: list[list[int]] = []
    used: set[tuple[int, int]] = set()
    for node in range(count):
        if len(neighbours[node]) == 2:
            continue
        for following in neighbours[node]:
            if (node, following) in used:
                continue
            chain = [node, following]
            while len(neighbours[chain[-1]]) == 2:
                chain.append(next(n for n in neighbours[chain[-1]] if n != chain[-2]))
            used.update(itertools.pairwise(chain))
            used.update(zip(chain[1:], chain[:-1], strict=True))
            chains.append(chain)
    return chains


def build_network(
    rng: np.random.Generator, keep_right: bool, columns: int = 6, rows: int = 5, margin: float = 100.0
) -> RoadNetwork:
    """A road network with all coordinates positive and at least `margin` metres from the origin's axes."""
    spacing_x, spacing_y = rng.uniform(82, 102, columns - 1), rng.uniform(82, 102, rows - 1)
    x, y = np.concatenate(([0], np.cumsum(spacing_x))), np.concatenate(([0], np.cumsum(spacing_y)))
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    nodes = nodes + rng.uniform(-8, 8, nodes.shape)
    angle = rng.uniform(-0.5, 0.5)
    nodes = nodes @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    nodes = nodes - nodes.min(axis=0) + margin
    keep = 1 if keep_right else -1

    kinds, shares = [k for k, _ in _STREETS], np.array([p for _, p in _STREETS])
    by_line = [kinds[i] for i in rng.choice(len(kinds), columns + rows, p=shares)]
    roads = []
    for index, chain in enumerate(_chains(_edges(columns, rows, rng), columns * rows)):
        a, b = chain[0], chain[1]
        street = by_line[a // columns] if b in (a + 1, a - 1) else by_line[rows + a % columns]
        points = _rounded(nodes[chain], 32.0)
        if len(chain) == 2:
            u = np.linspace(0, 1, 80)[:, None]
            direction = nodes[b] - nodes[a]
            normal = np.array([-direction[1], direction[0]]) / np.linalg.norm(direction)
            # sin^2 leaves the headings at the junctions as they are.
            points = nodes[a] + u * direction + rng.uniform(-7, 7) * np.sin(math.pi * u) ** 2 * normal
        centre = resample(points, 1.0)
        lane_width = round(float(rng.uniform(3.2, 3.8)), 2)
        roads.append(Road(index, a, chain[-1], centre, street[0], street[1], lane_width, keep))
    return _with_trims(nodes, roads, keep)


def _with_trims(nodes: Points, roads: list[Road], keep: int) -> RoadNetwork:
    arms: dict[int, list[Arm]] = defaultdict(list)
    for road in roads:
        head, tail = road.centre[4] - road.centre[0], road.centre[-5] - road.centre[-1]
        arms[road.start].append(Arm(road.index, True, math.atan2(head[1], head[0])))
        arms[road.end].append(Arm(road.index, False, math.atan2(tail[1], tail[0])))
    trims = {}
    for node, around in arms.items():
        around.sort(key=lambda arm: arm.angle)
        for position, arm in enumerate(around):
            half = roads[arm.road].width / 2
            reach = 6.0
            for other, sign in ((around[position - 1], -1), (around[(position + 1) % len(around)], 1)):
                theta = (sign * (other.angle - arm.angle)) % (2 * math.pi)
                if theta < math.radians(155):
                    corner = (roads[other.road].width / 2 + half * math.cos(theta)) / math.sin(theta)
                    reach = max(reach, corner + FILLET / math.tan(theta / 2))
            trims[(arm.road, arm.at_start)] = min(reach + 0.5, 0.4 * roads[arm.road].length)
        arms[node] = around
    trimmed = tuple(
        Road(**{**road.__dict__, "trim": (trims[(road.index, True)], trims[(road.index, False)])}) for road in roads
    )
    return RoadNetwork(nodes, {n: tuple(a) for n, a in arms.items()}, trimmed, keep)
