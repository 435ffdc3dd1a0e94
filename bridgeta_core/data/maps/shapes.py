"""All shapes of a city's map, with a spatial index."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from bridgeta_core.data.maps.expansion import LAYERS

Array = NDArray[np.float64]

POLYGON, LINE = 3, 1  # shapely's type numbers


class MapShapes:
    """The shapes `[n]` of all LAYERS in global metres, layer by layer in the order of the map; `layer` `[n]` is the
    number in LAYERS of each one's layer.
    """

    def __init__(self, by_layer: Mapping[str, NDArray[np.object_]]) -> None:
        self.shapes = np.concatenate([np.asarray(by_layer[name], dtype=object) for name in LAYERS])
        self.layer = np.repeat(np.arange(len(LAYERS)), [len(by_layer[name]) for name in LAYERS])
        self._tree = shapely.STRtree(self.shapes)

    def near(self, low: Array, high: Array) -> NDArray[np.int64]:
        """The positions of the shapes whose bounding boxes touch the box from `low` to `high`, each `[2]`, in order."""
        return np.sort(self._tree.query(shapely.box(*low, *high)))


def simple_parts(
    shapes: NDArray[np.object_], kind: int | NDArray[np.int64]
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The simple polygons or lines in `shapes`, and the position in `shapes` that each is from.

    `kind` is POLYGON or LINE, for all shapes or for each.
    """
    parts, index = shapes, np.arange(len(shapes))
    kinds = shapely.get_type_id(parts)
    while (kinds > POLYGON).any():  # a collection may hold multi-polygons
        parts, again = shapely.get_parts(parts, return_index=True)
        index, kinds = index[again], shapely.get_type_id(parts)
    keep = (kinds == (kind if isinstance(kind, int) else kind[index])) & ~shapely.is_empty(parts)
    return parts[keep], index[keep]


def polygon_rings(polygons: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.bool_]]:
    """The rings of simple polygons, the position in `polygons` that each is from, and whether it is a hole."""
    if not shapely.get_num_interior_rings(polygons).any():  # this is much faster than get_rings
        count = len(polygons)
        return shapely.get_exterior_ring(polygons), np.arange(count), np.zeros(count, dtype=bool)
    rings, owner = shapely.get_rings(polygons, return_index=True)
    return rings, owner, np.append(False, owner[1:] == owner[:-1])


def split(values: NDArray[Any], owner: NDArray[np.int64], count: int) -> list[NDArray[Any]]:
    """`values` in `count` consecutive pieces; `owner` is the sorted number of the piece of each value."""
    ends = np.searchsorted(owner, np.arange(count + 1)).tolist()
    return [values[start:end] for start, end in pairwise(ends)]
