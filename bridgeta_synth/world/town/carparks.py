"""Car parks off the road: lots with rows of bays along aisles, each with a driveway from a road."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_synth.world.materials import WHITE
from bridgeta_synth.world.streets.kerbside import BAY_DEPTH, BAY_WIDTH, Bay, Sides, driveway_ring
from bridgeta_synth.world.streets.marking import Marks
from bridgeta_synth.world.streets.roads import Road
from bridgeta_synth.world.streets.shapes import Points, corners, parts

_AISLE = 6.2
# A module is an aisle with a row of bays on either side.
_MODULE = 2 * BAY_DEPTH + _AISLE
_GATE = 6.0


@dataclass(eq=False)
class Carparks:
    """Lots, their driveways and their bays."""

    lots: list[Polygon] = field(default_factory=list)
    driveways: list[Polygon] = field(default_factory=list)
    bays: list[Bay] = field(default_factory=list)


@dataclass(frozen=True)
class _Frame:
    """The frame of a lot: origin at the middle of its side next to the road, u along the road, v away from it."""

    x: float
    y: float
    yaw: float
    side: int

    def at(self, u: float, v: float) -> tuple[float, float]:
        """Return the global place (x, y) of (u, v), metres."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + c * u - self.side * s * v, self.y + s * u + self.side * c * v


def add_carpark(
    road: Road,
    side: int,
    modules: int,
    inside: BaseGeometry,
    setback: float,
    sides: Sides,
    marks: Marks,
    rng: np.random.Generator,
    into: Carparks,
) -> bool:
    """Add a lot of up to `modules` modules on a side of a road; return whether there was room.

    `setback` is the distance from the kerb, metres. The lot is clipped to `inside`, and clipped bays are left out.
    """
    free = max(sides.free_stretches(road, side, 4.0), key=lambda stretch: stretch[1] - stretch[0], default=(0.0, 0.0))
    length = min(free[1] - free[0], float(rng.uniform(18, 26 + 14 * modules)))
    length = BAY_WIDTH * int(length // BAY_WIDTH)
    if length < 14:
        return False
    middle = float(rng.uniform(free[0] + length / 2, free[1] - length / 2))
    frame = _Frame(*road.pose(middle, side * (road.width / 2 + setback)), side)
    for count in range(modules, 0, -1):
        depth = count * _MODULE + 0.6
        area = Polygon(corners(*frame.at(0, depth / 2), frame.yaw, length, depth)).intersection(inside)
        pieces = parts(area, 120.0)
        if len(pieces) == 1 and pieces[0].area > 0.72 * length * depth and not _is_near(pieces[0], into.lots):
            break
    else:
        return False
    lot = pieces[0]
    gate = float(rng.uniform(-0.3, 0.3)) * (length - _GATE)
    way = Polygon(driveway_ring(road, side, middle + gate, _GATE, setback + 0.3))
    # On a bend the distance between lot and kerb varies.
    if not way.intersects(lot):
        return False
    into.lots.append(lot)
    into.driveways.append(way)
    sides.take(road, side, middle - length / 2 - 2, middle + length / 2 + 2)
    _add_bays(lot, frame, length, count, gate, marks, rng, into)
    return True


def _is_near(lot: Polygon, others: list[Polygon]) -> bool:
    return any(lot.distance(other) < 2.5 for other in others)


def _add_bays(
    lot: Polygon,
    frame: _Frame,
    length: float,
    modules: int,
    gate: float,
    marks: Marks,
    rng: np.random.Generator,
    into: Carparks,
) -> None:
    """Add bays with lines between them to all rows, except where the driveway crosses."""
    shapely.prepare(lot)
    wear = float(rng.choice((0.0, 0.3, 0.8)))
    count = int(length // BAY_WIDTH)
    last = 2 * modules - 1
    for row in range(2 * modules):
        v = (row // 2) * _MODULE + (BAY_DEPTH / 2 if row % 2 == 0 else _MODULE - BAY_DEPTH / 2) + 0.3
        open_before = False
        for i in range(count):
            u = (i + 0.5) * BAY_WIDTH - length / 2
            x, y = frame.at(u, v)
            # The driveway leads through all rows but the last.
            is_way = row != last and abs(u - gate) < (_GATE + BAY_WIDTH) / 2
            fits = not is_way and lot.contains(Polygon(corners(x, y, frame.yaw, BAY_WIDTH, BAY_DEPTH - 0.2)))
            if fits:
                heading = frame.yaw + math.pi / 2 * (1 if rng.random() < 0.5 else -1)
                into.bays.append(Bay(x, y, heading))
            if fits or open_before:
                _paint_line(frame, u - BAY_WIDTH / 2, v, marks, wear)
            open_before = fits
        if open_before:
            _paint_line(frame, length / 2, v, marks, wear)


def _paint_line(frame: _Frame, u: float, v: float, marks: Marks, wear: float) -> None:
    ends: Points = np.array([frame.at(u, v - BAY_DEPTH / 2 + 0.1), frame.at(u, v + BAY_DEPTH / 2 - 0.1)])
    marks.stroke(ends, 0.1, WHITE, wear)
