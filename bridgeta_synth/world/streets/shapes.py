"""Areas: clean polygons, rectangles, outlines to walk along."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_synth.world.streets.roads import Points, resample


def parts(shape: BaseGeometry, least: float = 0.5) -> list[Polygon]:
    """The valid polygons of a geometry with an area above `least` square metres and vertices at least 2 cm apart."""
    if not shape.is_valid:
        shape = shape.buffer(0)
    # On a grid of millimetres, as it is written: rounding later could make it invalid.
    clean = shapely.set_precision(shape.simplify(0.02), 0.001)
    members = [m for m in shapely.get_parts(shapely.get_parts(clean)) if isinstance(m, Polygon) and m.area > least]
    return [Polygon(p.exterior, [h for h in p.interiors if Polygon(h).area > 0.3]) for p in members]


def pieces(shape: BaseGeometry, least: float = 0.5) -> list[Polygon]:
    """The polygons of a valid geometry with an area above `least` square metres, as they are."""
    members = shapely.get_parts(shapely.get_parts(shape))
    return [m for m in members if isinstance(m, Polygon) and m.area > least]


def lines_of(shape: BaseGeometry, least: float) -> list[Points]:
    """The lines in a geometry that are longer than `least` metres, merged where they touch, points 1 m apart."""
    merged = shapely.line_merge(shape) if shape.geom_type == "MultiLineString" else shape
    lines = [part for part in shapely.get_parts(shapely.get_parts(merged)) if isinstance(part, LineString)]
    return [resample(np.asarray(line.coords), 1.0) for line in lines if line.length > least]


def rectangle(x: float, y: float, yaw: float, length: float, width: float) -> Polygon:
    """A rectangle around (x, y), `length` metres along its heading `yaw`."""
    return Polygon(corners(x, y, yaw, length, width))


def corners(x: float, y: float, yaw: float, length: float, width: float) -> Points:
    """The corners `[4, 2]` of a rectangle, counter-clockwise."""
    c, s = math.cos(yaw), math.sin(yaw)
    u = np.array((1, 1, -1, -1)) * length / 2
    v = np.array((-1, 1, 1, -1)) * width / 2
    return np.stack((x + c * u - s * v, y + s * u + c * v), axis=1)


def outlines(area: BaseGeometry, least: float = 12.0) -> list[Points]:
    """The closed rings around an area and around the holes in it, points 1 m apart, those above `least` metres long.

    They run so that the area lies to their left and what is outside to their right.
    """
    rings = []
    for polygon in shapely.get_parts(area):
        for ring, is_ccw in ((polygon.exterior, True), *((hole, False) for hole in polygon.interiors)):
            if ring.length > least:
                points = resample(np.asarray(ring.coords)[:, :2], 1.0)
                rings.append(points if ring.is_ccw == is_ccw else points[::-1])
    return rings


def polygons(rings: Iterable[Points]) -> NDArray[np.object_]:
    """Polygons of many rings at once."""
    rings = list(rings)
    if not rings:
        return np.empty(0, dtype=object)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    return np.asarray(shapely.polygons(shapely.linearrings(np.concatenate(rings), indices=owner)), dtype=object)


def union(shapes: Iterable[BaseGeometry]) -> BaseGeometry:
    """All of some shapes as one; nothing is an empty area."""
    found = list(shapes)
    # Without the grid GEOS 3.11 loses areas that share an edge up to rounding.
    return shapely.union_all(found, grid_size=0.001) if found else MultiPolygon()
