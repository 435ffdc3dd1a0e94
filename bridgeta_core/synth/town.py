"""A town around a road network: the map's polygons and lines, the paint on the ground, buildings, trees and poles.

Every shape here is made once and used three times: written to the map expansion, painted on the ground and, where it
stands up, seen by cameras and LiDAR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from bridgeta_core.synth import ground
from bridgeta_core.synth.furnish import Furnisher, rectangle
from bridgeta_core.synth.roads import FILLET, Points, Road, RoadNetwork, build_network
from bridgeta_core.synth.solids import SolidList, Solids

_CROSSING_GAP, _STOP_GAP, _STOP_DEPTH, _STOP_PAINT = 0.6, 1.0, 3.0, 0.4


@dataclass(frozen=True, eq=False)
class Bay:
    """A parking bay: centre in metres and heading in radians."""

    x: float
    y: float
    yaw: float


@dataclass(eq=False)
class Town:
    """All of one town. Polygons and lines are shapely geometries in global metres, z = ground.

    `polygons` and `lines` map nuScenes layer names to shapes. `surface` is what lies on the ground from bottom to top:
    (material, polygon). `canvas` is (width, height) of the map in metres.
    """

    location: str
    network: RoadNetwork
    canvas: tuple[float, float]
    polygons: dict[str, list[Polygon]] = field(default_factory=dict)
    lines: dict[str, list[LineString]] = field(default_factory=dict)
    intersections: list[bool] = field(default_factory=list)
    surface: list[tuple[int, Polygon]] = field(default_factory=list)
    solids: Solids = field(default_factory=lambda: SolidList().build())
    bays: list[Bay] = field(default_factory=list)
    footpaths: list[Points] = field(default_factory=list)


def parts(shape: BaseGeometry, least: float = 0.5) -> list[Polygon]:
    """The valid polygons of a geometry with an area above `least` square metres and vertices at least 2 cm apart."""
    if not shape.is_valid:
        shape = shape.buffer(0)
    members = [shape] if isinstance(shape, Polygon) else list(getattr(shape, "geoms", ()))
    result = []
    for member in members:
        if isinstance(member, Polygon):
            # On a grid of millimetres, as it is written: rounding later could make it invalid.
            clean = shapely.set_precision(member.simplify(0.02), 0.001)
            result += [p for p in getattr(clean, "geoms", (clean,)) if isinstance(p, Polygon) and p.area > least]
    return [Polygon(p.exterior, [h for h in p.interiors if Polygon(h).area > 0.3]) for p in result]


def build_town(seed: int, index: int, location: str, keep_right: bool) -> Town:
    """The town `index` of a seed; equal arguments give an equal town."""
    rng = np.random.default_rng([seed, 1, index])
    network = build_network(rng, keep_right)
    high = np.max([road.centre.max(axis=0) for road in network.roads], axis=0)
    town = Town(location, network, (float(math.ceil(high[0] + 100)), float(math.ceil(high[1] + 100))))
    _Builder(town, rng).build()
    return town


class _Builder:
    def __init__(self, town: Town, rng: np.random.Generator) -> None:
        self.town, self.rng, self.roads = town, rng, town.network.roads
        for layer in ("drivable_area", "road_segment", "lane", "ped_crossing", "walkway", "stop_line", "carpark_area"):
            town.polygons[layer] = []
        for layer in ("road_divider", "lane_divider"):
            town.lines[layer] = []
        self.paint: list[tuple[int, Polygon]] = []
        self.furnisher = Furnisher(town, rng)

    def build(self) -> None:
        town = self.town
        streets = unary_union(
            [Polygon(r.strip(0, r.length, r.width / 2, -r.width / 2)).buffer(0.01) for r in self.roads]
        )
        # Closing rounds the kerbs at junctions.
        streets = streets.buffer(FILLET, quad_segs=6).buffer(-FILLET - 0.01, quad_segs=6)
        self._road_segments(streets)
        self._arms()
        self._lines()
        walkways = self._walkways(streets)
        lots, driveways = self._carparks(streets)
        walkways = walkways.difference(driveways.buffer(0.05)).difference(lots)
        town.polygons["walkway"] = parts(walkways, 2.0)
        town.polygons["carpark_area"] = parts(lots, 20.0)
        town.polygons["drivable_area"] = [*town.polygons["road_segment"], *parts(driveways.difference(streets), 1.0)]
        self._ground(streets, walkways, lots, driveways)
        self.furnisher.buildings(unary_union([streets, walkways, lots, driveways]))
        self.furnisher.street_furniture(unary_union([streets, lots, driveways]))
        town.solids = self.furnisher.solids.build()

    def _road_segments(self, streets: BaseGeometry) -> None:
        town = self.town
        stretches = []
        for road in self.roads:
            half = road.width / 2
            stretches.append(Polygon(road.strip(road.trim[0], road.length - road.trim[1], half, -half)).buffer(0))
            for ahead in (True, False):
                for lane in range(road.lanes(ahead)):
                    q = half - 0.3 - lane * road.lane_width
                    sign = -road.keep if ahead else road.keep
                    ends = (road.trim[0], road.length - road.trim[1])
                    ring = Polygon(road.strip(*ends, sign * q, sign * (q - road.lane_width)))
                    town.polygons["lane"] += parts(ring)
        junctions = parts(streets.difference(unary_union(stretches).buffer(1e-4)), 5.0)
        for road_part in stretches:
            town.polygons["road_segment"] += parts(road_part)
        town.intersections = [False] * len(town.polygons["road_segment"]) + [True] * len(junctions)
        town.polygons["road_segment"] += junctions

    def _arms(self) -> None:
        """Crossings and stop lines, seen from the junction outwards."""
        town, rng = self.town, self.rng
        self.line_ends: dict[tuple[int, bool], float] = {}
        for arms in town.network.arms.values():
            signalled = rng.random() < 0.7
            for arm in arms:
                road = self.roads[arm.road]
                start = road.trim[0 if arm.at_start else 1] + _CROSSING_GAP
                half = road.width / 2
                has_crossing = rng.random() < 0.75
                if has_crossing:
                    depth = float(rng.uniform(2.8, 4.2))
                    ring = self._outwards(road, arm.at_start, start, start + depth, half - 0.1, -half + 0.1)
                    town.polygons["ped_crossing"] += parts(ring)
                    lateral = -half + 0.5
                    while lateral + 0.5 < half:
                        stripe = self._outwards(road, arm.at_start, start, start + depth, lateral, lateral + 0.5)
                        self.paint.append((ground.ZEBRA, stripe))
                        lateral += 1.05
                    start += depth + _STOP_GAP
                # Traffic that comes towards the junction travels backward on a road that starts here.
                inbound = not arm.at_start
                if road.lanes(inbound) and rng.random() < (0.85 if has_crossing else 0.6):
                    edge = half - 0.3
                    inner = edge - road.lanes(inbound) * road.lane_width
                    sign = -road.keep if inbound else road.keep
                    line = self._outwards(
                        road, arm.at_start, start, start + _STOP_PAINT, sign * edge, sign * (inner + 0.1)
                    )
                    area = self._outwards(
                        road, arm.at_start, start, start + _STOP_DEPTH, sign * edge, sign * (inner + 0.1)
                    )
                    town.polygons["stop_line"] += parts(area)
                    self.paint.append((ground.WHITE, line))
                    start += _STOP_PAINT
                    if signalled:
                        self.furnisher.signal(road, arm.at_start, start, sign * (half + 0.6))
                self.line_ends[(arm.road, arm.at_start)] = start + 0.2

    def _outwards(self, road: Road, at_start: bool, d0: float, d1: float, lateral0: float, lateral1: float) -> Polygon:
        """A strip at distances d0..d1 from one end of a road."""
        s0, s1 = (d0, d1) if at_start else (road.length - d1, road.length - d0)
        return Polygon(road.strip(s0, s1, lateral0, lateral1)).buffer(0)

    def _lines(self) -> None:
        town, rng = self.town, self.rng
        for road in self.roads:
            s0 = self.line_ends[(road.index, True)]
            s1 = road.length - self.line_ends[(road.index, False)]
            if s1 - s0 < 8:
                continue
            middle = road.divider_lateral()
            town.lines["road_divider"].append(LineString(road.line(s0, s1, middle)).simplify(0.02))
            colour = ground.YELLOW if road.keep > 0 and rng.random() < 0.8 else ground.WHITE
            if road.forward + road.backward >= 4:
                self._stroke(road, s0, s1, middle - 0.15, 0.13, colour)
                self._stroke(road, s0, s1, middle + 0.15, 0.13, colour)
            elif rng.random() < 0.6:
                self._stroke(road, s0, s1, middle, 0.15, colour)
            else:
                self._dashes(road, s0, s1, middle, 0.15, 4.0, 2.5, colour)
            for lateral in road.lane_dividers():
                town.lines["lane_divider"].append(LineString(road.line(s0, s1, lateral)).simplify(0.02))
                self._dashes(road, s0, s1, lateral, 0.14, 3.0, 4.0, ground.WHITE)

    def _stroke(self, road: Road, s0: float, s1: float, lateral: float, width: float, material: int) -> None:
        self.paint.append((material, Polygon(road.strip(s0, s1, lateral - width / 2, lateral + width / 2)).buffer(0)))

    def _dashes(
        self, road: Road, s0: float, s1: float, lateral: float, width: float, on: float, off: float, material: int
    ) -> None:
        for s in np.arange(s0, s1 - on, on + off):
            self._stroke(road, float(s), float(s) + on, lateral, width, material)

    def _walkways(self, streets: BaseGeometry) -> BaseGeometry:
        """Rings along the kerbs of every block, without the sides that have none."""
        rng = self.rng
        rings = []
        for street in parts(streets, 100.0):
            for hole in street.interiors:
                block = Polygon(hole)
                rings.append(block.difference(block.buffer(-float(rng.uniform(2.0, 4.5)))))
            outline = Polygon(street.exterior)
            rings.append(outline.buffer(float(rng.uniform(2.0, 3.5)), join_style="mitre").difference(outline))
        without = []
        for road in self.roads:
            ends = (road.trim[0] + 1, road.length - road.trim[1] - 1)
            half = road.width / 2
            for side in (1, -1):
                if rng.random() < 0.12:
                    without.append(Polygon(road.strip(*ends, side * (half - 0.5), side * (half + 7))).buffer(0))
                    continue
                path = road.line(*ends, side * (half + 1.2))
                self.town.footpaths.append(path)
        return unary_union(rings).difference(unary_union(without)) if without else unary_union(rings)

    def _carparks(self, streets: BaseGeometry) -> tuple[BaseGeometry, BaseGeometry]:
        rng = self.rng
        lots: list[Polygon] = []
        driveways: list[Polygon] = []
        for road in self.roads:
            usable = road.length - sum(road.trim)
            for side in (1, -1):
                if rng.random() > 0.2 or usable < 42:
                    continue
                bays = int(rng.integers(7, 15))
                length = min(bays * 2.6, usable - 14)
                bays = int(length // 2.6)
                length = bays * 2.6
                middle = float(rng.uniform(road.trim[0] + length / 2 + 5, road.length - road.trim[1] - length / 2 - 5))
                origin = road.line(middle - 1, middle + 1, 0.0)
                yaw = math.atan2(*(origin[-1] - origin[0])[::-1])
                depth = 16.0
                distance = side * (road.width / 2 + 6.5 + depth / 2)
                x, y = road.line(middle - 1, middle + 1, distance).mean(axis=0)
                lot = rectangle(x, y, yaw, length, depth)
                if lot.buffer(1.0).intersects(streets) or any(lot.buffer(2).intersects(other) for other in lots):
                    continue
                lots.append(lot)
                inner, outer = side * (road.width / 2 - 0.3), side * (road.width / 2 + 6.9)
                reach = (inner + outer) / 2
                gx, gy = road.line(middle - 1, middle + 1, reach).mean(axis=0)
                gate = rectangle(gx, gy, yaw, 6.0, abs(outer - inner))
                driveways.append(gate)
                self._bays(x, y, yaw, bays, length, depth, side)
        return unary_union(lots), unary_union(driveways).difference(unary_union(lots))

    def _bays(self, x: float, y: float, yaw: float, bays: int, length: float, depth: float, side: int) -> None:
        c, s = math.cos(yaw), math.sin(yaw)
        gate = side * -1
        for row in (1, -1):
            for i in range(bays + 1):
                u = -length / 2 + i * 2.6
                if row == gate and abs(u) < 3.3:
                    continue
                v = row * (depth / 2 - 2.5)
                self.paint.append((ground.WHITE, rectangle(x + c * u - s * v, y + s * u + c * v, yaw, 0.1, 4.9)))
            for i in range(bays):
                u, v = -length / 2 + (i + 0.5) * 2.6, row * (depth / 2 - 2.6)
                if row == gate and abs(u) < 4.6:
                    continue
                heading = yaw + math.pi / 2 * (1 if self.rng.random() < 0.5 else -1)
                self.town.bays.append(Bay(x + c * u - s * v, y + s * u + c * v, heading))

    def _ground(
        self, streets: BaseGeometry, walkways: BaseGeometry, lots: BaseGeometry, driveways: BaseGeometry
    ) -> None:
        rng, surface = self.rng, self.town.surface
        for street in parts(streets, 100.0):
            for hole in street.interiors:
                inner = ground.GRASS if rng.random() < 0.45 else int(rng.choice((ground.DIRT, ground.CONCRETE)))
                surface.append((inner, Polygon(hole)))
        surface += [(ground.PAVING, p) for p in parts(walkways, 0.2)]
        kerb = streets.buffer(0.18).difference(driveways.buffer(0.2))
        surface += [(ground.KERB, p) for p in parts(kerb, 1.0)]
        surface += [(ground.ASPHALT, p) for p in parts(streets, 1.0)]
        surface += [(ground.CARPARK, p) for p in [*parts(driveways, 0.5), *parts(lots, 1.0)]]
        for road in self.roads:
            for _ in range(int(rng.integers(2, 6))):
                at = float(rng.uniform(road.trim[0], road.length - road.trim[1]))
                lateral = float(rng.uniform(-road.width / 2 + 1, road.width / 2 - 1))
                x, y = road.line(at - 1, at + 1, lateral).mean(axis=0)
                heading = road.line(at - 1, at + 1, 0.0)
                yaw = math.atan2(*(heading[-1] - heading[0])[::-1])
                patch = rectangle(x, y, yaw, float(rng.uniform(1, 7)), float(rng.uniform(0.6, 1.6)))
                surface += [(ground.PATCH, p) for p in parts(patch.intersection(streets), 0.2)]
        surface += self.paint
