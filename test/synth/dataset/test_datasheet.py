"""The data sheet: its counts can be repeated from the root, and seen cells are those that nothing hides."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bridgeta_core.config.experiment import ImageConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.maps.expansion import LAYERS
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, rigid
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.datasheet import DATA_SHEET, DataSheet, LabelCells, Tally, find_visible
from bridgeta_synth.settings import SynthSettings

WIDTH, HEIGHT = 160, 90
FRONT = facts.CAMERAS[0]


def street_depth(pose: Matrix, intrinsics: Matrix, wall: float | None) -> np.ndarray:
    """Render the depth image of level ground at z = 0, with a wall across it at global x = `wall`."""
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack((u, v, np.ones_like(u)), axis=-1) @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        ground = -pose[2, 3] / rays[..., 2]
        depth = np.where(ground > 0, ground, np.inf)
        if wall is not None:
            ahead = (wall - pose[0, 3]) / rays[..., 0]
            depth = np.minimum(depth, np.where(ahead > 0, ahead, np.inf))
    return depth.astype(np.float32)


@given(
    x=st.floats(5, 48),
    y=st.floats(-20, 20),
    yaw=st.floats(-0.3, 0.3),
    pitch=st.floats(-0.05, 0.05),
    wall=st.none() | st.floats(8, 45),
)
def test_ground_is_seen_up_to_the_wall_that_hides_the_rest(
    x: float, y: float, yaw: float, pitch: float, wall: float | None
) -> None:
    turn = rigid((0, 0, 0), (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)))
    tilt = rigid((0, 0, 0), (math.cos(pitch / 2), 0, math.sin(pitch / 2), 0))
    pose, intrinsics = turn @ tilt @ FRONT.ego_T_cam, FRONT.intrinsics(WIDTH, HEIGHT)
    place = np.array([[x, y, 0.0]])
    in_cam = np.linalg.inv(pose) @ (x, y, 0, 1)
    u, v = (intrinsics @ in_cam[:3])[:2] / in_cam[2]
    inside = in_cam[2] > 0.1 and 0 <= u < WIDTH - 1 and 0 <= v < HEIGHT - 1
    seen = bool(find_visible(place, pose, intrinsics, street_depth(pose, intrinsics, wall))[0])
    if not inside:
        assert not seen
    elif wall is None or x < wall - 3:
        assert seen
    elif x > wall + 4:
        assert not seen


@settings(max_examples=30)
@given(x=st.floats(-200, 200), y=st.floats(-200, 200), yaw=st.floats(-3.1, 3.1), pitch=st.floats(-0.06, 0.06))
def test_sampled_cells_have_the_classes_of_their_places(x: float, y: float, yaw: float, pitch: float) -> None:
    area = shapely.box(x - 12, y - 23, x + 31, y + 8)
    none = np.empty(0, dtype=object)
    raster = MapRaster("nowhere", dict.fromkeys(LAYERS, none) | {"walkway": np.array([area], dtype=object)})

    class Slope:
        def height(self, xy: np.ndarray) -> np.ndarray:
            return 0.05 * xy[..., 0]

    turn = rigid((x, y, 7.0), (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)))
    around = LabelCells.of(Slope(), raster, turn @ rigid((0, 0, 0), (1, 0, pitch / 2, 0)))  # type: ignore[arg-type]
    assert around.classes.shape == (6, 100 * 100)
    np.testing.assert_allclose(around.places[:, 2], 0.05 * around.places[:, 0])
    inside = shapely.contains_xy(area, around.places[:, :2])
    # The rasteriser draws borders as wide as it rounds them.
    clear = shapely.distance(area.exterior, shapely.points(around.places[:, :2])) > 1.0
    np.testing.assert_array_equal(around.classes[CLASS_NAMES.index("walkway")][clear], inside[clear])
    assert around.masks[CLASS_NAMES.index("walkway")].sum() == pytest.approx(4 * area.area, rel=0.07)


def test_tallies_add_up_and_survive_json() -> None:
    masks = np.zeros((6, 4, 4), dtype=np.uint8)
    masks[0], masks[3, 1, 1] = 1, 1
    around = LabelCells(masks, masks[:, 1::2, 1::2].reshape(6, -1), np.zeros((4, 3)))
    one = Tally(scenes=1, files=7, annotations={"animal": 2}, weather={"day": 1})
    one.add_keyframe(around, np.array([True, False, False, False]))
    total = Tally()
    for _ in range(3):
        total.add(Tally(**json.loads(json.dumps(asdict(one)))))
    assert (total.scenes, total.keyframes, total.files, total.cells) == (3, 3, 21, 48)
    assert total.class_cells == [48, 0, 0, 3, 0, 0]
    assert total.class_keyframes == [3, 0, 0, 3, 0, 0]
    assert total.checked_cells == [12, 0, 0, 3, 0, 0]
    assert total.seen_cells == [3, 0, 0, 3, 0, 0]
    assert total.annotations == {"animal": 6}
    shares = DataSheet(SynthSettings(scenes=3), ("here",), total).compute_class_shares()
    assert shares["drivable_area"] == {"cells": 1.0, "keyframes": 1.0, "visible": 0.25}
    assert shares["walkway"] == {"cells": 0.0, "keyframes": 0.0, "visible": None}


@pytest.fixture(scope="module")
def sheet(synthetic_root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((synthetic_root / DATA_SHEET).read_text())
    return content


def test_the_sheet_counts_what_the_tables_hold(synthetic_root: Path, sheet: dict[str, Any]) -> None:
    folder = synthetic_root / sheet["settings"]["version"]
    tables = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    category = {record["token"]: record["name"] for record in tables["category"]}
    of_instance = {record["token"]: category[record["category_token"]] for record in tables["instance"]}
    counted = Counter(of_instance[record["instance_token"]] for record in tables["sample_annotation"])
    assert sheet["annotations"] == counted
    assert sheet["keyframes"] == len(tables["sample"])
    assert sheet["scenes"] == len(tables["scene"])
    assert sheet["files"] == len(tables["sample_data"])
    assert sheet["locations"] == [record["location"] for record in tables["log"]]


def test_the_sheet_names_the_settings_and_the_world(sheet: dict[str, Any]) -> None:
    assert SynthSettings(**sheet["settings"]).seed == 7
    assert sheet["world"] == 2


def test_class_shares_are_those_of_the_labels(synthetic_root: Path, sheet: dict[str, Any]) -> None:
    version = sheet["settings"]["version"]
    labels = FrameDataset(NuScenesDataset(synthetic_root, version), "all", ["CAM_FRONT"], ImageConfig(), BevGrid())
    masks = np.stack([labels.read_labels(i)[0] for i in range(len(labels))])
    for i, name in enumerate(CLASS_NAMES):
        share = sheet["classes_within_50_m"][name]
        assert share["cells"] == pytest.approx(masks[:, i].mean(), abs=1e-5)
        assert share["keyframes"] == pytest.approx(masks[:, i].any(axis=(1, 2)).mean(), abs=1e-4)


def test_part_of_the_street_is_seen_and_part_is_hidden(sheet: dict[str, Any]) -> None:
    drivable = sheet["classes_within_50_m"]["drivable_area"]["visible"]
    assert 0.2 < drivable < 0.95


def test_the_page_names_every_class(sheet: dict[str, Any]) -> None:
    tally = Tally(scenes=1, keyframes=1, cells=1, weather={"day": 1, "rain": 1})
    console = Console(width=100)
    with console.capture() as capture:
        console.print(DataSheet(SynthSettings(**sheet["settings"]), ("here",), tally).page())
    assert all(name in capture.get() for name in CLASS_NAMES)
    assert "1 day, 0 night, 1 rain" in capture.get()
