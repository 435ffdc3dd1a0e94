"""The blocks between the streets: their use, the walkways around them, verges, plazas and parks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry import LineString, Point, Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from bridgeta_synth.world import materials
from bridgeta_synth.world.streets.layouts import Layout
from bridgeta_synth.world.streets.roads import Road
from bridgeta_synth.world.streets.shapes import Points, lines_of, parts, pieces, union

BUILT, PARK, PLAZA, CARPARK, GREEN = "built", "park", "plaza", "carpark", "green"
_SMALL = 1500.0
_RIM = 90.0
# Shares of the grounds of yards, of the country around the town and of squares.
_YARDS = {
    materials.GRASS: 0.22,
    materials.DIRT: 0.07,
    materials.CONCRETE: 0.10,
    materials.GRAVEL: 0.07,
    materials.PAVING: 0.07,
    materials.ASPHALT_OLD: 0.04,
    materials.BED: 0.04,
}
_FIELDS = {materials.DIRT: 0.08, materials.BED: 0.10, materials.GRAVEL: 0.03}
_SQUARES = {materials.PAVING: 0.15, materials.CONCRETE: 0.12, materials.BRICK: 0.12, materials.COBBLE: 0.1}


@dataclass(frozen=True, eq=False)
class Block:
    """The ground that streets enclose, or (`is_rim`) the ground around the town.

    `walk` is the width of the walkway along its kerbs and `verge` that of the strip of grass that lies between kerb and
    path on some sides, both in metres. `ground` and `paving` are the materials of its inside and of its walkways.
    """

    area: Polygon
    use: str
    walk: float
    verge: float
    ground: int
    paving: int
    is_rim: bool = False

    @property
    def inside(self) -> BaseGeometry:
        """The block without its walkway."""
        inner = self.area.buffer(-self.walk, quad_segs=3)
        return inner.intersection(box(*self.area.bounds).buffer(-self.walk - 0.5)) if self.is_rim else inner


def draw_blocks(streets: BaseGeometry, layout: Layout, rng: np.random.Generator) -> list[Block]:
    """Draw the blocks of a town, the ground around it last."""
    areas = [Polygon(hole) for street in shapely.get_parts(streets) for hole in street.interiors]
    filled = union(Polygon(street.exterior) for street in shapely.get_parts(streets))
    rim = box(*filled.bounds).buffer(_RIM, join_style="mitre").difference(filled)
    blocks = [_draw_block(area, layout, rng, False) for area in areas if area.area > 60]
    return blocks + [_draw_block(area, layout, rng, True) for area in parts(rim, 1000.0)]


def _draw_block(area: Polygon, layout: Layout, rng: np.random.Generator, is_rim: bool) -> Block:
    draw = float(rng.random())
    bounds = np.cumsum((layout.parks, layout.plazas, layout.carparks))
    use = (PARK, PLAZA, CARPARK, BUILT)[int(np.searchsorted(bounds, draw, side="right"))]
    if is_rim:
        use = BUILT
    elif area.area < _SMALL:
        use = PLAZA if draw < 0.12 else GREEN
    elif area.area > 9000 and use == PLAZA:
        use = BUILT
    walk = float(rng.uniform(1.6, 2.7) if rng.random() < 0.5 else rng.uniform(2.7, 4.6))
    verge = float(rng.uniform(0.8, min(2.2, walk - 1.5))) if walk > 2.6 else 0.0
    grounds = {PARK: (materials.GRASS,), GREEN: (materials.GRASS, materials.BED), PLAZA: (materials.PAVING,)}
    built = (materials.GRASS, materials.GRASS, materials.GRASS, materials.DIRT, materials.CONCRETE)
    ground = materials.GRASS if is_rim or area.area > 12000 else int(rng.choice(grounds.get(use, built)))
    kinds = (materials.PAVING, materials.CONCRETE, materials.BRICK, materials.COBBLE, materials.ASPHALT_OLD)
    paving = int(rng.choice(kinds, p=(0.42, 0.3, 0.12, 0.06, 0.1)))
    return Block(area, use, walk, verge, ground, paving, is_rim)


@dataclass(eq=False)
class Walks:
    """Walkways, verges, lines to walk along (`paths`), and ground and paving from bottom to top (`surface`)."""

    area: BaseGeometry
    verges: BaseGeometry
    surface: list[tuple[int, Polygon]] = field(default_factory=list)
    paths: list[Points] = field(default_factory=list)


def lay_walks(
    blocks: list[Block],
    roads: tuple[Road, ...],
    laybys: list[Polygon],
    driveways: BaseGeometry,
    lots: BaseGeometry,
    rng: np.random.Generator,
) -> Walks:
    """Lay walkways around all blocks except along some roads, clear of lay-bys, driveways and lots."""
    without, verges = _draw_roadsides(blocks, roads, rng)
    recesses = STRtree(laybys)
    rings: list[tuple[Block, BaseGeometry]] = []
    paths: list[Points] = []
    surface: list[tuple[int, Polygon]] = []
    none, closed = union(without), union([lots.buffer(0.3), *without])
    shapely.prepare(closed)
    taken = union([none, lots, driveways.buffer(0.05)])
    for block in blocks:
        own = [laybys[i] for i in recesses.query(block.area)]
        edge = block.area.difference(union(own)) if own else block.area
        inner = edge.buffer(-block.walk, quad_segs=3)
        if block.is_rim:
            inner = inner.union(block.area.difference(box(*block.area.bounds).buffer(-block.walk - 0.5)))
        whole = block.use == PLAZA
        ring = edge if whole else edge.difference(inner)
        if block.use == PARK:
            ring = union([ring, *_draw_park_paths(block, inner, rng, paths)])
        rings.append((block, ring))
        middle = block.verge + (block.walk - block.verge) / 2
        line = edge.buffer(-middle, quad_segs=3).boundary
        if block.is_rim:
            line = line.intersection(box(*block.area.bounds).buffer(-block.walk - 1.0))
        paths += lines_of(line.difference(closed), 12.0)
        if whole and block.area.area > _SMALL:
            paths += _draw_plaza_paths(block, rng)
    strips = union(verges).difference(union([driveways.buffer(0.3), *(recess.buffer(2.4) for recess in laybys)]))
    laid: list[Polygon] = []
    for block, ring in rings:
        surface.append((block.ground, block.area))
        if block.use in (BUILT, CARPARK):
            surface += draw_plots(block.area, _FIELDS if block.is_rim else _YARDS, rng, 34.0 if block.is_rim else 19.0)
        for piece in parts(ring.difference(taken).difference(strips), 2.0):
            laid.append(piece)
            surface.append((block.paving, piece))
        if block.use == PLAZA and block.area.area > _SMALL:
            surface += draw_plots(block.area.buffer(-block.walk), _SQUARES, rng, 11.0)
    areas = [block.area for block in blocks]
    green = pieces(strips.intersection(union(areas)), 1.0)
    beds = rng.random(len(green)) < 0.3
    surface += [(materials.BED if bed else materials.GRASS, p) for p, bed in zip(green, beds, strict=True)]
    return Walks(union(laid), union(green), surface, paths)


def draw_plots(
    area: BaseGeometry, shares: dict[int, float], rng: np.random.Generator, size: float
) -> list[tuple[int, Polygon]]:
    """Draw pieces of an area, about `size` metres wide with straight borders: (material, piece).

    `shares` gives the share of the pieces per material; the rest stays free.
    """
    if area.is_empty:
        return []
    low_x, low_y, high_x, high_y = area.bounds
    x, y = np.meshgrid(
        np.arange(low_x - size, high_x + 2 * size, size), np.arange(low_y - size, high_y + 2 * size, size)
    )
    places = np.stack((x, y), axis=-1).reshape(-1, 2)
    places = places + rng.uniform(-0.4, 0.4, places.shape) * size
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(places)))
    # GEOS promises no order of the cells.
    cells = cells[np.lexsort(shapely.bounds(cells).T[:2])]
    shapely.prepare(area)
    cells = cells[shapely.intersects(area, cells)]
    cells = cells[rng.random(len(cells)) < sum(shares.values())]
    chances = np.array(list(shares.values())) / sum(shares.values())
    kinds = rng.choice(list(shares), len(cells), p=chances).tolist()
    pieces, owner = shapely.get_parts(shapely.intersection(cells, area), return_index=True)
    return [(kinds[i], piece) for i, piece in zip(owner, pieces, strict=True) if isinstance(piece, Polygon)]


def _draw_roadsides(
    blocks: list[Block], roads: tuple[Road, ...], rng: np.random.Generator
) -> tuple[list[Polygon], list[Polygon]]:
    """Draw the strips beside roads without a walkway, and the strips of grass between kerb and path."""
    tree = STRtree([block.area for block in blocks])
    without, verges = [], []
    for road in roads:
        half, (s0, s1) = road.width / 2, road.span
        for side in (1, -1):
            x, y, _ = road.pose((s0 + s1) / 2, side * (half + 1.0))
            beside = [i for i in tree.query(Point(x, y)) if blocks[i].area.contains(Point(x, y))]
            kind = rng.random()
            if not beside:
                continue
            block = blocks[beside[0]]
            if kind > road.profile.walkway:
                without.append(Polygon(road.strip(s0 + 1, s1 - 1, side * (half - 0.5), side * (half + 6 + block.walk))))
            elif block.verge and kind < road.profile.verge * road.profile.walkway and s1 - s0 > 20:
                verges.append(Polygon(road.strip(s0 + 4, s1 - 4, side * (half - 0.2), side * (half + block.verge))))
    return [w for w in without if w.is_valid], [v for v in verges if v.is_valid]


def _draw_park_paths(
    block: Block, inner: BaseGeometry, rng: np.random.Generator, paths: list[Points]
) -> list[BaseGeometry]:
    """Draw one or two paths across a park, from corner to corner of its walkway; their lines go to `paths`."""
    ring = np.asarray(block.area.exterior.coords)
    areas = []
    for _ in range(int(rng.integers(1, 3))):
        start = int(rng.integers(len(ring)))
        distance = np.hypot(*(ring - ring[start]).T)
        line = LineString([ring[start], ring[int(np.argmax(distance))]]).intersection(inner.buffer(1.0))
        for piece in lines_of(line, 15.0):
            paths.append(piece)
            areas.append(LineString(piece).buffer(float(rng.uniform(1.0, 1.7)), cap_style="flat"))
    return areas


def _draw_plaza_paths(block: Block, rng: np.random.Generator) -> list[Points]:
    """Draw lines that people walk across a plaza."""
    corners = np.asarray(block.area.buffer(-2.0).exterior.coords)
    lines: list[Points] = []
    for _ in range(4):
        a, b = corners[rng.integers(len(corners), size=2)]
        lines += lines_of(LineString([a, b]).intersection(block.area.buffer(-1.5)), 12.0)
    return lines
