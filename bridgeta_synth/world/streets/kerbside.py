"""The kerbside of a road: lay-bys to park or stop in, driveways, and islands between the directions."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from shapely.geometry import Polygon

from bridgeta_synth.world.materials import KERB_BLACK, KERB_WHITE, KERB_YELLOW, WHITE, YELLOW
from bridgeta_synth.world.streets.marking import DASHED, SOLID, Marks
from bridgeta_synth.world.streets.roads import Road
from bridgeta_synth.world.streets.shapes import Points, rectangle

BAY_LENGTH, BAY_WIDTH, BAY_DEPTH = 5.8, 2.6, 5.0
_PARALLEL_DEPTH, _BUS_DEPTH = 2.3, 3.0
_CORNER = 7.0  # metres at a road's ends without lay-bys


@dataclass(frozen=True, eq=False)
class Bay:
    """A parking bay: its middle in metres, the heading of a car parked in it, whether it lies at a street's kerb."""

    x: float
    y: float
    yaw: float
    kerbside: bool = False


class Sides:
    """The free stretches of both sides (+1 left, -1 right) of every road."""

    def __init__(self, roads: tuple[Road, ...], gaps: dict[int, list[tuple[float, float]]]) -> None:
        self._taken: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
        for road in roads:
            for side in (1, -1):
                ends = [(-math.inf, road.span[0]), (road.span[1], math.inf)]
                self._taken[road.index, side] = ends + gaps[road.index]

    def free_stretches(self, road: Road, side: int, margin: float) -> list[tuple[float, float]]:
        """List the free stretches of a side in order, `margin` metres away from what is taken."""
        result, here = [], -math.inf
        for start, end in sorted(self._taken[road.index, side]):
            if start - margin > here + margin and here > -math.inf:
                result.append((here + margin, start - margin))
            here = max(here, end)
        return result

    def take(self, road: Road, side: int, start: float, end: float) -> None:
        """Mark a stretch as taken."""
        self._taken[road.index, side].append((start, end))

    def reserve(self, road: Road, side: int, length: float, margin: float, rng: np.random.Generator) -> float | None:
        """Take a random free stretch of a length; return where it starts, or None if there is none."""
        fitting = [(a, b) for a, b in self.free_stretches(road, side, margin) if b - a >= length]
        if not fitting:
            return None
        a, b = fitting[int(rng.integers(len(fitting)))]
        start = float(rng.uniform(a, b - length))
        self.take(road, side, start, start + length)
        return start


@dataclass(eq=False)
class Kerbside:
    """Lay-bys, islands and driveways as areas, and the bays in the lay-bys.

    `openings` are the stretches of each road in which a driveway interrupts the dividers.
    """

    laybys: list[Polygon] = field(default_factory=list)
    islands: list[Polygon] = field(default_factory=list)
    driveways: list[Polygon] = field(default_factory=list)
    bays: list[Bay] = field(default_factory=list)
    openings: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))


def build_islands(road: Road, gaps: list[tuple[float, float]]) -> list[Polygon]:
    """Build the islands of a road with a median: between the gaps, with rounded noses."""
    if not road.profile.median:
        return []
    middle = (road.inner(True) + road.inner(False)) / 2
    half = road.profile.median / 2 - 0.25
    areas = []
    for start, end in stretches_outside(road, gaps):
        if end - start > 10:
            line = Polygon(road.strip(start + 1.0 + half, end - 1.0 - half, middle + 0.02, middle - 0.02))
            areas.append(line.buffer(half, quad_segs=4))
    return areas


def stretches_outside(road: Road, gaps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """List the stretches (from, to) of a road outside some gaps."""
    result, here = [], 0.0
    for start, end in sorted(gaps):
        if start > here:
            result.append((here, start))
        here = max(here, end)
    if road.length > here:
        result.append((here, road.length))
    return result


def add_laybys(road: Road, sides: Sides, marks: Marks, rng: np.random.Generator, into: Kerbside) -> None:
    """Add parking and bus lay-bys on both sides of a road."""
    for side in (1, -1):
        chance = rng.random()
        if chance < road.profile.parking:
            for start, end in sides.free_stretches(road, side, _CORNER):
                if end - start > 4 * BAY_LENGTH:
                    _add_parking(road, side, start, end, marks, rng, into)
                    sides.take(road, side, start, end)
        elif chance < road.profile.parking + 0.07 and road.profile.ahead + road.profile.back > 1:
            stop = sides.reserve(road, side, 30.0, _CORNER, rng)
            if stop is not None:
                into.laybys.append(_recess_area(road, side, stop, stop + 30.0, _BUS_DEPTH, 9.0))
                edge = road.line(stop + 4, stop + 26, side * (road.width / 2 + 0.1))
                marks.paint(edge, DASHED, YELLOW if rng.random() < 0.5 else WHITE, 0.3, 0.15)


def _recess_area(road: Road, side: int, start: float, end: float, depth: float, taper: float) -> Polygon:
    """Outline a recess of the kerb, `depth` metres between its tapers; it overlaps the road, so that both unite."""
    half = road.width / 2
    outer = road.line(start + taper, end - taper, side * (half + depth))
    inner = road.line(start, end, side * (half - 0.3))
    edge = road.at(np.array([end, start]), side * half)
    return Polygon(np.concatenate((inner, edge[:1], outer[::-1], edge[1:])))


def _add_parking(
    road: Road, side: int, start: float, end: float, marks: Marks, rng: np.random.Generator, into: Kerbside
) -> None:
    """Add a parking lay-by between `start` and `end`, its bays along the kerb or across it."""
    half = road.width / 2
    is_parallel = rng.random() < 0.8 or road.profile.ahead + road.profile.back > 3
    depth, step, taper = (_PARALLEL_DEPTH, BAY_LENGTH, 2.0) if is_parallel else (BAY_DEPTH, BAY_WIDTH, 1.5)
    count = int((end - start - 2 * taper) // step)
    count = min(count, int(rng.integers(4, 16)) * (1 if is_parallel else 2))
    length = count * step + 2 * taper
    start = float(rng.uniform(start, end - length))
    recess = _recess_area(road, side, start, start + length, depth, taper)
    into.laybys.append(recess)
    # Cars park in the direction of the nearest lane; in bays across the kerb, either way.
    taken = Polygon()
    with_road = road.side(True) == side if road.profile.ahead and road.profile.back else road.profile.ahead > 0
    along = 0.0 if with_road else math.pi
    for i in range(count):
        x, y, yaw = road.pose(start + taper + (i + 0.5) * step, side * (half + depth / 2))
        across = math.pi / 2 * (1 if rng.random() < 0.5 else -1)
        bay = Bay(x, y, yaw + (along if is_parallel else across), True)
        # On the inside of a bend cars would stick out or overlap.
        room = rectangle(x, y, bay.yaw, 4.6, 2.0)
        if recess.contains(room) and not room.intersects(taken):
            into.bays.append(bay)
            taken = room
    style = rng.random()
    if style < 0.7 or not is_parallel:
        wear = float(rng.choice((0.0, 0.4, 0.9)))
        ends = np.array([half + 0.1, half + depth - 0.1]) * float(side)
        for i in range(count + 1):
            marks.stroke(road.at(np.full(2, start + taper + i * step), ends), 0.1, WHITE, wear)
    if style > 0.45:
        edge = road.line(start + taper, start + length - taper, side * (half + 0.05))
        marks.paint(edge, DASHED if style > 0.8 else SOLID, WHITE, 0.4, 0.12)


def paint_kerbs(road: Road, sides: Sides, keep_left: bool, marks: Marks, rng: np.random.Generator) -> None:
    """Paint free stretches of kerb in black and white, or in yellow where nobody may stop."""
    half = road.width / 2 + 0.09
    for side in (1, -1):
        draw = rng.random()
        for start, end in sides.free_stretches(road, side, 0.5):
            line = road.line(start, end, side * half)
            if keep_left and draw < 0.4:
                paint_stripes(line, marks)
            elif not keep_left and draw < 0.1 and end - start < 40:
                marks.stroke(line, 0.17, KERB_YELLOW)


def paint_stripes(line: Points, marks: Marks, lateral: float = 0.0) -> None:
    """Paint blocks of black and white, a metre each, along a kerb."""
    marks.stroke(line, 0.17, KERB_BLACK, lateral=lateral)
    marks.dash(line, 0.17, 1.0, 1.0, KERB_WHITE, lateral=lateral)


def driveway_ring(road: Road, side: int, s: float, width: float, reach: float) -> Points:
    """Outline a driveway that leaves a road at `s`, flared at the kerb, up to `reach` metres beyond it: `[8, 2]`."""
    x, y, yaw = road.pose(s, side * road.width / 2)
    half, flare = width / 2, min(1.5, reach / 2)
    # Origin at the kerb, u along the road, v away from it.
    shape = [
        (-half - flare, -0.4),
        (half + flare, -0.4),
        (half + flare, 0),
        (half, flare),
        (half, reach),
        (-half, reach),
    ]
    u, v = np.array([*shape, (-half, flare), (-half - flare, 0)]).T
    c, sn = math.cos(yaw), math.sin(yaw)
    return np.stack((x + c * u - side * sn * v, y + sn * u + side * c * v), axis=1)


def add_driveways(road: Road, sides: Sides, rng: np.random.Generator, into: Kerbside) -> None:
    """Add driveways into the plots on both sides."""
    for side in (1, -1):
        for _ in range(int(rng.poisson(0.011 * (road.span[1] - road.span[0])))):
            width, reach = float(rng.uniform(3.2, 7.0)), float(rng.uniform(6.0, 13.0))
            start = sides.reserve(road, side, width + 3.0, 3.0, rng)
            if start is None:
                continue
            middle = start + width / 2 + 1.5
            into.driveways.append(Polygon(driveway_ring(road, side, middle, width, reach)))
            if width > 5.0 and rng.random() < 0.5:
                into.openings[road.index].append((start - 1.0, start + width + 4.0))
