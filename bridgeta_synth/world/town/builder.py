"""Build a town, in the order in which its parts depend on each other.

Approaches and car parks come first, then kerbs, lines, areas, the surface, and what stands up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from bridgeta_synth.seeds import Seed
from bridgeta_synth.world import materials
from bridgeta_synth.world.streets.approaches import plan_approaches
from bridgeta_synth.world.streets.kerbside import (
    Kerbside,
    Sides,
    add_driveways,
    add_laybys,
    build_islands,
    paint_kerbs,
    paint_stripes,
)
from bridgeta_synth.world.streets.lanes import LaneKey, Turn, build_lane_graph
from bridgeta_synth.world.streets.layouts import LAYOUTS, PALETTES, Layout, split_index
from bridgeta_synth.world.streets.marking import Marks
from bridgeta_synth.world.streets.network import RoadNetwork, build_network
from bridgeta_synth.world.streets.road_marks import PaintStyle, paint_road
from bridgeta_synth.world.streets.roads import SHOULDER
from bridgeta_synth.world.streets.shapes import outlines, parts, pieces, polygons, union
from bridgeta_synth.world.streets.wear import age_road, resurface
from bridgeta_synth.world.terrain import Terrain
from bridgeta_synth.world.town.blocks import BUILT, CARPARK, GREEN, PARK, PLAZA, Walks, draw_blocks, lay_walks
from bridgeta_synth.world.town.buildings import add_buildings, add_enclosures
from bridgeta_synth.world.town.carparks import Carparks, add_carpark
from bridgeta_synth.world.town.street_furniture import Furnisher
from bridgeta_synth.world.town.town import Town

_MARGIN = 100.0  # metres between a town and the edges of its map
_INTERIOR = 45.0  # metres from the rim; nearer to it half of what the cameras see is country
_KERB_WIDTH = 0.18
# Metres by which outlines are simplified before anything is built on them.
_SMOOTH = 0.01


def build_town(
    seed: Seed, index: int, location: str, keep_right: bool, relief: float = 1.0, junctions: int = 30
) -> Town:
    """Build the town `index` of a seed with about `junctions` junctions; equal arguments give an equal town."""
    rng = np.random.default_rng([*seed, 1, index])
    split = split_index(seed)
    network = build_network(rng, keep_right, LAYOUTS[split], junctions, _MARGIN)
    high = np.max([road.centre.max(axis=0) for road in network.roads], axis=0)
    canvas = float(math.ceil(high[0] + _MARGIN)), float(math.ceil(high[1] + _MARGIN))
    terrain = Terrain.draw(np.random.default_rng([*seed, 8, index]), canvas, relief)
    town = Town(location, network.driving_side, canvas, terrain, round(float(rng.uniform(0.12, 0.18)), 3))
    builder = TownBuilder(town, network, LAYOUTS[split], rng)
    builder.build()
    builder.furnish(Furnisher(town.height, rng, PALETTES[split], town.driving_side))
    return town


class TownBuilder:
    """The builder of one town."""

    def __init__(self, town: Town, network: RoadNetwork, layout: Layout, rng: np.random.Generator) -> None:
        self.town, self.network, self.layout, self.rng = town, network, layout, rng
        self.below, self.marks, self.above = Marks(rng), Marks(rng), Marks(rng)
        self.kerb_paint, self.island_paint = Marks(rng), Marks(rng)

    def build(self) -> None:
        """Build everything that lies on the ground."""
        town, roads, rng = self.town, self.network.roads, self.rng
        town.lanes, _, turns = build_lane_graph(self.network)
        strips = polygons(road.strip(*road.span, road.width / 2, -road.width / 2) for road in roads)
        self.strips = shapely.simplify(strips, _SMOOTH)
        base = union([*self.strips, *shapely.simplify(list(self.network.junctions.values()), _SMOOTH)])
        filled = union(Polygon(street.exterior) for street in shapely.get_parts(base))
        town.interior = self._find_interior(filled)
        self.approaches = plan_approaches(self.network, self.marks, rng)
        self.blocks = draw_blocks(base, self.layout, rng)
        sides = Sides(roads, self.approaches.gaps)
        self.lots = self._place_carparks(sides)
        self.kerbside = Kerbside()
        for road in roads:
            add_driveways(road, sides, rng, self.kerbside)
            add_laybys(road, sides, self.marks, rng, self.kerbside)
            self.kerbside.islands += build_islands(road, self.approaches.gaps[road.index])
        self._paint_roads(turns)
        self._paint_kerbs(sides)
        self._lay_ground(base)

    def _find_interior(self, filled: BaseGeometry) -> BaseGeometry:
        """Return the area where scenes start: away from the rim, less far in a small town."""
        middles = np.array([lane[len(lane) // 2] for lane in self.town.lanes.lanes])
        for margin in (_INTERIOR, _INTERIOR / 2, _INTERIOR / 4):
            area = filled.buffer(-margin)
            if shapely.contains_xy(area, middles[:, 0], middles[:, 1]).sum() >= 8:
                return area
        return filled

    def _place_carparks(self, sides: Sides) -> Carparks:
        """Place lots in blocks for parking, and smaller ones behind other kerbs."""
        rng, carparks = self.rng, Carparks()
        tree = shapely.STRtree([block.area for block in self.blocks])
        insides = [block.inside for block in self.blocks]
        for index in rng.permutation(len(self.network.roads)):
            road = self.network.roads[index]
            for side in (1, -1):
                x, y, _ = road.pose(road.length / 2, side * (road.width / 2 + 2))
                for i in tree.query(shapely.Point(x, y), predicate="within"):
                    block = self.blocks[i]
                    wanted = {CARPARK: 0.5, BUILT: self.layout.lots, PARK: 0.5 * self.layout.lots}.get(block.use, 0.0)
                    if rng.random() < wanted:
                        modules = int(rng.integers(1, 4)) if block.use == CARPARK else 1
                        setback = block.walk + float(rng.choice((0.3, 1.0, 2.5)))
                        add_carpark(road, side, modules, insides[i], setback, sides, self.marks, rng, carparks)
        return carparks

    def _paint_roads(self, turns: dict[LaneKey, list[Turn]]) -> None:
        """Paint all roads, and add their wear."""
        town, rng = self.town, self.rng
        style = PaintStyle.draw(town.driving_side > 0, rng)
        for road in self.network.roads:
            resurface(road, self.below, rng)
        for road in self.network.roads:
            age_road(road, self.below, self.above, rng)
            gaps, openings = self.approaches.gaps[road.index], self.kerbside.openings[road.index]
            between, lanes = paint_road(road, gaps, openings, turns, style, self.marks, rng)
            town.lines["road_divider"] += between
            town.lines["lane_divider"] += lanes

    def _paint_kerbs(self, sides: Sides) -> None:
        """Paint some kerbs, and islands where kerbs are striped."""
        keep_left, rng = self.town.driving_side < 0, self.rng
        if rng.random() < (0.7 if keep_left else 0.5):
            for road in self.network.roads:
                paint_kerbs(road, sides, keep_left, self.kerb_paint, rng)
            if keep_left:
                for ring in outlines(union(self.kerbside.islands)):
                    paint_stripes(ring, self.island_paint, 0.09)

    def _lay_ground(self, base: BaseGeometry) -> None:
        """Build the areas of the map, what is paved, and the surface."""
        town, rng, kerbside, layers = self.town, self.rng, self.kerbside, self.town.polygons
        island = union(kerbside.islands)
        streets = union([base, *kerbside.laybys]).difference(island)
        driveways = union([*kerbside.driveways, *self.lots.driveways])
        lots = union(self.lots.lots)
        ways = driveways.difference(lots).difference(streets)
        walks = lay_walks(self.blocks, self.network.roads, kerbside.laybys, driveways, lots, rng)
        self._add_segments(island)
        layers["drivable_area"] = [*layers["road_segment"], *parts(ways, 1.0)]
        layers["ped_crossing"] = _clean(self.approaches.crossings)
        layers["stop_line"] = _clean(self.approaches.stop_lines)
        layers["walkway"] = parts(walks.area, 2.0)
        layers["carpark_area"] = parts(lots, 20.0)
        for road in self.network.roads:
            for ahead in (True, False):
                for lane in range(road.lanes(ahead)):
                    outer = road.side(ahead) * (road.width / 2 - SHOULDER - lane * road.profile.lane_width)
                    inner = outer - road.side(ahead) * road.profile.lane_width
                    layers["lane"].append(Polygon(np.round(road.strip(*road.span, outer, inner), 3)))
        town.paved = union(parts(union([streets, ways, lots]), 1.0))
        town.bays = [*kerbside.bays, *self.lots.bays]
        town.footpaths, town.crossings = walks.paths, self.approaches.walks
        self.walks, self.streets = walks, streets
        self._build_surface(streets, ways, lots, walks)

    def _add_segments(self, island: BaseGeometry) -> None:
        """Add the road segments: the roads with their lay-bys, then the junctions."""
        layers, roads = self.town.polygons, self.network.roads
        recesses = shapely.STRtree(self.kerbside.laybys)
        segments: list[Polygon] = []
        for road, strip in zip(roads, self.strips, strict=True):
            own = [self.kerbside.laybys[i] for i in recesses.query(strip, predicate="intersects")]
            whole = union([strip, *own]) if own else strip
            segments += parts(whole.difference(island) if road.profile.median else whole, 2.0)
        crossings = [part for junction in self.network.junctions.values() for part in parts(junction, 2.0)]
        layers["road_segment"] = segments + crossings
        self.town.intersections = [False] * len(segments) + [True] * len(crossings)

    def _build_surface(self, streets: BaseGeometry, ways: BaseGeometry, lots: BaseGeometry, walks: Walks) -> None:
        """Build what lies on the ground, from bottom to top."""
        rng, surface = self.rng, self.town.surface
        surface += walks.surface
        kerb = self.town.paved.buffer(_KERB_WIDTH, quad_segs=2, join_style="mitre").difference(self.town.paved)
        surface += [(materials.KERB, p) for p in pieces(kerb, 0.5)]
        surface += self.kerb_paint.build()
        surface += [(materials.ASPHALT, p) for p in pieces(streets, 1.0)]
        for way in pieces(ways, 0.5):
            kinds = (materials.ASPHALT, materials.CONCRETE, materials.CARPARK, materials.COBBLE)
            surface.append((int(rng.choice(kinds, p=(0.35, 0.3, 0.25, 0.1))), way))
        for lot in pieces(lots, 1.0):
            kinds = (materials.CARPARK, materials.ASPHALT, materials.ASPHALT_OLD, materials.GRAVEL)
            surface.append((int(rng.choice(kinds, p=(0.6, 0.2, 0.15, 0.05))), lot))
        surface += self.below.build() + self.marks.build() + self.above.build()
        # Wear is added without regard to islands, which cover it.
        for island in self.kerbside.islands:
            top = int(rng.choice((materials.GRASS, materials.BED, materials.CONCRETE, materials.PAVING)))
            surface += [(materials.KERB, island), *((top, p) for p in pieces(island.buffer(-_KERB_WIDTH), 0.5))]
        surface += self.island_paint.build()

    def furnish(self, into: Furnisher) -> None:
        """Add everything that stands up."""
        town, rng, walks = self.town, self.rng, self.walks
        public = union([town.paved, *self.kerbside.islands, walks.area, walks.verges])
        # Close slivers between the parts, so that no front runs along them.
        public = public.buffer(0.2, quad_segs=1, join_style="mitre").buffer(-0.2, quad_segs=1, join_style="mitre")
        open_blocks = [block for block in self.blocks if block.use in (PARK, GREEN, PLAZA)]
        taken = union([public, *(block.area for block in open_blocks)])
        fronts = outlines(public, 30.0)
        # Not along driveways, which have no street lamps.
        kerbs = outlines(self.streets) + outlines(union(self.lots.lots))
        add_buildings(into, fronts, taken)
        add_enclosures(into, fronts, taken)
        for post in self.approaches.posts:
            if post.kind == "signal":
                into.add_signal(post.x, post.y, post.yaw)
            else:
                into.add_sign(post.x, post.y, post.yaw, int(rng.integers(1 << 16)))
        into.add_street_lamps(kerbs, town.paved)
        into.add_street_trees(kerbs, town.paved)
        # No benches or bins on islands.
        into.add_small_objects(outlines(union([self.streets, *self.kerbside.islands])), town.paved)
        for block in self.blocks:
            if block.use == PLAZA:
                into.add_groves(block.area, town.paved, 0.006, 1.5)
                into.add_benches(block.area, town.paved, 0.002)
            else:
                density = 0.0014 if block.is_rim else {PARK: 0.016, GREEN: 0.02}.get(block.use, 0.005)
                into.add_groves(block.area, public, density, 2.5 if block.use == BUILT else 1.2)
        town.solids, town.lamps = into.build()


def _clean(shapes: Iterable[Polygon]) -> list[Polygon]:
    """Return the valid parts of shapes, on the millimetre grid."""
    return [part for shape in shapes for part in parts(shape, 0.3)]
