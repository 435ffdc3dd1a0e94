"""Write a town as nuScenes maps: the map expansion JSON v1.3, with the semantic prior and the base map.

The centre line of a lane (`arcline_path_3`) is a row of arcs, each with its pose at either end, as nuscenes-devkit's
`arcline_path_utils` reads them. They come from biarcs (Bolton, 1975): two arcs that meet with one tangent and join two
points with given headings.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import LineString, Point, Polygon
from shapely.strtree import STRtree

from bridgeta_core.data.maps.expansion import expansion_path
from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.dataset.map_images import write_basemap, write_prior
from bridgeta_synth.seeds import Seed, token
from bridgeta_synth.world.streets.shapes import Points, arc_length, ribbon, tangents
from bridgeta_synth.world.town.town import Town

# Metres of a line per biarc: on roads with bends like ours it is exact to millimetres.
_SPACING = 6.0
_STRAIGHT = 1e-4
_CONNECTOR_WIDTH = 3.2


def build_expansion(town: Town, seed: Seed) -> dict[str, Any]:
    """Build the content of `maps/expansion/<location>.json`; coordinates in metres, rounded to millimetres."""
    return _ExpansionBuilder(town, seed).build()


class _ExpansionBuilder:
    def __init__(self, town: Town, seed: Seed) -> None:
        self.town, self.seed = town, seed
        self.nodes: list[dict[str, Any]] = []
        self.polygons: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self._segments = STRtree(town.polygons["road_segment"])

    def _token(self, *names: object) -> str:
        return token(self.seed, "map", self.town.location, *names)

    def _add_nodes(self, points: Floats) -> list[str]:
        tokens = []
        for x, y in np.round(points, 3).tolist():
            tokens.append(self._token("node", len(self.nodes)))
            self.nodes.append({"token": tokens[-1], "x": x, "y": y})
        return tokens

    def _add_polygon(self, shape: Polygon) -> str:
        rings = [np.asarray(r.coords)[:-1, :2] for r in (shape.exterior, *shape.interiors)]
        tokens = [self._add_nodes(ring) for ring in rings]
        self.polygons.append(
            {
                "token": self._token("polygon", len(self.polygons)),
                "exterior_node_tokens": tokens[0],
                "holes": [{"node_tokens": hole} for hole in tokens[1:]],
            }
        )
        return str(self.polygons[-1]["token"])

    def _add_line(self, shape: LineString) -> tuple[str, list[str]]:
        nodes = self._add_nodes(np.asarray(shape.coords)[:, :2])
        self.lines.append({"token": self._token("line", len(self.lines)), "node_tokens": nodes})
        return str(self.lines[-1]["token"]), nodes

    def build(self) -> dict[str, Any]:
        """Build all layers; those that a map lacks are empty lists."""
        layers = {**self._make_areas(), **self._make_stops(), **self._make_dividers(), **self._make_lanes()}
        return {
            "version": "1.3",
            "polygon": self.polygons,
            "line": self.lines,
            "node": self.nodes,
            "road_block": [],
            "traffic_light": [],
            "canvas_edge": list(self.town.canvas),
            **layers,
        }

    def _find_segment(self, point: Point) -> str:
        """Find the road segment nearest to a point; empty where the map has no road segments."""
        nearest = self._segments.nearest(point)
        return "" if nearest is None else self._token("road_segment", int(nearest))

    def _make_areas(self) -> dict[str, list[dict[str, Any]]]:
        town, polygons = self.town, self.town.polygons
        ground = STRtree(polygons["drivable_area"])

        def find_drivable(shape: Polygon) -> str:
            nearest = ground.nearest(shape.representative_point())
            return "" if nearest is None else self._token("drivable_area", int(nearest))

        layers: dict[str, list[dict[str, Any]]] = {}
        layers["drivable_area"] = [
            {"token": self._token("drivable_area", i), "polygon_tokens": [self._add_polygon(p)]}
            for i, p in enumerate(polygons["drivable_area"])
        ]
        layers["road_segment"] = [
            {
                "token": self._token("road_segment", i),
                "polygon_token": self._add_polygon(p),
                "is_intersection": town.intersections[i],
                "drivable_area_token": find_drivable(p),
            }
            for i, p in enumerate(polygons["road_segment"])
        ]
        layers["ped_crossing"] = [
            {
                "token": self._token("ped_crossing", i),
                "polygon_token": self._add_polygon(p),
                "road_segment_token": self._find_segment(p.centroid),
            }
            for i, p in enumerate(polygons["ped_crossing"])
        ]
        layers["walkway"] = [
            {"token": self._token("walkway", i), "polygon_token": self._add_polygon(p)}
            for i, p in enumerate(polygons["walkway"])
        ]
        layers["carpark_area"] = [
            {
                "token": self._token("carpark_area", i),
                "polygon_token": self._add_polygon(p),
                "orientation": 0.0,
                "road_block_token": "",
            }
            for i, p in enumerate(polygons["carpark_area"])
        ]
        return layers

    def _make_stops(self) -> dict[str, list[dict[str, Any]]]:
        crossings = STRtree(self.town.polygons["ped_crossing"])
        records = []
        for i, p in enumerate(self.town.polygons["stop_line"]):
            near = crossings.query(p.buffer(1.5), predicate="intersects")
            tokens = [self._token("ped_crossing", j) for j in sorted(near.tolist())]
            records.append(
                {
                    "token": self._token("stop_line", i),
                    "polygon_token": self._add_polygon(p),
                    "stop_line_type": "PED_CROSSING" if tokens else "STOP_SIGN",
                    "ped_crossing_tokens": tokens,
                    "traffic_light_tokens": [],
                    "road_block_token": "",
                }
            )
        return {"stop_line": records}

    def _make_dividers(self) -> dict[str, list[dict[str, Any]]]:
        between = [
            {
                "token": self._token("road_divider", i),
                "line_token": self._add_line(shape)[0],
                "road_segment_token": self._find_segment(shape.interpolate(0.5, normalized=True)),
            }
            for i, shape in enumerate(self.town.lines["road_divider"])
        ]
        lanes = []
        for i, shape in enumerate(self.town.lines["lane_divider"]):
            line, nodes = self._add_line(shape)
            dashes = [{"node_token": n, "segment_type": "DOUBLE_DASHED_WHITE"} for n in nodes]
            lanes.append({"token": self._token("lane_divider", i), "line_token": line, "lane_divider_segments": dashes})
        return {"road_divider": between, "lane_divider": lanes}

    def _make_lanes(self) -> dict[str, Any]:
        """Make lanes and, where each of their areas belongs to a lane of the graph, centre lines and connectors."""
        shapes, graph = self.town.polygons["lane"], self.town.lanes
        records = [
            {
                "token": self._token("lane", i),
                "polygon_token": self._add_polygon(p),
                "lane_type": "CAR",
                "from_edge_line_token": "",
                "to_edge_line_token": "",
                "left_lane_divider_segments": [],
                "right_lane_divider_segments": [],
            }
            for i, p in enumerate(shapes)
        ]
        connectors: list[dict[str, Any]] = []
        arcs: dict[str, list[dict[str, Any]]] = {}
        follows: dict[str, dict[str, list[str]]] = {}
        if len(shapes) == len(graph.lanes) and all(
            shape.contains(Point(points[len(points) // 2])) for shape, points in zip(shapes, graph.lanes, strict=True)
        ):
            arcs = {self._token("lane", i): fit_arcs(points) for i, points in enumerate(graph.lanes)}
            follows = {name: {"incoming": [], "outgoing": []} for name in arcs}
            for i, ways in enumerate(graph.successors):
                for j, path in ways:
                    name = self._token("lane_connector", i, j)
                    area = outline_connector(path)
                    if area is not None:
                        connectors.append({"token": name, "polygon_token": self._add_polygon(area)})
                    before, after = self._token("lane", i), self._token("lane", j)
                    arcs[name] = fit_arcs(path)
                    follows[name] = {"incoming": [before], "outgoing": [after]}
                    follows[before]["outgoing"].append(name)
                    follows[after]["incoming"].append(name)
        return {"lane": records, "lane_connector": connectors, "arcline_path_3": arcs, "connectivity": follows}


def write_maps(root: Path, town: Town, seed: Seed) -> str:
    """Write all map files of a town below `root`; return the prior's token."""
    expansion_file = expansion_path(root, town.location)
    expansion_file.parent.mkdir(parents=True, exist_ok=True)
    expansion_file.write_text(json.dumps(build_expansion(town, seed), separators=(",", ":")))
    prior_token = token(seed, "map", town.location)
    shapes = [p for layer in ("drivable_area", "walkway", "carpark_area") for p in town.polygons[layer]]
    write_prior(root / "maps" / f"{prior_token}.png", shapes, town.canvas)
    write_basemap(root / "maps" / "basemap" / f"{town.location}.png", town.surface, town.canvas)
    return prior_token


def fit_arcs(points: Points) -> list[dict[str, Any]]:
    """Fit arcs that follow each other with one heading to a polyline `[n, 2]` of a smooth curve."""
    s = arc_length(points)
    knots = np.unique(np.linspace(0, len(points) - 1, max(2, round(s[-1] / _SPACING) + 1)).round().astype(int))
    ways = _measure_headings(points)[knots]
    paths = []
    for p, q, t, u in zip(points[knots[:-1]], points[knots[1:]], ways[:-1], ways[1:], strict=True):
        middle, way = _find_joint(p, t, q, u)
        paths += [_make_arc(p, t, middle, way), _make_arc(middle, way, q, u)]
    return paths


def _measure_headings(points: Points) -> Points:
    """Measure unit tangents; at the ends those of the parabola through the last three points."""
    t = tangents(points)
    if len(points) > 2:
        for end, sign in ((0, 1), (-1, -1)):
            a, b, c = points[end], points[end + sign], points[end + 2 * sign]
            way = sign * (-3 * a + 4 * b - c)
            t[end] = way / np.hypot(*way)
    return t


def _find_joint(p: Points, t: Points, q: Points, u: Points) -> tuple[Points, Points]:
    """Find where two arcs from p heading t to q heading u meet with equally long tangents, and the heading there."""
    v = q - p
    bend = 2 * (1 - float(t @ u))
    along = float(v @ (t + u))
    d = (-along + math.sqrt(along**2 + bend * float(v @ v))) / bend if bend > 1e-09 else float(v @ v) / (2 * along)
    way = (q - d * u) - (p + d * t)
    return (p + q + d * (t - u)) / 2, way / np.hypot(*way)


def _make_arc(p: Points, t: Points, q: Points, u: Points) -> dict[str, Any]:
    """Make one arc as an arc-line path whose other segments are empty."""
    turn = math.atan2(t[0] * u[1] - t[1] * u[0], float(t @ u))
    chord = float(np.hypot(*(q - p)))
    is_straight = abs(turn) < _STRAIGHT
    length = chord if is_straight else chord * (turn / 2) / math.sin(turn / 2)
    return {
        "start_pose": [float(p[0]), float(p[1]), math.atan2(t[1], t[0])],
        "end_pose": [float(q[0]), float(q[1]), math.atan2(u[1], u[0])],
        "shape": "RSR" if turn < 0 else "LSL",
        "radius": 999.999 if is_straight else length / abs(turn),
        "segment_length": [0.0, length, 0.0] if is_straight else [length, 0.0, 0.0],
    }


def outline_connector(path: Points) -> Polygon | None:
    """Outline the ground of a way between two lanes; None where it is too short or too tight to have a simple one."""
    if arc_length(path)[-1] < 1.0:
        return None
    shape = Polygon(np.round(ribbon(path, _CONNECTOR_WIDTH), 3)).simplify(0.05)
    return shape if shape.is_valid and isinstance(shape, Polygon) else None
