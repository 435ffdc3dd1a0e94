"""Symbols painted on lanes: arrows and bicycles, as outlines that point along x."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from shapely import affinity
from shapely.geometry import LineString, MultiLineString, Point, Polygon
from shapely.ops import unary_union


def _head(x: float, y: float, yaw: float) -> Polygon:
    """An arrow's head with its base's middle at (x, y)."""
    triangle = Polygon([(0.0, 0.42), (0.0, -0.42), (1.1, 0.0)])
    return affinity.translate(affinity.rotate(triangle, yaw, origin=(0, 0), use_radians=True), x, y)


@lru_cache(maxsize=16)
def arrow(ways: frozenset[str]) -> Polygon:
    """An arrow about 4 m long for the ways (`left`, `straight`, `right`) that a lane leads to, around its middle."""
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
    """A bicycle 1.7 m long, as riders on the lane see it: its wheels lie along x."""
    wheels = [Point(x, 0).buffer(0.38, quad_segs=6).difference(Point(x, 0).buffer(0.28, quad_segs=6)) for x in (0, 1)]
    frame = MultiLineString(
        [[(0, 0), (0.25, 0.45)], [(0.25, 0.45), (0.85, 0.45)], [(0.45, 0), (0.85, 0.45)], [(0, 0), (0.45, 0)]]
    )
    fork = MultiLineString([[(1, 0), (0.85, 0.45)], [(0.85, 0.45), (0.85, 0.65)], [(0.15, 0.5), (0.35, 0.5)]])
    whole = unary_union([*wheels, frame.buffer(0.06), fork.buffer(0.06)])
    # Upright in the eyes of a rider who comes up to it: its height runs along the lane.
    turned = affinity.translate(affinity.rotate(whole, 90, origin=(0.5, 0.3)), -0.5, -0.3)
    members = getattr(turned, "geoms", (turned,))
    return tuple(p for p in members if isinstance(p, Polygon))


def placed(shape: Polygon, x: float, y: float, yaw: float) -> Polygon:
    """A symbol at a place, pointing along a heading."""
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, s], [-s, c]])
    rings = [np.asarray(r.coords) @ turn + (x, y) for r in (shape.exterior, *shape.interiors)]
    return Polygon(rings[0], rings[1:])
