"""Towns: whole, valid, and what lies and stands where."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, Point, box

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_synth.world import materials
from bridgeta_synth.world.solids import BIN, FACADE, FENCE, HEDGE, LAMP, LAMPHEAD, POLE, SIGN, WALL
from bridgeta_synth.world.streets.marking import DASHED, DOUBLE, SOLID, Marks, arrow, bicycle, place_symbol
from bridgeta_synth.world.streets.shapes import outlines, parts, rectangle
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.buildings import add_buildings, add_enclosures
from bridgeta_synth.world.town.street_furniture import Furnisher
from bridgeta_synth.world.town.town import Town

# (seed, split), location, traffic keeps right, junctions
_TOWNS = (
    ((0, 0), True, 16),
    ((2, 1), True, 12),
    ((1, 0), False, 12),
    ((5, 2), False, 16),
)


@pytest.fixture(scope="module", params=_TOWNS, ids=lambda p: f"seed{p[0]}")
def town(request: pytest.FixtureRequest) -> Town:
    seed, keep_right, junctions = request.param
    return build_town(seed, 0, "boston-seaport", keep_right, 1.0, junctions)


def union_of(town: Town, layer: str) -> shapely.Geometry:
    whole = shapely.union_all(town.polygons[layer])
    shapely.prepare(whole)
    return whole


def inside(area: shapely.Geometry, points: np.ndarray) -> np.ndarray:
    return shapely.contains_xy(area, points[:, 0], points[:, 1])


def test_all_shapes_are_valid_and_within_the_canvas(town: Town) -> None:
    canvas = box(0, 0, *town.canvas)
    for shapes in (*town.polygons.values(), *town.lines.values()):
        assert all(shape.is_valid and not shape.is_empty and canvas.contains(shape) for shape in shapes)
    assert all(shape.is_valid and not shape.is_empty for _, shape in town.surface)
    assert town.paved.is_valid
    assert canvas.contains(town.paved)
    assert {material for material, _ in town.surface} <= set(range(len(materials.MATERIALS)))


def test_every_class_is_there(town: Town) -> None:
    for map_class in CLASSES:
        assert any(len(town.polygons.get(name, ())) + len(town.lines.get(name, ())) for name in map_class.layers)


def test_drivable_ground_is_paved_and_walkways_are_not(town: Town) -> None:
    drivable, paved = union_of(town, "drivable_area"), town.paved
    assert drivable.difference(paved).area < 1e-3 * drivable.area
    walkways = union_of(town, "walkway")
    assert walkways.intersection(paved).area < 0.01 * walkways.area
    for layer in ("lane", "ped_crossing", "stop_line", "road_segment"):
        area = union_of(town, layer)
        # Islands between the directions are left out of lanes, not of crossings.
        assert area.difference(drivable).area < 0.01 * area.area, layer


def test_the_kerb_lifts_all_that_is_not_paved(town: Town) -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, town.canvas, (400, 2))
    step = town.height(places) - town.terrain.height(places)
    assert 0.12 <= town.kerb <= 0.18
    np.testing.assert_allclose(step, np.where(inside(town.paved, places), 0.0, town.kerb), atol=1e-9)


def test_lanes_and_the_ways_between_them_stay_a_car_s_half_width_from_the_kerb(town: Town) -> None:
    room = town.paved.buffer(-0.85)
    shapely.prepare(room)
    paths = [*town.lanes.lanes, *(path for ways in town.lanes.successors for _, path in ways)]
    assert inside(room, np.concatenate(paths)).mean() > 0.995
    assert len(town.polygons["lane"]) == len(town.lanes.lanes)
    for area, lane in zip(town.polygons["lane"], town.lanes.lanes, strict=True):
        assert area.contains(LineString(lane[2:-2]))


def test_people_walk_on_walkways_and_cross_from_kerb_to_kerb(town: Town) -> None:
    walkways = union_of(town, "walkway").buffer(0.05)
    shapely.prepare(walkways)
    # The rest leads over driveways.
    assert inside(walkways, np.concatenate(town.footpaths)).mean() > 0.85
    crossings = union_of(town, "ped_crossing").buffer(0.2)
    for line in town.crossings:
        assert crossings.contains(LineString(line))
        assert max(town.paved.boundary.distance(Point(end)) for end in line[[0, -1]]) < 0.1


def test_bays_are_paved_and_apart(town: Town) -> None:
    bays = shapely.polygons([np.asarray(rectangle(b.x, b.y, b.yaw, 4.4, 1.8).exterior.coords) for b in town.bays])
    assert shapely.contains(town.paved.buffer(0.05), bays).all()
    first, second = shapely.STRtree(bays).query(bays, predicate="intersects")
    assert (first == second).all()
    lots = union_of(town, "carpark_area")
    assert [lots.contains(Point(b.x, b.y)) for b in town.bays] == [not b.kerbside for b in town.bays]


def test_nothing_stands_on_the_road_and_houses_stand_apart(town: Town) -> None:
    solids = town.solids
    feet = shapely.polygons(solids.corners()[:, :4, :2])
    for kind in (FACADE, FENCE, BIN, LAMP, SIGN):
        on_road = shapely.area(shapely.intersection(feet[solids.kind == kind], town.paved))
        assert (on_road < 0.05).all(), kind
    # What stands on a house has its middle on it.
    ground = solids.z - town.height(solids.place[:, :2]) < 0.5
    houses = feet[(solids.kind == FACADE) & ground]
    first, second = shapely.STRtree(houses).query(houses, predicate="intersects")
    assert (shapely.area(shapely.intersection(houses[first], houses[second]))[first != second] < 0.01).all()


def test_no_solid_floats(town: Town) -> None:
    """Houses, walls and hedges reach the lowest ground below their corners, poles that at their middle."""
    solids, corners = town.solids, town.solids.corners()[:, :4]
    low = town.height(corners[..., :2]).min(axis=1)
    middle = town.height(solids.place[:, :2])
    for kind in (WALL, HEDGE, FENCE):
        chosen = solids.kind == kind
        assert (solids.z[chosen] <= low[chosen] + 1e-6).all()
    houses = (solids.kind == FACADE) & (solids.z < middle + 0.01)
    assert (solids.z[houses] <= low[houses] + 1e-6).all()
    standing = (solids.kind == POLE) & (solids.height > 1.5)
    assert (solids.z[standing] <= middle[standing] + 0.01).all()


def test_lamps_hang_over_the_ground_at_their_heads(town: Town) -> None:
    heads = town.solids.place[town.solids.kind == LAMPHEAD]
    np.testing.assert_allclose(np.sort(town.lamps[:, 0]), np.sort(heads[:, 0]))
    above = town.lamps[:, 2] - town.height(town.lamps[:, :2])
    assert ((above > 4) & (above < 10)).all()


def test_scenes_start_away_from_the_rim(town: Town) -> None:
    outline = shapely.convex_hull(union_of(town, "road_segment"))
    assert outline.contains(town.interior)
    assert sum(town.interior.contains(Point(lane[len(lane) // 2])) for lane in town.lanes.lanes) >= 8


def test_dividers_are_painted_where_the_map_has_them_but_for_repairs(town: Town) -> None:
    """Paint lies within 35 cm of every divider; not everywhere along it, since dashes leave gaps."""
    paint = (materials.WHITE, materials.YELLOW, materials.WHITE_WORN, materials.YELLOW_WORN)
    lines = shapely.union_all([shape for material, shape in town.surface if material in paint])
    shapely.prepare(lines)
    for divider in [line for lines_of in town.lines.values() for line in lines_of]:
        places = shapely.line_interpolate_point(divider, np.arange(1.0, max(divider.length - 1.0, 1.5), 1.0))
        assert shapely.dwithin(lines, places, 0.35).mean() > 0.2


def test_a_road_without_a_centre_line_has_no_road_divider_and_no_paint_there() -> None:
    """Over some towns there are two-way roads without one, and what looks like a divider but is none."""
    bare, ghosts = 0, 0
    for seed in range(2):
        town = build_town((seed, 2), 1, "boston-seaport", True, 0.0, 12)
        dividers = shapely.union_all(town.lines["road_divider"] + town.lines["lane_divider"])
        for index in (i for i, crossing in enumerate(town.intersections) if not crossing):
            bare += dividers.distance(town.polygons["road_segment"][index]) > 0.5
        for material, shape in town.surface:
            if material in (materials.REMOVED_PAINT, materials.SEAM, materials.TYRE) and shape.length > 8:
                ghosts += shape.centroid.distance(dividers) > 0.3
    assert bare >= 2
    assert ghosts > 30


def test_equal_seeds_give_equal_towns_and_splits_and_indices_others() -> None:
    a, b, c, d = (build_town((7, split), index, "x", True, 1.0, 8) for split, index in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert all(p.equals_exact(q, 0) for (_, p), (_, q) in zip(a.surface, b.surface, strict=True))
    np.testing.assert_array_equal(a.solids.place, b.solids.place)
    np.testing.assert_array_equal(a.terrain.heights, b.terrain.heights)
    assert a.canvas != c.canvas
    assert a.canvas != d.canvas


def test_lines_are_painted_in_their_styles() -> None:
    points = np.stack((np.arange(0.0, 31.0), np.zeros(31)), axis=1)
    expected = {SOLID: 30.0, DOUBLE: 60.0, DASHED: 4 * 3.0}
    for style, length in expected.items():
        marks = Marks(np.random.default_rng(0))
        marks.paint(points, style, materials.WHITE, 0.0, 0.1)
        built = marks.build()
        assert {material for material, _ in built} == {materials.WHITE}
        assert sum(shape.area for _, shape in built) == pytest.approx(0.1 * length, rel=1e-6)
    worn = Marks(np.random.default_rng(0))
    worn.paint(points, SOLID, materials.YELLOW, 1.0)
    assert {material for material, _ in worn.build()} == {materials.YELLOW_WORN}


def test_symbols_point_along_the_lane() -> None:
    left, right = arrow(frozenset({"left"})), arrow(frozenset({"right"}))
    assert left.centroid.y > 0 > right.centroid.y
    assert arrow(frozenset({"straight"})).bounds[2] > 1.9
    turned = place_symbol(left, 10.0, 5.0, np.pi)
    assert turned.centroid.y < 5
    assert turned.area == pytest.approx(left.area)
    assert all(piece.is_valid for piece in bicycle())


def test_outlines_have_the_area_on_their_left() -> None:
    area = box(0, 0, 40, 30).difference(box(10, 10, 30, 20))
    rings = outlines(area)
    assert len(rings) == 2
    for ring in rings:
        way = ring[6] - ring[5]
        left = ring[5] + 0.5 * np.array((-way[1], way[0]))
        assert area.contains(Point(left))


def test_parts_lie_on_the_millimetre_grid_and_are_valid() -> None:
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10.00049)])
    found = parts(bow_tie)
    assert all(p.is_valid for p in found)
    corners = np.concatenate([np.asarray(p.exterior.coords) for p in found])
    np.testing.assert_allclose(corners, np.round(corners, 3), atol=1e-9)


def test_a_furnisher_needs_no_town() -> None:
    """Along the outline of any area it builds on the outside, on the ground that it is told of."""
    area = box(0, 0, 120, 60)
    into = Furnisher(lambda xy: 5.0 + 0.05 * xy[..., 0], np.random.default_rng(3))
    add_buildings(into, outlines(area), area)
    add_enclosures(into, outlines(area), area)
    into.add_street_lamps(outlines(area), area)
    into.add_street_trees(outlines(area), area)
    into.add_small_objects(outlines(area), area)
    into.add_signal(3.0, -1.0, 0.0)
    solids, lamps = into.build()
    feet = shapely.polygons(solids.corners()[:, :4, :2])
    houses = solids.kind == FACADE
    assert houses.sum() > 8
    assert len(lamps)
    assert (shapely.area(shapely.intersection(feet[houses], area)) < 0.01).all()
    walls = np.isin(solids.kind, (WALL, HEDGE, FENCE))
    low = (5.0 + 0.05 * solids.corners()[walls, :4, 0]).min(axis=1)
    assert (solids.z[walls] <= low + 1e-6).all()
    # A signal's lamps are on its back: its front looks away from where it faces.
    signal = solids.take(solids.kind == LAMP)
    np.testing.assert_allclose(signal.axes[0, :2, 0], (-1.0, 0.0), atol=1e-9)
