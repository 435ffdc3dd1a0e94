"""Map files: the expansion as the devkit reads it, and lanes as arcs."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.map_expansion.arcline_path_utils import discretize_lane, length_of_lane
from nuscenes.map_expansion.map_api import NuScenesMap
from shapely.geometry import LineString, Polygon, box

from bridgeta_synth.dataset.map_expansion import build_expansion, fit_arcs, outline_connector
from bridgeta_synth.world.streets.shapes import arc_length
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import AREA_LAYERS, Town

SEED = (3, 0)
LOCATION = "singapore-onenorth"


@pytest.fixture(scope="module")
def devkit(map_root: Path) -> NuScenesMap:
    return NuScenesMap(str(map_root), LOCATION)


def ring_of(devkit: NuScenesMap, token: str) -> Polygon:
    record = devkit.get("polygon", token)
    corner = [(devkit.get("node", t)["x"], devkit.get("node", t)["y"]) for t in record["exterior_node_tokens"]]
    holes = [
        [(devkit.get("node", t)["x"], devkit.get("node", t)["y"]) for t in hole["node_tokens"]]
        for hole in record["holes"]
    ]
    return Polygon(corner, holes)


@pytest.mark.parametrize("layer", AREA_LAYERS)
def test_the_devkit_reads_the_areas_to_the_millimetre(town: Town, devkit: NuScenesMap, layer: str) -> None:
    records = getattr(devkit, layer)
    shapes = town.polygons[layer]
    assert len(records) == len(shapes) > 0
    for record, shape in zip(records, shapes, strict=True):
        tokens = record["polygon_tokens"] if layer == "drivable_area" else [record["polygon_token"]]
        read = ring_of(devkit, *tokens)
        assert read.is_valid
        assert read.hausdorff_distance(shape) < 2e-3


@pytest.mark.parametrize("layer", ["road_divider", "lane_divider"])
def test_the_devkit_reads_the_lines_to_the_millimetre(town: Town, devkit: NuScenesMap, layer: str) -> None:
    records = getattr(devkit, layer)
    assert len(records) == len(town.lines[layer]) > 0
    for record, line in zip(records, town.lines[layer], strict=True):
        assert devkit.extract_line(record["line_token"]).hausdorff_distance(line) < 2e-3


def test_records_refer_to_existing_records_nearby(town: Town, devkit: NuScenesMap) -> None:
    for record in devkit.road_segment:
        devkit.get("drivable_area", record["drivable_area_token"])
    for layer in ("ped_crossing", "road_divider"):
        for record in getattr(devkit, layer):
            devkit.get("road_segment", record["road_segment_token"])
    before_crossings = [record for record in devkit.stop_line if record["ped_crossing_tokens"]]
    assert before_crossings
    for record in before_crossings:
        stop = ring_of(devkit, record["polygon_token"])
        for token in record["ped_crossing_tokens"]:
            assert stop.distance(ring_of(devkit, devkit.get("ped_crossing", token)["polygon_token"])) < 1.6
    assert sum(record["is_intersection"] for record in devkit.road_segment) == sum(town.intersections) > 0


def test_tokens_are_unique(town: Town) -> None:
    content = build_expansion(town, SEED)
    tokens = [
        record["token"]
        for records in content.values()
        if isinstance(records, list)
        for record in records[:9999]
        if isinstance(record, dict)
    ]
    assert len(tokens) == len(set(tokens))


def test_centre_lines_read_by_the_devkit_are_the_lanes(town: Town, devkit: NuScenesMap) -> None:
    for record, lane in zip(devkit.lane, town.lanes.lanes, strict=True):
        arcs = devkit.get_arcline_path(record["token"])
        points = np.array(discretize_lane(arcs, 0.5))[:, :2]
        assert shapely.distance(LineString(lane), shapely.points(points)).max() < 0.03
        assert length_of_lane(arcs) == pytest.approx(arc_length(lane)[-1], rel=1e-3)
        np.testing.assert_allclose(points[[0, -1]], lane[[0, -1]], atol=1e-3)


def test_connectors_lead_from_lane_to_lane(town: Town, devkit: NuScenesMap) -> None:
    tokens = [record["token"] for record in devkit.lane]
    for lane, ways in enumerate(town.lanes.successors):
        following = {
            after
            for connector in devkit.get_outgoing_lane_ids(tokens[lane])
            for after in devkit.get_outgoing_lane_ids(connector)
        }
        assert following == {tokens[number] for number, _ in ways}
    assert all(ring_of(devkit, record["polygon_token"]).is_valid for record in devkit.lane_connector)
    x, y = town.lanes.lanes[0][len(town.lanes.lanes[0]) // 2]
    assert devkit.get_closest_lane(x, y, radius=3) == tokens[0]


@given(st.floats(10, 300), st.floats(0.05, 2.0), st.floats(-3, 3), st.sampled_from((-1, 1)))
@settings(max_examples=40)
def test_an_arc_becomes_arcs_of_its_radius(radius: float, turn: float, yaw: float, side: int) -> None:
    angle = np.linspace(0, turn, max(4, round(radius * turn)))
    local = radius * np.stack((np.sin(angle), side * (1 - np.cos(angle))), axis=1)
    c, s = math.cos(yaw), math.sin(yaw)
    arcs = fit_arcs(local @ np.array([[c, s], [-s, c]]) + (100.0, 50.0))
    assert length_of_lane(arcs) == pytest.approx(radius * turn, rel=5e-3)
    for before, after in itertools.pairwise(arcs):
        np.testing.assert_allclose(before["end_pose"], after["start_pose"], atol=1e-9)
    end = np.array(discretize_lane(arcs, 0.1))[-1]
    np.testing.assert_allclose(end[:2], arcs[-1]["end_pose"][:2], atol=1e-6)


def test_a_connector_too_short_for_an_area_has_none() -> None:
    assert outline_connector(np.array([[0.0, 0.0], [0.5, 0.0]])) is None
    area = outline_connector(np.stack((np.linspace(0, 10, 21), np.zeros(21)), axis=1))
    assert area is not None
    assert area.area == pytest.approx(32.0)


def test_a_map_without_some_layers_is_written_without_them(town: Town) -> None:
    """Maps of parts of real cities lack layers."""
    bare = Town(LOCATION, -1, town.canvas, town.terrain, 0.15, town.paved)
    bare.polygons["drivable_area"] = town.polygons["drivable_area"]
    bare.polygons["ped_crossing"] = town.polygons["ped_crossing"]
    bare.polygons["lane"] = town.polygons["lane"][:3]
    bare.lines["road_divider"] = town.lines["road_divider"]
    content = build_expansion(bare, SEED)
    assert content["road_segment"] == []
    assert content["connectivity"] == {}
    assert {record["road_segment_token"] for record in content["ped_crossing"] + content["road_divider"]} == {""}
    assert len(content["lane"]) == 3
    json.dumps(content)


def test_equal_seeds_give_equal_files_and_others_do_not(town: Town) -> None:
    again = build_town(SEED, 1, LOCATION, False, 1.0, 12)
    assert json.dumps(build_expansion(town, SEED)) == json.dumps(build_expansion(again, SEED))
    assert build_expansion(town, (4, 0))["node"][0]["token"] != build_expansion(town, SEED)["node"][0]["token"]
    assert box(0, 0, *town.canvas).contains(shapely.union_all(town.polygons["walkway"]))
