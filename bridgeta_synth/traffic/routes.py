"""Routes over the lanes of a town and the paths between them, and where routes meet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString
from shapely.strtree import STRtree

from bridgeta_core.utils.arrays import Floats, Ints
from bridgeta_synth.world.streets.shapes import Points, arc_length
from bridgeta_synth.world.town.town import Town

# A lane (its index, -1), or the path of a lane to one of its successors (index, number of the successor).
Segment = tuple[int, int]

FOLLOW, MERGE, CROSS = range(3)
_CLEARANCE = 2.4  # metres: closer centre lines conflict, at half the widths of two trucks
_STOP_BEFORE_PAINT = 0.6  # metres
_LAST_METRES = 25.0  # metres of a lane on which its stop line is sought


@dataclass(frozen=True, eq=False)
class Route:
    """A sequence of segments: each begins at a distance `starts [k]` along `path [n, 2]`, the last ends at `length`."""

    segments: tuple[Segment, ...]
    starts: Floats
    path: Points
    length: float


@dataclass(frozen=True)
class Zone:
    """Where two segments are too close for two vehicles: from `a0` to `a1` on one, from `b0` to `b1` on the other.

    `kind` is FOLLOW where they diverge from one start, MERGE where they end in one point, otherwise CROSS.
    """

    kind: int
    a0: float
    a1: float
    b0: float
    b1: float


class Streets:
    """The lanes of a town and the paths between them; no route leads into lanes in `closed`."""

    def __init__(self, town: Town) -> None:
        self._graph = town.lanes
        self.closed: set[int] = set()
        self._zones: dict[tuple[Segment, Segment], Zone | None] = {}
        self._lengths: dict[Segment, float] = {}
        self._stops: dict[int, float] = {}
        self._stop_lines, self._crossings = (
            STRtree(town.polygons.get(name, [])) for name in ("stop_line", "ped_crossing")
        )

    def nearby(self, track: Points, reach: float) -> list[int]:
        """List the lanes that come within `reach` metres of a track `[n, 2]`."""
        lanes = self._graph.lanes
        points = np.concatenate(lanes)
        owner = np.repeat(np.arange(len(lanes)), [len(lane) for lane in lanes])
        low, high = track.min(axis=0) - reach, track.max(axis=0) + reach
        boxed = np.flatnonzero(((points > low) & (points < high)).all(axis=1))
        thin = track[:: max(1, len(track) // 24)]
        close = np.linalg.norm(points[boxed, None] - thin, axis=-1).min(axis=1, initial=np.inf) < reach
        near: list[int] = np.unique(owner[boxed[close]]).tolist()
        return near

    def successors(self, lane: int) -> list[Segment]:
        """List the paths that lead on from a lane."""
        return [(lane, k) for k, (to, _) in enumerate(self._graph.successors[lane]) if to not in self.closed]

    def points(self, segment: Segment) -> Points:
        """Return the centre line of a segment."""
        lane, successor = segment
        return self._graph.lanes[lane] if successor < 0 else self._graph.successors[lane][successor][1]

    def length(self, segment: Segment) -> float:
        """Return the length of a segment, metres."""
        if segment not in self._lengths:
            self._lengths[segment] = float(arc_length(self.points(segment))[-1])
        return self._lengths[segment]

    def target(self, segment: Segment) -> int:
        """Return the lane into which the path of a lane to a successor leads."""
        return self._graph.successors[segment[0]][segment[1]][0]

    def draw_route(self, lane: int, length: float, rng: np.random.Generator) -> Route:
        """Draw a route of at least `length` metres from the start of a lane, shorter where lanes end."""
        segments: list[Segment] = [(lane, -1)]
        total = self.length((lane, -1))
        while total < length:
            options = self.successors(lane)
            if not options:
                break
            way = options[int(rng.integers(len(options)))]
            lane = self.target(way)
            segments += [way, (lane, -1)]
            total += self.length(way) + self.length((lane, -1))
        pieces, first = [], []
        count, last = 0, np.full(2, np.inf)
        for segment in segments:
            points = self.points(segment)
            # Do not repeat the point where segments join.
            joined = bool(np.hypot(*(points[0] - last)) < 1e-6)
            first.append(count - joined)
            pieces.append(points[joined:])
            count += len(points) - joined
            last = points[-1]
        path = np.concatenate(pieces)
        s = arc_length(path)
        return Route(tuple(segments), s[first], path, float(s[-1]))

    def stop_distance(self, lane: int) -> float:
        """Return the distance along a lane at which a front bumper stops before the junction at its end."""
        if lane not in self._stops:
            self._stops[lane] = self._find_stop(lane)
        return self._stops[lane]

    def _find_stop(self, lane: int) -> float:
        points = self.points((lane, -1))
        s = arc_length(points)
        # Dense, so that no polygon is missed.
        at = np.arange(max(0.0, s[-1] - _LAST_METRES), s[-1], 0.25)
        xy = np.stack((np.interp(at, s, points[:, 0]), np.interp(at, s, points[:, 1])), axis=1)
        spots = shapely.points(xy)
        within = np.unique(self._stop_lines.query(spots, predicate="intersects")[0])
        if len(within):
            return float(at[within[-1]]) - _STOP_BEFORE_PAINT
        within = np.unique(self._crossings.query(spots, predicate="intersects")[0])
        if len(within):
            return max(1.0, float(at[within[0]]) - 1.2)
        return max(1.0, float(s[-1]) - 1.0)

    def zone(self, one: Segment, other: Segment) -> Zone | None:
        """Return where two segments conflict, if they do."""
        key = (one, other)
        if key not in self._zones:
            zone = self._find_zone(one, other)
            self._zones[key] = zone
            self._zones[other, one] = zone and Zone(zone.kind, zone.b0, zone.b1, zone.a0, zone.a1)
        return self._zones[key]

    def _find_zone(self, one: Segment, other: Segment) -> Zone | None:
        a, b = self.points(one), self.points(other)
        distance = np.linalg.norm(a[:, None] - b, axis=-1)
        close = distance < _CLEARANCE
        if not close.any():
            return None
        sa, sb = arc_length(a), arc_length(b)
        on_a, on_b = sa[close.any(axis=1)], sb[close.any(axis=0)]
        if distance[0, 0] < 0.5:
            return Zone(FOLLOW, 0.0, float(on_a[-1]), 0.0, float(on_b[-1]))
        if distance[-1, -1] < 0.5:
            return Zone(MERGE, float(on_a[0]), float(sa[-1]), float(on_b[0]), float(sb[-1]))
        return Zone(CROSS, float(on_a[0]), float(on_a[-1]), float(on_b[0]), float(on_b[-1]))


@dataclass(frozen=True, eq=False)
class Meetings:
    """Where pairs of routes meet, one row per direction of view: `one [m]` looks at `other [m]`.

    On its route `one` is in the conflict from `a0` to `a1`, on its own `other` from `b0` to `b1`. For FOLLOW and MERGE,
    a distance on the route of `other` plus `shift` is the distance on the route of `one`.
    """

    kind: Ints
    one: Ints
    other: Ints
    a0: Floats
    a1: Floats
    b0: Floats
    b1: Floats
    shift: Floats


def find_meetings(streets: Streets, routes: list[Route]) -> Meetings:
    """Find all places where routes share segments, merge, diverge or cross."""
    uses: dict[Segment, list[tuple[int, float]]] = defaultdict(list)
    for index, route in enumerate(routes):
        for segment, start in zip(route.segments, route.starts, strict=True):
            uses[segment].append((index, float(start)))
    rows: list[tuple[float, ...]] = []
    for segment, users in uses.items():
        length = streets.length(segment)
        for i, a in users:
            rows += [(FOLLOW, i, j, a, a + length, b, b + length, a - b) for j, b in users if j != i]
    segments = list(uses)
    lines = np.array([LineString(streets.points(s)) for s in segments], dtype=object)
    # Two lanes side by side do not conflict: one of the two segments leads across a junction.
    across = np.array([k for k, (_, successor) in enumerate(segments) if successor >= 0], dtype=np.int64)
    pairs = STRtree(lines).query(lines[across], predicate="dwithin", distance=_CLEARANCE)
    for p, q in zip(across[pairs[0]].tolist(), pairs[1].tolist(), strict=True):
        one, other = segments[p], segments[q]
        # A lane and its own path onwards do not conflict.
        if one == other or _are_consecutive(streets, one, other):
            continue
        rows += _meeting_rows(streets, uses, one, other)
        if other[1] < 0:
            rows += _meeting_rows(streets, uses, other, one)
    table = np.array(rows, dtype=np.float64).reshape(-1, 8)
    kind, one_, other_ = table[:, :3].T.astype(np.int64)
    return Meetings(kind, one_, other_, *table[:, 3:].T.copy())


def _meeting_rows(
    streets: Streets, uses: dict[Segment, list[tuple[int, float]]], one: Segment, other: Segment
) -> list[tuple[float, ...]]:
    """Return the rows of `Meetings` in which users of one segment look at those of another."""
    zone = streets.zone(one, other)
    if zone is None:
        return []
    rows: list[tuple[float, ...]] = []
    for i, a in uses[one]:
        for j, b in uses[other]:
            if i != j:
                a0, a1, b0, b1 = a + zone.a0, a + zone.a1, b + zone.b0, b + zone.b1
                rows.append((zone.kind, i, j, a0, a1, b0, b1, a0 - b0 if zone.kind == FOLLOW else a1 - b1))
    return rows


def _are_consecutive(streets: Streets, one: Segment, other: Segment) -> bool:
    """Return whether one of two segments leads straight into the other."""
    for lane, path in ((one, other), (other, one)):
        if lane[1] < 0 <= path[1] and lane[0] in (path[0], streets.target(path)):
            return True
    return False
