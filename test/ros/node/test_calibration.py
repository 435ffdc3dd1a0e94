"""The calibration of a running vehicle comes together in any order, keeps what is good, and says what is missing."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bag_fakes import AHEAD, BACK, RIG, SIZE, K
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import Matrix, rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node.calibration import LiveCalibration, measure_shift
from bridgeta_ros.pipeline import messages


class PlainFactory:
    """Messages as rclpy holds them, without rclpy: sequences of numbers are arrays of Python's."""

    def make(self, msgtype: str, **fields: Any) -> Any:
        values = {n: array("d", v) if isinstance(v, np.ndarray) else v for n, v in fields.items()}
        return SimpleNamespace(**values)


ROSBAGS = messages.RosbagsFactory(get_typestore(Stores.ROS2_JAZZY))
FACTORIES = [ROSBAGS, PlainFactory()]
NAMES = RIG.names
POSES = {"cam_front": AHEAD, "cam_back": BACK}


class Time:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def new(minimum: int = 2, clock: Time | None = None, names: tuple[str, ...] = NAMES, **options: Any) -> LiveCalibration:
    return LiveCalibration(names, "base_link", minimum, clock=clock or Time(), **options)


def info(name: str, ns: int = 0, make: Any = ROSBAGS, focal: float = 80.0, frame: str | None = None) -> Any:
    k = K.copy()
    k[0, 0] = k[1, 1] = focal
    return messages.make_camera_info(
        make, Camera(name, *SIZE, k, AHEAD), ns, f"{name}_optical" if frame is None else frame
    )


def broken(name: str) -> Any:
    message = info(name)
    message.k = np.full(9, np.nan)
    return message


def tf(*names: str, ns: int = 0, make: Any = ROSBAGS, poses: dict[str, Matrix] | None = None) -> Any:
    poses = poses or POSES
    return messages.make_tf_message(make, [(ns, "base_link", f"{name}_optical", poses[name]) for name in names])


def calibrated(minimum: int = 2, **options: Any) -> LiveCalibration:
    calibration = new(minimum, **options)
    calibration.add_tf(tf(*NAMES))
    for name in NAMES:
        calibration.add_info(name, info(name))
    assert calibration.complete
    return calibration


@given(st.permutations(["tf cam_front", "tf cam_back", "info cam_front", "info cam_back"]), st.sampled_from(FACTORIES))
def test_the_last_message_makes_the_rig_in_any_order(events, make):
    calibration = new()
    changes = []
    for event in events:
        kind, name = event.split()
        assert calibration.rig is None
        assert not calibration.complete
        add = calibration.add_tf(tf(name, make=make)) if kind == "tf" else None
        changes.append(calibration.add_info(name, info(name, make=make)) if add is None else add)
    assert changes == [False, False, False, True]
    assert calibration.complete
    assert calibration.problem is None
    assert calibration.rig is not None
    assert calibration.rig.names == NAMES
    for camera, expected in zip(calibration.rig.cameras, RIG.cameras, strict=True):
        assert (camera.width, camera.height, camera.distortion) == (*SIZE, ())
        assert np.allclose(camera.intrinsics, K)
        assert np.allclose(camera.ego_T_cam, expected.ego_T_cam)


def test_the_cameras_of_the_rig_keep_the_requested_order():
    calibration = new(names=("cam_back", "cam_front"))
    calibration.add_tf(tf(*NAMES))
    for name in NAMES:
        calibration.add_info(name, info(name))
    assert calibration.rig is not None
    assert calibration.rig.names == ("cam_back", "cam_front")


def test_problems_are_named_by_camera_and_grouped_by_reason():
    calibration = new()
    assert calibration.problem == "cam_front, cam_back: no CameraInfo yet"
    calibration.add_info("cam_front", info("cam_front"))
    assert set(calibration.problems) == set(NAMES)
    assert "base_link <- cam_front_optical" in calibration.problems["cam_front"]
    assert calibration.problems["cam_back"] == "no CameraInfo yet"
    calibration.add_tf(tf("cam_front"))
    assert set(calibration.problems) == {"cam_back"}


def test_all_cameras_need_no_grace():
    clock = Time()
    calibration = new(1, clock, grace=5.0)
    calibration.add_tf(tf(*NAMES))
    assert not calibration.add_info("cam_front", info("cam_front"))
    assert calibration.add_info("cam_back", info("cam_back"))


def test_fewer_cameras_make_a_rig_once_the_grace_has_passed():
    clock = Time()
    calibration = new(1, clock, grace=5.0)
    calibration.add_tf(tf(*NAMES))
    clock.now += 100  # the grace begins with the first camera, not with the node
    assert not calibration.add_info("cam_front", info("cam_front"))
    clock.now += 4.9
    assert not calibration.update_rig()
    assert calibration.rig is None
    clock.now += 0.2
    assert calibration.update_rig()
    assert calibration.rig is not None
    assert calibration.rig.names == ("cam_front",)
    assert not calibration.complete
    assert calibration.problem == "cam_back: no CameraInfo yet"
    assert not calibration.update_rig()


def test_a_camera_that_comes_after_the_grace_changes_the_rig_at_once():
    clock = Time()
    calibration = new(1, clock)
    calibration.add_tf(tf(*NAMES))
    calibration.add_info("cam_back", info("cam_back"))
    clock.now += 2
    assert calibration.update_rig()
    assert calibration.add_info("cam_front", info("cam_front"))
    assert calibration.rig is not None
    assert calibration.rig.names == NAMES
    assert calibration.complete


def test_fewer_cameras_than_the_minimum_never_make_a_rig():
    clock = Time()
    calibration = new(2, clock)
    calibration.add_tf(tf(*NAMES))
    calibration.add_info("cam_front", info("cam_front"))
    clock.now += 1000
    assert not calibration.update_rig()
    assert calibration.rig is None


def test_a_good_camera_info_replaces_one_that_is_not_finite():
    calibration = new()
    calibration.add_tf(tf(*NAMES))
    calibration.add_info("cam_back", info("cam_back"))
    assert not calibration.add_info("cam_front", broken("cam_front"))
    assert calibration.rig is None
    assert "not finite" in calibration.problems["cam_front"]
    assert "earlier" not in calibration.problems["cam_front"]
    assert calibration.add_info("cam_front", info("cam_front"))
    assert calibration.complete


def test_a_camera_info_that_turns_bad_leaves_the_last_good_one_in_use():
    calibration = calibrated()
    before = calibration.rig
    assert not calibration.add_info("cam_front", broken("cam_front"))
    assert calibration.rig is before
    assert not calibration.complete
    assert calibration.problem is not None
    assert calibration.problem.startswith("cam_front: ")
    assert "not finite, the earlier calibration stays in use" in calibration.problem
    # The good one again: nothing is new, and nothing is wrong.
    assert not calibration.add_info("cam_front", info("cam_front"))
    assert calibration.rig is before
    assert calibration.complete


def test_a_rectified_camera_uses_p_without_distortion():
    calibration = new(rectified=["cam_front"])
    calibration.add_tf(tf(*NAMES))
    for name in NAMES:
        message = info(name)
        message.d = np.array([-0.3, 0.1, 0.0, 0.0, 0.0])
        message.p = np.array([70.0, 0, 81, 0, 0, 70, 46, 0, 0, 0, 1, 0])
        calibration.add_info(name, message)
    assert calibration.rig is not None
    front, back = calibration.rig.cameras
    assert (front.distortion, front.intrinsics[0, 0]) == ((), 70.0)
    assert (back.distortion[0], back.intrinsics[0, 0]) == (-0.3, 80.0)


def test_a_fisheye_without_coefficients_is_used_with_a_remark():
    calibration = new()
    calibration.add_tf(tf(*NAMES))
    for name in NAMES:
        message = info(name)
        message.distortion_model, message.d = "equidistant", np.zeros(4)
        calibration.add_info(name, message)
    assert calibration.complete
    assert calibration.rig is not None
    assert {c.distortion_model for c in calibration.rig.cameras} == {"equidistant"}
    assert calibration.remark is not None
    assert "ideal fisheye" in calibration.remark


@pytest.mark.parametrize("frame", ["", "/"])
def test_a_camera_info_without_a_frame_is_reported(frame):
    calibration = new()
    calibration.add_tf(tf(*NAMES))
    calibration.add_info("cam_front", info("cam_front", frame=frame))
    assert "names no frame" in calibration.problems["cam_front"]


def test_a_frame_that_tf_does_not_know_is_named():
    calibration = new()
    calibration.add_tf(tf("cam_back"))
    for name in NAMES:
        calibration.add_info(name, info(name))
    assert calibration.rig is None
    assert set(calibration.problems) == {"cam_front"}
    assert "TF does not know cam_front_optical" in calibration.problems["cam_front"]


def test_a_transform_that_is_not_finite_costs_no_other():
    calibration = new()
    for name in NAMES:
        calibration.add_info(name, info(name))
    message = tf(*NAMES)
    message.transforms[0].transform.translation.x = float("nan")
    assert not calibration.add_tf(message)
    assert set(calibration.problems) == {"cam_front"}
    assert calibration.problem is not None
    assert "TF base_link <- cam_front_optical is ignored, it holds values that are not finite" in calibration.problem
    assert calibration.add_tf(tf(*NAMES))
    assert calibration.problem is None


def test_a_transform_that_turns_bad_leaves_the_earlier_one_in_use():
    calibration = calibrated()
    before = calibration.rig
    message = tf("cam_front")
    message.transforms[0].transform.rotation = SimpleNamespace(w=0.0, x=0.0, y=0.0, z=0.0)
    assert not calibration.add_tf(message)
    assert calibration.rig is before
    assert not calibration.complete
    assert calibration.problem is not None
    assert "TF base_link <- cam_front_optical" in calibration.problem


def test_a_bad_transform_of_another_part_of_the_vehicle_is_no_problem():
    calibration = calibrated()
    message = messages.make_tf_message(ROSBAGS, [(1, "base_link", "wheel", AHEAD), (1, "wheel", "wheel", AHEAD)])
    message.transforms[0].transform.translation.x = float("nan")
    assert not calibration.add_tf(message)
    assert calibration.complete


def test_a_loop_in_tf_leaves_the_earlier_calibration_in_use():
    calibration = calibrated()
    before = calibration.rig
    assert not calibration.add_tf(messages.make_tf_message(ROSBAGS, [(0, "cam_front_optical", "base_link", np.eye(4))]))
    assert calibration.rig is before
    assert calibration.problem is not None
    assert "loop" in calibration.problem
    assert "stays in use" in calibration.problem


def test_a_loop_in_tf_from_the_start_is_reported():
    calibration = new()
    links = [(0, "a", "base_link", np.eye(4)), (0, "base_link", "a", np.eye(4))]
    calibration.add_tf(messages.make_tf_message(ROSBAGS, links))
    calibration.add_info("cam_front", info("cam_front"))
    assert "loop" in calibration.problems["cam_front"]


@pytest.mark.parametrize("make", FACTORIES)
def test_the_same_messages_with_other_stamps_change_nothing(make):
    calibration = calibrated()
    before = calibration.rig
    for ns in (1, 10**18):
        for name in NAMES:
            assert not calibration.add_info(name, info(name, ns, make))
        assert not calibration.add_tf(tf(*NAMES, ns=ns, make=make))
        assert not calibration.update_rig()
    assert calibration.rig is before


def test_a_changed_camera_info_makes_another_rig_once():
    calibration = calibrated()
    assert [calibration.add_info("cam_back", info("cam_back", ns, focal=85.0)) for ns in range(3)] == [
        True,
        False,
        False,
    ]
    assert calibration.rig is not None
    assert [camera.intrinsics[0, 0] for camera in calibration.rig.cameras] == [80.0, 85.0]


@pytest.mark.parametrize("field", ["roi", "binning"])
def test_a_changed_window_or_binning_makes_another_rig(field):
    calibration = calibrated()
    message = info("cam_back")
    if field == "roi":
        message.roi.x_offset, message.roi.width, message.roi.height = 10, 80, 90
    else:
        message.binning_x = message.binning_y = 2
    assert calibration.add_info("cam_back", message)
    assert calibration.rig is not None
    assert calibration.rig.cameras[1].width == 80


def test_a_changed_tf_static_makes_another_rig_once():
    calibration = calibrated()
    moved = {**POSES, "cam_front": rigid((0.0, 0.0, 2.5), (0.5, -0.5, 0.5, -0.5))}
    assert [calibration.add_tf(tf(*NAMES, ns=ns, poses=moved)) for ns in range(3)] == [True, False, False]
    assert calibration.rig is not None
    assert [camera.ego_T_cam[2, 3] for camera in calibration.rig.cameras] == [2.5, 1.5]


def test_where_the_vehicle_is_does_not_matter():
    calibration = calibrated()
    for x in range(5):
        pose = rigid((x, 0, 0), (1, 0, 0, 0))
        assert not calibration.add_tf(messages.make_tf_message(ROSBAGS, [(x, "map", "base_link", pose)]))
    assert calibration.complete


def test_a_rig_file_replaces_all_messages():
    file = Rig(
        tuple(Camera(c.name.upper(), *SIZE, np.diag((1.5, 1.5, 1)) @ c.intrinsics, c.ego_T_cam) for c in RIG.cameras)
    )
    calibration = new(file=file)
    before = calibration.rig
    assert before is not None
    assert before.names == NAMES
    assert calibration.from_file
    assert calibration.complete
    assert calibration.problem is None
    assert not calibration.add_info("cam_front", info("cam_front"))
    assert not calibration.add_info("cam_front", broken("cam_front"))
    message = tf(*NAMES)
    message.transforms[0].transform.translation.x = float("nan")
    assert not calibration.add_tf(message)
    assert not calibration.update_rig()
    assert calibration.rig is before
    assert calibration.complete


def test_a_rig_file_without_one_of_the_cameras_is_refused():
    with pytest.raises(BridgeTAError, match="cam_roof"):
        new(names=("cam_front", "cam_roof"), file=RIG)


@given(st.lists(st.sampled_from(["good", "bad", "other"]), max_size=20))
def test_the_rig_is_always_that_of_the_last_good_message(sent):
    clock = Time()
    calibration = calibrated(clock=clock)
    kinds = {"good": (info("cam_front"), 80.0), "other": (info("cam_front", focal=90.0), 90.0)}
    focal, last = 80.0, "good"
    for kind in sent:
        expected = kinds.get(kind, (None, focal))[1]
        message = broken("cam_front") if kind == "bad" else kinds[kind][0]
        clock.now += 3
        assert calibration.add_info("cam_front", message) == (expected != focal)
        focal, last = expected, kind
        assert calibration.rig is not None
        assert calibration.rig.cameras[0].intrinsics[0, 0] == focal
    assert calibration.complete == (last != "bad")


# Changes that go on and on


def jittering(calibration: LiveCalibration, pixels: float, clock: Time, seconds: int = 10) -> int:
    """Send at 12 Hz a CameraInfo whose centre is off by up to `pixels`; return how many rigs that made."""
    rigs = 0
    for i in range(12 * seconds):
        clock.now += 1 / 12
        message = info("cam_front", i)
        shifted = message.p.reshape(3, 4).copy()
        shifted[0, 2] += pixels * np.sin(i + 1)
        message.p, message.k = shifted.ravel(), np.ascontiguousarray(shifted[:, :3]).ravel()
        rigs += calibration.add_info("cam_front", message)
        if i % 12 == 0:
            rigs += calibration.update_rig()
    return rigs


def test_changes_under_the_tolerance_leave_the_rig_and_are_remarked():
    clock = Time()
    calibration = calibrated(clock=clock, tolerance=0.5)
    before = calibration.rig
    assert calibration.remark is None
    assert jittering(calibration, 0.3, clock) == 0
    assert calibration.rig is before
    assert calibration.complete
    assert calibration.remark is not None
    assert "cam_front up to 0.3 px" in calibration.remark


def test_a_slow_drift_is_used_once_it_adds_up():
    calibration = calibrated(tolerance=0.5)
    focals = np.linspace(80, 90, 101)
    assert sum(calibration.add_info("cam_front", info("cam_front", focal=focal)) for focal in focals[:5]) == 0
    assert sum(calibration.add_info("cam_front", info("cam_front", focal=focal)) for focal in focals[5:30]) >= 1


def test_changes_that_go_on_make_few_rigs_and_are_a_problem():
    clock = Time()
    calibration = calibrated(clock=clock, tolerance=0.5)
    assert 6 <= jittering(calibration, 5.0, clock) <= 10
    assert calibration.problem is not None
    assert "does not rest" in calibration.problem
    clock.now += 11
    calibration.update_rig()
    assert calibration.problem is None
    assert calibration.complete


@pytest.mark.parametrize("axis", [0, 1])
def test_a_shift_of_the_centre_is_its_own_measure(axis):
    moved = K.copy()
    moved[axis, 2] += 1.25
    assert measure_shift(Camera("a", *SIZE, K, AHEAD), Camera("a", *SIZE, moved, AHEAD)) == pytest.approx(1.25)


def test_a_turn_of_the_camera_moves_the_image_by_focal_length_times_angle():
    pose = AHEAD @ rigid((0, 0, 0), (np.cos(5e-4), 0, np.sin(5e-4), 0))  # 1 mrad about the image's vertical
    shift = measure_shift(Camera("a", *SIZE, K, AHEAD), Camera("a", *SIZE, K, pose))
    assert K[0, 0] * 1e-3 <= shift <= 2 * K[0, 0] * 1e-3


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_another_lens_moves_the_image(model):
    d = (0.01, 0.0, 0.0, 0.0)
    old = Camera("a", *SIZE, K, AHEAD, d, model)
    assert measure_shift(old, Camera("a", *SIZE, K, AHEAD, d, model)) == 0
    near = measure_shift(old, Camera("a", *SIZE, K, AHEAD, (0.0101, 0.0, 0.0, 0.0), model))
    assert 0 < near < 0.1
    assert measure_shift(old, Camera("a", *SIZE, K, AHEAD, (0.2, 0.0, 0.0, 0.0), model)) > 1


def test_another_size_or_model_is_no_small_change():
    old = Camera("a", *SIZE, K, AHEAD)
    assert measure_shift(old, Camera("a", SIZE[0] + 1, SIZE[1], K, AHEAD)) == float("inf")
    assert measure_shift(old, Camera("a", *SIZE, K, AHEAD, (0, 0, 0, 0), "equidistant")) == float("inf")
