"""Lanes as strips: from a lane's outline to its two sides and its centre line.

Map expansions give a lane's outline; where they lack its centre line, it is found here. A lane is a band: two short
ends, across which traffic enters and leaves, and two long sides, which run along dividers, kerbs or other lanes. The
centre line is the mean of the sides. `direction` finds which way traffic runs along it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.streets.shapes import Points, arc_length, at_distance, resample

_TOLERANCE = 0.15  # metres by which an outline is straightened before its ends are sought
_CANDIDATES = 7  # edges that may be ends
_NARROWEST = 1.2  # metres; anything narrower is no lane
_SPACING = 1.0  # metres between points of a centre line
_ON_LINE = 0.4  # metres within which an edge counts as lying on a divider


@dataclass(frozen=True, eq=False)
class Strip:
    """A lane between its ends: `centre`, and its `left` and `right` sides seen along it, `[n, 2]` metres each.

    Points of equal index face each other.
    """

    centre: Points
    left: Points
    right: Points

    @property
    def length(self) -> float:
        """Metres along the centre."""
        return float(arc_length(self.centre)[-1])

    @property
    def width(self) -> float:
        """Median distance between the sides, metres."""
        return float(np.median(np.linalg.norm(self.left - self.right, axis=1)))

    @property
    def outline(self) -> Polygon:
        """The area between the sides."""
        return Polygon(np.concatenate((self.left, self.right[::-1])))

    @property
    def entering(self) -> Points:
        """Unit heading `[2]` at the start, over about 3 metres."""
        return _unit(self.centre[min(3, len(self.centre) - 1)] - self.centre[0])

    @property
    def leaving(self) -> Points:
        """Unit heading `[2]` at the end, over about 3 metres."""
        return _unit(self.centre[-1] - self.centre[max(-4, -len(self.centre))])

    def reversed(self) -> Strip:
        """Return the same lane in the other direction."""
        return Strip(self.centre[::-1], self.right[::-1], self.left[::-1])


def find_strip(outline: Polygon, dividers: BaseGeometry | None = None) -> Strip | None:
    """Find the strip of a lane's outline; None where the outline has no two ends, e.g. a sliver or a triangle.

    Edges on `dividers` are sides rather than ends, which decides for lanes that are wider than long.
    """
    ring = _corners(outline)
    if len(ring) < 4:
        return None
    following = np.roll(ring, -1, axis=0)
    cost = _end_costs(ring)
    if dividers is not None:
        edges = shapely.linestrings(np.stack((ring, following), axis=1))
        inside = shapely.length(shapely.intersection(edges, dividers.buffer(_ON_LINE)))
        cost += 2.0 * inside / np.linalg.norm(following - ring, axis=1)
    best: tuple[float, Points, Points] | None = None
    for i, j in itertools.combinations(sorted(np.argsort(cost, kind="stable")[:_CANDIDATES].tolist()), 2):
        if j == i + 1 or (j + 1) % len(ring) == i:
            continue  # ends that share a corner leave no side between them
        one = ring[i + 1 : j + 1]
        other = np.concatenate((ring[j + 1 :], ring[: i + 1]))[::-1]
        total = cost[i] + cost[j] + _band_cost(one, other, outline.area)
        if best is None or total < best[0] - 1e-9:
            best = total, one, other
    if best is None:
        return None
    strip = _build_strip(best[1], best[2])
    return strip if outline.area > _NARROWEST * strip.length else None


def _unit(way: Points) -> Points:
    return np.asarray(way / max(float(np.linalg.norm(way)), 1e-9))


def _corners(outline: Polygon) -> Points:
    """Return the corners `[n, 2]` of an outline, counter-clockwise, without those on a straight line."""
    # simplify() always keeps the first corner, so a second pass starts elsewhere.
    for _ in range(2):
        ring = np.asarray(outline.exterior.coords)[:-1, :2]
        ring = np.roll(ring, -(len(ring) // 2), axis=0)
        outline = Polygon(ring).simplify(_TOLERANCE)
        if outline.is_empty or not isinstance(outline, Polygon):
            return np.empty((0, 2))
    return np.asarray(orient(outline).exterior.coords)[:-1, :2]


def _end_costs(ring: Points) -> Floats:
    """Rate how little each edge, from a corner to the next, of a counter-clockwise ring looks like a lane's end, `[n]`.

    At an end the outline turns left by about a right angle twice; lanes are 2.5 to 6 m wide.
    """
    edges = np.roll(ring, -1, axis=0) - ring
    length = np.linalg.norm(edges, axis=1)
    before = np.roll(edges, 1, axis=0)
    turn = np.arctan2(before[:, 0] * edges[:, 1] - before[:, 1] * edges[:, 0], (before * edges).sum(axis=1))
    after = np.roll(turn, -1)
    right_angle = np.pi / 2
    bend = (np.abs(turn - right_angle) + np.abs(after - right_angle)) / right_angle
    size = np.maximum(np.log(length / 6.0), 0) + np.maximum(np.log(2.5 / np.maximum(length, 1e-3)), 0)
    return np.asarray(bend + 0.6 * size)


def _band_cost(one: Points, other: Points, area: float) -> float:
    """Rate how little two sides look like those of one band."""
    a, b = _resample_both(one, other, 16)
    la, lb = float(arc_length(one)[-1]), float(arc_length(other)[-1])
    width = np.linalg.norm(a - b, axis=1)
    balance = abs(la - lb) / max(la + lb, 1e-6)
    long = (la + lb) / 2
    slender = np.log(max(long, 0.1) / max(area / max(long, 0.1), 0.1))
    return float(2.0 * balance + 0.8 * width.std() / max(width.mean(), 0.1) - 0.45 * min(slender, 2.5))


def _resample_both(one: Points, other: Points, count: int) -> tuple[Points, Points]:
    """Resample two sides to `count` points each, so that points of equal index face each other."""
    share = np.linspace(0, 1, count)
    return at_distance(one, share * arc_length(one)[-1]), at_distance(other, share * arc_length(other)[-1])


def _build_strip(right: Points, left: Points) -> Strip:
    """Build the strip between two sides; a counter-clockwise ring has its interior on the left."""
    count = max(4, round((arc_length(right)[-1] + arc_length(left)[-1]) / 2 / 0.5) + 1)
    a, b = _resample_both(right, left, count)
    centre = resample((a + b) / 2, _SPACING)
    share = arc_length(centre) / max(arc_length(centre)[-1], 1e-9) * (count - 1)
    rows = np.arange(count, dtype=np.float64)
    sides = [
        np.stack((np.interp(share, rows, side[:, 0]), np.interp(share, rows, side[:, 1])), axis=1) for side in (a, b)
    ]
    return Strip(centre, sides[1], sides[0])
