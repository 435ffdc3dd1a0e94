"""A town: the polygons and lines of its map, the paint on the ground, and all that stands up.

Every shape is built once and used three times: written to the map expansion, painted on the ground and, where it stands
up, seen by cameras and LiDAR.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.solids import SolidList, Solids
from bridgeta_synth.world.streets.kerbside import Bay
from bridgeta_synth.world.streets.lanes import LaneGraph
from bridgeta_synth.world.streets.shapes import Points
from bridgeta_synth.world.terrain import Terrain

AREA_LAYERS = ("drivable_area", "road_segment", "lane", "ped_crossing", "walkway", "stop_line", "carpark_area")
LINE_LAYERS = ("road_divider", "lane_divider")


@dataclass(eq=False)
class Town:
    """A town; polygons and lines are shapely geometries in global metres.

    `driving_side` is +1 where traffic keeps right and -1 where it keeps left, `canvas` the (width, height) of the map.
    `terrain` is the height of the carriageways; everything that is not `paved` lies `kerb` metres higher. `polygons`
    and `lines` map nuScenes layer names to shapes. The first drivable areas are the road segments, and
    `intersections` says which of these are junctions. `polygons["lane"]` are the lanes of `lanes`. `surface` is what
    lies on the ground from bottom to top: (material, polygon). `crossings` are walking lines across pedestrian
    crossings from kerb to kerb, `footpaths` all other walking lines, `lamps [n, 3]` the heads of street lamps.
    `interior` is the area from which an ego vehicle sees the town and not its rim.
    """

    location: str
    driving_side: int
    canvas: tuple[float, float]
    terrain: Terrain
    kerb: float
    paved: BaseGeometry = field(default_factory=MultiPolygon)
    polygons: dict[str, list[Polygon]] = field(default_factory=lambda: {layer: [] for layer in AREA_LAYERS})
    lines: dict[str, list[LineString]] = field(default_factory=lambda: {layer: [] for layer in LINE_LAYERS})
    intersections: list[bool] = field(default_factory=list)
    surface: list[tuple[int, Polygon]] = field(default_factory=list)
    lanes: LaneGraph = field(default_factory=lambda: LaneGraph((), ()))
    solids: Solids = field(default_factory=lambda: SolidList().build())
    bays: list[Bay] = field(default_factory=list)
    footpaths: list[Points] = field(default_factory=list)
    crossings: list[Points] = field(default_factory=list)
    lamps: Floats = field(default_factory=lambda: np.empty((0, 3)))
    interior: BaseGeometry = field(default_factory=MultiPolygon)

    def height(self, xy: Floats) -> Floats:
        """Return the height of the ground `[...]` in metres at places `[..., 2]`."""
        xy = np.asarray(xy, dtype=np.float64)
        shapely.prepare(self.paved)
        raised = ~shapely.contains_xy(self.paved, xy[..., 0], xy[..., 1])
        return np.asarray(self.terrain.height(xy) + self.kerb * raised)
