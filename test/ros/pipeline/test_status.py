"""Statuses of calibration and network, and their changes for the log."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from bag_fakes import GRID, RIG, FakeRuntime
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.geometry.coverage import measure_coverage
from bridgeta_core.geometry.rig import Rig
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Changes, Status, describe_calibration, describe_network


def test_calibration_is_an_error_when_missing_and_a_warning_when_partial():
    waiting = describe_calibration(None, "CameraInfo and TF", "front: no CameraInfo yet")
    assert (waiting.level, waiting.message) == (ERROR, "waiting: front: no CameraInfo yet")
    partial = describe_calibration(RIG, "CameraInfo and TF", "roof: no CameraInfo yet")
    assert (partial.level, partial.message) == (WARN, "roof: no CameraInfo yet")
    whole = describe_calibration(RIG, "rig.yaml", None)
    assert (whole.level, whole.message) == (OK, "2 cameras")
    assert whole.values["source"] == "rig.yaml"
    assert whole.values["cam_front"] == "160x90, focal length 80.0 px, at 0.00 0.00 1.50 m"


def test_a_camera_that_sees_nothing_is_a_warning_with_its_coverage():
    sky = np.eye(4)
    sky[2, 3] = 1.5
    rig = Rig((RIG.cameras[0], replace(RIG.cameras[1], ego_T_cam=sky)))
    coverage = measure_coverage(rig, FakeRuntime().fits(rig), GRID, 1.0, 60.0)
    status = describe_calibration(rig, "rig.yaml", None, coverage=coverage)
    assert status.level == WARN
    assert status.message.startswith("cam_back sees 0 of the 320 cells: it looks 90 degrees up")
    assert status.values["cam_back coverage"] == "sees no cell of the grid"
    assert re.match(r"sees \d+ % of the grid, ground from \d.5 to 9.5 m", status.values["cam_front coverage"])
    both = describe_calibration(rig, "rig.yaml", "roof: no CameraInfo yet", coverage=coverage)
    assert both.message == f"roof: no CameraInfo yet; {status.message}"


def test_a_network_that_had_to_give_something_up_is_a_warning():
    assert describe_network("tiny", "cuda", "torch", "float16", ()).level == OK
    status = describe_network("tiny", "cpu", "openvino", "float32", ("out of memory; runs on cpu now",))
    assert (status.level, status.message) == (WARN, "out of memory; runs on cpu now")
    assert status.values == {"weights": "tiny", "device": "cpu", "backend": "openvino", "precision": "float32"}


def status(level: int, message: str, name: str = "cameras") -> Status:
    return Status(name, level, message, {})


def test_the_log_has_changes_only():
    changes = Changes()
    logged = [
        [s.message for s in changes.update([status(level, message)])]
        for level, message in [
            (OK, "all cameras send"),
            (WARN, "no image from left"),
            (WARN, "no image from left"),
            (ERROR, "no image from left"),
            (ERROR, "no image from left, right"),
            (OK, "all cameras send"),
            (OK, "in other words"),
        ]
    ]
    assert logged == [
        [],
        ["no image from left"],
        [],
        ["no image from left"],
        ["no image from left, right"],
        ["all cameras send"],
        [],
    ]


def test_the_log_keeps_statuses_apart():
    changes = Changes()
    both = [status(WARN, "x"), status(WARN, "x", "sets")]
    assert changes.update(both) == both
    assert changes.update([status(WARN, "x"), status(ERROR, "x", "sets")]) == [status(ERROR, "x", "sets")]


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 9**9), st.integers(0, 9**9))
def test_numbers_alone_are_no_change(a, b, i, j):
    changes = Changes()
    assert changes.update([status(WARN, f"{a:.2f} s from stamp to publish, {i} times")])
    assert not changes.update([status(WARN, f"{b:.2f} s from stamp to publish, {j} times")])


def test_cameras_that_differ_by_a_number_are_told_apart():
    changes = Changes()
    for name in ("camera0", "camera1", "cam_2", "cam_3"):
        assert changes.update([status(WARN, f"no image from {name}")])
