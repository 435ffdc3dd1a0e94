"""Rasterise exact labels: a cell belongs to a class when at least half of its area is covered.

The covered area has a closed form, the signed-area accumulation of font rasterisers (R. Levien, font-rs). The edges of
all polygons are cut where they cross from cell to cell. Each piece adds the area between itself and the upper border of
its cell to that cell, and its width to all cells above it: positive when it goes right, negative when it goes left. A
cumulative sum along y then gives the covered share of every cell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely

from bridgeta_core.data.maps.expansion import POLYGON, polygon_rings, split_parts
from bridgeta_core.geometry.classes import CLASSES, LINE_LAYERS
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, yaw
from bridgeta_core.utils.arrays import Bytes, Floats, Ints, Objects
from bridgeta_core.utils.errors import BridgeTAError

_TILE = 50.0  # metres: small tiles save edges off the grid, large ones save borders between tiles
_MOST_TILES = 2_000_000  # that the boxes around all shapes of a class touch; those of real cities touch thousands
_TIE = 1e-9  # of a cell's area: an exact half is not lost to rounding


class ExactRasteriser:
    """Rasterises a city's shapes, given by layer, by covered area. Lines are `line_width` metres wide, with flat ends.

    A class is the union of its layers, cut into tiles. Its pieces do not overlap, so that their areas add up. Raises
    BridgeTAError for shapes that reach over more tiles than those of any city.
    """

    def __init__(self, shapes: Mapping[str, Objects], line_width: float) -> None:
        pieces = []
        for c in CLASSES:
            layers = (_widen(shapes[name], line_width) if name in LINE_LAYERS else shapes[name] for name in c.layers)
            pieces.append(_unite_in_tiles(np.concatenate(list(layers))))
        self._class = np.repeat(np.arange(len(CLASSES)), [len(tiles) for tiles in pieces])
        self._tree = shapely.STRtree(np.concatenate(pieces))
        self._edges, owner = _edges(self._tree.geometries)
        self._starts = np.searchsorted(owner, np.arange(len(self._class) + 1))

    def rasterise(self, global_T_ego: Matrix, grid: BevGrid) -> Bytes:
        """Rasterise the classes around a pose: `[6, Y, X]`, 0 or 1. Only x, y and yaw of the pose count."""
        angle, origin = yaw(global_T_ego), global_T_ego[:2, 3]
        global_R_ego = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = shapely.get_coordinates(shapely.box(grid.x_min, grid.y_min, grid.x_max, grid.y_max))
        patch = shapely.polygons(corners @ global_R_ego.T + origin)
        near = self._tree.query(patch, predicate="intersects")
        start, lengths = self._starts[near], np.diff(self._starts)[near]
        edges = self._edges[np.repeat(start, lengths) + _count_up(lengths)]
        present, number = np.unique(self._class[near], return_inverse=True)
        shape = (len(present), *grid.shape)
        covered = _covered(grid.to_cells((edges - origin) @ global_R_ego), np.repeat(number, lengths), shape)
        result = np.zeros((len(CLASSES), *grid.shape), dtype=np.uint8)
        result[present] = covered >= 0.5 - _TIE
        return result


def _covered(edges: Floats, classes: Ints, shape: tuple[int, int, int]) -> Floats:
    """Compute the share of every cell that lies on the left of `edges` `[n, 2, 2]` (start and end, x and y).

    The edges run around areas of the `classes` `[n]`, counter-clockwise around outlines and clockwise around holes.
    `shape` is that of the result: classes, rows and columns.
    """
    _, rows, columns = shape
    low, high = edges.min(axis=1), edges.max(axis=1)
    counts = (low[:, 0] < high[:, 0]) & (low[:, 0] < columns) & (high[:, 0] > 0) & (low[:, 1] < rows)
    edges, classes = _cut(edges[counts], classes[counts], 0, columns)
    edges, classes = _cut(edges, classes, 1, rows)
    x, y = (edges[:, 0] + edges[:, 1]).T / 2
    counts = (x > 0) & (x < columns) & (y < rows)
    column, y = x[counts].astype(np.int64), np.maximum(y[counts], 0)  # what is below the grid reaches all its rows
    row = y.astype(np.int64)
    width = (edges[:, 1, 0] - edges[:, 0, 0])[counts]
    beneath = width * (y - row)
    cell = (classes[counts] * (rows + 1) + row) * columns + column
    where, change = np.concatenate([cell, cell + columns]), np.concatenate([width - beneath, beneath])
    size = shape[0] * (rows + 1) * columns
    covered = np.asarray(np.bincount(where, change, size), dtype=np.float64).reshape(-1, rows + 1, columns)
    for i in range(1, rows):  # a cumulative sum by rows, three times as fast as numpy's
        covered[:, i] += covered[:, i - 1]
    return covered[:, :rows]


def _cut(edges: Floats, classes: Ints, axis: int, end: int) -> tuple[Floats, Ints]:
    """Cut edges where their x (axis 0) or y (1) is one of the whole numbers from 0 to `end`."""
    a, b = edges[:, 0, axis], edges[:, 1, axis]
    first = np.maximum(np.floor(np.minimum(a, b)) + 1, 0)
    last = np.minimum(np.ceil(np.maximum(a, b)) - 1, end)
    cuts = np.maximum(last - first + 1, 0).astype(np.int64)
    owner, number = np.repeat(np.arange(len(edges)), cuts + 1), _count_up(cuts + 1)
    pieces = edges[owner]
    later = np.flatnonzero(number)  # pieces that begin at a cut
    of, k = owner[later], number[later] - 1
    place = np.where(a[of] < b[of], first[of] + k, last[of] - k)
    share = (place - a[of]) / (b[of] - a[of])
    points = edges[of, 0] + share[:, None] * (edges[of, 1] - edges[of, 0])
    points[:, axis] = place
    pieces[later, 0] = pieces[later - 1, 1] = points
    return pieces, classes[owner]


def _count_up(lengths: Ints) -> Ints:
    """Count 0, 1, ... up to each of the lengths, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)


def _edges(polygons: Objects) -> tuple[Floats, Ints]:
    """Return all edges `[n, 2, 2]` of simple polygons, polygon on the left, and the position of the polygon of each."""
    rings, owner, is_hole = polygon_rings(polygons)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    edges = np.stack([points[:-1], points[1:]], axis=1)
    whole = ring[:-1] == ring[1:]
    edges, ring = edges[whole], ring[:-1][whole]
    backwards = (shapely.is_ccw(rings) == is_hole)[ring]
    edges[backwards] = edges[backwards, ::-1]
    return edges, owner[ring]


def _widen(lines: Objects, width: float) -> Objects:
    return np.asarray(shapely.buffer(lines, width / 2, cap_style="flat"), dtype=object)


def _unite_in_tiles(areas: Objects) -> Objects:
    """Unite areas into simple polygons, each of which lies in one tile."""
    areas, _ = split_parts(areas, POLYGON)
    low, high = np.split(np.floor(shapely.bounds(areas).reshape(-1, 4) / _TILE), 2, axis=1)
    tiles_touched = (high - low + 1).prod(axis=1).sum()
    if not tiles_touched <= _MOST_TILES:
        raise BridgeTAError(
            f"the areas of a map layer reach over {tiles_touched:,.0f} tiles of {_TILE:g} m, which no city's do",
            fix="Check the map, or set labels.mode=compatible",
        )
    # Cut into strips first, so that a polygon of many corners is cut along its length once, not for every tile.
    strips, x, _ = _cut_into_strips(areas, 0)
    tiles, y, again = _cut_into_strips(strips, 1)
    order = np.lexsort((y, x[again]))
    tiles, place = tiles[order], np.stack([x[again], y], axis=1)[order]
    starts = np.flatnonzero((np.diff(place, axis=0) != 0).any(axis=1)) + 1
    joined = [shapely.union_all(tile) if len(tile) > 1 else tile[0] for tile in np.split(tiles, starts) if len(tile)]
    return split_parts(np.array(joined, dtype=object), POLYGON)[0]


def _cut_into_strips(areas: Objects, axis: int) -> tuple[Objects, Ints, Ints]:
    """Cut areas into strips of a tile's width across an axis; return polygons, and the strip and source of each."""
    bounds = shapely.bounds(areas).reshape(-1, 4)
    first, last = (np.floor(bounds[:, k] / _TILE).astype(np.int64) for k in (axis, axis + 2))
    source = np.repeat(np.arange(len(areas)), last - first + 1)
    strip = first[source] + _count_up(last - first + 1)
    boxes = bounds[source]
    boxes[:, axis], boxes[:, axis + 2] = strip * _TILE, (strip + 1) * _TILE
    parts, index = split_parts(shapely.intersection(areas[source], shapely.box(*boxes.T)), POLYGON)
    return parts, strip[index], source[index]
