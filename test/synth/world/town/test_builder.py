"""Built towns are whole and valid, and everything lies and stands in its place."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, Point, box

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_synth.world import materials
from bridgeta_synth.world.solids import BIN, FACADE, FENCE, HEDGE, LAMP, LAMPHEAD, POLE, SIGN, WALL
from bridgeta_synth.world.streets.shapes import rectangle
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

# (seed, split), whether traffic keeps right, junctions
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


def test_every_map_class_is_present(town: Town) -> None:
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


def test_unpaved_ground_lies_a_kerb_higher(town: Town) -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, town.canvas, (400, 2))
    step = town.height(places) - town.terrain.height(places)
    assert 0.12 <= town.kerb <= 0.18
    np.testing.assert_allclose(step, np.where(inside(town.paved, places), 0.0, town.kerb), atol=1e-9)


def test_lanes_and_paths_stay_half_a_car_from_the_kerb(town: Town) -> None:
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


def test_lamps_are_at_the_lamp_heads_above_the_ground(town: Town) -> None:
    heads = town.solids.place[town.solids.kind == LAMPHEAD]
    np.testing.assert_allclose(np.sort(town.lamps[:, 0]), np.sort(heads[:, 0]))
    above = town.lamps[:, 2] - town.height(town.lamps[:, :2])
    assert ((above > 4) & (above < 10)).all()


def test_scenes_start_away_from_the_rim(town: Town) -> None:
    outline = shapely.convex_hull(union_of(town, "road_segment"))
    assert outline.contains(town.interior)
    assert sum(town.interior.contains(Point(lane[len(lane) // 2])) for lane in town.lanes.lanes) >= 8


def test_dividers_of_the_map_are_painted(town: Town) -> None:
    """Paint lies within 35 cm of every divider; not everywhere along it, because of dashes and repairs."""
    paint = (materials.WHITE, materials.YELLOW, materials.WHITE_WORN, materials.YELLOW_WORN)
    lines = shapely.union_all([shape for material, shape in town.surface if material in paint])
    shapely.prepare(lines)
    for divider in [line for lines_of in town.lines.values() for line in lines_of]:
        places = shapely.line_interpolate_point(divider, np.arange(1.0, max(divider.length - 1.0, 1.5), 1.0))
        assert shapely.dwithin(lines, places, 0.35).mean() > 0.2


def test_roads_without_a_centre_line_have_no_road_divider() -> None:
    """Some two-way roads lack a centre line, and some marks look like a divider but are none."""
    bare, lookalikes = 0, 0
    for seed in range(2):
        town = build_town((seed, 2), 1, "boston-seaport", True, 0.0, 12)
        dividers = shapely.union_all(town.lines["road_divider"] + town.lines["lane_divider"])
        for index in (i for i, crossing in enumerate(town.intersections) if not crossing):
            bare += dividers.distance(town.polygons["road_segment"][index]) > 0.5
        for material, shape in town.surface:
            if material in (materials.REMOVED_PAINT, materials.SEAM, materials.TYRE) and shape.length > 8:
                lookalikes += shape.centroid.distance(dividers) > 0.3
    assert bare >= 2
    assert lookalikes > 30


def test_seed_split_and_index_decide_the_town() -> None:
    a, b, c, d = (build_town((7, split), index, "x", True, 1.0, 8) for split, index in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert all(p.equals_exact(q, 0) for (_, p), (_, q) in zip(a.surface, b.surface, strict=True))
    np.testing.assert_array_equal(a.solids.place, b.solids.place)
    np.testing.assert_array_equal(a.terrain.heights, b.terrain.heights)
    assert a.canvas != c.canvas
    assert a.canvas != d.canvas
