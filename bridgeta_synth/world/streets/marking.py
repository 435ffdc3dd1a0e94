"""Paint on roads: strokes, dashes and double lines along any polyline, fresh or worn."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from bridgeta_synth.world.materials import WHITE, WHITE_WORN, YELLOW, YELLOW_WORN, ZEBRA, ZEBRA_WORN
from bridgeta_synth.world.streets.roads import Points, arc_length, normals
from bridgeta_synth.world.streets.shapes import polygons

WORN = {WHITE: WHITE_WORN, YELLOW: YELLOW_WORN, ZEBRA: ZEBRA_WORN}
LINE_WIDTH = 0.14
# Paint wears in stretches of this many metres; the strokes of a double line lie this far apart.
_STRETCH, _DOUBLE = 9.0, 0.30

SOLID, DASHED, DOUBLE, MIXED, DOTTED = "solid", "dashed", "double", "mixed", "dotted"
_RHYTHM = {DASHED: (3.0, 4.5), DOTTED: (1.0, 1.0)}


def bands(
    points: Points, starts: NDArray[np.float64], ends: NDArray[np.float64], width: float, lateral: float = 0.0
) -> NDArray[np.float64]:
    """Rings `[k, m, 2]` of bands along a polyline from each of `starts [k]` to each of `ends [k]` metres.

    They are `width` wide and lie `lateral` metres to the left of the polyline.
    """
    count = max(2, math.ceil(float(np.max(ends - starts, initial=0.0)) / 1.5) + 1)
    s = arc_length(points)
    at = starts[:, None] + (ends - starts)[:, None] * np.linspace(0, 1, count)
    frame = np.concatenate((points, normals(points)), axis=1)
    x, y, nx, ny = (np.interp(at, s, column) for column in frame.T)
    left, right = lateral + width / 2, lateral - width / 2
    return np.concatenate(
        (np.stack((x + left * nx, y + left * ny), -1), np.stack((x + right * nx, y + right * ny), -1)[:, ::-1]), axis=1
    )


class Marks:
    """Collects marks, from bottom to top.

    `wear` from 0 to 1 in the methods is the share of a line's stretches whose paint is worn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._found: list[tuple[int, Points]] = []
        self._shapes: list[tuple[int, Polygon]] = []

    def ring(self, material: int, ring: Points) -> None:
        """A mark with the outline `ring [n, 2]`."""
        self._found.append((material, ring))

    def shape(self, material: int, shape: Polygon, wear: float = 0.0) -> None:
        """A mark that may have holes."""
        worn = self._rng.random() < wear
        self._shapes.append((WORN.get(material, material) if worn else material, shape))

    def stroke(self, points: Points, width: float, material: int, wear: float = 0.0, lateral: float = 0.0) -> None:
        """A continuous line along a polyline."""
        length = float(arc_length(points)[-1])
        count = max(1, round(length / _STRETCH))
        edges = np.linspace(0, length, count + 1)
        self._lay(bands(points, edges[:-1], edges[1:], width, lateral), material, wear)

    def dashes(
        self,
        points: Points,
        width: float,
        on: float,
        off: float,
        material: int,
        wear: float = 0.0,
        lateral: float = 0.0,
    ) -> None:
        """Dashes of `on` metres with gaps of `off` metres along a polyline."""
        starts = np.arange(0.0, float(arc_length(points)[-1]) - 0.6 * on, on + off)
        if len(starts):
            self._lay(bands(points, starts, starts + on, width, lateral), material, wear)

    def _lay(self, rings: NDArray[np.float64], material: int, wear: float) -> None:
        worn = self._rng.random(len(rings)) < wear
        self._found += [(WORN.get(material, material) if w else material, r) for r, w in zip(rings, worn, strict=True)]

    def line(self, points: Points, style: str, colour: int, wear: float = 0.0, width: float = LINE_WIDTH) -> None:
        """A divider as painted: solid, dashed, double (both solid), mixed (one solid, one dashed) or dotted."""
        if style in (DOUBLE, MIXED):
            self.stroke(points, width, colour, wear, _DOUBLE / 2)
            if style == DOUBLE:
                self.stroke(points, width, colour, wear, -_DOUBLE / 2)
            else:
                self.dashes(points, width, *_RHYTHM[DASHED], colour, wear, -_DOUBLE / 2)
        elif style == SOLID:
            self.stroke(points, width, colour, wear)
        else:
            self.dashes(points, width, *_RHYTHM[style], colour, wear)

    def build(self) -> list[tuple[int, Polygon]]:
        """All marks as (material, polygon)."""
        shapes = polygons(ring for _, ring in self._found)
        return [*zip((material for material, _ in self._found), shapes, strict=True), *self._shapes]
