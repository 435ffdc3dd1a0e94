"""Paint on roads: strokes, dashes and double lines along any polyline, arrows and bicycles, fresh or worn."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from shapely import affinity
from shapely.geometry import LineString, MultiLineString, Point, Polygon
from shapely.ops import unary_union

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.materials import WHITE, WHITE_WORN, YELLOW, YELLOW_WORN, ZEBRA, ZEBRA_WORN
from bridgeta_synth.world.streets.shapes import Points, arc_length, normals, polygons

WORN = {WHITE: WHITE_WORN, YELLOW: YELLOW_WORN, ZEBRA: ZEBRA_WORN}
LINE_WIDTH = 0.14
# Paint wears in stretches of this many metres; the strokes of a double line lie this far apart.
_STRETCH, _DOUBLE = 9.0, 0.30

SOLID, DASHED, DOUBLE, MIXED, DOTTED = "solid", "dashed", "double", "mixed", "dotted"
_RHYTHM = {DASHED: (3.0, 4.5), DOTTED: (1.0, 1.0)}


def bands(points: Points, starts: Floats, ends: Floats, width: float, lateral: float = 0.0) -> Floats:
    """Outline bands along a polyline from each of `starts [k]` to each of `ends [k]` metres: rings `[k, m, 2]`.

    The bands are `width` wide and lie `lateral` metres to the left of the polyline.
    """
    count = max(2, math.ceil(float(np.max(ends - starts, initial=0.0)) / 1.5) + 1)
    s = arc_length(points)
    at = starts[:, None] + (ends - starts)[:, None] * np.linspace(0, 1, count)
    frame = np.concatenate((points, normals(points)), axis=1)
    x, y, nx, ny = (np.interp(at, s, column) for column in frame.T)
    left, right = lateral + width / 2, lateral - width / 2
    return np.concatenate(
        (np.stack((x + left * nx, y + left * ny), -1), np.stack((x + right * nx, y + right * ny), -1)[:, ::-1]), axis=1
    )


class Marks:
    """A collection of marks from bottom to top.

    `wear` from 0 to 1 in the methods is the share of a line's stretches whose paint is worn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._rings: list[tuple[int, Points]] = []
        self._shapes: list[tuple[int, Polygon]] = []

    def add_ring(self, material: int, ring: Points) -> None:
        """Add a mark with the outline `ring [n, 2]`."""
        self._rings.append((material, ring))

    def add_shape(self, material: int, shape: Polygon, wear: float = 0.0) -> None:
        """Add a mark that may have holes."""
        worn = self._rng.random() < wear
        self._shapes.append((WORN.get(material, material) if worn else material, shape))

    def stroke(self, points: Points, width: float, material: int, wear: float = 0.0, lateral: float = 0.0) -> None:
        """Add a continuous line along a polyline."""
        length = float(arc_length(points)[-1])
        count = max(1, round(length / _STRETCH))
        edges = np.linspace(0, length, count + 1)
        self._lay(bands(points, edges[:-1], edges[1:], width, lateral), material, wear)

    def dash(
        self,
        points: Points,
        width: float,
        on: float,
        off: float,
        material: int,
        wear: float = 0.0,
        lateral: float = 0.0,
    ) -> None:
        """Add dashes of `on` metres with gaps of `off` metres along a polyline."""
        starts = np.arange(0.0, float(arc_length(points)[-1]) - 0.6 * on, on + off)
        if len(starts):
            self._lay(bands(points, starts, starts + on, width, lateral), material, wear)

    def _lay(self, rings: Floats, material: int, wear: float) -> None:
        worn = self._rng.random(len(rings)) < wear
        self._rings += [(WORN.get(material, material) if w else material, r) for r, w in zip(rings, worn, strict=True)]

    def paint(self, points: Points, style: str, colour: int, wear: float = 0.0, width: float = LINE_WIDTH) -> None:
        """Paint a line: solid, dashed, double (both solid), mixed (one solid, one dashed) or dotted."""
        if style in (DOUBLE, MIXED):
            self.stroke(points, width, colour, wear, _DOUBLE / 2)
            if style == DOUBLE:
                self.stroke(points, width, colour, wear, -_DOUBLE / 2)
            else:
                self.dash(points, width, *_RHYTHM[DASHED], colour, wear, -_DOUBLE / 2)
        elif style == SOLID:
            self.stroke(points, width, colour, wear)
        else:
            self.dash(points, width, *_RHYTHM[style], colour, wear)

    def build(self) -> list[tuple[int, Polygon]]:
        """Return all marks as (material, polygon)."""
        shapes = polygons(ring for _, ring in self._rings)
        return [*zip((material for material, _ in self._rings), shapes, strict=True), *self._shapes]


def _head(x: float, y: float, yaw: float) -> Polygon:
    """Outline an arrow's head with the middle of its base at (x, y)."""
    triangle = Polygon([(0.0, 0.42), (0.0, -0.42), (1.1, 0.0)])
    return affinity.translate(affinity.rotate(triangle, yaw, origin=(0, 0), use_radians=True), x, y)


@lru_cache(maxsize=16)
def arrow(ways: frozenset[str]) -> Polygon:
    """Outline an arrow along x, about 4 m long around its middle, for `left`, `straight` and `right` turns."""
    shapes = [LineString([(-2.0, 0), (0.2, 0)]).buffer(0.09, cap_style="flat")]
    if "straight" in ways:
        shapes += [LineString([(0, 0), (1.0, 0)]).buffer(0.09, cap_style="flat"), _head(0.9, 0, 0.0)]
    for way, side in (("left", 1), ("right", -1)):
        if way in ways:
            bend = [(0.0, 0.0), (0.35, 0.05 * side), (0.55, 0.35 * side), (0.6, 0.55 * side)]
            shapes += [LineString(bend).buffer(0.09, cap_style="flat"), _head(0.6, 0.5 * side, side * math.pi / 2)]
    return Polygon(unary_union(shapes).exterior)


@lru_cache(maxsize=1)
def bicycle() -> tuple[Polygon, ...]:
    """Outline a bicycle, 1.7 m long, seen upright by riders who approach along x."""
    wheels = [Point(x, 0).buffer(0.38, quad_segs=6).difference(Point(x, 0).buffer(0.28, quad_segs=6)) for x in (0, 1)]
    frame = MultiLineString(
        [[(0, 0), (0.25, 0.45)], [(0.25, 0.45), (0.85, 0.45)], [(0.45, 0), (0.85, 0.45)], [(0, 0), (0.45, 0)]]
    )
    fork = MultiLineString([[(1, 0), (0.85, 0.45)], [(0.85, 0.45), (0.85, 0.65)], [(0.15, 0.5), (0.35, 0.5)]])
    whole = unary_union([*wheels, frame.buffer(0.06), fork.buffer(0.06)])
    # Its height runs along the lane.
    turned = affinity.translate(affinity.rotate(whole, 90, origin=(0.5, 0.3)), -0.5, -0.3)
    members = getattr(turned, "geoms", (turned,))
    return tuple(p for p in members if isinstance(p, Polygon))


def place_symbol(shape: Polygon, x: float, y: float, yaw: float) -> Polygon:
    """Move a symbol to (x, y) and turn it from x to a heading, radians."""
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, s], [-s, c]])
    rings = [np.asarray(r.coords) @ turn + (x, y) for r in (shape.exterior, *shape.interiors)]
    return Polygon(rings[0], rings[1:])
