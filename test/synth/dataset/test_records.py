"""The written root: the nuScenes schema, the devkit's view of it, and agreement of map, images and LiDAR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest

from bridgeta_core.geometry.transforms import rigid, transform
from bridgeta_synth import nuscenes as facts

matplotlib.use("Agg")


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


def test_every_file_exists_and_has_its_size(synthetic_root: Path, tables: dict[str, dict[str, dict[str, Any]]]) -> None:
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
            # A beam left the sensor up to 50 ms, and so up to 0.75 m, before the stamp to whose frame it is brought.
            distance = np.linalg.norm(points[:, :3], axis=1)
            elevation = np.arcsin(points[:, 2] / distance)
            bent = np.abs(elevation - facts.LIDAR_ELEVATIONS[points[:, 4].astype(int)])
            assert (bent < 0.75 / distance + 0.006).all()
    on_disk = [p for folder in ("samples", "sweeps") for p in (synthetic_root / folder).rglob("*") if p.is_file()]
    assert len(on_disk) == len(tables["sample_data"])


def test_the_ego_vehicle_moves_like_a_vehicle_over_hills(tables: dict[str, dict[str, dict[str, Any]]]) -> None:
    poses = sorted(tables["ego_pose"].values(), key=lambda p: p["timestamp"])
    where = np.array([p["translation"] for p in poses])
    assert (where[:, :2] > 0).all()
    seconds = np.array([p["timestamp"] for p in poses]) / 1e6
    gap = np.diff(seconds)
    speed = np.linalg.norm(np.diff(where, axis=0), axis=1)[gap > 1e-3] / gap[gap > 1e-3]
    assert speed.max() < 16
    up = np.array([rigid(p["translation"], p["rotation"])[:3, 2] for p in poses])
    # Roads are at most 6 % steep, in each of two directions at right angles.
    tilt = np.arccos(up[:, 2])
    assert 1e-4 < tilt.max() < np.arctan(0.06 * np.sqrt(2))
    assert np.ptp(where[:, 2]) < 0.07 * np.linalg.norm(np.ptp(where[:, :2], axis=0)) + 0.01


def test_the_ground_at_the_vehicle_is_the_plane_of_its_wheels(synthetic_root: Path, nusc: Any) -> None:
    ego_T_lidar = rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION)
    for sample in nusc.sample:
        path = nusc.get_sample_data_path(sample["data"]["LIDAR_TOP"])
        points = transform(ego_T_lidar, np.fromfile(path, dtype=np.float32).reshape(-1, 5)[:, :3])
        near = points[np.abs(points[:, 0] - 1.4) + np.abs(points[:, 1]) < 6]
        ground = near[near[:, 2] < 0.4]
        assert len(ground) > 500
        assert abs(np.quantile(ground[:, 2], 0.3)) < 0.06


def test_the_devkit_renders_samples_and_sweeps(nusc: Any, tmp_path: Path) -> None:
    sample = nusc.sample[1]
    nusc.render_sample(sample["token"], out_path=str(tmp_path / "sample.png"), verbose=False)
    nusc.render_sample_data(sample["data"]["LIDAR_TOP"], out_path=str(tmp_path / "lidar.png"), nsweeps=3, verbose=False)
    nusc.render_pointcloud_in_image(sample["token"], out_path=str(tmp_path / "points.png"), verbose=False)
    nusc.render_annotation(sample["anns"][0], out_path=str(tmp_path / "annotation.png"))
    assert len(list(tmp_path.iterdir())) == 4


def test_the_devkit_finds_the_car_on_both_maps(nusc: Any, synthetic_root: Path) -> None:
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
