"""Walking lines in a city of which only outlines are known: along walkways, and over crossings from kerb to kerb."""

from __future__ import annotations

import itertools
import math

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_synth.world.streets.shapes import Points, outlines, resample

_FROM_EDGE = 0.75  # metres between a walkway's edge and people on it
_SMOOTH = 0.1
_SHORTEST, _LONGEST = 16.0, 120  # metres: least length around a walkway, most length of a path


def find_footpaths(walkways: BaseGeometry) -> list[Points]:
    """Find lines `[n, 2]` along the edges of walkways that are wide enough to walk on, points 1 m apart."""
    pieces: list[Points] = []
    # Part by part and simplified: GEOS fails on some large walkways with many corners otherwise.
    for walkway in shapely.get_parts(walkways.simplify(0.05)):
        # Opening takes off spikes.
        inner = walkway.buffer(-_FROM_EDGE - _SMOOTH, quad_segs=2).buffer(_SMOOTH, quad_segs=2).simplify(0.1)
        for ring in outlines(inner, _SHORTEST):
            count = max(1, math.ceil(len(ring) / _LONGEST))
            cuts = np.linspace(0, len(ring) - 1, count + 1).round().astype(np.int64).tolist()
            pieces += [ring[start : end + 1] for start, end in itertools.pairwise(cuts)]
    return pieces


def find_walking_axis(crossing: Polygon, traffic: Points | None) -> Points:
    """Find the unit direction `[2]` in which people walk over a crossing.

    It is the axis of the crossing's smallest rectangle that lies across the `traffic` heading `[2]`. Without a heading
    it is the longer axis: crossings are longer, over several lanes, than wide.
    """
    corners = np.asarray(shapely.minimum_rotated_rectangle(crossing).exterior.coords)[:3, :2]
    one, other = corners[1] - corners[0], corners[2] - corners[1]
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    axes = one / max(lengths[0], 1e-9), other / max(lengths[1], 1e-9)
    if traffic is None:
        return axes[0] if lengths[0] >= lengths[1] else axes[1]
    return axes[0] if abs(axes[0] @ traffic) <= abs(axes[1] @ traffic) else axes[1]


def find_walking_line(crossing: Polygon, axis: Points, paved: BaseGeometry, reach: float = 3.0) -> Points:
    """Draw the line over a crossing along its middle, `[n, 2]` 1 m apart, to kerbs up to `reach` metres beyond."""
    middle = np.asarray(crossing.centroid.coords[0])
    across = np.array((-axis[1], axis[0]))
    # On a skewed crossing the middle line, not the axis, leads from kerb to kerb.
    corners = np.asarray(crossing.exterior.coords)[:-1, :2] - middle
    along = corners @ axis
    low, high = along.min(), along.max()
    before, after = (_middle_at(crossing, middle + s * axis, across) for s in (0.5 * low, 0.5 * high))
    slope = (after - before) / (0.5 * (high - low)) if high - low > 2 else 0.0
    way = axis + float(np.clip(slope, -1.0, 1.0)) * across
    ends = []
    for end, sign in ((low, -1), (high, 1)):
        # From inside, as a skewed crossing reaches beyond the kerb; not from the middle, as there may be islands.
        places = middle + np.arange(0.7 * end, end + sign * reach, sign * 0.25)[:, None] * way
        off_road = np.flatnonzero(~shapely.contains_xy(paved, places))
        ends.append(places[off_road[0]] if len(off_road) else middle + end * way)
    return resample(np.array(ends), 1.0)


def outline_zebra_bars(crossing: Polygon, axis: Points, width: float = 0.5, pitch: float = 1.05) -> list[Polygon]:
    """Outline the bars of a zebra crossing: across the walking `axis`, `width` metres wide every `pitch` metres."""
    middle = np.asarray(crossing.centroid.coords[0])
    across = np.array((-axis[1], axis[0]))
    corners = np.asarray(crossing.exterior.coords)[:, :2] - middle
    low, high = (corners @ axis).min(), (corners @ axis).max()
    reach = float(np.abs(corners @ across).max()) + 1
    result: list[Polygon] = []
    for start in np.arange(low + 0.4, high - width, pitch):
        ends = middle + np.array([start, start + width])[:, None] * axis
        bar = Polygon(np.concatenate((ends - reach * across, (ends + reach * across)[::-1])))
        clipped = bar.intersection(crossing)
        result += [p for p in getattr(clipped, "geoms", (clipped,)) if isinstance(p, Polygon) and p.area > 0.3]
    return result


def _middle_at(crossing: Polygon, place: Points, across: Points) -> float:
    """Measure how far the middle of a crossing lies to the left of its axis at a place on it."""
    cut = crossing.intersection(LineString((place - 60 * across, place + 60 * across)))
    return float((np.asarray(cut.centroid.coords[0]) - place) @ across) if not cut.is_empty else 0.0
