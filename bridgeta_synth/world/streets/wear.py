"""Wear of roads, which may look like dividers: seams, trenches, patches, tyre marks, cracks, removed lines."""

from __future__ import annotations

import math

import numpy as np

from bridgeta_synth.world.materials import ASPHALT_OLD, CRACK, IRON, PATCH, REMOVED_PAINT, SEAM, TYRE
from bridgeta_synth.world.streets.marking import DASHED, SOLID, Marks
from bridgeta_synth.world.streets.roads import SHOULDER, Road
from bridgeta_synth.world.streets.shapes import Points, corners


def age_road(road: Road, below: Marks, above: Marks, rng: np.random.Generator) -> None:
    """Add traces of repairs and traffic to a road, `below` its paint or, here and there, `above` it."""
    length = road.span[1] - road.span[0]
    for _ in range(int(rng.poisson(length / 28))):
        _add_patch(road, above if rng.random() < 0.1 else below, rng)
    if rng.random() < 0.45:
        _add_seams(road, below, rng)
    for _ in range(int(rng.poisson(length / 55))):
        _add_trench(road, above if rng.random() < 0.35 else below, rng)
    if rng.random() < 0.12:
        for s in np.arange(road.span[0] + rng.uniform(2, 6), road.span[1], float(rng.uniform(5.0, 9.0))):
            below.stroke(_across(road, float(s)), 0.05, SEAM)
    for _ in range(int(rng.poisson(length / 70))):
        _add_removed_line(road, below, rng)
    for _ in range(int(rng.poisson(length / 110))):
        _add_tyre_marks(road, above, rng)
    for _ in range(int(rng.poisson(length / 35))):
        _add_crack(road, below, rng)
    for _ in range(int(rng.poisson(length / 40))):
        x, y, yaw = _draw_pose(road, rng)
        turn = np.linspace(0, 2 * math.pi, 10, endpoint=False)
        below.add_ring(IRON, np.stack((x + 0.34 * np.cos(turn + yaw), y + 0.34 * np.sin(turn + yaw)), axis=1))


def resurface(road: Road, below: Marks, rng: np.random.Generator) -> None:
    """Lay older and paler asphalt on some roads or stretches of them."""
    half, (s0, s1) = road.width / 2, road.span
    draw = rng.random()
    if draw < 0.25:
        below.add_ring(ASPHALT_OLD, road.strip(s0, s1, half, -half))
    elif draw < 0.5 and s1 - s0 > 20:
        a, b = sorted(rng.uniform(s0, s1, 2))
        below.add_ring(ASPHALT_OLD, road.strip(float(a), float(b), half, -half))
    elif draw < 0.6:
        # One lane's width was renewed.
        side = float(rng.choice((-1.0, 1.0)))
        below.add_ring(ASPHALT_OLD, road.strip(s0, s1, side * half, side * (half - 3.4)))


def _across(road: Road, s: float) -> Points:
    half = road.width / 2
    return road.at(np.full(2, s), np.array([half, -half]))


def _draw_pose(road: Road, rng: np.random.Generator, room: float = 0.8) -> tuple[float, float, float]:
    """Draw x, y and the road's heading at a place, `room` metres from the kerbs if the road is wide enough."""
    edge = max(road.width / 2 - room, 0.2)
    return road.pose(float(rng.uniform(*road.span)), float(rng.uniform(-edge, edge)))


def _add_patch(road: Road, marks: Marks, rng: np.random.Generator) -> None:
    """Add a repaired patch, some with tar along the rim."""
    x, y, yaw = _draw_pose(road, rng)
    length, width = float(rng.uniform(0.8, 7)), float(rng.uniform(0.5, 1.5))
    if rng.random() < 0.35:
        marks.add_ring(SEAM, corners(x, y, yaw, length + 0.12, width + 0.12))
    marks.add_ring(PATCH, corners(x, y, yaw, length, width))


def _add_seams(road: Road, marks: Marks, rng: np.random.Generator) -> None:
    """Add joints between strips of asphalt: near the borders of lanes, seldom on them."""
    lane = road.profile.lane_width
    for lateral in np.arange(-road.width / 2 + SHOULDER + lane, road.width / 2 - 1.5, lane):
        if rng.random() < 0.6:
            at = float(lateral + rng.normal(0, 0.5))
            a, b = sorted(rng.uniform(*road.span, 2)) if rng.random() < 0.4 else road.span
            if b - a > 5:
                marks.stroke(road.line(a, b, at), float(rng.uniform(0.03, 0.09)), SEAM)


def _add_trench(road: Road, marks: Marks, rng: np.random.Generator) -> None:
    """Add a filled trench across the road or along it."""
    s, half = float(rng.uniform(*road.span)), road.width / 2
    width = float(rng.uniform(0.4, 1.1))
    if rng.random() < 0.6:
        line = _across(road, s)
    else:
        at = float(rng.uniform(-half + 1, half - 1))
        line = road.line(s, min(s + float(rng.uniform(8, 40)), road.span[1]), at)
    if rng.random() < 0.5:
        marks.stroke(line, width + 0.14, SEAM)
    marks.stroke(line, width, PATCH)


def _add_removed_line(road: Road, marks: Marks, rng: np.random.Generator) -> None:
    """Add the trace of a removed line: pale, or dark where it was burnt off."""
    a = float(rng.uniform(*road.span))
    b = min(a + float(rng.uniform(8, 45)), road.span[1])
    if b - a < 5:
        return
    edge = road.width / 2 - 1.0
    line = road.line(a, b, float(rng.uniform(-edge, edge)))
    marks.paint(line, SOLID if rng.random() < 0.4 else DASHED, REMOVED_PAINT if rng.random() < 0.7 else SEAM, 0.0, 0.15)


def _add_tyre_marks(road: Road, marks: Marks, rng: np.random.Generator) -> None:
    """Add two dark tracks of a car that braked; they may leave their lane."""
    a = float(rng.uniform(*road.span))
    b = min(a + float(rng.uniform(5, 22)), road.span[1])
    if b - a < 4:
        return
    edge = road.width / 2 - 1.3
    at = float(rng.uniform(-edge, edge))
    s = np.linspace(a, b, max(4, round(b - a)))
    drift = float(rng.normal(0, 0.8)) * ((s - a) / (b - a)) ** 2
    for side in (-0.75, 0.75):
        lateral = np.clip(at + drift + side, -road.width / 2 + 0.2, road.width / 2 - 0.2)
        marks.stroke(road.at(s, lateral), float(rng.uniform(0.14, 0.22)), TYRE)


def _add_crack(road: Road, marks: Marks, rng: np.random.Generator) -> None:
    """Add a crack that wanders along or across the road."""
    x, y, yaw = _draw_pose(road, rng, 3.5)
    count = int(rng.integers(4, 8))
    heading = yaw + (math.pi / 2 if rng.random() < 0.4 else 0.0) + np.cumsum(rng.normal(0, 0.35, count))
    step = 0.5 * np.stack((np.cos(heading), np.sin(heading)), axis=1)
    marks.stroke(np.array((x, y)) + np.cumsum(step, axis=0), 0.025, CRACK)
