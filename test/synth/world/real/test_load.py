"""Towns from map expansions have the layers of the map, and the rest follows from them.

The expansion of a synthetic town serves as a map with known lanes, directions and areas; a real one is tested where it
is present.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, Point, Polygon

from bridgeta_core.data.maps.expansion import read_expansion, read_layers
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.map_expansion import build_expansion
from bridgeta_synth.world.materials import PAVING
from bridgeta_synth.world.real.load import load_town
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

CITY = "singapore-onenorth"
CITIES = [name for name, _ in facts.LOCATIONS]
SEED = (5, 0)


@pytest.fixture(scope="module")
def source() -> Town:
    return build_town(SEED, 0, CITY, False, junctions=14)


def write(root: Path, source: Town, recorded: bool) -> Path:
    content = build_expansion(source, SEED)
    if not recorded:
        content |= {"arcline_path_3": {}, "connectivity": {}, "lane_connector": []}
    path = root / "maps" / "expansion" / f"{source.location}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def recorded_root(tmp_path_factory: pytest.TempPathFactory, source: Town) -> Path:
    return write(tmp_path_factory.mktemp("recorded"), source, True)


@pytest.fixture(scope="module")
def bare_root(tmp_path_factory: pytest.TempPathFactory, source: Town) -> Path:
    return write(tmp_path_factory.mktemp("bare"), source, False)


@pytest.fixture(scope="module")
def town(recorded_root: Path) -> Town:
    return load_town(recorded_root, CITY, SEED, 0, extent=2000.0)


@pytest.fixture(scope="module")
def bare_town(bare_root: Path) -> Town:
    return load_town(bare_root, CITY, SEED, 0, extent=2000.0)


def test_a_town_written_and_loaded_has_the_same_layers(source: Town, town: Town) -> None:
    assert town.canvas == source.canvas
    assert town.driving_side == source.driving_side
    for name, shapes in source.polygons.items():
        area, loaded = (shapely.union_all(found, grid_size=0.001) for found in (shapes, town.polygons[name]))
        assert loaded.area == pytest.approx(area.area, rel=1e-3), name
        assert shapely.symmetric_difference(area, loaded, grid_size=0.001).area < 2e-3 * area.area + 0.5, name
    for name, lines in source.lines.items():
        length = sum(line.length for line in lines)
        assert sum(line.length for line in town.lines[name]) == pytest.approx(length, rel=1e-4), name
    assert sum(town.intersections) == sum(source.intersections)
    assert len(town.intersections) == len(town.polygons["road_segment"])


def test_all_layers_are_valid(town: Town) -> None:
    for name, shapes in [*town.polygons.items(), *town.lines.items()]:
        assert shapely.is_valid(shapes).all(), name
        assert not shapely.is_empty(shapes).any(), name


def test_recorded_lanes_are_those_that_were_written(source: Town, town: Town) -> None:
    assert len(town.lanes.lanes) == len(source.lanes.lanes)
    for loaded, written in zip(town.lanes.lanes, source.lanes.lanes, strict=True):
        assert LineString(loaded).hausdorff_distance(LineString(written)) < 0.05
        np.testing.assert_allclose(loaded[[0, -1]], written[[0, -1]], atol=1e-3)
    for loaded, written in zip(town.lanes.successors, source.lanes.successors, strict=True):
        assert {j for j, _ in loaded} <= {j for j, _ in written}


def test_outlines_give_lanes_and_directions_without_records(source: Town, bare_town: Town) -> None:
    written = [LineString(lane) for lane in source.lanes.lanes]
    tree = shapely.STRtree(written)
    found, wrong = set(), 0
    for lane in bare_town.lanes.lanes:
        nearest = int(tree.nearest(Point(lane[len(lane) // 2])))
        assert shapely.distance(written[nearest], shapely.points(lane)).max() < 0.3
        found.add(nearest)
        start, end = (written[nearest].project(Point(p)) for p in lane[[0, -1]])
        wrong += start > end
    assert len(found) > 0.95 * len(written)
    assert wrong < 0.03 * len(found)
    leads_on = [bool(follow) for follow in bare_town.lanes.successors]
    assert np.mean(leads_on) > 0.95


@pytest.mark.parametrize("which", ["town", "bare_town"])
def test_paths_lead_from_lane_to_lane(which: str, request: pytest.FixtureRequest) -> None:
    town: Town = request.getfixturevalue(which)
    for lane, follow in zip(town.lanes.lanes, town.lanes.successors, strict=True):
        for j, path in follow:
            np.testing.assert_allclose(path[[0, -1]], [lane[-1], town.lanes.lanes[j][0]], atol=1e-3)
    road = town.paved.buffer(0.5)
    lanes = shapely.linestrings(np.concatenate(town.lanes.lanes))
    assert shapely.length(lanes.intersection(road)) > 0.9 * shapely.length(shapely.linestrings(town.lanes.lanes[0]))


def test_routes_go_on_through_the_town(town: Town, bare_town: Town) -> None:
    for each in (town, bare_town):
        rng = np.random.default_rng(1)
        lengths = [len(each.lanes.draw_route(lane, 300.0, rng)) / 2 for lane in range(0, len(each.lanes.lanes), 9)]
        assert np.median(lengths) > 299


def test_equal_seeds_give_equal_towns_and_others_do_not(recorded_root: Path) -> None:
    one, again, other = (load_town(recorded_root, CITY, (seed, 0), 0, extent=300.0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.solids.place, again.solids.place)
    np.testing.assert_array_equal(one.terrain.heights, again.terrain.heights)
    assert [(material, shape.wkb) for material, shape in one.surface] == [(m, shape.wkb) for m, shape in again.surface]
    assert not np.array_equal(one.solids.place, other.solids.place)


def test_a_window_has_the_citys_coordinates(recorded_root: Path, town: Town) -> None:
    part = load_town(recorded_root, CITY, SEED, 0, extent=300.0)
    assert part.canvas == town.canvas
    x0, y0, x1, y1 = shapely.union_all(part.polygons["drivable_area"]).bounds
    assert 200 < x1 - x0 <= 300
    assert 200 < y1 - y0 <= 300
    window = shapely.box(x0, y0, x1, y1)
    whole = shapely.union_all(town.polygons["drivable_area"]).intersection(window)
    assert shapely.union_all(part.polygons["drivable_area"]).area == pytest.approx(whole.area, rel=1e-3)
    assert window.contains(part.interior)
    assert all(window.buffer(1e-6).contains(LineString(lane)) for lane in part.lanes.lanes)
    # The hills reach around the window, not around the city.
    low = np.array(part.terrain.origin)
    high = low + part.terrain.step * (np.array(part.terrain.heights.shape[::-1]) - 1)
    assert (low < (x0, y0)).all()
    assert (high > (x1, y1)).all()


def test_nothing_stands_on_the_road(town: Town) -> None:
    inner = town.paved.buffer(-0.1)
    shapely.prepare(inner)
    base = town.solids.z - town.height(town.solids.place[:, :2])
    standing = base < 1.0
    assert standing.sum() > 500
    assert not shapely.contains_xy(inner, town.solids.place[standing, :2]).any()


def test_people_walk_on_walkways_and_cross_from_kerb_to_kerb(town: Town) -> None:
    walkways = shapely.union_all(town.polygons["walkway"]).buffer(0.01)
    points = np.concatenate(town.footpaths)
    assert shapely.contains_xy(walkways, points).mean() > 0.99
    assert not shapely.contains_xy(town.paved, points).any()
    assert len(town.crossings) == len(town.polygons["ped_crossing"])
    ends = np.array([line[[0, -1]] for line in town.crossings]).reshape(-1, 2)
    assert shapely.contains_xy(town.paved.buffer(-0.3), ends).mean() < 0.1


def test_bays_lie_in_car_parks(town: Town) -> None:
    carparks = shapely.union_all(town.polygons["carpark_area"]).buffer(0.1)
    assert len(town.bays) > 10
    assert all(carparks.contains(Point(bay.x, bay.y)) for bay in town.bays)


def test_missing_walkways_are_seen_but_not_written(
    tmp_path: Path, source: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(source.polygons, "walkway", [])
    town = load_town(write(tmp_path, source, True), CITY, SEED, 0, extent=300.0)
    assert town.polygons["walkway"] == []
    assert town.footpaths
    assert any(material >= PAVING for material, _ in town.surface)
    content = build_expansion(town, SEED)
    assert content["walkway"] == []
    assert len(read_layers(content, ["drivable_area"])["drivable_area"]) == len(town.polygons["drivable_area"])


def test_an_unknown_city_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match="atlantis") as error:
        load_town(tmp_path, "atlantis", SEED, 0)
    assert CITY in str(error.value)


def test_an_absent_expansion_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match="map expansion is missing"):
        load_town(tmp_path, CITY, SEED, 0)


@pytest.mark.parametrize("location", CITIES)
def test_a_real_window_has_the_citys_layers(real_root: Path, location: str) -> None:
    town = load_town(real_root, location, SEED, 0, extent=300.0)
    assert len(town.lanes.lanes) > 10
    shapes = read_layers(read_expansion(real_root, location), ["drivable_area", "lane"])
    x0, y0 = np.array(town.terrain.origin) + 240
    window = shapely.box(x0, y0, x0 + 300, y0 + 300)
    for name, expected in shapes.items():
        real = shapely.union_all(shapely.intersection(expected, window), grid_size=0.001)
        loaded = shapely.union_all(town.polygons[name], grid_size=0.001)
        assert loaded.area == pytest.approx(real.area, rel=2e-3)
    assert len(build_expansion(town, SEED)["lane"]) == len(town.polygons["lane"])


@pytest.mark.parametrize("location", CITIES[:2])
def test_real_road_dividers_lie_on_the_inner_side_of_lanes(real_root: Path, location: str) -> None:
    town = load_town(real_root, location, SEED, 0, extent=600.0)
    dividers = shapely.union_all(town.lines["road_divider"])
    agree = []
    for lane in town.lanes.lanes:
        middle = len(lane) // 2
        way = lane[min(middle + 1, len(lane) - 1)] - lane[max(middle - 1, 0)]
        nearest = np.asarray(shapely.shortest_line(Point(lane[middle]), dividers).coords)[1] - lane[middle]
        side = way[0] * nearest[1] - way[1] * nearest[0]
        if np.hypot(*nearest) < 2.5 and abs(side) > 0.8 * np.hypot(*way) * np.hypot(*nearest):
            agree.append(side * town.driving_side > 0)
    assert len(agree) > 3
    assert np.mean(agree) > 0.9


def test_real_windows_differ_by_seed(real_root: Path) -> None:
    lows = {load_town(real_root, CITIES[0], (seed, 0), 0, extent=120.0).terrain.origin for seed in range(3)}
    assert len(lows) > 1


def test_polygons_across_the_border_are_cut_into_valid_parts(recorded_root: Path) -> None:
    part = load_town(recorded_root, CITY, SEED, 0, extent=180.0)
    assert all(isinstance(shape, Polygon) and shape.is_valid for shapes in part.polygons.values() for shape in shapes)
    assert all(isinstance(line, LineString) for lines in part.lines.values() for line in lines)
