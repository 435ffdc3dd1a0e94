"""The written root: the nuScenes schema, the devkit's view of it, and agreement of map, images and LiDAR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest

from bridgeta_core.geometry import invert, project, rigid, transform
from bridgeta_core.synth import nuscenes_facts as facts

matplotlib.use("Agg")
VERSION = "v1.0-mini"
TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample"),
    *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)


@pytest.fixture(scope="module")
def tables(synthetic_root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """All tables by token."""
    read = {name: json.loads((synthetic_root / VERSION / f"{name}.json").read_text()) for name in TABLES}
    return {name: {record["token"]: record for record in records} for name, records in read.items()}


@pytest.fixture(scope="module")
def nusc(synthetic_root: Path) -> Any:
    from nuscenes.nuscenes import NuScenes

    return NuScenes(VERSION, str(synthetic_root), verbose=False)


def test_every_foreign_key_has_its_record(tables: dict[str, dict[str, dict[str, Any]]]) -> None:
    checked = 0
    for records in tables.values():
        for record in records.values():
            for key, value in record.items():
                target = {"map": None, "first_sample": "sample", "last_sample": "sample"}.get(key[:-6], key[:-6])
                if key.startswith(("first_annotation", "last_annotation")):
                    target = "sample_annotation"
                if key.endswith("_token") and target in tables:
                    assert value in tables[target], (key, value)
                    checked += 1
    assert checked > 500


def test_tokens_are_32_hexadecimal_digits_and_unique(tables: dict[str, dict[str, dict[str, Any]]]) -> None:
    for name, records in tables.items():
        for token in records:
            assert name == "visibility" or (len(token) == 32 and int(token, 16) >= 0)


@pytest.mark.parametrize("table", ["sample", "sample_data", "sample_annotation"])
def test_prev_and_next_mirror_each_other_in_time(tables: dict[str, dict[str, dict[str, Any]]], table: str) -> None:
    records = tables[table]
    links = 0
    for record in records.values():
        if record["next"]:
            following = records[record["next"]]
            assert following["prev"] == record["token"]
            if table != "sample_annotation":
                assert following["timestamp"] > record["timestamp"]
            links += 1
    assert links > 3


def test_sensors_run_at_their_rates_with_their_stamp_offsets(tables: dict[str, dict[str, dict[str, Any]]]) -> None:
    start = min(s["timestamp"] for s in tables["sample"].values())
    channels: dict[str, list[dict[str, Any]]] = {}
    for record in tables["sample_data"].values():
        calibration = tables["calibrated_sensor"][record["calibrated_sensor_token"]]
        channels.setdefault(tables["sensor"][calibration["sensor_token"]]["channel"], []).append(record)
    offsets = {camera.channel: camera.offset_us for camera in facts.CAMERAS} | {"LIDAR_TOP": 0}
    assert set(channels) == set(offsets)
    for channel, records in channels.items():
        stamps = np.sort([r["timestamp"] for r in records])
        rate = 20.0 if channel == "LIDAR_TOP" else 12.0
        assert stamps[0] - start == offsets[channel]
        assert len(stamps) == 2.0 * rate + 1
        np.testing.assert_allclose(np.diff(stamps), 1e6 / rate, atol=1)
        keys = [r for r in records if r["is_key_frame"]]
        assert len(keys) == 5
        for key in keys:
            assert key["timestamp"] - tables["sample"][key["sample_token"]]["timestamp"] == offsets[channel]
        for sweep in records:
            sample = tables["sample"][sweep["sample_token"]]["timestamp"] + offsets[channel]
            assert 0 <= sample - sweep["timestamp"] < 500_000


def test_every_file_is_there_and_has_its_size(
    synthetic_root: Path, tables: dict[str, dict[str, dict[str, Any]]]
) -> None:
    for record in tables["sample_data"].values():
        path = synthetic_root / record["filename"]
        if record["fileformat"] == "jpg":
            assert cv2.imread(str(path)).shape == (record["height"], record["width"], 3) == (225, 400, 3)
        else:
            points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)
            assert 15_000 < len(points) <= 32 * 1080
            assert set(np.unique(points[:, 4])) <= set(range(32))
            assert (points[:, 3] >= 0).all()
            assert (points[:, 3] <= 255).all()
            # The mounting tilts the sensor by less than 2 degrees; elevations in its own frame are the beams'.
            elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
            np.testing.assert_allclose(elevation, facts.LIDAR_ELEVATIONS[points[:, 4].astype(int)], atol=1e-4)
    on_disk = [p for folder in ("samples", "sweeps") for p in (synthetic_root / folder).rglob("*") if p.is_file()]
    assert len(on_disk) == len(tables["sample_data"])


def test_the_ego_vehicle_moves_like_a_vehicle(tables: dict[str, dict[str, dict[str, Any]]]) -> None:
    poses = sorted(tables["ego_pose"].values(), key=lambda p: p["timestamp"])
    where = np.array([p["translation"] for p in poses])
    assert (where[:, :2] > 0).all()
    assert (where[:, 2] == 0).all()
    seconds = np.array([p["timestamp"] for p in poses]) / 1e6
    gap = np.diff(seconds)
    speed = np.linalg.norm(np.diff(where, axis=0), axis=1)[gap > 1e-3] / gap[gap > 1e-3]
    assert speed.max() < 14


def test_the_devkit_renders_samples_and_sweeps(nusc: Any, tmp_path: Path) -> None:
    sample = nusc.sample[1]
    nusc.render_sample(sample["token"], out_path=str(tmp_path / "sample.png"), verbose=False)
    nusc.render_sample_data(sample["data"]["LIDAR_TOP"], out_path=str(tmp_path / "lidar.png"), nsweeps=3, verbose=False)
    nusc.render_pointcloud_in_image(sample["token"], out_path=str(tmp_path / "points.png"), verbose=False)
    nusc.render_annotation(sample["anns"][0], out_path=str(tmp_path / "annotation.png"))
    assert len(list(tmp_path.iterdir())) == 4


def test_the_devkit_finds_the_car_on_the_prior_and_in_the_expansion(nusc: Any, synthetic_root: Path) -> None:
    from nuscenes.map_expansion.map_api import NuScenesMap

    location = nusc.log[0]["location"]
    city = NuScenesMap(str(synthetic_root), location)
    prior = nusc.map[0]["mask"]
    for sample in nusc.sample:
        data = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        x, y, _ = nusc.get("ego_pose", data["ego_pose_token"])["translation"]
        assert prior.is_on_mask(x, y)[0]
        assert city.record_on_point(x, y, "drivable_area")
        layers = ["drivable_area", "walkway", "ped_crossing"]
        mask = city.get_map_mask((x, y, 100, 100), 0, layers, (200, 200))
        assert mask.shape == (3, 200, 200)
        assert mask[0, 100, 100] == 1
        assert 0.08 < mask[0].mean() < 0.6


def test_map_polygons_are_valid_and_within_the_canvas(synthetic_root: Path) -> None:
    from nuscenes.map_expansion.map_api import NuScenesMap

    path = next((synthetic_root / "maps" / "expansion").glob("*.json"))
    city = NuScenesMap(str(synthetic_root), path.stem)
    layers = ("road_segment", "lane", "ped_crossing", "walkway", "stop_line", "carpark_area", "drivable_area")
    for layer in layers:
        records = getattr(city, layer)
        assert records, layer
        for record in records:
            tokens = record["polygon_tokens"] if layer == "drivable_area" else [record["polygon_token"]]
            for polygon in map(city.extract_polygon, tokens):
                assert polygon.is_valid
                assert polygon.area > 0.2
                low_x, low_y, high_x, high_y = polygon.bounds
                assert low_x >= 0
                assert low_y >= 0
                assert high_x <= city.canvas_edge[0]
                assert high_y <= city.canvas_edge[1]
    assert any(record["holes"] for record in city.walkway)
    assert city.road_divider
    assert city.lane_divider


def test_boxes_contain_the_points_that_the_tables_count(
    synthetic_root: Path, tables: dict[str, dict[str, dict[str, Any]]], nusc: Any
) -> None:
    from nuscenes.utils.geometry_utils import points_in_box

    total = 0
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
        points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)
        for box in boxes:
            counted = tables["sample_annotation"][box.token]["num_lidar_pts"]
            inside = int(points_in_box(box, points[:, :3].T).sum())
            # Points exactly on a box's face may fall either way in float32.
            assert abs(inside - counted) <= 2 + 0.02 * counted
            total += counted
    assert total > 50


def test_annotations_tell_hidden_from_visible_and_parked_from_moving(nusc: Any) -> None:
    levels = {record["visibility_token"] for record in nusc.sample_annotation}
    assert {"1", "4"} <= levels
    attributes = {nusc.get("attribute", t)["name"] for r in nusc.sample_annotation for t in r["attribute_tokens"]}
    assert {"vehicle.parked", "vehicle.moving"} <= attributes


def test_painted_dividers_lie_on_the_projected_map_lines(synthetic_root: Path, nusc: Any) -> None:
    """Profiles across the map's dividers in the JPEGs peak where the map says: within two pixels for 95 %."""
    from nuscenes.map_expansion.map_api import NuScenesMap

    city = NuScenesMap(str(synthetic_root), nusc.log[0]["location"])
    lines = [city.extract_line(r["line_token"]) for r in (*city.road_divider, *city.lane_divider)]
    lateral = np.linspace(-0.9, 0.9, 37)
    errors = []
    for sample in nusc.sample:
        for camera in facts.CAMERAS:
            data = nusc.get("sample_data", sample["data"][camera.channel])
            pose = nusc.get("ego_pose", data["ego_pose_token"])
            calibration = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
            cam_T_global = invert(
                rigid(pose["translation"], pose["rotation"])
                @ rigid(calibration["translation"], calibration["rotation"])
            )
            image = cv2.imread(str(synthetic_root / data["filename"]))[..., 2].astype(np.float32)
            for line in lines:
                along = np.arange(0.5, line.length - 0.5, 0.7)
                if line.distance(_point(pose["translation"])) > 15 or not len(along):
                    continue
                at = np.array([line.interpolate(s).coords[0][:2] for s in along])
                ahead = np.array([line.interpolate(s + 0.3).coords[0][:2] for s in along])
                heading = (ahead - at) / np.linalg.norm(ahead - at, axis=1, keepdims=True)
                normal = np.stack((-heading[:, 1], heading[:, 0]), axis=1)
                ground = at[:, None] + lateral[None, :, None] * normal[:, None]
                pixels, depth = project(
                    np.array(calibration["camera_intrinsic"]),
                    transform(cam_T_global, np.concatenate((ground, np.zeros_like(ground[..., :1])), axis=-1)),
                )
                inside = (depth > 3).all(1) & (depth < 14).all(1)
                inside &= ((pixels > 1) & (pixels < (398, 223))).all(axis=(1, 2))
                for profile_at in pixels[inside]:
                    profile = cv2.remap(image, profile_at[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]
                    strength = np.clip(profile - np.median(profile) - 25, 0, None)
                    per_metre = np.linalg.norm(profile_at[-1] - profile_at[0]) / 1.8
                    if strength.max() > 40 and (strength[:5].max() < 5) and (strength[-5:].max() < 5) and per_metre > 8:
                        errors.append(abs((strength * lateral).sum() / strength.sum()) * per_metre)
    assert len(errors) > 30
    assert np.median(errors) < 0.7
    assert np.quantile(errors, 0.95) < 2.0


def _point(xy: list[float]) -> Any:
    from shapely.geometry import Point

    return Point(xy[0], xy[1])
