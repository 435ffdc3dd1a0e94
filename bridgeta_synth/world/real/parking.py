"""Parking bays inside a car park of which only the outline is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon

from bridgeta_synth.world.streets.kerbside import BAY_DEPTH, BAY_LENGTH, BAY_WIDTH, Bay
from bridgeta_synth.world.streets.shapes import Points

_AISLE = 6.0  # metres
# Metres of depth: the least for any bay, below which cars stand lengthwise, and below which there is one row.
_LEAST, _LENGTHWISE, _ONE_ROW = 1.8, 4.2, 8.0
_CAR = 2.4  # metres: the most depth of a bay lengthwise


@dataclass(frozen=True, eq=False)
class MarkedBay:
    """A bay, its outline, and the two lines `[2, 2]` between it and its neighbours."""

    bay: Bay
    outline: Polygon
    lines: tuple[Points, Points]


def find_bays(outline: Polygon) -> list[MarkedBay]:
    """Find the bays that fit into a car park, row by row along its longer side.

    A narrow strip holds cars one behind the other, a deeper one a row side by side, a lot pairs of rows with an aisle
    between them.
    """
    corners = np.asarray(shapely.minimum_rotated_rectangle(outline).exterior.coords)[:4, :2]
    one, other = corners[1] - corners[0], corners[3] - corners[0]
    if np.linalg.norm(one) < np.linalg.norm(other):
        one, other = other, one
    length, depth = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if depth < _LEAST:
        return []
    along, across = one / length, other / depth
    lengthwise = depth < _LENGTHWISE
    pitch, reach = (BAY_LENGTH, min(depth, _CAR)) if lengthwise else (BAY_WIDTH, min(depth, BAY_DEPTH))
    yaw = math.atan2(along[1], along[0]) + (0.0 if lengthwise else math.pi / 2)
    room = outline.buffer(0.15)
    shapely.prepare(room)
    bays = []
    for v in _place_rows(depth, reach):
        for u in np.arange(pitch / 2, length - pitch / 2 + 1e-6, pitch):
            middle = corners[0] + u * along + v * across
            half_u, half_v = pitch / 2 * along, reach / 2 * across
            lines = tuple(np.stack((middle + k * half_u - half_v, middle + k * half_u + half_v)) for k in (-1, 1))
            shape = Polygon(np.concatenate((lines[0], lines[1][::-1])))
            if room.contains(shape):
                bay = Bay(float(middle[0]), float(middle[1]), yaw, kerbside=lengthwise)
                bays.append(MarkedBay(bay, shape, (lines[0], lines[1])))
    return bays


def _place_rows(depth: float, reach: float) -> list[float]:
    """Place the middles of rows across a car park: row, aisle, row, row, aisle, row and so on."""
    if depth < _ONE_ROW:
        return [depth / 2]
    rows, v = [], reach / 2
    while v + reach / 2 <= depth:
        rows.append(v)
        v += reach + (_AISLE if len(rows) % 2 else 0.0)
    return rows
