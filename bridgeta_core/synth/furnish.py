"""What stands up in a town: buildings, trees, lamps and signals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.geometry import Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from bridgeta_core.synth.roads import Road
from bridgeta_core.synth.solids import CROWN, FACADE, LAMP, POLE, ROOF, Colour, SolidList

if TYPE_CHECKING:
    from bridgeta_core.synth.town import Town

_FACADES: tuple[Colour, ...] = (
    (0.62, 0.42, 0.33),
    (0.72, 0.68, 0.60),
    (0.55, 0.56, 0.58),
    (0.80, 0.76, 0.66),
    (0.48, 0.36, 0.30),
    (0.66, 0.70, 0.72),
    (0.78, 0.62, 0.50),
)


class Furnisher:
    """Places solids in a town, drawing from the town's random numbers."""

    def __init__(self, town: Town, rng: np.random.Generator) -> None:
        self._town, self._rng, self._roads = town, rng, town.network.roads
        self._plots: list[Polygon] = []
        self.solids = SolidList()

    def buildings(self, taken: BaseGeometry) -> None:
        """Rows of buildings along all roads, clear of what is `taken`."""
        rng = self._rng
        shapely.prepare(taken)
        placed: list[Polygon] = []
        centres: list[tuple[float, float]] = []
        for road in self._roads:
            for side in (1, -1):
                height = float(rng.uniform(6, 26))
                s = road.trim[0] * 0.3
                while s < road.length - 8:
                    length, depth = float(rng.uniform(9, 24)), float(rng.uniform(9, 16))
                    setback = road.width / 2 + float(rng.choice((4.8, 5.5, 7.0, 10.0))) + depth / 2
                    middle = s + length / 2
                    path = road.line(middle - 1, middle + 1, 0.0)
                    yaw = math.atan2(*(path[-1] - path[0])[::-1])
                    x, y = road.line(middle - 1, middle + 1, side * setback).mean(axis=0)
                    s += length + float(rng.choice((0.6, 3.0, 8.0)))
                    plot = rectangle(x, y, yaw, length, depth)
                    height = float(np.clip(height + rng.uniform(-5, 5), 4.5, 32))
                    if rng.random() < 0.15 or taken.intersects(plot.buffer(0.4)):
                        continue
                    if _hits(plot, placed, centres):
                        continue
                    placed.append(plot)
                    centres.append((x, y))
                    self._building(x, y, yaw, length, depth, height)
        self._plots = placed

    def _building(self, x: float, y: float, yaw: float, length: float, depth: float, height: float) -> None:
        rng = self._rng
        tint = np.array(_FACADES[int(rng.integers(len(_FACADES)))]) * rng.uniform(0.85, 1.1)
        colour = tuple(float(v) for v in np.clip(tint, 0, 1))
        seed = int(rng.integers(1, 1 << 16))
        self.solids.add(FACADE, (x, y, 0), (length, depth, height), colour, yaw=yaw, seed=seed)  # type: ignore[arg-type]
        if height < 11:
            pitch = depth / 2 / float(rng.uniform(2.5, 4.0))
            roof = float(rng.choice((0.30, 0.36, 0.42)))
            tiles = (roof + 0.14, roof - 0.04, roof - 0.1)
            rise = (depth / 2 + 0.3) / pitch - 0.2
            self.solids.add(
                ROOF,
                (x, y, height),
                (length + 0.7, depth + 0.7, rise),
                tiles,
                yaw=yaw,
                lean=(pitch * 0.6, pitch * 0.6, pitch),
            )
        else:
            self.solids.add(ROOF, (x, y, height), (length - 1, depth - 1, 1.2), (0.5, 0.5, 0.5), yaw=yaw)

    def street_furniture(self, paved: BaseGeometry) -> None:
        """Trees and lamps beside the roads, and trees between the houses, clear of what is `paved`."""
        rng = self._rng
        shapely.prepare(paved)
        plots = STRtree(self._plots)

        def free(x: float, y: float, gap: float) -> bool:
            spot = Point(x, y).buffer(gap)
            return not paved.intersects(spot) and not len(plots.query(spot, predicate="intersects"))

        for road in self._roads:
            for side in (1, -1):
                planted = rng.random() < 0.55
                for s in np.arange(road.trim[0] + 4, road.length - road.trim[1], 9.0):
                    x, y = road.line(s - 1, s + 1, side * (road.width / 2 + 0.9)).mean(axis=0)
                    if planted and rng.random() < 0.7 and free(x, y, 0.3):
                        self._tree(x, y, float(rng.uniform(4.5, 8)))
                    if round(s / 9) % 3 == 0:
                        x, y = road.line(s + 3.5, s + 5, side * (road.width / 2 + 0.6)).mean(axis=0)
                        if free(x, y, 0.2):
                            self._lamp(x, y, side, road, s)
        low, high = np.array([50, 50]), np.array(self._town.canvas) - 40
        for x, y in rng.uniform(low, high, (600, 2)):
            if free(x, y, 5.0):
                self._tree(float(x), float(y), float(rng.uniform(5, 12)))

    def _tree(self, x: float, y: float, height: float) -> None:
        rng = self._rng
        crown = 0.62 * height
        width = crown * float(rng.uniform(0.7, 1.0))
        green = rng.uniform(0.8, 1.2)
        colour = (0.20 * green, 0.33 * green, 0.12 * green)
        self.solids.add(POLE, (x, y, 0), (0.3, 0.3, height - 0.7 * crown), (0.30, 0.24, 0.18))
        seed = int(rng.integers(1 << 16))
        for lobe in range(3):
            turn, share = seed + lobe * 2.1, (1.0, 0.72, 0.62)[lobe]
            out = (0.0, 0.3, 0.34)[lobe] * width
            place = (
                x + out * math.cos(turn),
                y + out * math.sin(turn),
                height - crown + (0.0, 0.05, 0.3)[lobe] * crown,
            )
            size = (share * width, share * width * 0.94, share * crown)
            self.solids.add(CROWN, place, size, colour, yaw=turn, seed=seed + lobe, is_round=True)

    def _lamp(self, x: float, y: float, side: int, road: Road, s: float) -> None:
        self.solids.add(POLE, (x, y, 0), (0.16, 0.16, 7.0), (0.42, 0.43, 0.44))
        toward = road.line(s + 3.5, s + 5, side * (road.width / 2 - 1.5)).mean(axis=0)
        yaw = math.atan2(toward[1] - y, toward[0] - x)
        self.solids.add(
            POLE, (x + math.cos(yaw), y + math.sin(yaw), 6.9), (2.2, 0.12, 0.12), (0.42, 0.43, 0.44), yaw=yaw
        )

    def signal(self, road: Road, at_start: bool, distance: float, lateral: float) -> None:
        """A traffic signal at a distance from one end of a road, facing traffic towards that end."""
        s = distance if at_start else road.length - distance
        x, y = road.line(s - 0.5, s + 0.5, lateral).mean(axis=0)
        heading = road.line(s - 0.5, s + 0.5, 0.0)
        yaw = math.atan2(*(heading[-1] - heading[0])[::-1]) + (0 if at_start else math.pi)
        self.solids.add(POLE, (x, y, 0), (0.14, 0.14, 3.4), (0.25, 0.26, 0.27))
        self.solids.add(
            LAMP, (x, y, 2.5), (0.3, 0.32, 0.95), (0.06, 0.06, 0.06), yaw=yaw, seed=int(self._rng.integers(3))
        )


def rectangle(x: float, y: float, yaw: float, length: float, width: float) -> Polygon:
    """A rectangle around (x, y), `length` metres along its heading `yaw`."""
    c, s = math.cos(yaw), math.sin(yaw)
    u = np.array((1, 1, -1, -1)) * length / 2
    v = np.array((-1, 1, 1, -1)) * width / 2
    return Polygon(np.stack((x + c * u - s * v, y + s * u + c * v), axis=1))


def _hits(plot: Polygon, placed: list[Polygon], centres: list[tuple[float, float]]) -> bool:
    """Whether a plot comes within 20 cm of another; few plots are near, so a look at the centres comes first."""
    if not placed:
        return False
    near = np.hypot(*(np.array(centres) - plot.centroid.coords[0]).T) < 45
    return any(plot.distance(placed[i]) < 0.2 for i in np.flatnonzero(near))
