"""Rasterise labels that equal nuscenes-devkit 1.2.0's `NuScenesMap.get_map_mask`, on which the protocol rests.

Shapes are cut to the patch. Polygon vertices are rounded to cells and filled with their border; the holes of a shape
are written as 0 after its outline. Line vertices are truncated to cells and drawn 2 cells thick. The devkit raises an
error where the patch cuts a line into several pieces, and visits every shape of a city each time; neither happens here.
"""

from __future__ import annotations

import math
from itertools import groupby

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from bridgeta_core.data.maps.expansion import LAYERS, LINE, POLYGON, MapShapes, polygon_rings, split, split_parts
from bridgeta_core.geometry.classes import CLASSES, LINE_LAYERS
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, yaw
from bridgeta_core.utils.arrays import Bytes, Flags, Floats, Ints, Objects

Corners = NDArray[np.int32]

_CLASS = np.array([next(i for i, c in enumerate(CLASSES) if name in c.layers) for name in LAYERS])
_KIND = np.array([LINE if name in LINE_LAYERS else POLYGON for name in LAYERS])
_EGO_T_RIGHT = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_LARGE = 200  # polygons of more corners are cut roughly before they are cut exactly


class CompatibleRasteriser:
    """Rasterises a city's shapes as the devkit does."""

    def __init__(self, shapes: MapShapes) -> None:
        self._shapes = shapes

    def rasterise(self, global_T_ego: Matrix, grid: BevGrid) -> Bytes:
        """Rasterise the classes around a pose: `[6, Y, X]`, 0 or 1. Only x, y and yaw of the pose count."""
        patch, result = _Patch(global_T_ego, grid), np.zeros((len(CLASSES), *grid.shape), dtype=np.uint8)
        pieces, sources = patch.cut(self._shapes)
        layers = self._shapes.layer[sources]
        is_line = _KIND[layers] == LINE
        lines, owner = patch.lines(pieces[is_line])
        for number, line in zip(layers[is_line][owner].tolist(), lines, strict=True):
            cv2.polylines(result[_CLASS[number]], [line], False, 1, 2)
        outlines, owner, is_hole = patch.outlines(pieces[~is_line])
        shapes: dict[int, tuple[list[Corners], list[Corners]]] = {}
        for outline, source, hole in zip(outlines, sources[~is_line][owner].tolist(), is_hole.tolist(), strict=True):
            shapes.setdefault(source, ([], []))[hole].append(outline)
        for number, group in groupby(shapes, key=self._shapes.layer.__getitem__):
            canvas = np.zeros(grid.shape, dtype=np.uint8)  # a layer's holes must not clear another layer's areas
            for source in group:
                exteriors, interiors = shapes[source]
                cv2.fillPoly(canvas, exteriors, 1)
                if interiors:
                    cv2.fillPoly(canvas, interiors, 0)
            result[_CLASS[number]] |= canvas
        return result


class BEVFusionRasteriser(CompatibleRasteriser):
    """The same along the axes of nuScenes' LIDAR_TOP, x to the right and y ahead, like BEVFusion's patches.

    The devkit's rounding makes areas grow along the x and y of a patch: here to the right and ahead, otherwise ahead
    and to the left.
    """

    def rasterise(self, global_T_ego: Matrix, grid: BevGrid) -> Bytes:
        """Rasterise the classes around a pose, in the layout of all labels."""
        sideways = BevGrid(-grid.y_max, -grid.y_min, grid.x_min, grid.x_max, grid.resolution)
        drawn = super().rasterise(global_T_ego @ _EGO_T_RIGHT, sideways)  # columns to the right, rows ahead
        return np.ascontiguousarray(drawn.transpose(0, 2, 1)[:, ::-1])


class _Patch:
    """The rectangle of the world that a grid covers; it maps global metres to its cells.

    The operations and their order are the devkit's, so that a vertex on the border falls to the same side.
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
        corners = np.array([(1, -1), (1, 1), (-1, 1), (-1, -1), (1, -1)]) * np.array(self._size) / 2
        outline = self._turn(corners + self._centre, self._sin)
        self._outline, self._low, self._high = shapely.polygons(outline), outline.min(axis=0), outline.max(axis=0)

    def _turn(self, points: Floats, sin: float) -> Floats:
        """Turn points about the patch's centre: by its angle with `sin` of it, back with minus that.

        Term for term as shapely.affinity.rotate.
        """
        (x, y), cos = self._centre, self._cos
        px, py = points.T
        turned_x = cos * px - sin * py + (x - x * cos + y * sin)
        turned_y = sin * px + cos * py + (y - x * sin - y * cos)
        return np.stack([turned_x, turned_y], axis=1)

    def cut(self, shapes: MapShapes) -> tuple[Objects, Ints]:
        """Cut shapes to the patch, and return the parts and the position of the shape that each part is from."""
        near = shapes.find_near(self._low, self._high)
        kind = _KIND[shapes.layer[near]]
        inside, of = split_parts(shapely.intersection(self._cut_roughly(shapes.shapes[near]), self._outline), kind)
        return inside, near[of]

    def outlines(self, polygons: Objects) -> tuple[list[Corners], Ints, Flags]:
        """Return rings in cells, rounded; the position in `polygons` that each is from; and whether it is a hole."""
        rings, owner, is_hole = polygon_rings(polygons)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        cells = np.round(self._to_cells(self._to_local(points))).astype(np.int32)
        return split(cells, ring, len(rings)), owner, is_hole

    def lines(self, lines: Objects) -> tuple[list[Corners], Ints]:
        """Return lines in cells, truncated, and the position in `lines` that each is from.

        The devkit cuts everything a second time in the patch's own frame. That moves a corner on the border by a
        rounding error, which shows only where cells are truncated.
        """
        local = shapely.transform(lines, self._to_local)
        bounds, half = shapely.bounds(local).reshape(-1, 4), np.array(self._size) / 2
        cut = (bounds[:, :2] <= -half).any(axis=1) | (bounds[:, 2:] >= half).any(axis=1)  # the others stay as they are
        local[cut] = shapely.intersection(local[cut], shapely.box(*-half, *half))
        pieces, owner = split_parts(local, LINE)
        points, piece = shapely.get_coordinates(pieces, return_index=True)
        return split(self._to_cells(points).astype(np.int32), piece, len(pieces)), owner

    def _to_local(self, points: Floats) -> Floats:
        """Map global metres to metres from the patch's centre along its sides."""
        return self._turn(points, -self._sin) - self._centre

    def _to_cells(self, points: Floats) -> Floats:
        return (points + np.array(self._size) / 2) * self._scale

    def _cut_roughly(self, shapes: Objects) -> Objects:
        """Cut large polygons to a box around the patch, which is much cheaper than to the patch itself."""
        large = (shapely.get_type_id(shapes) == POLYGON) & (shapely.get_num_coordinates(shapes) > _LARGE)
        cut = shapely.clip_by_rect(shapes[large], *(self._low - 1), *(self._high + 1))
        result = shapes.copy()
        result[large] = np.where(shapely.is_valid(cut), cut, shapes[large])  # this way of cutting may fail
        return result
