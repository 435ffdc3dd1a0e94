"""Find which way traffic runs along lanes whose direction is not recorded.

Each piece of evidence has a weight: what lies beside a lane says which way it runs, and what two lanes share says
whether they run the same way. With s in [-1, 1] per lane, the choice that contradicts the evidence least, the minimum
of sum weight * (s_i - sign * s_j)^2 + sum weight * (s_i - way)^2, is the solution of one linear system: directions
spread from the lanes where they are known to those where they are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from bridgeta_core.utils.arrays import Flags, Floats, Ints
from bridgeta_synth.world.real.centrelines import Strip
from bridgeta_synth.world.streets.shapes import Points, arc_length, tangents

_ON_LINE = 0.7  # metres within which a lane's side lies on a divider
_MEDIAN = np.arange(1.5, 16.0, 1.5)  # metres from a lane's side at which a lane beyond a median is sought
_PARALLEL = 0.9  # cosine above which lanes count as side by side
_OPPOSITE_LINE, _SAME_LINE, _BEYOND_MEDIAN, _UNMARKED, _OUTER_KERB = 1.5, 4.0, 0.7, 0.2, 0.15
_GOES_ON, _STOPS = 1.0, 1.0
_PRIOR = 1e-3
_STOP_REACH = 15.0  # metres from a lane's end
_SAMPLES = 16  # places per side


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What lies beside lanes, as one geometry each in global metres: dividers, stop areas, the drivable area."""

    road_dividers: BaseGeometry
    lane_dividers: BaseGeometry
    stops: BaseGeometry
    drivable: BaseGeometry


def orient_strips(strips: list[Strip], around: Surroundings, driving_side: int) -> tuple[list[Strip], Floats]:
    """Turn strips to run with the traffic; return them and how sure each is, `[n]` from 0 to 1.

    `driving_side` is +1 where traffic keeps right and -1 where it keeps left.
    """
    if not strips:
        return [], np.zeros(0)
    count = len(strips)
    ways, ties = np.zeros(count), np.zeros((count, count))
    _add_side_evidence(strips, around, driving_side, ways, ties)
    _add_straight_ties(strips, around.drivable, ties)
    ways += _stop_evidence(strips, around.stops)
    strength = np.abs(ties).sum(axis=1)
    system = np.diag(strength + np.abs(ways) + _PRIOR) - ties
    way = np.linalg.solve(system, ways)
    return [s.reversed() if w < -1e-6 else s for s, w in zip(strips, way, strict=True)], np.minimum(np.abs(way), 1.0)


class _Lanes:
    """An index of lanes by place."""

    def __init__(self, strips: list[Strip]) -> None:
        self._tree = STRtree([strip.outline for strip in strips])
        self._centres = [strip.centre for strip in strips]
        self._headings = [tangents(centre) for centre in self._centres]

    def at(self, places: Points, heading: Points, own: int) -> tuple[Ints, Floats]:
        """Find the lane other than `own` that covers each of `places [..., 2]`, -1 for none.

        Returns it and the cosine between its heading and the given one, both `[...]`.
        """
        flat, ways = places.reshape(-1, 2), np.broadcast_to(heading, places.shape).reshape(-1, 2)
        lane, cosine = np.full(len(flat), -1), np.zeros(len(flat))
        pairs = self._tree.query(shapely.points(flat), predicate="within").T
        for k, j in sorted(pairs[pairs[:, 1] != own].tolist(), reverse=True):
            nearest = int(np.argmin(((self._centres[j] - flat[k]) ** 2).sum(axis=1)))
            lane[k], cosine[k] = j, self._headings[j][nearest] @ ways[k]
        return lane.reshape(places.shape[:-1]), cosine.reshape(places.shape[:-1])


def _add_side_evidence(
    strips: list[Strip], around: Surroundings, driving_side: int, ways: Floats, ties: Floats
) -> None:
    """Add evidence from dividers, neighbours, medians and kerbs along the sides."""
    lanes = _Lanes(strips)
    for shape in (around.drivable, around.road_dividers, around.lane_dividers):
        shapely.prepare(shape)
    for i, strip in enumerate(strips):
        headings = tangents(strip.centre)
        for side, points in ((1, strip.left), (-1, strip.right)):
            # Without the ends, which lie on junctions, where dividers stop.
            rows = np.unique((np.linspace(0.05, 0.95, _SAMPLES) * (len(points) - 1)).round().astype(np.int64))
            edge, heading = points[rows], headings[rows]
            out = side * np.stack((-heading[:, 1], heading[:, 0]), axis=1)
            dots = shapely.points(edge)
            on_road_divider = shapely.dwithin(around.road_dividers, dots, _ON_LINE)
            on_lane_divider = shapely.dwithin(around.lane_dividers, dots, _ON_LINE) & ~on_road_divider
            unmarked = ~on_road_divider & ~on_lane_divider
            beside, cosine = lanes.at(edge + 1.2 * out, heading, i)
            _tie(ties, i, beside, cosine, on_road_divider, -_OPPOSITE_LINE)
            _tie(ties, i, beside, cosine, on_lane_divider, _SAME_LINE)
            _tie(ties, i, beside, cosine, unmarked, -_UNMARKED)
            to_left = _OPPOSITE_LINE * on_road_divider.mean() + _UNMARKED * (unmarked & (beside >= 0)).mean()

            # Off the road: a lane further out is beyond a median; none means the outer kerb.
            kerb = unmarked & (beside < 0) & ~shapely.contains_xy(around.drivable, edge + 0.8 * out)
            if kerb.any():
                places = edge[kerb] + _MEDIAN[:, None, None] * out[kerb]
                covering, cosine = lanes.at(places, heading[kerb], i)
                parallel = (covering >= 0) & (np.abs(cosine) > _PARALLEL)
                first, column = parallel.argmax(axis=0), np.arange(kerb.sum())
                beyond = parallel.any(axis=0)
                share = kerb.mean()
                _tie(ties, i, covering[first, column], cosine[first, column], beyond, -_BEYOND_MEDIAN * share)
                to_left += share * (_BEYOND_MEDIAN * beyond.mean() - _OUTER_KERB * (~beyond).mean())
            ways[i] += side * driving_side * to_left


def _tie(
    ties: Floats,
    i: int,
    others: Ints,
    cosine: Floats,
    where: Flags,
    weight: float,
) -> None:
    """Tie lane i to parallel `others` by their share of the points; both lanes do so, hence half the weight each."""
    take = where & (others >= 0) & (np.abs(cosine) > _PARALLEL)
    for j, c in zip(others[take].tolist(), cosine[take].tolist(), strict=True):
        amount = 0.5 * weight * (1 if c > 0 else -1) / len(others)
        ties[i, j] += amount
        ties[j, i] += amount


def _stop_evidence(strips: list[Strip], stops: BaseGeometry) -> Floats:
    """Return evidence from stop areas: they lie before a junction, where a lane ends."""
    ways = np.zeros(len(strips))
    shapely.prepare(stops)
    for i, strip in enumerate(strips):
        s = arc_length(strip.centre)
        inside = shapely.contains_xy(stops, strip.centre)
        at_start, at_end = inside & (s < _STOP_REACH), inside & (s > s[-1] - _STOP_REACH)
        ways[i] = _STOPS * (float(at_end.any()) - float(at_start.any()))
    return ways


def _add_straight_ties(strips: list[Strip], drivable: BaseGeometry, ties: Floats) -> None:
    """Tie lanes that lead into one another, at once or straight across a junction: they run the same way."""
    point = np.concatenate([[s.centre[0] for s in strips], [s.centre[-1] for s in strips]])
    out = np.concatenate([[-s.entering for s in strips], [s.leaving for s in strips]])
    lane = np.tile(np.arange(len(strips)), 2)
    is_end = np.repeat([False, True], len(strips))
    gap = point[None] - point[:, None]
    distance = np.linalg.norm(gap, axis=-1)
    facing = -(out @ out.T)
    ahead = (gap * out[:, None]).sum(axis=-1)
    shift = np.abs(gap[..., 0] * out[:, None, 1] - gap[..., 1] * out[:, None, 0])
    shift = np.maximum(shift, shift.T)
    meets = (distance < 1.5) & (facing > 0.7)
    straight = (ahead > 0) & (ahead.T > 0) & (distance < 60) & (facing > 0.92) & (shift < 1.2 + 0.06 * distance)
    for a, b in np.argwhere(np.triu(meets | straight, 1)).tolist():
        i, j = int(lane[a]), int(lane[b])
        if i == j:
            continue
        if not meets[a, b]:
            way = shapely.linestrings(point[[a, b]])
            if shapely.length(shapely.intersection(way, drivable)) < 0.95 * distance[a, b]:
                continue
        weight = _GOES_ON * (1 if is_end[a] != is_end[b] else -1) / (1 + shift[a, b] ** 2)
        ties[i, j] += weight
        ties[j, i] += weight
