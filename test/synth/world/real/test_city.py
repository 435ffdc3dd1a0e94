"""Map expansions become layers, lanes and a window; broken parts are left out or reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import LineString, Polygon, box

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.world.real.city import City, clip_lanes, drop_dead_ends
from bridgeta_synth.world.streets.shapes import Points

CITY = "boston-seaport"


class Expansion:
    """Writes a map expansion record by record."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {"version": "1.3", "canvas_edge": [900.0, 600.0]}
        self.content |= {"node": [], "polygon": [], "line": []}

    def _token(self, layer: str) -> str:
        return f"{layer}-{len(self.content[layer])}"

    def _nodes(self, points: Any) -> list[str]:
        tokens = []
        for x, y in points:
            tokens.append(self._token("node"))
            self.content["node"].append({"token": tokens[-1], "x": x, "y": y})
        return tokens

    def area(self, layer: str, shape: Polygon | list[tuple[float, float]], **record: Any) -> None:
        ring = list(shape.exterior.coords)[:-1] if isinstance(shape, Polygon) else shape
        token = self._token("polygon")
        self.content["polygon"].append({"token": token, "exterior_node_tokens": self._nodes(ring), "holes": []})
        key = {"polygon_tokens": [token]} if layer == "drivable_area" else {"polygon_token": token}
        self.content.setdefault(layer, []).append({"token": f"{layer}-{token}", **key, **record})

    def line(self, layer: str, points: list[tuple[float, float]], **record: Any) -> None:
        token = self._token("line")
        self.content["line"].append({"token": token, "node_tokens": self._nodes(points)})
        self.content.setdefault(layer, []).append({"token": f"{layer}-{token}", "line_token": token, **record})

    def write(self, root: Path) -> City:
        folder = root / "maps" / "expansion"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{CITY}.json").write_text(json.dumps(self.content))
        return City.read(root, CITY)


@pytest.fixture
def street() -> Expansion:
    """A street of two lanes from x = 100 to 400 along y = 300."""
    expansion = Expansion()
    expansion.area("drivable_area", box(100, 296, 400, 304))
    expansion.area("lane", box(100, 296.5, 400, 300))
    expansion.area("lane", box(100, 300, 400, 303.5))
    expansion.line("road_divider", [(100, 300), (400, 300)])
    return expansion


def test_a_city_without_some_layers_has_none_of_them(street: Expansion, tmp_path: Path) -> None:
    city = street.write(tmp_path)
    assert city.canvas == (900.0, 600.0)
    assert len(city.shapes["lane"]) == 2
    assert all(len(city.shapes[name]) == 0 for name in ("walkway", "ped_crossing", "carpark_area", "lane_divider"))
    assert city.dividers == {}
    assert city.stops == {}


def test_broken_outlines_are_left_out(street: Expansion, tmp_path: Path) -> None:
    street.area("walkway", [(0, 0), (10, 10), (10, 0), (0, 10)])
    street.area("walkway", [(0, 0), (10, 0)])
    street.area("walkway", box(100, 290, 400, 296))
    street.line("lane_divider", [(0, 0)], lane_divider_segments=[])
    city = street.write(tmp_path)
    assert [shape.area for shape in city.shapes["walkway"]] == [1800]
    assert len(city.shapes["lane_divider"]) == 0


def test_repeated_corners_do_no_harm(street: Expansion, tmp_path: Path) -> None:
    street.content["lane"].clear()
    street.area("lane", [(100, 296.5), (100, 296.5), (400, 296.5), (400, 300), (400, 300), (100, 300)])
    lanes, _ = street.write(tmp_path).find_lanes(box(0, 0, 900, 600), 1)
    assert len(lanes) == 1
    np.testing.assert_allclose(lanes[0][:, 1], 298.25)


def test_dividers_stop_lines_and_segments_are_grouped(street: Expansion, tmp_path: Path) -> None:
    dashes = [{"node_token": "", "segment_type": "SINGLE_DASHED_WHITE"}] * 3
    street.line("lane_divider", [(0, 0), (9, 0)], lane_divider_segments=[*dashes, {"segment_type": "NIL"}])
    street.line("lane_divider", [(0, 5), (9, 5)], lane_divider_segments=[])
    street.area("stop_line", box(396, 296, 400, 300), stop_line_type="TRAFFIC_LIGHT")
    street.area("stop_line", box(100, 300, 104, 304), stop_line_type="YIELD")
    street.area("road_segment", box(100, 296, 400, 304), is_intersection=False)
    street.area("road_segment", box(400, 296, 420, 304), is_intersection=True)
    city = street.write(tmp_path)
    assert {mark: len(lines) for mark, lines in city.dividers.items()} == {"": 1, "SINGLE_DASHED_WHITE": 1}
    assert {kind: areas[0].bounds[0] for kind, areas in city.stops.items()} == {"TRAFFIC_LIGHT": 396, "YIELD": 100}
    assert [shape.bounds[0] for shape in city.junctions] == [400]
    assert len(city.shapes["road_segment"]) == 2


@pytest.mark.parametrize("driving_side", [1, -1])
def test_lanes_come_in_the_direction_of_travel(street: Expansion, tmp_path: Path, driving_side: int) -> None:
    lanes, successors = street.write(tmp_path).find_lanes(box(0, 0, 900, 600), driving_side)
    heights = {round(float(lane[0, 1]), 2): bool(lane[-1, 0] > lane[0, 0]) for lane in lanes}
    assert heights == {298.25: driving_side > 0, 301.75: driving_side < 0}
    assert successors == ((), ())


def test_recorded_centre_lines_are_taken_as_they_are(street: Expansion, tmp_path: Path) -> None:
    path = {"start_pose": [400.0, 299.0, np.pi], "shape": "LSL", "radius": 99.0, "segment_length": [0, 300, 0]}
    street.content["arcline_path_3"] = {street.content["lane"][0]["token"]: [path]}
    lanes, _ = street.write(tmp_path).find_lanes(box(0, 0, 900, 600), 1)
    assert len(lanes) == 1
    np.testing.assert_allclose(lanes[0][[0, -1]], [(400, 299), (100, 299)], atol=1e-9)


def test_the_window_lies_on_the_canvas_around_the_lanes(street: Expansion, tmp_path: Path) -> None:
    city = street.write(tmp_path)
    for seed in range(8):
        x0, y0, x1, y1 = city.draw_window(np.random.default_rng(seed), 250.0).bounds
        assert (x1 - x0, y1 - y0) == (250, 250)
        assert 0 <= x0 < 400
        assert 100 < x1 <= 900
        assert 0 <= y0 < 300 < y1 <= 600


def test_the_window_of_a_small_city_is_all_of_it(street: Expansion, tmp_path: Path) -> None:
    assert street.write(tmp_path).draw_window(np.random.default_rng(0), 2000.0).bounds == (0, 0, 900, 600)


def test_a_city_without_lanes_is_an_error(tmp_path: Path) -> None:
    bare = Expansion()
    bare.area("drivable_area", box(0, 0, 9, 9))
    with pytest.raises(BridgeTAError, match="no lanes") as error:
        bare.write(tmp_path)
    assert error.value.where == tmp_path / "maps" / "expansion" / f"{CITY}.json"
    assert error.value.fix


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "1.2"}, "v1.2, v1.3 is needed"),
        ({"lane": [{"token": "a", "polygon_token": "nowhere"}]}, "KeyError: 'nowhere'"),
        ({"canvas_edge": [1.0]}, "ValueError"),
        ({"connectivity": [], "arcline_path_3": {"lane-polygon-1": [{}]}}, "KeyError"),
    ],
)
def test_a_file_that_is_no_expansion_v1_3_is_an_error(
    street: Expansion, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    street.content.update(change)
    with pytest.raises(BridgeTAError, match=message):
        street.write(tmp_path)


def test_an_absent_expansion_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match="missing"):
        City.read(tmp_path, CITY)


def ray(*ends: tuple[float, float]) -> Points:
    line = LineString(ends)
    return np.array([line.interpolate(s).coords[0] for s in np.linspace(0, line.length, round(line.length) + 1)])


def test_lanes_across_the_border_are_cut_and_lead_nowhere() -> None:
    lanes = [ray((-20, 5), (20, 5)), ray((20, 5), (60, 5)), ray((60, 5), (90, 5)), ray((0, 90), (9, 90))]
    successors = tuple((((i + 1), lanes[i + 1][:1].repeat(2, axis=0)),) if i < 2 else () for i in range(4))
    window = box(0, 0, 50, 50)
    cut, kept = clip_lanes(lanes, successors, window)
    assert [(lane[0, 0], lane[-1, 0]) for lane in cut] == [(1, 20), (20, 49)]
    assert [[j for j, _ in follow] for follow in kept] == [[1], []]


def test_a_lane_that_leaves_and_comes_back_keeps_its_longest_part() -> None:
    bend = ray((5, 5), (15, 5), (15, -9), (30, -9), (30, 40))
    cut, _ = clip_lanes([bend], ((),), box(0, 0, 50, 50))
    assert len(cut) == 1
    np.testing.assert_allclose(cut[0][[0, -1]], [(30, 0), (30, 40)], atol=1)


def test_dead_ends_remain_only_without_another_way() -> None:
    lanes = [ray((0, 0), (50, 0)), ray((50, 0), (60, 0)), ray((50, 0), (50, 200)), ray((90, 0), (95, 0))]
    nowhere = np.zeros((2, 2))
    successors = (((1, nowhere), (2, nowhere)), (), (), ((1, nowhere),))
    assert [[j for j, _ in follow] for follow in drop_dead_ends(lanes, successors)] == [[2], [], [], [1]]


def test_a_circle_is_no_dead_end() -> None:
    lanes = [ray((0, 0), (10, 0)), ray((10, 0), (0, 0)), ray((10, 0), (60, 0))]
    step = np.zeros((2, 2))
    assert [[j for j, _ in follow] for follow in drop_dead_ends(lanes, (((1, step), (2, step)), ((0, step),), ()))] == [
        [1],
        [0],
        [],
    ]
