"""A town as nuScenes maps: the map expansion JSON v1.3, the semantic prior and the picture below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString, Point, Polygon
from shapely.strtree import STRtree

from bridgeta_synth.dataset.lane_records import arc_paths, connector_area
from bridgeta_synth.dataset.map_pictures import write_basemap, write_prior
from bridgeta_synth.seeds import Seed, token
from bridgeta_synth.world.town.town import Town


def expansion(town: Town, seed: Seed) -> dict[str, Any]:
    """The content of `maps/expansion/<location>.json`; coordinates in metres, rounded to millimetres."""
    return _Expansion(town, seed).build()


class _Expansion:
    def __init__(self, town: Town, seed: Seed) -> None:
        self.town, self.seed = town, seed
        self.nodes: list[dict[str, Any]] = []
        self.polygons: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self._segments = STRtree(town.polygons["road_segment"])

    def _token(self, *names: object) -> str:
        return token(self.seed, "map", self.town.location, *names)

    def _nodes(self, points: NDArray[np.float64]) -> list[str]:
        tokens = []
        for x, y in np.round(points, 3).tolist():
            tokens.append(self._token("node", len(self.nodes)))
            self.nodes.append({"token": tokens[-1], "x": x, "y": y})
        return tokens

    def _polygon(self, shape: Polygon) -> str:
        rings = [np.asarray(r.coords)[:-1, :2] for r in (shape.exterior, *shape.interiors)]
        tokens = [self._nodes(ring) for ring in rings]
        self.polygons.append(
            {
                "token": self._token("polygon", len(self.polygons)),
                "exterior_node_tokens": tokens[0],
                "holes": [{"node_tokens": hole} for hole in tokens[1:]],
            }
        )
        return str(self.polygons[-1]["token"])

    def _line(self, shape: LineString) -> tuple[str, list[str]]:
        nodes = self._nodes(np.asarray(shape.coords)[:, :2])
        self.lines.append({"token": self._token("line", len(self.lines)), "node_tokens": nodes})
        return str(self.lines[-1]["token"]), nodes

    def build(self) -> dict[str, Any]:
        """All layers; what a map does not hold is an empty list."""
        layers = {**self._areas(), **self._stops(), **self._dividers(), **self._lanes()}
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

    def _segment_at(self, point: Point) -> str:
        """The road segment nearest to a point, or nothing where the map has no road segments."""
        nearest = self._segments.nearest(point)
        return "" if nearest is None else self._token("road_segment", int(nearest))

    def _areas(self) -> dict[str, list[dict[str, Any]]]:
        town, polygons = self.town, self.town.polygons
        ground = STRtree(polygons["drivable_area"])

        def drivable_at(shape: Polygon) -> str:
            nearest = ground.nearest(shape.representative_point())
            return "" if nearest is None else self._token("drivable_area", int(nearest))

        layers: dict[str, list[dict[str, Any]]] = {}
        layers["drivable_area"] = [
            {"token": self._token("drivable_area", i), "polygon_tokens": [self._polygon(p)]}
            for i, p in enumerate(polygons["drivable_area"])
        ]
        layers["road_segment"] = [
            {
                "token": self._token("road_segment", i),
                "polygon_token": self._polygon(p),
                "is_intersection": town.intersections[i],
                "drivable_area_token": drivable_at(p),
            }
            for i, p in enumerate(polygons["road_segment"])
        ]
        layers["ped_crossing"] = [
            {
                "token": self._token("ped_crossing", i),
                "polygon_token": self._polygon(p),
                "road_segment_token": self._segment_at(p.centroid),
            }
            for i, p in enumerate(polygons["ped_crossing"])
        ]
        layers["walkway"] = [
            {"token": self._token("walkway", i), "polygon_token": self._polygon(p)}
            for i, p in enumerate(polygons["walkway"])
        ]
        layers["carpark_area"] = [
            {
                "token": self._token("carpark_area", i),
                "polygon_token": self._polygon(p),
                "orientation": 0.0,
                "road_block_token": "",
            }
            for i, p in enumerate(polygons["carpark_area"])
        ]
        return layers

    def _stops(self) -> dict[str, list[dict[str, Any]]]:
        crossings = STRtree(self.town.polygons["ped_crossing"])
        records = []
        for i, p in enumerate(self.town.polygons["stop_line"]):
            near = crossings.query(p.buffer(1.5), predicate="intersects")
            tokens = [self._token("ped_crossing", j) for j in sorted(near.tolist())]
            records.append(
                {
                    "token": self._token("stop_line", i),
                    "polygon_token": self._polygon(p),
                    "stop_line_type": "PED_CROSSING" if tokens else "STOP_SIGN",
                    "ped_crossing_tokens": tokens,
                    "traffic_light_tokens": [],
                    "road_block_token": "",
                }
            )
        return {"stop_line": records}

    def _dividers(self) -> dict[str, list[dict[str, Any]]]:
        between = [
            {
                "token": self._token("road_divider", i),
                "line_token": self._line(shape)[0],
                "road_segment_token": self._segment_at(shape.interpolate(0.5, normalized=True)),
            }
            for i, shape in enumerate(self.town.lines["road_divider"])
        ]
        lanes = []
        for i, shape in enumerate(self.town.lines["lane_divider"]):
            line, nodes = self._line(shape)
            dashes = [{"node_token": n, "segment_type": "DOUBLE_DASHED_WHITE"} for n in nodes]
            lanes.append({"token": self._token("lane_divider", i), "line_token": line, "lane_divider_segments": dashes})
        return {"road_divider": between, "lane_divider": lanes}

    def _lanes(self) -> dict[str, Any]:
        """Lanes, and where each of their areas belongs to a lane of the graph, centre lines and connectors."""
        shapes, graph = self.town.polygons["lane"], self.town.lanes
        records = [
            {
                "token": self._token("lane", i),
                "polygon_token": self._polygon(p),
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
            arcs = {self._token("lane", i): arc_paths(points) for i, points in enumerate(graph.lanes)}
            follows = {name: {"incoming": [], "outgoing": []} for name in arcs}
            for i, ways in enumerate(graph.successors):
                for j, path in ways:
                    name = self._token("lane_connector", i, j)
                    area = connector_area(path)
                    if area is not None:
                        connectors.append({"token": name, "polygon_token": self._polygon(area)})
                    before, after = self._token("lane", i), self._token("lane", j)
                    arcs[name] = arc_paths(path)
                    follows[name] = {"incoming": [before], "outgoing": [after]}
                    follows[before]["outgoing"].append(name)
                    follows[after]["incoming"].append(name)
        return {"lane": records, "lane_connector": connectors, "arcline_path_3": arcs, "connectivity": follows}


def write_maps(root: Path, town: Town, seed: Seed) -> str:
    """Write all map files of a town below `root`; returns the prior's token."""
    expansion_file = root / "maps" / "expansion" / f"{town.location}.json"
    expansion_file.parent.mkdir(parents=True, exist_ok=True)
    expansion_file.write_text(json.dumps(expansion(town, seed), separators=(",", ":")))
    prior_token = token(seed, "map", town.location)
    shapes = [p for layer in ("drivable_area", "walkway", "carpark_area") for p in town.polygons[layer]]
    write_prior(root / "maps" / f"{prior_token}.png", shapes, town.canvas)
    write_basemap(root / "maps" / "basemap" / f"{town.location}.png", town.surface, town.canvas)
    return prior_token
