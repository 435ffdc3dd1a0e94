"""The summary of a replay: what its file may hold, and what agreement with ground truth costs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from bag_fakes import GRID, MS, FakeRuntime, jpeg, write_bag
from hypothesis import given
from hypothesis import strategies as st

import bridgeta_ros.bags.summary as summary_module
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.bags.summary import FILE_NAME, STAGES, Agreement, ReplaySummary

SECOND = 1000 * MS
CONTENT: dict[str, Any] = {
    "source": "drive",
    "weights": "tiny",
    "cameras": {"front": "/front/image"},
    "slop": 0.06,
    "grid": {"x_min": -10.0, "x_max": 10.0, "y_min": -8.0, "y_max": 8.0, "resolution": 1.0},
    "used": 2,
    "failures": {"a reason": 1},
    "missed": {"front": 1},
    "remarks": ["one"],
    "coverage": {"front": "sees ahead"},
    "stamps": [1, 2],
    "latencies": {stage: [1.0, 2.0] for stage in STAGES},
    "pairs": 1,
    "iou": {name: {"best": 0.5, "half": None, "threshold": 0.4} for name in CLASS_NAMES},
}
ODD = st.sampled_from(
    [None, True, -1, 10**400, 1e999, "x", [], [[1]], {}, {"a": None}, {"a": {"b": "c"}}, [None], [{}]]
)


def load(content: Any) -> ReplaySummary:
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ReplaySummary.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stamps": [1]}, "1 stamps of 2 sets"),
        ({"used": 0, "stamps": []}, "0 stamps of 0 sets"),
        ({"used": "2"}, "used is '2', not int"),
        ({"cameras": ["front"]}, "cameras is .* not a mapping"),
        ({"cameras": {}}, "no cameras"),
        ({"grid": {"x_min": 0.0, "width": 3.0}}, "unexpected keyword"),
        ({"grid": {**CONTENT["grid"], "resolution": 0.0}}, "positive resolution"),
        ({"grid": {**CONTENT["grid"], "x_max": 1e9}}, "cells"),
        ({"latencies": {"decode": [1.0, 2.0]}}, "latencies are not 2 of each of decode"),
        ({"latencies": {stage: [1.0] for stage in STAGES}}, "latencies are not 2 of each"),
        ({"iou": {"walkway": {"best": 0.5}}}, "iou lacks columns"),
        ({"failures": {"a": "b"}}, "failures.a is 'b', not int"),
    ],
)
def test_a_summary_that_is_none_is_named_with_what_is_wrong(change, message):
    with pytest.raises(BridgeTAError, match=rf"{FILE_NAME}: is not the summary of a replay \(.*{message}"):
        load({**CONTENT, **change})


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "3", "null", '{"used": 1e999}'])
def test_a_summary_file_of_something_else_is_named(text):
    with pytest.raises(BridgeTAError, match="is not the summary of a replay"):
        load(text)


@given(st.data())
def test_any_change_of_a_summary_is_shown_or_one_clear_error(data):
    content = copy.deepcopy(CONTENT)
    holder = content
    key = data.draw(st.sampled_from(sorted(content)))
    while isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder)))
    holder[key] = data.draw(ODD)
    try:
        summary = load(content)
    except BridgeTAError:
        return
    summary.summarise_stages()
    summary.list_losses()
    if summary.iou:
        summary.format_iou()


def test_a_rig_of_other_cameras_than_the_summarys_is_named(tmp_path):
    bag = write_bag(tmp_path / "in", 2)
    replay(bag, tmp_path / "out", FakeRuntime(), progress=False)
    path = tmp_path / "out" / FILE_NAME
    content = json.loads(path.read_text())
    content["cameras"]["cam_left"] = content["cameras"].pop("cam_front")
    path.write_text(json.dumps(content))
    with pytest.raises(BridgeTAError, match="has the cameras cam_front, cam_back"):
        write_report(tmp_path / "out", bag, tmp_path / "page.html", progress=False)


def everywhere(value: float) -> np.ndarray:
    return np.full((6, *GRID.shape), value, dtype=np.float32)


def add_truth(agreement: Agreement, ns: int, value: int) -> None:
    for name in CLASS_NAMES:
        agreement.add_truth(ns, name, np.full(GRID.shape, value, dtype=np.int8))


def test_results_are_forgotten_when_the_clock_went_back():
    agreement = Agreement(GRID)
    agreement.add_result(100 * SECOND, everywhere(1))
    for i in range(500):
        agreement.add_result(i * 100 * MS, everywhere(1))
        assert len(agreement._results) <= 12


def test_truths_of_both_sides_of_a_clock_jump_count():
    agreement = Agreement(GRID)
    for start in (100 * SECOND, 0, 0):  # back by much, and then once more, as a bag that loops
        for i in range(5):
            add_truth(agreement, start + i * 500 * MS, 100)
            agreement.add_result(start + i * 500 * MS, everywhere(1))
    agreement.conclude()
    assert (agreement.pairs, agreement.lost) == (15, 0)


def test_truths_that_no_result_comes_for_are_bounded_and_counted(monkeypatch):
    monkeypatch.setattr(summary_module, "_MOST_WAITING", 40 * 6 * 2 * 320 // 8)  # 40 keyframes of 20 x 16 cells
    agreement = Agreement(GRID)
    for i in range(100):
        add_truth(agreement, i * SECOND, 100)
    assert (len(agreement._truths), agreement.lost) == (40, 60)
    agreement.add_result(99 * SECOND, everywhere(1))
    assert agreement.conclude().to_columns()["walkway"]["best"] == 1.0
    assert agreement.pairs == 1


def test_a_class_that_the_network_did_not_learn_is_not_scored():
    agreement = Agreement(GRID)
    add_truth(agreement, 0, 100)
    probabilities = everywhere(1)
    probabilities[CLASS_NAMES.index("walkway")] = np.nan
    agreement.add_result(0, probabilities)
    columns = agreement.conclude().to_columns()
    assert columns["walkway"]["best"] is None
    assert columns["divider"]["best"] == 1.0


def test_unknown_cells_do_not_count_however_long_a_truth_waits():
    agreement = Agreement(GRID)
    values = np.zeros(GRID.shape, dtype=np.int8)
    values[:5], values[5:9] = 100, -1
    agreement.add_truth(0, "walkway", values)
    probabilities = everywhere(0)
    probabilities[CLASS_NAMES.index("walkway"), :9] = 1  # right where known
    agreement.add_result(0, probabilities)
    columns = agreement.conclude().to_columns()
    assert columns["walkway"]["half"] == 1.0


def test_a_replay_says_how_many_truths_waited_in_vain(tmp_path, monkeypatch):
    monkeypatch.setattr(summary_module, "_MOST_WAITING", 1000)

    def lose_most(cycle: int, name: str) -> bytes | None:
        return jpeg(100) if cycle > 7 or name == "cam_back" else None

    bag = write_bag(tmp_path / "in", 10, image=lose_most, truth=np.zeros((6, *GRID.shape), dtype=np.int8))
    summary = replay(bag, tmp_path / "out", FakeRuntime(), progress=False)
    assert summary.used == 2
    assert any("ground-truth keyframes waited too long for a result" in remark for remark in summary.remarks)
