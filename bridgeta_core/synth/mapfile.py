"""A town as nuScenes maps: the map expansion JSON v1.3, the semantic prior and the picture below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString, Point, Polygon
from shapely.strtree import STRtree

from bridgeta_core.classes import CLASSES, LINE_LAYERS
from bridgeta_core.synth.ground import Bounds, paint
from bridgeta_core.synth.tokens import token
from bridgeta_core.synth.town import Town

PRIOR_STEP = 0.1
_PICTURE_STEP = 0.5


def expansion(town: Town, seed: int) -> dict[str, Any]:
    """The content of `maps/expansion/<location>.json`; coordinates in metres, rounded to millimetres."""
    return _Expansion(town, seed).build()


class _Expansion:
    def __init__(self, town: Town, seed: int) -> None:
        self.town, self.seed = town, seed
        self.nodes: list[dict[str, Any]] = []
        self.polygons: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

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
        town, polygons = self.town, self.town.polygons
        segments = STRtree(polygons["road_segment"])

        def segment_at(point: Point) -> str:
            return self._token("road_segment", int(segments.nearest(point)))

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
                "drivable_area_token": self._token("drivable_area", i),
            }
            for i, p in enumerate(polygons["road_segment"])
        ]
        layers["lane"] = [
            {
                "token": self._token("lane", i),
                "polygon_token": self._polygon(p),
                "lane_type": "CAR",
                "from_edge_line_token": "",
                "to_edge_line_token": "",
                "left_lane_divider_segments": [],
                "right_lane_divider_segments": [],
            }
            for i, p in enumerate(polygons["lane"])
        ]
        layers["ped_crossing"] = [
            {
                "token": self._token("ped_crossing", i),
                "polygon_token": self._polygon(p),
                "road_segment_token": segment_at(p.centroid),
            }
            for i, p in enumerate(polygons["ped_crossing"])
        ]
        layers["walkway"] = [
            {"token": self._token("walkway", i), "polygon_token": self._polygon(p)}
            for i, p in enumerate(polygons["walkway"])
        ]
        crossings = STRtree(polygons["ped_crossing"])
        layers["stop_line"] = []
        for i, p in enumerate(polygons["stop_line"]):
            near = [self._token("ped_crossing", int(j)) for j in crossings.query(p.buffer(1.5), predicate="intersects")]
            layers["stop_line"].append(
                {
                    "token": self._token("stop_line", i),
                    "polygon_token": self._polygon(p),
                    "stop_line_type": "PED_CROSSING" if near else "STOP_SIGN",
                    "ped_crossing_tokens": near,
                    "traffic_light_tokens": [],
                    "road_block_token": "",
                }
            )
        layers["carpark_area"] = [
            {
                "token": self._token("carpark_area", i),
                "polygon_token": self._polygon(p),
                "orientation": 0.0,
                "road_block_token": "",
            }
            for i, p in enumerate(polygons["carpark_area"])
        ]
        layers["road_divider"] = [
            {
                "token": self._token("road_divider", i),
                "line_token": self._line(shape)[0],
                "road_segment_token": segment_at(shape.interpolate(0.5, normalized=True)),
            }
            for i, shape in enumerate(town.lines["road_divider"])
        ]
        layers["lane_divider"] = []
        for i, shape in enumerate(town.lines["lane_divider"]):
            line, nodes = self._line(shape)
            dashes = [{"node_token": n, "segment_type": "DOUBLE_DASHED_WHITE"} for n in nodes]
            layers["lane_divider"].append(
                {"token": self._token("lane_divider", i), "line_token": line, "lane_divider_segments": dashes}
            )
        return {
            "version": "1.3",
            "polygon": self.polygons,
            "line": self.lines,
            "node": self.nodes,
            **layers,
            "road_block": [],
            "traffic_light": [],
            "lane_connector": [],
            "canvas_edge": list(town.canvas),
            "arcline_path_3": {},
            "connectivity": {},
        }


def write_maps(root: Path, town: Town, seed: int) -> str:
    """Write all map files of a town below `root`; returns the prior's token."""
    expansion_file = root / "maps" / "expansion" / f"{town.location}.json"
    expansion_file.parent.mkdir(parents=True, exist_ok=True)
    expansion_file.write_text(json.dumps(expansion(town, seed), separators=(",", ":")))
    prior_token = token(seed, "map", town.location)
    prior = raster(town, ("drivable_area", "walkway", "carpark_area"), PRIOR_STEP)
    # Pictures of maps have their first row in the north.
    _save(root / "maps" / f"{prior_token}.png", prior[::-1] * np.uint8(255))
    whole = Bounds(0, 0, *town.canvas)
    noise = np.full((8, 8), 8, dtype=np.uint8)
    picture = paint(town.surface, [], whole, _PICTURE_STEP, noise)[::-1, :, 2::-1]
    _save(root / "maps" / "basemap" / f"{town.location}.png", np.ascontiguousarray(picture))
    return prior_token


def raster(town: Town, layers: tuple[str, ...], step: float) -> NDArray[np.uint8]:
    """Mask {0, 1} `[rows, columns]` of map layers over the whole canvas; row 0 in the south. Lines are 1 m wide."""
    shape = (round(town.canvas[1] / step), round(town.canvas[0] / step))
    mask = np.zeros(shape, dtype=np.uint8)
    for layer in layers:
        if layer in LINE_LAYERS:
            shapes = [line.buffer(0.5, cap_style="flat") for line in town.lines[layer]]
        else:
            shapes = town.polygons[layer]
        for shape_of in shapes:
            rings = [shape_of.exterior, *shape_of.interiors]
            cv2.fillPoly(
                mask,
                [np.round((np.asarray(r.coords)[:, :2] / step - 0.5) * 16).astype(np.int32) for r in rings],
                1,
                cv2.LINE_8,
                4,
            )
    return mask


def class_shares(town: Town, places: NDArray[np.float64], half: float = 50.0, step: float = 0.5) -> NDArray[np.float64]:
    """Share of cells of every class in squares of 2 * `half` metres around `places [n, 2]`, `[n, classes]`."""
    shares = np.zeros((len(places), len(CLASSES)))
    reach = round(half / step)
    for column, map_class in enumerate(CLASSES):
        mask = np.pad(raster(town, map_class.layers, step), reach)
        for row, (x, y) in enumerate(np.floor(places / step).astype(int)):
            shares[row, column] = mask[y : y + 2 * reach, x : x + 2 * reach].mean()
    return shares


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", image)
    assert done
    path.write_bytes(data.tobytes())
