"""Annotations in the written root: boxes, visibility and attributes agree with LiDAR, motion and ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.geometry.transforms import rigid, transform
from bridgeta_synth.world.terrain import Terrain


def test_boxes_contain_as_many_points_as_the_tables_count(
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


def test_annotations_distinguish_hidden_from_visible(nusc: Any) -> None:
    levels = {record["visibility_token"] for record in nusc.sample_annotation}
    assert {"1", "4"} <= levels


def test_attributes_agree_with_motion(nusc: Any) -> None:
    steps: dict[str, list[float]] = {}
    for record in nusc.sample_annotation:
        if not record["next"]:
            continue
        there = nusc.get("sample_annotation", record["next"])
        # An actor that stands at one keyframe may move before the next.
        for token in set(record["attribute_tokens"]) & set(there["attribute_tokens"]):
            word = nusc.get("attribute", token)["name"].rpartition(".")[2]
            moved = float(np.linalg.norm(np.subtract(there["translation"], record["translation"])))
            steps.setdefault(word, []).append(moved)
    assert len(steps["parked"]) + len(steps["moving"]) > 20
    assert max(steps["parked"], default=0.0) < 0.01
    assert np.median(steps.get("standing", [0.0])) < 0.01
    assert np.median(steps["moving"]) > 0.3


def test_boxes_stand_on_the_ground_with_its_slope(nusc: Any, terrain: Terrain) -> None:
    """Vehicles have their wheels on the terrain; people are upright."""
    for record in nusc.sample_annotation:
        box = rigid(record["translation"], record["rotation"])
        foot = transform(box, np.array([0, 0, -record["size"][2] / 2]))
        ground = terrain.height(foot[None, :2])[0]
        assert -0.12 < foot[2] - ground < 0.35  # on the carriageway, or on a footpath beside it
        if record["attribute_tokens"] and "pedestrian" in record["category_name"]:
            np.testing.assert_allclose(box[:3, 2], (0, 0, 1), atol=1e-6)
