"""Places: few keyframes a scene, seconds apart and spread over the towns, in a root like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from bridgeta_core.utils.arrays import Floats
from bridgeta_ros.commands import app
from bridgeta_synth.dataset.datasheet import DATA_SHEET, LabelCells, Tally
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.traffic.fleet import EgoPlan, plan_ego
from bridgeta_synth.traffic.routes import Streets
from bridgeta_synth.traffic.spread import expect_places, find_least_distance, spread_plans
from bridgeta_synth.world.town.town import Town

GAP = 8.0
PLACES = SynthSettings(
    scenes=1,
    seed=3,
    duration=GAP,
    keyframe_gap=GAP,
    spread=True,
    version="v1.0-mini",
    keyframes_only=True,
    image_scale=0.06,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("places") / "root"
    write_dataset(out, PLACES, progress=False, jobs=1)
    return out


def read_table(root: Path, name: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((root / PLACES.version / f"{name}.json").read_text())
    return records


def test_keyframes_lie_the_gap_apart_and_follow_each_other(root: Path) -> None:
    first, second = read_table(root, "sample")
    assert second["timestamp"] - first["timestamp"] == GAP * 1e6
    assert (first["next"], second["prev"]) == (second["token"], first["token"])
    assert (first["prev"], second["next"]) == ("", "")


def test_every_file_belongs_to_a_keyframe(root: Path) -> None:
    files = read_table(root, "sample_data")
    assert len(files) == 2 * 7
    assert all(file["is_key_frame"] for file in files)
    assert not (root / "sweeps").exists()


def test_the_devkit_follows_objects_across_the_gap(root: Path) -> None:
    from nuscenes.nuscenes import NuScenes

    nusc = NuScenes(PLACES.version, str(root), verbose=False)
    lasting = [record for record in nusc.sample_annotation if record["next"]]
    assert lasting
    for record in lasting:
        after = nusc.get("sample_annotation", record["next"])
        moved = np.subtract(after["translation"], record["translation"])
        velocity = nusc.box_velocity(record["token"], max_time_diff=GAP)
        np.testing.assert_allclose(velocity, moved / GAP, atol=1e-9)


def test_the_deep_check_finds_nothing_wrong(root: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", str(root), "--version", PLACES.version, "--deep"])
    assert result.exit_code == 0, result.output


def test_the_sheet_states_places_and_label_change(root: Path) -> None:
    sheet = json.loads((root / DATA_SHEET).read_text())
    assert sheet["places"] == 2
    assert 0.2 < sheet["label_change"] < 1.0


def test_label_change_is_one_less_the_overlap() -> None:
    def cells(columns: slice) -> LabelCells:
        masks = np.zeros((6, 4, 4), dtype=np.uint8)
        masks[2, :, columns] = 1
        return LabelCells(masks, masks[:, 1::2, 1::2].reshape(6, -1), np.zeros((4, 3)))

    tally, seen = Tally(), np.zeros(4, dtype=bool)
    tally.add_keyframe(cells(slice(0, 2)), seen)
    tally.add_keyframe(cells(slice(1, 3)), seen, cells(slice(0, 2)))
    assert (tally.changed_cells, tally.either_cells) == (8, 12)


def test_keyframes_in_one_square_are_one_place() -> None:
    tally = Tally()
    for x, town in ((1, "a"), (19, "a"), (21, "a"), (-1, "a"), (1, "b")):
        tally.add_place(town, x, 5)
    assert len(tally.places) == 4


def test_spread_keyframes_are_farther_apart_than_drawn_ones(town: Town) -> None:
    rng, times, count = np.random.default_rng(5), (0.0, GAP), 3
    streets = Streets(town)

    def find_least(plans: list[EgoPlan]) -> float:
        return find_least_distance(np.concatenate([expect_places(p, times) for p in plans]), np.empty((0, 2)))

    spread = [find_least(spread_plans(town, count, times, rng)) for _ in range(6)]
    drawn = [find_least([plan_ego(town, streets, GAP, rng) for _ in range(count)]) for _ in range(6)]
    assert np.mean(spread) > 1.5 * np.mean(drawn)


@given(
    arrays(np.float64, (4, 2), elements=st.floats(-100, 100)), arrays(np.float64, (3, 2), elements=st.floats(-100, 100))
)
def test_the_least_distance_is_that_of_the_nearest_pair(places: Floats, others: Floats) -> None:
    pairs = [(p, q) for k, p in enumerate(places) for q in (*places[k + 1 :], *others)]
    assert find_least_distance(places, others) == pytest.approx(min(np.hypot(*(p - q)) for p, q in pairs))


def test_a_lone_keyframe_is_infinitely_far_from_others() -> None:
    assert find_least_distance(np.zeros((1, 2)), np.empty((0, 2))) == np.inf
