"""Recorded lanes: points of arc-line paths equal the devkit's, and connectors lead from lane to lane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_synth.world.real.arc_paths import arc_points, read_lanes
from bridgeta_synth.world.streets.shapes import arc_length

SHAPES = ("LRL", "LSL", "LSR", "RLR", "RSL", "RSR")


@settings(max_examples=50)
@given(
    shape=st.sampled_from(SHAPES),
    radius=st.floats(5, 500),
    lengths=st.lists(st.floats(0.5, 30), min_size=3, max_size=3),
    pose=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-3, 3)),
)
def test_path_points_equal_the_devkits(
    shape: str, radius: float, lengths: list[float], pose: tuple[float, float, float]
) -> None:
    devkit = pytest.importorskip("nuscenes.map_expansion.arcline_path_utils")
    path = {"start_pose": list(pose), "shape": shape, "radius": radius, "segment_length": lengths}
    points = arc_points(path)
    ends = np.concatenate(([1e-6], np.cumsum(lengths)))
    expected = np.array([devkit.pose_at_length(path, float(s))[:2] for s in ends])
    distances = np.linalg.norm(points[:, None] - expected, axis=-1).min(axis=0)
    np.testing.assert_allclose(distances, 0, atol=1e-4)
    assert arc_length(points)[-1] == pytest.approx(sum(lengths), rel=2e-3)
    assert np.diff(arc_length(points)).max() <= 0.5 + 1e-9


def straight(x: float, y: float, length: float) -> list[dict[str, Any]]:
    return [{"start_pose": [x, y, 0.0], "shape": "LSL", "radius": 50.0, "segment_length": [0.0, length, 0.0]}]


@pytest.fixture
def content() -> dict[str, Any]:
    """Lane a leads over connector c into b, and straight into d; e has no centre line; "absent" is in no layer."""
    return {
        "lane": [{"token": name} for name in "abde"],
        "lane_connector": [{"token": "c"}],
        "arcline_path_3": {
            "a": straight(0, 0, 20),
            "c": straight(20, 0, 10),
            "b": straight(30, 0, 20),
            "d": straight(20, 0.5, 9),
        },
        "connectivity": {
            "a": {"incoming": [], "outgoing": ["c", "d", "absent"]},
            "c": {"incoming": ["a"], "outgoing": ["b", "absent"]},
            "b": {"incoming": ["c"], "outgoing": []},
        },
    }


def test_lanes_follow_each_other_across_connectors(content: dict[str, Any]) -> None:
    lanes, successors = read_lanes(content)
    assert len(lanes) == 3
    np.testing.assert_allclose(lanes[0][[0, -1]], [(0, 0), (20, 0)], atol=1e-9)
    assert [j for j, _ in successors[0]] == [1, 2]
    path = successors[0][0][1]
    np.testing.assert_allclose(path[[0, -1]], [(20, 0), (30, 0)], atol=1e-9)
    assert successors[1] == successors[2] == ()


def test_circular_connectors_lead_nowhere(content: dict[str, Any]) -> None:
    content["connectivity"]["c"]["outgoing"] = ["c"]
    _, successors = read_lanes(content)
    assert [j for j, _ in successors[0]] == [2]


def test_a_map_without_records_has_no_recorded_lanes() -> None:
    empty = {"lane": [{"token": "a"}], "arcline_path_3": {}, "connectivity": {}}
    assert read_lanes(empty) == ([], ())
    assert read_lanes({}) == ([], ())
