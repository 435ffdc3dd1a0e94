"""Paint on the roads of a real city: dividers, crossings and stop lines of its map.

A map says where dividers run, and at best for lane dividers how they are painted. Edge lines and arrows, which no map
holds, are added.
"""

from __future__ import annotations

import math

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from bridgeta_synth.world.materials import WHITE, YELLOW, ZEBRA
from bridgeta_synth.world.real.connections import STRAIGHT
from bridgeta_synth.world.real.walking import find_walking_axis, outline_zebra_bars
from bridgeta_synth.world.streets.lanes import LaneGraph
from bridgeta_synth.world.streets.marking import DASHED, DOTTED, DOUBLE, MIXED, SOLID, Marks, arrow, place_symbol
from bridgeta_synth.world.streets.road_marks import PaintStyle
from bridgeta_synth.world.streets.shapes import Points, arc_length, at_distance, lines_of, outlines, tangents, union

_NEAR = 25.0  # metres within which a lane gives the traffic's heading
_STOP_PAINT = 0.4
_ARROW_BACK, _ARROW_LANE = 9.0, 24.0  # metres from an arrow to the lane's end, least length of a lane with an arrow
_EDGE_STRETCH = 60


class Traffic:
    """Headings of the traffic, from the nearest lane."""

    def __init__(self, lanes: tuple[Points, ...]) -> None:
        self._headings = np.concatenate([tangents(lane) for lane in lanes]) if lanes else np.zeros((0, 2))
        self._tree = STRtree(shapely.points(np.concatenate(lanes)) if lanes else [])

    def heading(self, place: Points) -> Points | None:
        """Return the unit heading `[2]` of the nearest lane; None where none is near."""
        nearest = self._tree.query_nearest(shapely.points(place), max_distance=_NEAR, all_matches=False)
        return self._headings[int(nearest[0])] if len(nearest) else None


class CityPainter:
    """The painter of a city's roads: adds to `marks`, in the `style` of a town."""

    def __init__(self, marks: Marks, style: PaintStyle, traffic: Traffic, rng: np.random.Generator) -> None:
        self._marks, self._style, self._traffic, self._rng = marks, style, traffic, rng

    def _draw_wear(self) -> float:
        rng = self._rng
        return float(np.clip(self._style.wear + rng.normal(0, 0.2), 0, 0.9)) if rng.random() < 0.8 else 0.9

    def paint_road_dividers(self, dividers: list[LineString]) -> None:
        """Paint lines between the directions, in any usual style."""
        for points in lines_of(union(dividers), 1.0):
            kind = str(self._rng.choice((DOUBLE, DOUBLE, SOLID, MIXED, DASHED)))
            self._marks.paint(points, kind, self._style.centre, self._draw_wear())

    def paint_lane_dividers(self, dividers: dict[str, list[LineString]]) -> None:
        """Paint lines between lanes of one direction as their marks say, dashed where these say nothing."""
        for mark, lines in sorted(dividers.items()):
            words = mark.split("_")
            if "NIL" in words:
                continue  # a divider without paint
            kind = SOLID if "SOLID" in words or "ZIGZAG" in words else DASHED
            for points in lines_of(union(lines), 1.0):
                self._marks.paint(points, kind, YELLOW if "YELLOW" in words else WHITE, self._draw_wear())

    def paint_crossings(self, crossings: list[Polygon]) -> None:
        """Paint zebra bars along the traffic, or two lines across it."""
        for crossing in crossings:
            place = np.asarray(crossing.centroid.coords[0])
            axis = find_walking_axis(crossing, self._traffic.heading(place))
            wear = self._draw_wear()
            if self._rng.random() < 0.8:
                for bar in outline_zebra_bars(crossing, axis):
                    self._marks.add_shape(ZEBRA, bar, wear)
                continue
            across = np.array((-axis[1], axis[0]))
            aside = (np.asarray(crossing.exterior.coords)[:, :2] - place) @ across
            for edge in (aside.min() + 0.15, aside.max() - 0.15):
                for line in self._lines_across(place + edge * across, axis, crossing):
                    self._marks.stroke(line, 0.3, WHITE, wear)

    def paint_stops(self, stops: dict[str, list[Polygon]]) -> None:
        """Paint a bar across the lanes where traffic leaves a stop area; dotted where it gives way."""
        for kind, areas in sorted(stops.items()):
            if kind == "TURN_STOP":
                continue  # turning traffic waits there inside a junction, without paint
            for area in areas:
                place = np.asarray(area.centroid.coords[0])
                heading = self._traffic.heading(place)
                if heading is None:
                    continue
                ahead = float(((np.asarray(area.exterior.coords)[:, :2] - place) @ heading).max())
                across = np.array((-heading[1], heading[0]))
                for line in self._lines_across(place + (ahead - _STOP_PAINT) * heading, across, area):
                    self._marks.paint(line, DOTTED if kind == "YIELD" else SOLID, WHITE, self._draw_wear(), _STOP_PAINT)

    def paint_edges(self, road: BaseGeometry) -> None:
        """Paint lines along some kerbs: one, or two yellow ones."""
        for ring in outlines(road):
            for start in range(0, len(ring) - 12, _EDGE_STRETCH):
                kind = self._rng.random() / max(self._style.edges, 1e-6)
                if kind > 1:
                    continue
                line, wear = ring[start : start + _EDGE_STRETCH + 1], self._draw_wear()
                for lateral in (0.22, 0.44) if kind < 0.35 else (0.3,):
                    self._marks.stroke(line, 0.1, YELLOW if kind < 0.55 else WHITE, wear, lateral)

    def paint_arrows(self, lanes: LaneGraph) -> None:
        """Paint arrows before junctions, on lanes from which traffic turns."""
        for points, follow in zip(lanes.lanes, lanes.successors, strict=True):
            length = float(arc_length(points)[-1])
            ways = frozenset(_direction(points, lanes.lanes[j]) for j, _ in follow)
            if length < _ARROW_LANE or not ways - {"straight"} or self._rng.random() > 0.7:
                continue
            back, there = at_distance(points, np.array([length - _ARROW_BACK - 1, length - _ARROW_BACK]))
            yaw = math.atan2(there[1] - back[1], there[0] - back[0])
            symbol = place_symbol(arrow(ways), float(there[0]), float(there[1]), yaw)
            self._marks.add_shape(WHITE, symbol, self._draw_wear())

    @staticmethod
    def _lines_across(place: Points, way: Points, area: Polygon) -> list[Points]:
        """Clip the straight line through a place to an area; points about 1 m apart."""
        inside = LineString((place - 60 * way, place + 60 * way)).intersection(area)
        return lines_of(inside, 0.8)


def _direction(lane: Points, following: Points) -> str:
    """Say whether the way from a lane to another is straight, left or right."""
    a, b = lane[-1] - lane[-2], following[1] - following[0]
    turn = math.atan2(a[0] * b[1] - a[1] * b[0], float(a @ b))
    return "straight" if abs(turn) < STRAIGHT else "left" if turn > 0 else "right"
