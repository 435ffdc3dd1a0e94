"""Rows of buildings behind fronts, and the walls, fences and hedges that enclose plots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_synth.world.solids import FACADE, FENCE, HEDGE, ROOF, WALL, Colour
from bridgeta_synth.world.streets.shapes import Points, arc_length, at_distance, corners, offset
from bridgeta_synth.world.town.street_furniture import Furnisher

_LOW = 11.0  # metres; lower buildings may have pitched roofs


@dataclass(frozen=True)
class _Row:
    """What the houses of a row have in common, metres: setback, ranges of length and depth, height, usual gaps."""

    setback: float
    length: tuple[float, float]
    depth: tuple[float, float]
    height: float
    gaps: tuple[float, ...]


def _draw_row(rng: np.random.Generator) -> _Row:
    kind = rng.random()
    setback = float(rng.choice((0.3, 0.8, 2.5, 4.0, 6.0)))
    if kind < 0.38:
        return _Row(setback, (9, 24), (9, 16), float(rng.uniform(9, 22)), (0.05, 0.05, 3.0, 8.0))
    if kind < 0.72:
        return _Row(max(setback, 2.0), (7, 14), (8, 12), float(rng.uniform(4.5, 9)), (1.5, 4.0, 8.0))
    if kind < 0.86:
        return _Row(setback + 3.0, (18, 34), (14, 24), float(rng.uniform(18, 48)), (4.0, 10.0, 18.0))
    return _Row(setback + 1.0, (22, 44), (14, 26), float(rng.uniform(5, 9)), (3.0, 9.0))


class _Plots:
    """The plots placed so far, indexed by their circumcircles."""

    def __init__(self) -> None:
        self.shapes: list[Polygon] = []
        self._circles = np.empty((64, 3))

    def hits(self, ring: Points) -> bool:
        """Return whether a rectangle comes within 3 cm of a plot."""
        centre, count = ring.mean(axis=0), len(self.shapes)
        reach = float(np.hypot(*(ring[0] - centre))) + 0.03
        circles = self._circles[:count]
        near = np.flatnonzero(np.hypot(*(circles[:, :2] - centre).T) < circles[:, 2] + reach)
        shape = Polygon(ring) if len(near) else None
        return any(shapely.dwithin(shape, self.shapes[i], 0.03) for i in near)

    def add(self, ring: Points) -> None:
        """Occupy the ground within a ring."""
        count = len(self.shapes)
        if count == len(self._circles):
            self._circles = np.concatenate((self._circles, np.empty_like(self._circles)))
        centre = ring.mean(axis=0)
        self._circles[count] = (*centre, np.hypot(*(ring[0] - centre)))
        self.shapes.append(Polygon(ring))


def add_buildings(into: Furnisher, fronts: list[Points], taken: BaseGeometry, share: float = 0.9) -> None:
    """Add rows of buildings behind the fronts, clear of what is `taken`, along a `share` of their length."""
    rng = into.rng
    shapely.prepare(taken)
    plots = _Plots()
    for front in fronts:
        length, s, until = float(arc_length(front)[-1]), 0.0, 0.0
        row = _draw_row(rng)
        while s < length - 6:
            if s >= until:
                row, until = _draw_row(rng), s + float(rng.uniform(35, 120))
            size = float(rng.uniform(*row.length)), float(rng.uniform(*row.depth))
            ring = _find_plot(front, length, s, size, row.setback, taken, plots)
            if ring is None:
                s += 3.5
                continue
            if rng.random() < share:
                plots.add(ring)
                height = float(np.clip(row.height + rng.uniform(-4, 4), 4.2, 55))
                _add_building(into, ring, height)
            s += float(np.hypot(*(ring[0] - ring[3]))) + float(rng.choice(row.gaps))
    for plot in plots.shapes:
        into.occupy(plot)


def _find_plot(
    front: Points,
    total: float,
    s: float,
    size: tuple[float, float],
    setback: float,
    taken: BaseGeometry,
    plots: _Plots,
) -> Points | None:
    """Find the corners of a free rectangle behind a front from `s` on, if need be smaller or further back."""
    for length, depth, further in ((*size, 0.0), (0.7 * size[0], 0.75 * size[1], 0.0), (*size, 4.0)):
        a, b = (_point_at_share(front, d / total) for d in (s, s + length))
        chord = float(np.hypot(*(b - a)))
        if chord < 0.9 * length or chord < 4:
            continue
        along = (b - a) / chord
        # An area lies to the left of its outline; outside is to the right.
        middle = (a + b) / 2 + np.array((along[1], -along[0])) * (setback + further + depth / 2)
        x, y = middle.tolist()
        ring = corners(x, y, math.atan2(along[1], along[0]), chord, depth)
        if not taken.intersects(Polygon(ring)) and not plots.hits(ring):
            return ring
    return None


def _point_at_share(line: Points, share: float) -> Points:
    """Return the place at a share of the length of a polyline whose points are evenly spaced."""
    at = min(max(share, 0.0), 1.0) * (len(line) - 1)
    i = min(int(at), len(line) - 2)
    return line[i] + (at - i) * (line[i + 1] - line[i])


def _add_building(into: Furnisher, ring: Points, height: float) -> None:
    """Add a building on a rectangle `ring [4, 2]` from `corners`: walls, a roof, sometimes an upper part."""
    rng = into.rng
    x, y = (float(v) for v in ring.mean(axis=0))
    length, depth = float(np.hypot(*(ring[0] - ring[3]))), float(np.hypot(*(ring[0] - ring[1])))
    yaw = math.atan2(*(ring[0] - ring[3])[::-1])
    tint = np.array(into.palette.facades[int(rng.integers(len(into.palette.facades)))]) * rng.uniform(0.85, 1.1)
    red, green, blue = np.clip(tint, 0, 1).tolist()
    colour: Colour = red, green, blue
    seed = int(rng.integers(1, 1 << 16))
    into.add((x, y), FACADE, (x, y, 0), (length, depth, height), colour, sunk=True, yaw=yaw, seed=seed)
    if height < _LOW and depth < 14 and rng.random() < 0.8:
        pitch = depth / 2 / float(rng.uniform(2.5, 4.0))
        tiles = into.palette.roofs[int(rng.integers(len(into.palette.roofs)))]
        rise = (depth / 2 + 0.3) / pitch - 0.2
        size = (length + 0.7, depth + 0.7, rise)
        into.add((x, y), ROOF, (x, y, height), size, tiles, yaw=yaw, lean=(pitch * 0.6, pitch * 0.6, pitch))
        return
    into.add((x, y), ROOF, (x, y, height), (length - 0.6, depth - 0.6, 0.7), (0.5, 0.5, 0.5), yaw=yaw)
    if min(length, depth) > 11 and rng.random() < 0.5:
        # A storey set back from the street, or a plant room.
        share = float(rng.uniform(0.3, 0.75))
        size = (share * length, share * depth, float(rng.uniform(2.5, 6)))
        into.add((x, y), FACADE, (x, y, height), size, colour, yaw=yaw, seed=seed + 1)


def add_enclosures(into: Furnisher, fronts: list[Points], taken: BaseGeometry, share: float = 0.45) -> None:
    """Add walls, fences and hedges just behind the fronts, along a `share` of their length where nothing stands."""
    rng = into.rng
    shapely.prepare(taken)
    for front in fronts:
        line = offset(front, -0.45)
        length, s = float(arc_length(line)[-1]), 0.0
        while s < length - 4:
            run = float(rng.uniform(10, 45))
            if rng.random() < share:
                _add_enclosure(into, at_distance(line, np.arange(s, min(s + run, length), 1.0)), taken)
            s += run + float(rng.uniform(1, 12))


def _add_enclosure(into: Furnisher, line: Points, taken: BaseGeometry) -> None:
    """Add a wall, fence or hedge along a line, in pieces that follow it."""
    rng = into.rng
    draw = rng.random()
    if draw < 0.36:
        kind, thick, height, colours = WALL, 0.25, float(rng.uniform(0.6, 2.3)), into.palette.walls
    elif draw < 0.68:
        kind, thick, height, colours = FENCE, 0.06, float(rng.uniform(0.9, 1.9)), into.palette.fences
    else:
        kind, thick, height, colours = HEDGE, 0.7, float(rng.uniform(0.7, 1.9)), into.palette.leaves
    colour = colours[int(rng.integers(len(colours)))]
    seed = int(rng.integers(1 << 16))
    # Chords of a few metres follow bends closely enough.
    knots = line[::5] if len(line) % 5 == 1 else np.concatenate((line[::5], line[-1:]))
    if len(knots) < 2:
        return
    middles, ways = (knots[:-1] + knots[1:]) / 2, np.diff(knots, axis=0)
    lengths = np.hypot(*ways.T)
    free = into.is_free(middles, thick / 2 + 0.05, taken)
    for (x, y), way, length, ok in zip(middles.tolist(), ways, lengths.tolist(), free.tolist(), strict=True):
        if not ok or length < 0.5 or taken.intersects(LineString([(x, y) - way / 2.1, (x, y) + way / 2.1])):
            continue
        yaw = math.atan2(way[1], way[0])
        size = (length + (0.1 if kind != FENCE else 0.0), thick, height)
        into.add((x, y), kind, (x, y, -0.05), size, colour, sunk=True, yaw=yaw, seed=seed)
