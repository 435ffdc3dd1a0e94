"""Map masks: the six classes of a city's map expansion, rasterised around a pose.

The masks equal those of nuscenes-devkit 1.2.0's `NuScenesMap.get_map_mask`, on which the protocol's numbers rest:
shapes are cut to the patch; polygon vertices are rounded to cells and filled with their border; the holes of a shape
are written 0 after its outline; line vertices are truncated to cells and drawn 2 cells thick. The devkit raises where
the patch cuts a line into several pieces, and visits every shape of a city for every mask; neither happens here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from bridgeta_core.classes import CLASSES, LINE_LAYERS
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.geometry import Matrix, invert, transform, yaw
from bridgeta_core.grid import BevGrid

Array = NDArray[np.float64]

MAP_VERSION = "1.3"
_DOWNLOAD = "Download the map expansion v1.3 from nuscenes.org and extract it into maps/, so that this file exists"
_POLYGON, _LINE = 3, 1  # shapely's type numbers
_DRAPED = 2.0  # metres between the points of a line that follows the ground

# The map layers that make up the classes.
LAYERS: tuple[str, ...] = tuple(dict.fromkeys(layer for c in CLASSES for layer in c.layers))


@dataclass(frozen=True, eq=False)
class _Layer:
    """The shapes of one layer in global metres, with their bounding boxes `[n, 4]` (x and y low, x and y high)."""

    shapes: NDArray[np.object_]
    bounds: Array
    is_line: bool

    @classmethod
    def of(cls, shapes: NDArray[np.object_], is_line: bool) -> _Layer:
        return cls(shapes, shapely.bounds(shapes).reshape(-1, 4), is_line)

    def near(self, low: Array, high: Array) -> NDArray[np.object_]:
        """The shapes whose boxes touch the box from `low` to `high`, each `[2]`, in the order of the map."""
        apart = (self.bounds[:, :2] > high).any(axis=1) | (self.bounds[:, 2:] < low).any(axis=1)
        return self.shapes[~apart]


class MapRaster:
    """One city's map, ready to be rasterised around any pose, from its shapes by layer (see `read_layers`).

    `known[c]` is False when the city's map has nothing of class c, which then is unknown rather than absent: neither
    train nor score on it.
    """

    def __init__(self, location: str, shapes: Mapping[str, NDArray[np.object_]]) -> None:
        self.location = location
        layers = {name: _Layer.of(shapes[name], name in LINE_LAYERS) for name in LAYERS}
        self._layers = {c.name: tuple(layers[name] for name in c.layers) for c in CLASSES}
        self.known: tuple[bool, ...] = tuple(any(len(layer.shapes) for layer in self._layers[c.name]) for c in CLASSES)

    @classmethod
    def load(cls, root: str | Path, location: str) -> MapRaster:
        """Read `maps/expansion/<location>.json` of a nuScenes root; errors are those of `load_layers`."""
        return cls(location, load_layers(root, location))

    def masks(self, global_T_ego: Matrix, grid: BevGrid) -> NDArray[np.uint8]:
        """The classes around a pose, `[6, Y, X]` of 0 and 1. Only x, y and yaw of the pose count."""
        patch = _Patch(global_T_ego, grid)
        result = np.zeros((len(CLASSES), *grid.shape), dtype=np.uint8)
        for mask, c in zip(result, CLASSES, strict=True):
            for layer in self._layers[c.name]:
                pieces, sources = patch.cut(layer)
                if not len(pieces):
                    continue
                canvas = np.zeros(grid.shape, dtype=np.uint8)  # a layer's holes must not clear another layer's areas
                if layer.is_line:
                    _draw_lines(canvas, pieces)
                else:
                    _draw_polygons(canvas, pieces, sources)
                mask |= canvas
        return result

    def polylines(
        self, global_T_ego: Matrix, radius: float, height: Callable[[Array], Array] | None = None
    ) -> dict[str, list[Array]]:
        """Outlines and lines per class name, `[n, 3]` each in the ego frame, for drawing into cameras.

        Only what lies in the square of `radius` metres around the vehicle. The map has no heights: `height` gives
        those of the ground in the ego frame (see `GroundHeight`); without it the ground is level, and as high as the
        vehicle.
        """
        centre = global_T_ego[:2, 3]
        low, high = centre - radius, centre + radius
        window = shapely.box(*low, *high)
        result: dict[str, list[Array]] = {}
        for c in CLASSES:
            shapes = np.concatenate([layer.near(low, high) for layer in self._layers[c.name]])
            is_area = shapely.get_type_id(shapes) == _POLYGON
            lines = np.concatenate([shapes[~is_area], shapely.boundary(shapes[is_area])])
            pieces = _parts(shapely.intersection(lines, window), _LINE)[0]
            if height is not None:
                pieces = shapely.segmentize(pieces, _DRAPED)
            xy, owner = shapely.get_coordinates(pieces, return_index=True)
            result[c.name] = _split(_on_ground(global_T_ego, xy, height), owner, len(pieces))
        return result


def _on_ground(global_T_ego: Matrix, xy: Array, height: Callable[[Array], Array] | None) -> Array:
    """Points `[n, 3]` in the ego frame of global places `[n, 2]` on the ground."""
    ego_T_global = invert(global_T_ego)
    z = np.full(len(xy), global_T_ego[2, 3])
    points = transform(ego_T_global, np.column_stack([xy, z]))
    if height is not None and len(xy):
        # The ego frame is tilted by a few degrees at most, so two steps along the global vertical are enough.
        for _ in range(2):
            z += (height(points[:, :2]) - points[:, 2]) / ego_T_global[2, 2]
            points = transform(ego_T_global, np.column_stack([xy, z]))
    return points


class _Patch:
    """The rectangle of the world that a grid covers, and the way from global metres to its cells.

    The operations and their order are the devkit's, so that a vertex on the patch's border falls to the same side.
    """

    def __init__(self, global_T_ego: Matrix, grid: BevGrid) -> None:
        angle = math.degrees(yaw(global_T_ego)) * math.pi / 180
        middle = np.array([(grid.x_min + grid.x_max) / 2, (grid.y_min + grid.y_max) / 2])
        self._size = grid.x_max - grid.x_min, grid.y_max - grid.y_min
        self._scale = grid.shape[1] / self._size[0], grid.shape[0] / self._size[1]
        self._cos, self._sin = (0.0 if abs(v) < 2.5e-16 else v for v in (math.cos(angle), math.sin(angle)))
        self._centre = global_T_ego[:2, 3] + (
            self._cos * middle[0] - self._sin * middle[1],
            self._sin * middle[0] + self._cos * middle[1],
        )
        (x, y), (w, h) = self._centre, self._size
        upright = shapely.box(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        self._outline = shapely.transform(upright, lambda points: self._turn(points, self._sin))
        self._local = shapely.box(-w / 2, -h / 2, w / 2, h / 2)
        self._low, self._high = np.split(shapely.bounds(self._outline), 2)

    def _turn(self, points: Array, sin: float) -> Array:
        """Points turned around the patch's centre, forth by the `sin` of its angle and back by minus that.

        Term for term shapely.affinity.rotate.
        """
        (x, y), cos = self._centre, self._cos
        px, py = points.T
        turned_x = cos * px - sin * py + (x - x * cos + y * sin)
        turned_y = sin * px + cos * py + (y - x * sin - y * cos)
        return np.stack([turned_x, turned_y], axis=1)

    def _to_cells(self, points: Array) -> Array:
        return (points + np.array(self._size) / 2) * self._scale

    def cut(self, layer: _Layer) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
        """The parts of a layer inside the patch in cells, and for each part the number of the shape that it is from."""
        shapes = layer.near(self._low, self._high)
        dimension = _LINE if layer.is_line else _POLYGON
        inside, sources = _parts(shapely.intersection(shapes, self._outline), dimension)
        local = shapely.transform(inside, lambda points: self._turn(points, -self._sin) - self._centre)
        pieces, again = _parts(shapely.intersection(local, self._local), dimension)
        return shapely.transform(pieces, self._to_cells), sources[again]


def _draw_polygons(mask: NDArray[np.uint8], pieces: NDArray[np.object_], sources: NDArray[np.int64]) -> None:
    """Fill the outlines of a shape, then clear its holes, then go on to the next shape."""
    rings, owner = shapely.get_rings(pieces, return_index=True)
    is_hole = np.append(False, owner[1:] == owner[:-1])
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    outlines = _split(np.round(corners).astype(np.int32), ring, len(rings))
    order: dict[int, tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]] = {}
    for outline, source, hole in zip(outlines, sources[owner].tolist(), is_hole.tolist(), strict=True):
        order.setdefault(source, ([], []))[hole].append(outline)
    for exteriors, interiors in order.values():
        cv2.fillPoly(mask, exteriors, 1)
        if interiors:
            cv2.fillPoly(mask, interiors, 0)


def _draw_lines(mask: NDArray[np.uint8], pieces: NDArray[np.object_]) -> None:
    corners, owner = shapely.get_coordinates(pieces, return_index=True)
    cv2.polylines(mask, _split(corners.astype(np.int32), owner, len(pieces)), False, 1, 2)


def _split(values: NDArray[Any], owner: NDArray[np.int64], count: int) -> list[NDArray[Any]]:
    """`values` in `count` consecutive pieces; `owner` is the sorted number of the piece of each value."""
    return np.split(values, np.searchsorted(owner, np.arange(1, count))) if count else []


def _parts(shapes: NDArray[np.object_], dimension: int) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The simple polygons or lines in `shapes`, and the position in `shapes` that each is from."""
    parts, index = shapely.get_parts(shapes, return_index=True)
    parts, again = shapely.get_parts(parts, return_index=True)  # a collection may hold multi-polygons
    index = index[again]
    keep = (shapely.get_type_id(parts) == dimension) & ~shapely.is_empty(parts)
    return parts[keep], index[keep]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def load_layers(root: str | Path, location: str, names: Sequence[str] = LAYERS) -> dict[str, NDArray[np.object_]]:
    """The shapes of map layers from a city's map expansion below a nuScenes root.

    Raises BridgeTAError when the file is absent, truncated, older than v1.3, or refers to what it does not hold.
    """
    content = read_expansion(root, location)
    try:
        return read_layers(content, names)
    except (KeyError, TypeError, IndexError, ValueError, shapely.GEOSException) as error:
        message = f"is not a map expansion v1.3 ({type(error).__name__}: {error})"
        raise BridgeTAError(message, where=_expansion_path(root, location), fix=_DOWNLOAD) from error


def _expansion_path(root: str | Path, location: str) -> Path:
    return Path(root) / "maps" / "expansion" / f"{location}.json"


def read_expansion(root: str | Path, location: str) -> dict[str, Any]:
    """The content of `maps/expansion/<location>.json` of a nuScenes root.

    Raises BridgeTAError when the file is absent, is no JSON, or is older than v1.3.
    """
    path = _expansion_path(root, location)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BridgeTAError("the map expansion is missing", where=path, fix=_DOWNLOAD) from error
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=path, fix=_DOWNLOAD) from error
    except ValueError as error:
        raise BridgeTAError(f"is not JSON, perhaps truncated ({error})", where=path, fix=_DOWNLOAD) from error
    version = str(content.get("version", "1.0") if isinstance(content, dict) else "1.0")
    if _numbers(version) < _numbers(MAP_VERSION):
        raise BridgeTAError(f"is map expansion v{version}, v1.3 is needed", where=path, fix=_DOWNLOAD)
    return dict(content)


def read_layers(content: Mapping[str, Any], names: Sequence[str] = LAYERS) -> dict[str, NDArray[np.object_]]:
    """The shapely polygons or lines, in global metres, of layers of a map expansion's content.

    Polygons that are not valid are repaired in the drivable area and left out elsewhere, as the devkit does.
    """
    nodes = {node["token"]: i for i, node in enumerate(content["node"])}
    xy = np.array([(node["x"], node["y"]) for node in content["node"]], dtype=np.float64).reshape(-1, 2)
    polygons = {record["token"]: record for record in content["polygon"]}
    lines = {record["token"]: record["node_tokens"] for record in content["line"]}
    result = {}
    for name in names:
        records = content.get(name, [])
        if name in LINE_LAYERS:
            # Some cities have lines without nodes; the devkit skips them too.
            chains = [tokens for tokens in (lines[record["line_token"]] for record in records) if len(tokens) > 1]
            result[name] = _chains(chains, nodes, xy, shapely.linestrings)
        elif name == "drivable_area":  # the one layer whose records hold several polygons
            found = [polygons[token] for record in records for token in record["polygon_tokens"]]
            areas = _areas(found, nodes, xy)
            broken = ~shapely.is_valid(areas)
            areas[broken] = shapely.make_valid(areas[broken])
            result[name] = areas
        else:
            areas = _areas([polygons[record["polygon_token"]] for record in records], nodes, xy)
            result[name] = areas[shapely.is_valid(areas)]
    return result


def _areas(records: list[dict[str, Any]], nodes: Mapping[str, int], xy: Array) -> NDArray[np.object_]:
    """Polygons with their holes. Rings of fewer than three nodes enclose nothing and are left out."""
    records = [record for record in records if len(record["exterior_node_tokens"]) > 2]
    exteriors = _chains([record["exterior_node_tokens"] for record in records], nodes, xy, shapely.linearrings)
    holes = [
        (i, hole["node_tokens"])
        for i, record in enumerate(records)
        for hole in record["holes"]
        if len(hole["node_tokens"]) > 2
    ]
    areas = shapely.polygons(exteriors)
    rings = _chains([tokens for _, tokens in holes], nodes, xy, shapely.linearrings)
    owners = np.array([i for i, _ in holes], dtype=np.int64)
    for i in np.unique(owners):
        areas[i] = shapely.polygons(exteriors[i], rings[owners == i])
    return areas


def _chains(
    chains: list[list[str]], nodes: Mapping[str, int], xy: Array, make: Callable[..., NDArray[np.object_]]
) -> NDArray[np.object_]:
    """Rings or lines through the nodes of each chain of tokens."""
    if not chains:
        return np.empty(0, dtype=object)
    rows = np.fromiter((nodes[token] for chain in chains for token in chain), dtype=np.int64)
    owner = np.repeat(np.arange(len(chains)), [len(chain) for chain in chains])
    return np.asarray(make(xy[rows], indices=owner), dtype=object)
