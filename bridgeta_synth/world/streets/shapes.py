"""Geometry of polylines and areas: offsets, arcs and bands; clean polygons, rectangles and outlines."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import shapely
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_core.utils.arrays import Floats, Objects

Points = Floats


def arc_length(points: Points) -> Floats:
    """Return the distance along a polyline `[n, 2]` of each of its points, `[n]`."""
    return np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))))


def resample(points: Points, step: float) -> Points:
    """Resample a polyline to points about `step` metres apart; both ends stay."""
    s = arc_length(points)
    return at_distance(points, np.linspace(0.0, s[-1], max(2, round(s[-1] / step) + 1)))


def at_distance(points: Points, distance: Floats) -> Points:
    """Return points of a polyline at distances along it, clamped to its ends."""
    s = arc_length(points)
    return np.stack((np.interp(distance, s, points[:, 0]), np.interp(distance, s, points[:, 1])), axis=-1)


def tangents(points: Points) -> Points:
    """Return unit directions of travel at the points of a polyline."""
    t = np.gradient(points, axis=0)
    return t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-9)


def normals(points: Points) -> Points:
    """Return unit directions to the left of travel at the points of a polyline."""
    t = tangents(points)
    return np.stack((-t[:, 1], t[:, 0]), axis=1)


def offset(points: Points, lateral: float) -> Points:
    """Move a polyline sideways by `lateral` metres, positive to the left."""
    return points + lateral * normals(points)


def ribbon(points: Points, width: float) -> Points:
    """Outline a band of `width` metres around a polyline that bends gently: a ring `[2 n, 2]`."""
    side = width / 2 * normals(points)
    return np.concatenate((points + side, (points - side)[::-1]))


def hermite(p0: Points, t0: Points, p1: Points, t1: Points, step: float = 0.5) -> Points:
    """Draw a smooth path from `p0` heading `t0` (unit) to `p1` heading `t1`; nearly circular for a right angle."""
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


def rounded(
    start: Points, leaving: Points, end: Points, arriving: Points, radius: float = math.inf, step: float = 1.0
) -> Points:
    """Join two points with headings: straight along both headings, with one arc in between.

    The arc is as wide as it can be, but no wider than `radius` metres. Where the headings differ little or do not
    meet, the path is that of `hermite`.
    """
    cross = float(leaving[0] * arriving[1] - leaving[1] * arriving[0])
    turn = math.atan2(cross, float(leaving @ arriving))
    if abs(turn) > math.radians(25):
        gap = end - start
        before = float(gap[0] * arriving[1] - gap[1] * arriving[0]) / cross
        after = float(leaving[0] * gap[1] - leaving[1] * gap[0]) / cross
        if before > 0 and after > 0:
            corner = start + before * leaving
            cut = min(before, after, radius * math.tan(abs(turn) / 2))
            first, last = corner - cut * leaving, corner + cut * arriving
            arc = hermite(first, leaving, last, arriving, step)
            straight = [start[None]] if cut < before - 1e-6 else []
            return np.concatenate([*straight, arc, *([end[None]] if cut < after - 1e-6 else [])])
    return hermite(start, leaving, end, arriving, step)


def tightest_radius(points: Points) -> float:
    """Return the smallest radius of curvature along an evenly sampled polyline, metres."""
    t = np.diff(points, axis=0)
    turn = np.abs(np.arctan2(t[:-1, 0] * t[1:, 1] - t[:-1, 1] * t[1:, 0], (t[:-1] * t[1:]).sum(axis=1)))
    step = np.hypot(*t.T)
    return float(np.min((step[:-1] + step[1:]) / 2 / np.maximum(turn, 1e-9), initial=np.inf))


def parts(shape: BaseGeometry, least: float = 0.5) -> list[Polygon]:
    """Clean a geometry: its valid polygons above `least` square metres, with vertices at least 2 cm apart."""
    if not shape.is_valid:
        shape = shape.buffer(0)
    # On a grid of millimetres, as it is written: rounding later could make it invalid.
    clean = shapely.set_precision(shape.simplify(0.02), 0.001)
    members = [m for m in shapely.get_parts(shapely.get_parts(clean)) if isinstance(m, Polygon) and m.area > least]
    return [Polygon(p.exterior, [h for h in p.interiors if Polygon(h).area > 0.3]) for p in members]


def pieces(shape: BaseGeometry, least: float = 0.5) -> list[Polygon]:
    """Return the polygons of a valid geometry that are larger than `least` square metres, unchanged."""
    members = shapely.get_parts(shapely.get_parts(shape))
    return [m for m in members if isinstance(m, Polygon) and m.area > least]


def lines_of(shape: BaseGeometry, least: float) -> list[Points]:
    """Return the lines in a geometry longer than `least` metres, merged where they touch, points 1 m apart."""
    merged = shapely.line_merge(shape) if shape.geom_type == "MultiLineString" else shape
    lines = [part for part in shapely.get_parts(shapely.get_parts(merged)) if isinstance(part, LineString)]
    return [resample(np.asarray(line.coords), 1.0) for line in lines if line.length > least]


def rectangle(x: float, y: float, yaw: float, length: float, width: float) -> Polygon:
    """Build a rectangle around (x, y), `length` metres along its heading `yaw`."""
    return Polygon(corners(x, y, yaw, length, width))


def corners(x: float, y: float, yaw: float, length: float, width: float) -> Points:
    """Return the corners `[4, 2]` of a rectangle, counter-clockwise."""
    c, s = math.cos(yaw), math.sin(yaw)
    u = np.array((1, 1, -1, -1)) * length / 2
    v = np.array((-1, 1, 1, -1)) * width / 2
    return np.stack((x + c * u - s * v, y + s * u + c * v), axis=1)


def outlines(area: BaseGeometry, least: float = 12.0) -> list[Points]:
    """Return the closed rings around an area and its holes that are longer than `least` metres, points 1 m apart.

    The area lies to their left.
    """
    rings = []
    for polygon in shapely.get_parts(area):
        for ring, is_ccw in ((polygon.exterior, True), *((hole, False) for hole in polygon.interiors)):
            if ring.length > least:
                points = resample(np.asarray(ring.coords)[:, :2], 1.0)
                rings.append(points if ring.is_ccw == is_ccw else points[::-1])
    return rings


def polygons(rings: Iterable[Points]) -> Objects:
    """Build the polygons of many rings at once."""
    rings = list(rings)
    if not rings:
        return np.empty(0, dtype=object)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    return np.asarray(shapely.polygons(shapely.linearrings(np.concatenate(rings), indices=owner)), dtype=object)


def union(shapes: Iterable[BaseGeometry]) -> BaseGeometry:
    """Unite shapes; the union of none is empty."""
    whole = list(shapes)
    # Without the grid GEOS 3.11 loses areas that share an edge up to rounding.
    return shapely.union_all(whole, grid_size=0.001) if whole else MultiPolygon()
