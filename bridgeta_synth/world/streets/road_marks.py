"""Paint along roads: the road and lane dividers of the map, and edge lines and symbols that no map has."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from shapely.geometry import LineString, Polygon

from bridgeta_synth.world.materials import WHITE, YELLOW
from bridgeta_synth.world.streets.kerbside import stretches_outside
from bridgeta_synth.world.streets.lanes import STRAIGHT, LaneKey, Turn
from bridgeta_synth.world.streets.marking import DASHED, DOUBLE, MIXED, SOLID, Marks, arrow, bicycle, place_symbol
from bridgeta_synth.world.streets.roads import SHOULDER, Road

# Lane dividers are solid on the last metres before a stop line.
_SOLID_PART = 22.0


@dataclass(frozen=True)
class PaintStyle:
    """The way a town paints its roads.

    centre: the colour between the directions.
    wear, edges: how worn paint is and how common edge lines are, 0 to 1.
    """

    centre: int
    wear: float
    edges: float

    @classmethod
    def draw(cls, keep_right: bool, rng: np.random.Generator) -> PaintStyle:
        """Draw a style: yellow between the directions where traffic keeps right, mostly white where it keeps left."""
        centre = YELLOW if rng.random() < (0.9 if keep_right else 0.1) else WHITE
        return cls(centre, float(rng.uniform(0.05, 0.4)), float(rng.uniform(0.15, 0.5)))


def paint_road(
    road: Road,
    gaps: list[tuple[float, float]],
    openings: list[tuple[float, float]],
    turns: dict[LaneKey, list[Turn]],
    style: PaintStyle,
    marks: Marks,
    rng: np.random.Generator,
) -> tuple[list[LineString], list[LineString]]:
    """Paint a road; return the road dividers and lane dividers of the map, which end at gaps and openings."""
    runs = [(a, b) for a, b in stretches_outside(road, gaps) if b - a > 7]
    wear = float(np.clip(style.wear + rng.normal(0, 0.2), 0, 0.9)) if rng.random() < 0.8 else 0.9
    profile = road.profile
    between: list[LineString] = []
    if profile.ahead and profile.back and profile.centre_line and not profile.median:
        kind = _draw_centre_style(road, rng)
        for a, b in [r for run in runs for r in _subtract(run, openings)]:
            line = road.line(a, b, road.inner(True))
            between.append(LineString(line).simplify(0.02))
            marks.paint(line if rng.random() < 0.5 else line[::-1], kind, style.centre, wear)
    lanes: list[LineString] = []
    for ahead in (True, False):
        for lateral in road.lane_dividers(ahead):
            for a, b in runs:
                lanes.append(LineString(road.line(a, b, lateral)).simplify(0.02))
                _paint_lane_line(road, a, b, lateral, ahead, wear, marks)
    for a, b in runs:
        _paint_edges(road, a, b, style, wear, marks, rng)
        _paint_symbols(road, a, b, turns, wear, marks, rng)
    return between, lanes


def _subtract(run: tuple[float, float], openings: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """List the parts of a stretch between openings that are longer than 4 m."""
    pieces, here = [], run[0]
    for start, end in sorted(openings):
        pieces.append((here, min(start, run[1])))
        here = max(here, end)
    pieces.append((here, run[1]))
    return [(a, b) for a, b in pieces if b - a > 4]


def _draw_centre_style(road: Road, rng: np.random.Generator) -> str:
    if road.profile.ahead + road.profile.back >= 4:
        return str(rng.choice((DOUBLE, DOUBLE, SOLID, MIXED)))
    return str(rng.choice((SOLID, DASHED, DASHED, DOUBLE, MIXED)))


def _paint_lane_line(road: Road, a: float, b: float, lateral: float, ahead: bool, wear: float, marks: Marks) -> None:
    """Paint dashes, and a solid line where traffic reaches the end of the stretch."""
    solid = min(_SOLID_PART, 0.4 * (b - a))
    dashed, end = ((a, b - solid), (b - solid, b)) if ahead else ((a + solid, b), (a, a + solid))
    marks.paint(road.line(*dashed, lateral), DASHED, WHITE, wear)
    marks.paint(road.line(*end, lateral), SOLID, WHITE, wear)


def _paint_edges(
    road: Road, a: float, b: float, style: PaintStyle, wear: float, marks: Marks, rng: np.random.Generator
) -> None:
    """Paint lines along some kerbs, which no map holds: two yellow ones, or one white or yellow."""
    half = road.width / 2
    for side in (1, -1):
        kind = rng.random() / max(style.edges, 1e-6)
        if kind > 1:
            continue
        colour = YELLOW if kind < 0.55 else WHITE
        for lateral in (0.22, 0.44) if kind < 0.35 else (SHOULDER,):
            marks.paint(road.line(a, b, side * (half - lateral)), SOLID, colour, wear, 0.1)


def _paint_symbols(
    road: Road,
    a: float,
    b: float,
    turns: dict[LaneKey, list[Turn]],
    wear: float,
    marks: Marks,
    rng: np.random.Generator,
) -> None:
    """Paint arrows before the junction on roads with several lanes, bicycles on some narrow ones."""

    def lay(shape: Polygon, back: float, ahead: bool, lane: int) -> None:
        """Paint a symbol `back` metres before the end of the stretch."""
        x, y, yaw = road.pose(b - back if ahead else a + back, road.lane_lateral(ahead, lane))
        marks.add_shape(WHITE, place_symbol(shape, x, y, yaw if ahead else yaw + math.pi), wear)

    for ahead in (True, False):
        count = road.lanes(ahead)
        at_end = b > road.span[1] - 25 if ahead else a < road.span[0] + 25
        if count > 1 and b - a > 24 and at_end and rng.random() < 0.7:
            rows = (9.0, 29.0) if b - a > 50 and rng.random() < 0.5 else (9.0,)
            for back in rows:
                for lane in range(count):
                    ways = frozenset(map(_direction, turns[LaneKey(road.index, ahead, lane)]))
                    lay(arrow(ways), back, ahead, lane)
        elif count == 1 and b - a > 30 and rng.random() < 0.1:
            for piece in bicycle():
                lay(piece, 0.7 * (b - a), ahead, 0)


def _direction(turn: Turn) -> str:
    return "straight" if abs(turn.angle) < STRAIGHT else "left" if turn.angle > 0 else "right"
