"""Build towns from real nuScenes maps: a window of a city, completed by what its map does not hold.

The map layers of such a town are the real ones, clipped to the window, in the city's own coordinates. Lanes, paint,
walking lines, bays and everything that stands up follow from them; nothing is added to the layers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_core.utils.arrays import Objects
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.seeds import Seed
from bridgeta_synth.world import materials
from bridgeta_synth.world.real.city import DIVIDER_LAYERS, POLYGON_LAYERS, City, clip_lanes, drop_dead_ends
from bridgeta_synth.world.real.paint import CityPainter, Traffic
from bridgeta_synth.world.real.parking import find_bays
from bridgeta_synth.world.real.walking import find_footpaths, find_walking_axis, find_walking_line
from bridgeta_synth.world.streets.kerbside import Bay
from bridgeta_synth.world.streets.lanes import LaneGraph
from bridgeta_synth.world.streets.layouts import PALETTES, split_index
from bridgeta_synth.world.streets.marking import Marks
from bridgeta_synth.world.streets.road_marks import PaintStyle
from bridgeta_synth.world.streets.roads import Profile, Road
from bridgeta_synth.world.streets.shapes import Points, outlines, parts, union
from bridgeta_synth.world.streets.wear import age_road
from bridgeta_synth.world.terrain import Terrain
from bridgeta_synth.world.town.blocks import draw_plots
from bridgeta_synth.world.town.buildings import add_buildings, add_enclosures
from bridgeta_synth.world.town.street_furniture import Furnisher
from bridgeta_synth.world.town.town import Town

EXTENT = 700.0
_ROAD_LAYERS = ("drivable_area", "road_segment", "lane")
# Metres inside the window's border: where no scene starts, since the world's end would show, and where no lane leads,
# so that maps of 100 x 100 m around a vehicle are whole. Windows below the usual size have narrower rims.
_RIM, _BEYOND, _USUAL = 110.0, 60.0, 440.0
_AROUND = 60.0  # metres of ground around the window
_PLOT = 45.0  # metres of one kind of ground between the roads
_BLOCK = 6.0  # metres; unpaved areas that are nowhere this wide are islands in the road
_KERB_WIDTH = 0.18
_LEAST_WORN, _WORN, _LANE_WIDTH = 20, 0.3, 3.2  # metres and share of the lanes with wear, width of lanes in metres
_DEPTH = 40.0  # metres from public ground to the second row of houses
_TREES, _SEEN = 0.004, 70.0  # trees per square metre of plots, metres from public ground where they are seen
_NONE = np.empty(0, dtype=object)

# Materials of islands, plots and walkways, with their shares.
_ISLANDS = (materials.GRASS, materials.BED, materials.CONCRETE, materials.PAVING)
_GROUNDS = {
    materials.GRASS: 0.5,
    materials.DIRT: 0.1,
    materials.CONCRETE: 0.2,
    materials.GRAVEL: 0.08,
    materials.PAVING: 0.12,
}
_PAVINGS = (materials.PAVING, materials.CONCRETE, materials.BRICK, materials.COBBLE)
_PAVING_SHARES = (0.5, 0.32, 0.12, 0.06)


def load_town(root: Path, location: str, seed: Seed, index: int, relief: float = 1.0, extent: float = EXTENT) -> Town:
    """Build a town from a window, up to `extent` metres square, of the city whose map expansion v1.3 lies below `root`.

    The window, its hills and all that stands there depend on `seed` and `index`; the map layers are the city's.
    Raises BridgeTAError when the expansion is absent, broken, older than v1.3, or has no lanes.
    """
    keeps_right = dict(facts.LOCATIONS)
    if location not in keeps_right:
        fix = f"The cities are {', '.join(keeps_right)}"
        raise BridgeTAError(f"nuScenes has no city {location}", where=root, fix=fix, exit_code=2)
    city = City.read(root, location)
    rng = np.random.default_rng([*seed, 1, index])
    window = city.draw_window(rng, extent)
    return _Builder(city, window, location, 1 if keeps_right[location] else -1, rng).build(seed, index, relief)


class _Builder:
    """The builder of one window's town: first what its map says, then what follows from it."""

    def __init__(self, city: City, window: Polygon, location: str, driving_side: int, rng: np.random.Generator) -> None:
        self.city, self.window, self.location, self.driving_side, self.rng = city, window, location, driving_side, rng
        self.polygons = {name: self._clip_areas(city.shapes[name]) for name in POLYGON_LAYERS}
        self.lines = {name: self._clip_lines(city.shapes[name]) for name in DIVIDER_LAYERS}
        lanes, successors = city.find_lanes(window, driving_side)
        self.traffic = Traffic(tuple(lanes))
        lanes, successors = clip_lanes(lanes, successors, self._inside(_BEYOND))
        self.lanes = LaneGraph(tuple(lanes), drop_dead_ends(lanes, successors))
        # On a grid: without one, GEOS 3.11 loses some areas that share an edge up to rounding.
        areas = [area for name in _ROAD_LAYERS for area in self.polygons[name]]
        road = shapely.union_all(areas, grid_size=0.001)
        # Outlines that nearly touch are one road.
        self.road = road.buffer(0.1, join_style="mitre").buffer(-0.1, join_style="mitre")
        self.carparks = union(self.polygons["carpark_area"])
        self.paved = union([self.road, self.carparks])
        self.below, self.marks, self.above = Marks(rng), Marks(rng), Marks(rng)

    def build(self, seed: Seed, index: int, relief: float) -> Town:
        """Build the town, with the hills of its seed."""
        low_x, low_y, high_x, high_y = self.window.bounds
        size = high_x - low_x, high_y - low_y
        hills = Terrain.draw(np.random.default_rng([*seed, 8, index]), size, relief, (low_x, low_y))
        self._find_blocks()
        walkways = self._find_walkways()
        bays = self._mark_bays()
        self._paint()
        town = Town(
            location=self.location,
            driving_side=self.driving_side,
            canvas=self.city.canvas,
            terrain=hills,
            kerb=round(float(self.rng.uniform(0.12, 0.18)), 3),
            paved=self.paved,
            polygons=self.polygons,
            lines=self.lines,
            intersections=self._mark_intersections(),
            surface=self._build_surface(walkways),
            lanes=self.lanes,
            bays=bays,
            footpaths=find_footpaths(walkways),
            crossings=self._walk_crossings(),
            interior=self._inside(_RIM),
        )
        palette = PALETTES[split_index(seed)]
        self._furnish(town, walkways, Furnisher(town.height, self.rng, palette, self.driving_side))
        return town

    def _inside(self, distance: float) -> Polygon:
        """Return the window without a rim of `distance` metres, which is narrower in a small window."""
        low_x, low_y, high_x, high_y = self.window.bounds
        rim = distance * min(1.0, min(high_x - low_x, high_y - low_y) / _USUAL)
        return shapely.box(low_x + rim, low_y + rim, high_x - rim, high_y - rim)

    def _clip_areas(self, shapes: Objects) -> list[Polygon]:
        """Clip areas to the window, without slivers."""
        return [part for part in self._clip(shapes) if isinstance(part, Polygon) and part.area > 0.2]

    def _clip_lines(self, shapes: Objects) -> list[LineString]:
        """Clip lines to the window, without stubs."""
        return [part for part in self._clip(shapes) if isinstance(part, LineString) and part.length > 0.5]

    def _clip(self, shapes: Objects) -> Objects:
        """Clip shapes to the window, on the millimetre grid on which maps are written."""
        inside = shapely.intersection(shapes[shapely.intersects(shapes, self.window)], self.window)
        return np.asarray(shapely.get_parts(shapely.get_parts(shapely.set_precision(inside, 0.001))), dtype=object)

    def _mark_intersections(self) -> list[bool]:
        """Say for each road segment whether the city marks it as an intersection."""
        junctions = union(self._clip_areas(self.city.junctions)).buffer(0.05)
        shapely.prepare(junctions)
        return [bool(junctions.contains(segment)) for segment in self.polygons["road_segment"]]

    def _find_blocks(self) -> None:
        """Divide what is not paved into blocks and, in the road, islands."""
        around = self.window.buffer(_AROUND, join_style="mitre")
        self.blocks: list[Polygon] = []
        self.islands: list[Polygon] = []
        for part in parts(around.difference(self.paved), 1.0):
            (self.islands if part.buffer(-_BLOCK).is_empty else self.blocks).append(part)

    def _find_walkways(self) -> BaseGeometry:
        """Return the map's walkways; where it has none at all, walkways along the kerbs of the blocks."""
        if self.polygons["walkway"]:
            return union(self.polygons["walkway"]).difference(self.paved)
        strips = []
        for block in self.blocks:
            width = float(self.rng.uniform(2.2, 4.0))
            if self.rng.random() < 0.85:
                strips.append(block.difference(block.buffer(-width, join_style="mitre")))
        return union(strips)

    def _mark_bays(self) -> list[Bay]:
        """Find the bays in the map's car parks, and paint lines between them."""
        rng, bays = self.rng, []
        for carpark in self.polygons["carpark_area"]:
            wear = float(rng.choice((0.0, 0.3, 0.8)))
            for marked in find_bays(carpark):
                turn = math.pi if not marked.bay.kerbside and rng.random() < 0.5 else 0.0
                bays.append(replace(marked.bay, yaw=marked.bay.yaw + turn))
                for line in marked.lines:
                    self.marks.stroke(line, 0.1, materials.WHITE, wear)
        return bays

    def _paint(self) -> None:
        """Add wear, then paint, to the roads."""
        rng = self.rng
        for number, lane in enumerate(self.lanes.lanes):
            if len(lane) > _LEAST_WORN and rng.random() < _WORN:
                strip = Road(number, 0, 0, lane, Profile(1, 0, _LANE_WIDTH), self.driving_side)
                age_road(strip, self.below, self.above, rng)
        painter = CityPainter(self.marks, PaintStyle.draw(self.driving_side > 0, rng), self.traffic, rng)
        painter.paint_edges(self.road)
        painter.paint_road_dividers(self.lines["road_divider"])
        painter.paint_lane_dividers({mark: self._clip_lines(shapes) for mark, shapes in self.city.dividers.items()})
        painter.paint_crossings(self.polygons["ped_crossing"])
        painter.paint_stops({kind: self._clip_areas(shapes) for kind, shapes in self.city.stops.items()})
        painter.paint_arrows(self.lanes)

    def _walk_crossings(self) -> list[Points]:
        """Draw the walking lines across pedestrian crossings."""
        lines = []
        for crossing in self.polygons["ped_crossing"]:
            axis = find_walking_axis(crossing, self.traffic.heading(np.asarray(crossing.centroid.coords[0])))
            lines.append(find_walking_line(crossing, axis, self.paved))
        return lines

    def _build_surface(self, walkways: BaseGeometry) -> list[tuple[int, Polygon]]:
        """Build what lies on the ground, from bottom to top."""
        rng = self.rng
        surface: list[tuple[int, Polygon]] = []
        surface += [(int(rng.choice(_ISLANDS)), island) for island in self.islands]
        surface += draw_plots(union(self.blocks), _GROUNDS, rng, _PLOT)
        for walkway in parts(walkways, 0.2):
            surface.append((int(rng.choice(_PAVINGS, p=_PAVING_SHARES)), walkway))
        kerb = self.paved.buffer(_KERB_WIDTH, quad_segs=2, join_style="mitre").difference(self.paved)
        surface += [(materials.KERB, part) for part in parts(kerb, 0.5)]
        surface += [(materials.ASPHALT, part) for part in parts(self.road, 1.0)]
        surface += [(materials.CARPARK, part) for part in parts(self.carparks.difference(self.road), 1.0)]
        return [*surface, *self.below.build(), *self.marks.build(), *self.above.build()]

    def _furnish(self, town: Town, walkways: BaseGeometry, into: Furnisher) -> None:
        """Add everything that stands up, along the kerbs and behind the walkways."""
        public = union([self.paved, walkways, *self.islands])
        # Close slivers between the parts, so that no front runs along them.
        public = public.buffer(0.3, quad_segs=1, join_style="mitre").buffer(-0.3, quad_segs=1, join_style="mitre")
        fronts, kerbs = outlines(public, 30.0), outlines(self.paved)
        add_buildings(into, fronts, public)
        # A second row of houses: a real city is built up behind the street as well.
        behind = public.simplify(0.5).buffer(_DEPTH, quad_segs=2)
        add_buildings(into, outlines(behind.buffer(2.0, quad_segs=2), 60.0), behind, 0.6)
        add_enclosures(into, fronts, public)
        self._add_signals(into)
        into.add_street_lamps(kerbs, self.paved)
        into.add_street_trees(kerbs, self.paved)
        into.add_small_objects(kerbs, self.paved)
        into.add_groves(public.buffer(_SEEN).difference(public), public, _TREES)
        town.solids, town.lamps = into.build()

    def _add_signals(self, into: Furnisher) -> None:
        """Add signals at the kerb beside the stop lines that the map gives to traffic lights."""
        for area in self._clip_areas(self.city.stops.get("TRAFFIC_LIGHT", _NONE)):
            heading = self.traffic.heading(np.asarray(area.centroid.coords[0]))
            if heading is None:
                continue
            to_kerb = self.driving_side * np.array((heading[1], -heading[0]))
            corners = np.asarray(area.exterior.coords)[:-1, :2]
            last = corners[np.argmax(corners @ (heading + 0.5 * to_kerb))]
            places = last + np.arange(0.0, 6.0, 0.25)[:, None] * to_kerb
            off_road = np.flatnonzero(~shapely.contains_xy(self.paved.buffer(0.5), places))
            if len(off_road):
                x, y = places[off_road[0]]
                # A signal faces the traffic.
                into.add_signal(float(x), float(y), math.atan2(-heading[1], -heading[0]))
