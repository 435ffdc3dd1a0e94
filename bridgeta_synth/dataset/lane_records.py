"""What a map expansion tells of lanes: their centre lines as arcs, the connectors between them, what follows what.

The centre line of a lane (`arcline_path_3`) is a row of arcs, each with its pose at either end, as nuscenes-devkit's
`arcline_path_utils` reads them. They come from biarcs (Bolton, 1975): two arcs that meet with one tangent and join two
points with given headings.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from shapely.geometry import Polygon

from bridgeta_synth.world.streets.shapes import Points, arc_length, ribbon, tangents

# Metres of a line that one biarc stands for: on roads that bend as ours do, within millimetres.
_SPACING = 6.0
_STRAIGHT = 1e-4
_CONNECTOR_WIDTH = 3.2


def arc_paths(points: Points) -> list[dict[str, Any]]:
    """A polyline `[n, 2]` of a smooth curve as arcs that follow each other with one heading."""
    s = arc_length(points)
    knots = np.unique(np.linspace(0, len(points) - 1, max(2, round(s[-1] / _SPACING) + 1)).round().astype(int))
    ways = _headings(points)[knots]
    paths = []
    for p, q, t, u in zip(points[knots[:-1]], points[knots[1:]], ways[:-1], ways[1:], strict=True):
        middle, way = _joint(p, t, q, u)
        paths += [_arc(p, t, middle, way), _arc(middle, way, q, u)]
    return paths


def _headings(points: Points) -> Points:
    """Unit tangents; at the ends those of the parabola through the last three points."""
    t = tangents(points)
    if len(points) > 2:
        for end, sign in ((0, 1), (-1, -1)):
            a, b, c = points[end], points[end + sign], points[end + 2 * sign]
            way = sign * (-3 * a + 4 * b - c)
            t[end] = way / np.hypot(*way)
    return t


def _joint(p: Points, t: Points, q: Points, u: Points) -> tuple[Points, Points]:
    """Where two arcs from p heading t to q heading u meet, and the heading there; both are as long in tangents."""
    v = q - p
    bend = 2 * (1 - float(t @ u))
    along = float(v @ (t + u))
    d = (-along + math.sqrt(along**2 + bend * float(v @ v))) / bend if bend > 1e-09 else float(v @ v) / (2 * along)
    way = (q - d * u) - (p + d * t)
    return (p + q + d * (t - u)) / 2, way / np.hypot(*way)


def _arc(p: Points, t: Points, q: Points, u: Points) -> dict[str, Any]:
    """One arc as an arc-line path whose other segments are empty."""
    turn = math.atan2(t[0] * u[1] - t[1] * u[0], float(t @ u))
    chord = float(np.hypot(*(q - p)))
    is_straight = abs(turn) < _STRAIGHT
    length = chord if is_straight else chord * (turn / 2) / math.sin(turn / 2)
    return {
        "start_pose": [float(p[0]), float(p[1]), math.atan2(t[1], t[0])],
        "end_pose": [float(q[0]), float(q[1]), math.atan2(u[1], u[0])],
        "shape": "RSR" if turn < 0 else "LSL",
        "radius": 999.999 if is_straight else length / abs(turn),
        "segment_length": [0.0, length, 0.0] if is_straight else [length, 0.0, 0.0],
    }


def connector_area(path: Points) -> Polygon | None:
    """The ground of a way between two lanes; None where the way is too short or too tight to have a simple one."""
    if arc_length(path)[-1] < 1.0:
        return None
    shape = Polygon(np.round(ribbon(path, _CONNECTOR_WIDTH), 3)).simplify(0.05)
    return shape if shape.is_valid and isinstance(shape, Polygon) else None
