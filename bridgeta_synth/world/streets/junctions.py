"""The outlines of junctions: how far they reach into their arms, and the kerbs that round their corners."""

from __future__ import annotations

import math

import numpy as np
from shapely.geometry import Polygon

from bridgeta_synth.world.streets.roads import Arm, Points, Road, rounded

FILLET = 7.0


def reaches(roads: list[Road], arms: tuple[Arm, ...]) -> dict[tuple[int, bool], float]:
    """How far a junction reaches into each of its arms, metres: to where the kerbs' rounded corners begin.

    By road, and whether the junction is at its start.
    """
    trims = {}
    for position, arm in enumerate(arms):
        half, reach = roads[arm.road].width / 2, 6.0
        for other, sign in ((arms[position - 1], -1), (arms[(position + 1) % len(arms)], 1)):
            theta = (sign * (other.angle - arm.angle)) % (2 * math.pi)
            if theta < math.radians(155):
                corner = (roads[other.road].width / 2 + half * math.cos(theta)) / math.sin(theta)
                reach = max(reach, corner + _tangent_length(theta))
        trims[arm.road, arm.at_start] = min(reach + 1.2, 0.42 * roads[arm.road].length)
    return trims


def _tangent_length(theta: float) -> float:
    """From the corner between two kerbs at an angle to where its rounding begins; smaller radii at sharp corners."""
    return min(FILLET / math.tan(theta / 2), 8.0)


def mouth(road: Road, at_start: bool) -> tuple[Points, Points, Points]:
    """The kerbs left and right as seen from the junction, `[2]` each, and the way out (unit), where an arm ends."""
    half = road.width / 2
    s = road.span[0] if at_start else road.span[1]
    plus, minus = road.at(np.array([s, s]), np.array([half, -half]))
    across = (plus - minus) / road.width
    if at_start:
        return plus, minus, np.array((across[1], -across[0]))
    return minus, plus, np.array((-across[1], across[0]))


def outline(roads: list[Road], arms: tuple[Arm, ...]) -> Polygon:
    """The ring along all mouths and, rounded, the corners of the kerbs between them."""
    mouths = [mouth(roads[arm.road], arm.at_start) for arm in arms]
    pieces = []
    for position, (left, right, out) in enumerate(mouths):
        _, following, way = mouths[(position + 1) % len(mouths)]
        pieces += [right[None], left[None], rounded(left, -out, following, way, FILLET)[1:-1]]
    return Polygon(np.concatenate(pieces))
