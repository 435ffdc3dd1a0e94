"""A city's map, rasterised into labels of the six classes around any pose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import shapely

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.devkit import BEVFusionRasteriser, CompatibleRasteriser
from bridgeta_core.data.maps.exact import ExactRasteriser
from bridgeta_core.data.maps.expansion import (
    LAYERS,
    LINE,
    POLYGON,
    MapShapes,
    expansion_path,
    load_layers,
    split,
    split_parts,
)
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, invert, transform
from bridgeta_core.utils.arrays import Bytes, Floats, Objects
from bridgeta_core.utils.errors import BridgeTAError

_DRAPED = 2.0  # metres between the points of a line that follows the ground


class MapRaster:
    """One city's map, from its shapes by layer (see `read_layers`).

    `labels` says how it is rasterised: as the devkit does, or by covered area. `known[c]` is False when the map has
    nothing of class c. The class is unknown then, not absent: neither train nor score on it.
    """

    def __init__(self, location: str, shapes: Mapping[str, Objects], labels: LabelConfig | None = None) -> None:
        labels = labels or LabelConfig()
        self.location = location
        self._shapes = MapShapes(shapes)
        self._rasteriser: ExactRasteriser | CompatibleRasteriser
        if labels.mode == "exact":
            self._rasteriser = ExactRasteriser(shapes, labels.line_width)
        else:
            kind = BEVFusionRasteriser if labels.mode == "bevfusion" else CompatibleRasteriser
            self._rasteriser = kind(self._shapes)
        self.known: tuple[bool, ...] = tuple(any(len(shapes[name]) for name in c.layers) for c in CLASSES)

    @classmethod
    def load(cls, root: str | Path, location: str, labels: LabelConfig | None = None) -> MapRaster:
        """Read `maps/expansion/<location>.json` of a nuScenes root; raises as `load_layers` and `ExactRasteriser`."""
        shapes = load_layers(root, location)
        try:
            return cls(location, shapes, labels)
        except BridgeTAError as error:
            raise BridgeTAError(error.what, where=expansion_path(root, location), fix=error.fix) from error

    def rasterise(self, global_T_ego: Matrix, grid: BevGrid) -> Bytes:
        """Rasterise the classes around a pose: `[6, Y, X]`, 0 or 1. Only x, y and yaw of the pose count."""
        return self._rasteriser.rasterise(global_T_ego, grid)

    def polylines(
        self, global_T_ego: Matrix, radius: float, height: Callable[[Floats], Floats] | None = None
    ) -> dict[str, list[Floats]]:
        """Return outlines and lines per class name, `[n, 3]` each in the ego frame, for drawing into cameras.

        They lie in the square of `radius` metres around the vehicle. The map has no heights: `height` gives those of
        the ground in the ego frame (see `GroundHeight`); without it the ground is level with the vehicle.
        """
        centre = global_T_ego[:2, 3]
        low, high = centre - radius, centre + radius
        window = shapely.box(*low, *high)
        near = self._shapes.find_near(low, high)
        result: dict[str, list[Floats]] = {}
        for c in CLASSES:
            shapes = self._shapes.shapes[near[np.isin(self._shapes.layer[near], [LAYERS.index(n) for n in c.layers])]]
            is_area = shapely.get_type_id(shapes) == POLYGON
            lines = np.concatenate([shapes[~is_area], shapely.boundary(shapes[is_area])])
            pieces = split_parts(shapely.intersection(lines, window), LINE)[0]
            if height is not None:
                pieces = shapely.segmentize(pieces, _DRAPED)
            xy, owner = shapely.get_coordinates(pieces, return_index=True)
            result[c.name] = split(_place_on_ground(global_T_ego, xy, height), owner, len(pieces))
        return result


def _place_on_ground(global_T_ego: Matrix, xy: Floats, height: Callable[[Floats], Floats] | None) -> Floats:
    """Place global positions `[n, 2]` on the ground: points `[n, 3]` in the ego frame."""
    ego_T_global = invert(global_T_ego)
    z = np.full(len(xy), global_T_ego[2, 3])
    points = transform(ego_T_global, np.column_stack([xy, z]))
    if height is not None and len(xy):
        # The ego frame is tilted by a few degrees at most, so two steps along the global vertical are enough.
        for _ in range(2):
            z += (height(points[:, :2]) - points[:, 2]) / ego_T_global[2, 2]
            points = transform(ego_T_global, np.column_stack([xy, z]))
    return points
