"""Roads: where their lanes, kerbs and islands lie, and how they meet junctions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.streets.shapes import Points, arc_length, normals

SHOULDER = 0.3


@dataclass(frozen=True)
class Profile:
    """The cross-section of a street, and what is usual along it.

    ahead, back: number of lanes per direction (0: one-way).
    lane_width: metres.
    median: width of the island between the directions, metres; 0 without one.
    centre_line: paint divides the directions.
    parking, walkway, verge: chances from 0 to 1 per road or side of a road.
    """

    ahead: int
    back: int
    lane_width: float
    median: float = 0.0
    centre_line: bool = True
    parking: float = 0.0
    walkway: float = 0.9
    verge: float = 0.3

    @property
    def width(self) -> float:
        """Metres from kerb to kerb."""
        return (self.ahead + self.back) * self.lane_width + self.median + 2 * SHOULDER

    def reversed(self) -> Profile:
        """Return the same street seen from its other end."""
        return replace(self, ahead=self.back, back=self.ahead)


@dataclass(frozen=True, eq=False)
class Road:
    """A road from junction `start` to junction `end`.

    `centre` runs from node to node, `[n, 2]` metres in the town's frame, 1 m apart. `trim` holds the metres at either
    end that belong to the junctions. `driving_side` is +1 where traffic keeps right and -1 where it keeps left.
    Distances `s` count from the start node, laterals are positive to the left.
    """

    index: int
    start: int
    end: int
    centre: Points
    profile: Profile
    driving_side: int
    trim: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def _s(self) -> Floats:
        return arc_length(self.centre)

    @cached_property
    def _frame(self) -> Floats:
        """X and y of the centre and of its normals to the left, `[4, n]`."""
        return np.concatenate((self.centre.T, normals(self.centre).T))

    @property
    def width(self) -> float:
        """Metres from kerb to kerb."""
        return self.profile.width

    @property
    def length(self) -> float:
        """Metres from node to node along the centre."""
        return float(self._s[-1])

    @property
    def span(self) -> tuple[float, float]:
        """Distances at which the road leaves its junctions: from, to."""
        return self.trim[0], self.length - self.trim[1]

    def at(self, s: Floats, lateral: Floats | float) -> Points:
        """Return places `[n, 2]` at distances and laterals."""
        x, y, nx, ny = (np.interp(s, self._s, row) for row in self._frame)
        return np.stack((x + lateral * nx, y + lateral * ny), axis=-1)

    def line(self, s0: float, s1: float, lateral: float) -> Points:
        """Return a line parallel to the centre between two distances, points about 1 m apart."""
        return self.at(np.linspace(s0, s1, max(2, round((s1 - s0) / 1.0) + 1)), lateral)

    def strip(self, s0: float, s1: float, lateral0: float, lateral1: float) -> Points:
        """Outline a strip of the road's surface: a ring `[n, 2]`."""
        return np.concatenate((self.line(s0, s1, lateral0), self.line(s0, s1, lateral1)[::-1]))

    def pose(self, s: float, lateral: float) -> tuple[float, float, float]:
        """Return x, y and the heading of the road, from start to end, at a place."""
        x, y = self.at(np.array([s]), lateral)[0]
        # The frame holds normals; the tangent lies a quarter turn to their right.
        nx, ny = (float(np.interp(s, self._s, row)) for row in self._frame[2:])
        return float(x), float(y), math.atan2(-nx, ny)

    def lanes(self, ahead: bool) -> int:
        """Return the number of lanes in a direction."""
        return self.profile.ahead if ahead else self.profile.back

    def side(self, ahead: bool) -> int:
        """Return the side of the centre on which the lanes of a direction lie: +1 left, -1 right."""
        return -self.driving_side if ahead else self.driving_side

    def inner(self, ahead: bool) -> float:
        """Return the lateral of the inner edge of a direction's lanes."""
        return self.side(ahead) * (self.width / 2 - SHOULDER - self.lanes(ahead) * self.profile.lane_width)

    def lane_dividers(self, ahead: bool) -> list[float]:
        """Return the laterals between the lanes of a direction, from the kerb inwards."""
        edge = self.width / 2 - SHOULDER
        return [self.side(ahead) * (edge - i * self.profile.lane_width) for i in range(1, self.lanes(ahead))]

    def lane_lateral(self, ahead: bool, lane: int) -> float:
        """Return the lateral of a lane's centre; lane 0 is the one at the kerb."""
        return self.side(ahead) * (self.width / 2 - SHOULDER - (lane + 0.5) * self.profile.lane_width)

    def lane(self, ahead: bool, lane: int) -> Points:
        """Return the centre of a lane between the junctions, in its direction of travel."""
        points = self.line(*self.span, self.lane_lateral(ahead, lane))
        return points if ahead else points[::-1]


@dataclass(frozen=True)
class Arm:
    """A road seen from a junction: `at_start` says which end meets it; `angle` is the heading away from it, radians."""

    road: int
    at_start: bool
    angle: float
