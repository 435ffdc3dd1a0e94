"""The node on a live graph when things go wrong: each fault is injected, has a defined behaviour and a diagnostic."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

OK, WARN, ERROR = 0, 1, 2
HOUR = 3_600_000_000_000


def status_is(bench: Any, name: str, level: int, text: str = "") -> Callable[[], bool]:
    def condition() -> bool:
        now = bench.listener.status(name)
        return now[0] == level and text in now[1]

    condition.__name__ = f"{name} is {level} with {text!r}"
    return condition


class TestMissingCameras:
    def test_a_partial_set_runs_and_unseen_cells_are_unknown(self, bench: Any) -> None:
        from ros_bench import cells

        bench.start(min_cameras=1)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        assert cells(bench.listener.grids["/bev/drivable_area"][-1])[8, 0] >= 0  # behind
        bench.drive(
            vehicle, lambda: cells(bench.listener.grids["/bev/drivable_area"][-1])[8, 0] == -1, without=["cam_back"]
        )
        assert cells(bench.listener.grids["/bev/drivable_area"][-1])[8, 19] >= 0  # ahead
        bench.drive(vehicle, status_is(bench, "cameras", WARN, "no image from cam_back"), without=["cam_back"])
        assert int(bench.listener.status("sets")[2]["partial"]) > 0
        bench.drive(vehicle, lambda: cells(bench.listener.grids["/bev/drivable_area"][-1])[8, 0] >= 0)
        bench.drive(vehicle, status_is(bench, "cameras", OK))

    def test_a_camera_that_never_was_there_is_done_without(self, bench: Any) -> None:
        bench.start(min_cameras=1)
        vehicle = bench.vehicle(calibrated=False)
        vehicle.publish_tf()
        bench.until(lambda: vehicle.infos["cam_front"].get_subscription_count())

        def arrived() -> bool:
            vehicle.publish_info_with("cam_front")
            return bool(bench.listener.stamps())

        bench.drive(vehicle, arrived, without=["cam_back"])
        bench.drive(vehicle, status_is(bench, "calibration", WARN, "cam_back: no CameraInfo"), without=["cam_back"])

    def test_a_dead_camera_is_an_error_when_all_are_needed(self, bench: Any) -> None:
        bench.start(diagnostics__error_after=0.8)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        bench.drive(vehicle, status_is(bench, "cameras", ERROR, "cam_back"), without=["cam_back"])
        before = len(bench.listener.stamps())
        for _ in range(5):
            vehicle.publish_cycle(without=["cam_back"])
            bench.pause(0.08)
        assert len(bench.listener.stamps()) == before
        assert int(bench.listener.status("sets")[2]["incomplete"]) > 0
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > before)


def drive_with_delay(bench: Any, vehicle: Any, delay: float, condition: Callable[[], bool]) -> None:
    """Publish cycles at 12 Hz whose last camera comes `delay` seconds after its stamp, until the condition holds."""
    from ros_bench import PATIENCE

    start, sent = time.monotonic(), 0
    waiting: list[tuple[float, int]] = []
    while not condition():
        assert time.monotonic() - start < PATIENCE, bench.listener.statuses
        now = time.monotonic()
        if now >= start + sent / 12:
            waiting.append((now + delay, vehicle.publish_cycle(without=["cam_back"])))
            sent += 1
        while waiting and waiting[0][0] <= now:
            vehicle.publish_cycle(without=["cam_front"], stamp_ns=waiting.pop(0)[1])
        bench.executor.spin_once(timeout_sec=0.01)


class TestLateCamera:
    def test_a_camera_that_is_always_late_is_named(self, bench: Any) -> None:
        bench.start(min_cameras=1)
        vehicle = bench.vehicle()
        drive_with_delay(bench, vehicle, 0.25, status_is(bench, "cameras", WARN, "most sets lack cam_back"))
        assert "patience" in bench.listener.status("cameras")[1]
        drive_with_delay(bench, vehicle, 0.25, status_is(bench, "sets", WARN, "without cam_back"))

    def test_with_patience_it_is_used(self, bench: Any) -> None:
        from ros_bench import cells

        bench.start(min_cameras=1, patience=0.5)
        vehicle = bench.vehicle()
        drive_with_delay(bench, vehicle, 0.25, lambda: len(bench.listener.stamps()) > 30)
        grid = cells(bench.listener.grids["/bev/drivable_area"][-1])
        assert grid[8, 0] >= 0  # behind
        assert bench.listener.status("sets")[2]["partial"] == "0"


class TestInput:
    def test_silence_is_a_warning_then_an_error_then_over(self, bench: Any) -> None:
        bench.start(diagnostics__error_after=1.0)
        vehicle = bench.vehicle()
        bench.drive(vehicle, status_is(bench, "cameras", OK))
        bench.until(status_is(bench, "cameras", WARN, "no image from cam_front, cam_back"))
        bench.until(status_is(bench, "cameras", ERROR))
        bench.drive(vehicle, status_is(bench, "cameras", OK))

    def test_a_low_rate_is_a_warning(self, bench: Any) -> None:
        bench.start(diagnostics__expected_rate=100.0)
        vehicle = bench.vehicle()
        bench.drive(vehicle, status_is(bench, "cameras", WARN, "low rate of cam_front, cam_back"))

    def test_late_results_are_a_warning_and_then_an_error(self, bench: Any) -> None:
        bench.start(diagnostics__late_after=0.2, diagnostics__error_after=0.5)
        vehicle = bench.vehicle()

        def old() -> int:
            return bench.node.get_clock().now().nanoseconds - 300_000_000

        levels = []

        def seen() -> bool:
            level = bench.listener.status("latency")[0]
            levels.append(level)
            return level == ERROR

        end = time.monotonic() + 10
        while not seen() and time.monotonic() < end:
            vehicle.publish_cycle(stamp_ns=old())
            bench.pause(0.08)
        assert levels[-1] == ERROR
        assert WARN in levels
        bench.drive(vehicle, status_is(bench, "latency", OK))

    def test_stamps_of_another_clock_are_named(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle()
        end = time.monotonic() + 10
        while not status_is(bench, "latency", WARN, "use_sim_time")() and time.monotonic() < end:
            vehicle.publish_cycle(stamp_ns=bench.node.get_clock().now().nanoseconds - 24 * HOUR)
            bench.pause(0.08)
        assert "use_sim_time" in bench.listener.status("latency")[1]

    def test_when_time_goes_back_it_starts_over(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        earlier = bench.node.get_clock().now().nanoseconds - HOUR
        for cycle in range(40):
            vehicle.publish_cycle(stamp_ns=earlier + cycle * 83_000_000)
            bench.pause(0.05)
            if any(abs(stamp - earlier) < HOUR // 2 for stamp in bench.listener.stamps()):
                break
        else:
            pytest.fail("no grid of the earlier time")
        bench.until(lambda: bench.listener.status("sets")[2].get("resets") == "1")

    def test_images_without_a_stamp_are_named(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle()
        message_time = {"stamp_ns": 5_000_000}  # the first of the two cameras is then stamped 0
        bench.drive(vehicle, status_is(bench, "cameras", WARN, "cam_front"), **message_time)
        assert "no stamp" in bench.listener.status("cameras")[2]["cam_front fault"]

    @pytest.mark.parametrize(
        ("data", "reason"),
        [(b"", "holds no data"), (b"\xff\xd8\xff\xe0 not to the end", "truncated"), (b"hello", "is not a JPEG, PNG")],
        ids=["empty", "truncated", "no image"],
    )
    def test_a_broken_image_costs_its_set(self, bench: Any, data: bytes, reason: str) -> None:
        bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        bench.drive(
            vehicle,
            lambda: reason in bench.listener.status("sets")[1] and "cam_back" in bench.listener.status("sets")[1],
            data={"cam_back": data},
        )
        assert bench.listener.status("sets")[0] in (WARN, ERROR)
        before = len(bench.listener.stamps())
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > before)
        bench.drive(vehicle, status_is(bench, "sets", OK))

    def test_a_broken_image_is_left_out_when_fewer_cameras_will_do(self, bench: Any) -> None:
        from ros_bench import cells

        bench.start(min_cameras=1)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        bench.drive(
            vehicle, status_is(bench, "cameras", WARN, "unusable images from cam_back"), data={"cam_back": b"hello"}
        )
        grid = cells(bench.listener.grids["/bev/drivable_area"][-1])
        assert (grid[8, 0], grid[8, 19] >= 0) == (-1, True)

    def test_an_image_of_another_size_than_its_calibration_says_so(self, bench: Any) -> None:
        from ros_bench import jpeg

        bench.start()
        vehicle = bench.vehicle()
        bench.drive(
            vehicle,
            lambda: "its calibration is for" in bench.listener.status("sets")[1],
            data={"cam_back": jpeg(9, (320, 240))},
        )

    def test_an_unexpected_failure_does_not_end_it(self, bench: Any) -> None:
        node = bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        infer = node._runtime.infer

        def fail(*_: object) -> None:
            raise ZeroDivisionError("by a fault injection")

        node._runtime.infer = fail
        bench.drive(vehicle, lambda: "ZeroDivisionError" in bench.listener.status("sets")[1])
        node._runtime.infer = infer
        before = len(bench.listener.stamps())
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > before)


class TestCalibration:
    def test_what_is_missing_is_named(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle(calibrated=False)
        bench.until(status_is(bench, "calibration", ERROR, "no CameraInfo"))
        bench.until(lambda: all(p.get_subscription_count() for p in vehicle.infos.values()))
        vehicle.publish_infos()
        bench.until(status_is(bench, "calibration", ERROR, "TF does not know"))
        vehicle.publish_tf()
        bench.until(status_is(bench, "calibration", OK))

    def test_a_changed_calibration_is_used(self, bench: Any) -> None:
        from ros_bench import SIZE, K

        node = bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        longer = K.copy()
        longer[0, 0] *= 2
        fields = {"k": longer.ravel(), "p": np.hstack((longer, np.zeros((3, 1)))).ravel()}
        vehicle.publish_info_with("cam_front", **fields)
        bench.drive(vehicle, lambda: node._runtime.rigs[-1].cameras[0].intrinsics[0, 0] == longer[0, 0])
        assert node._runtime.rigs[-1].cameras[0].width == SIZE[0]

    def test_a_moved_camera_is_used(self, bench: Any) -> None:
        from ros_bench import AHEAD, BACK, camera

        from bridgeta_core.geometry.rig import Rig

        node = bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        higher = AHEAD.copy()
        higher[2, 3] = 2.25
        vehicle.publish_tf(Rig((camera("cam_front", higher), camera("cam_back", BACK))))
        bench.drive(vehicle, lambda: node._runtime.rigs[-1].cameras[0].ego_T_cam[2, 3] == 2.25)

    def test_nan_from_the_start_is_an_error_until_a_good_one_comes(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle(calibrated=False)
        vehicle.publish_tf()
        bench.until(lambda: all(p.get_subscription_count() for p in vehicle.infos.values()))
        vehicle.publish_info_with("cam_front")
        vehicle.publish_info_with("cam_back", k=np.full(9, np.nan))
        bench.drive(vehicle, status_is(bench, "calibration", ERROR, "not finite"))
        bench.drive(vehicle, lambda: int(bench.listener.status("sets")[2]["uncalibrated"]) > 0)
        vehicle.publish_infos()
        bench.drive(vehicle, lambda: bench.listener.stamps())

    def test_nan_later_on_keeps_the_last_good_one(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        vehicle.publish_info_with("cam_back", k=np.full(9, np.nan))
        bench.drive(vehicle, status_is(bench, "calibration", WARN, "the earlier calibration stays in use"))
        before = len(bench.listener.stamps())
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > before)

    def test_invalid_transforms_do_no_harm(self, bench: Any) -> None:
        from bridgeta_ros.pipeline import messages

        bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        bad = np.eye(4)
        bad[0, 3] = np.nan
        message = messages.make_tf_message(vehicle.make, [(0, "base_link", "cam_front", bad), (0, "map", "else", bad)])
        vehicle.tf_static.publish(message)
        bench.drive(vehicle, status_is(bench, "calibration", WARN, "TF base_link <- cam_front is ignored"))
        assert "else" not in bench.listener.status("calibration")[1]  # which no camera needs
        before = len(bench.listener.stamps())
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > before)

    @pytest.mark.parametrize("latched", [True, False], ids=["latched", "volatile"])
    def test_camera_info_of_both_durabilities_is_used(self, bench: Any, latched: bool) -> None:
        from rclpy.qos import qos_profile_sensor_data
        from ros_bench import LATCHED, RIG, RosFactory
        from sensor_msgs.msg import CameraInfo

        from bridgeta_ros.pipeline import messages

        qos = LATCHED if latched else qos_profile_sensor_data
        publishers = {
            c.name: bench.node.create_publisher(CameraInfo, f"/bev_node/input/{c.name}/camera_info", qos)
            for c in RIG.cameras
        }

        def send() -> None:
            for c in RIG.cameras:
                publishers[c.name].publish(messages.make_camera_info(RosFactory(), c, 0, c.name))

        send()  # once, before the node is there
        bench.start()
        vehicle = bench.vehicle(calibrated=False)
        vehicle.publish_tf()
        if not latched:
            bench.until(lambda: all(p.get_subscription_count() for p in publishers.values()))
            send()
        bench.until(status_is(bench, "calibration", OK))
        bench.drive(vehicle, lambda: bench.listener.stamps())
        assert "incompatible" not in bench.listener.status("connections")[1]
        for publisher in publishers.values():
            bench.node.destroy_publisher(publisher)

    def test_small_changes_in_every_message_cost_no_rate(self, bench: Any) -> None:
        from ros_bench import K

        node = bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        rig = node._calibration.rig
        sent = iter(range(10**6))

        def jittered() -> bool:
            k = K.copy()
            k[0, 2] += 0.2 * np.sin(next(sent))
            vehicle.publish_info_with("cam_front", k=k.ravel(), p=np.hstack((k, np.zeros((3, 1)))).ravel())
            return bench.listener.status("calibration")[2].get("remark", "") != "" and next(sent) > 60

        bench.drive(vehicle, jittered)
        assert node._calibration.rig is rig
        assert bench.listener.status("calibration")[0] == OK
        assert "cam_front up to 0.2 px" in bench.listener.status("calibration")[2]["remark"]

    def test_a_chain_over_tf_among_thousands_of_other_frames_is_found(self, bench: Any) -> None:
        from bridgeta_ros.pipeline import messages

        bench.start()
        vehicle = bench.vehicle(calibrated=False)
        bench.until(lambda: all(p.get_subscription_count() for p in [*vehicle.infos.values(), vehicle.tf]))
        others = [(0, "base_link", f"joint_{i}", np.eye(4)) for i in range(55)]
        mounts = [(0, "base_link", c.name, c.ego_T_cam) for c in vehicle.rig.cameras]

        def calibrated() -> bool:
            vehicle.publish_infos()
            for links in (others, mounts, others):
                vehicle.tf.publish(messages.make_tf_message(vehicle.make, links))
            return status_is(bench, "calibration", OK)()

        bench.drive(vehicle, calibrated)
        bench.drive(vehicle, lambda: bench.listener.stamps())


class TestClock:
    def test_simulated_time_that_never_comes_is_named(self, bench: Any) -> None:
        from ros_bench import PATIENCE

        bench.start(use_sim_time=True)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())  # it works all the same
        end = time.monotonic() + PATIENCE
        while not status_is(bench, "clock", WARN, "/clock has sent nothing")() and time.monotonic() < end:
            vehicle.publish_cycle()
            bench.pause(0.08)
        assert "--clock" in bench.listener.status("clock")[1]

    def test_at_a_quarter_of_the_speed_and_after_the_end_all_is_well(self, bench: Any) -> None:
        from rosgraph_msgs.msg import Clock

        from bridgeta_ros.pipeline.messages import make_time

        publisher = bench.node.create_publisher(Clock, "/clock", 10)
        bench.start(use_sim_time=True)
        vehicle = bench.vehicle()
        now = 1_700_000_000_000_000_000
        seen = set()

        def play(cycles: int) -> None:
            nonlocal now
            for _ in range(cycles):
                for _ in range(8):
                    now += 83_000_000 // 8
                    publisher.publish(Clock(clock=make_time(vehicle.make, now)))
                    bench.pause(0.04)
                vehicle.publish_cycle(stamp_ns=now)
                seen.update((n, s[1]) for n, s in bench.listener.statuses.items() if s[0] != OK)

        play(6)  # what is not there yet may be named
        seen.clear()
        play(20)
        assert bench.listener.stamps()
        for _ in range(30):
            bench.pause(0.1)
            seen.update((n, s[1]) for n, s in bench.listener.statuses.items() if s[0] != OK)
        assert not seen
        assert "stands still" in bench.listener.status("clock")[1]


class TestStart:
    def test_what_is_still_to_come_is_no_warning_at_first(self, bench: Any) -> None:
        bench.start(diagnostics__start_grace=3.0)
        levels = set()

        def started() -> bool:
            levels.update(s[0] for s in bench.listener.statuses.values())
            return "starting" in bench.listener.status("calibration")[1]

        bench.until(started)
        vehicle = bench.vehicle()
        bench.drive(vehicle, status_is(bench, "calibration", OK, "2 cameras"))
        bench.drive(vehicle, status_is(bench, "sets", OK, "publishing"))
        assert levels == {OK}

    def test_after_the_grace_what_is_missing_is_an_error(self, bench: Any) -> None:
        bench.start(diagnostics__start_grace=1.0)
        bench.until(status_is(bench, "calibration", ERROR, "no CameraInfo"))

    def test_the_reason_of_a_failed_transition_is_on_diagnostics(self, bench: Any) -> None:
        node = bench.add(cameras=["left side"])
        assert not bench.change(node, "configure")
        bench.until(status_is(bench, "lifecycle", ERROR, "unconfigured: cannot configure: parameter cameras"))
        assert bench.set_parameter(node, "cameras", ["cam_front", "cam_back"]).successful
        assert bench.change(node, "configure")
        bench.until(status_is(bench, "lifecycle", OK, "inactive"))


class TestQos:
    def test_a_volatile_tf_static_is_named_by_its_durability(self, bench: Any) -> None:
        from tf2_msgs.msg import TFMessage

        publisher = bench.node.create_publisher(TFMessage, "/tf_static", 10)
        bench.start()
        bench.until(status_is(bench, "connections", WARN, "incompatible QoS (durability) on /tf_static"))
        assert "reliability" not in bench.listener.status("connections")[1]
        bench.node.destroy_publisher(publisher)

    def test_a_publisher_that_offers_less_is_named(self, bench: Any) -> None:
        bench.start(reliability="reliable")
        bench.vehicle(calibrated=False)  # sensor data: best effort
        bench.until(status_is(bench, "connections", WARN, "incompatible QoS"))
        values = bench.listener.status("connections")[2]
        assert "RELIABILITY" in values["/bev_node/input/cam_front/image/compressed"]

    def test_topics_without_publisher_are_named(self, bench: Any) -> None:
        bench.start()
        bench.until(status_is(bench, "connections", WARN, "no publisher on /bev_node/input/cam_front/image/compressed"))
        vehicle = bench.vehicle()
        bench.drive(vehicle, status_is(bench, "connections", OK))


class TestNetwork:
    def test_a_slow_network_gets_the_newest_set(self, bench: Any) -> None:
        node = bench.start()
        infer = node._runtime.infer

        def slow(*args: Any) -> Any:
            time.sleep(0.3)
            return infer(*args)

        node._runtime.infer = slow
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) >= 4)
        bench.pause(0.3)
        values = bench.listener.status("sets")[2]
        assert int(values["replaced"]) > int(values["published"])
        newest = vehicle.publish_cycle()
        bench.until(lambda: newest in bench.listener.stamps())

    def test_out_of_gpu_memory_it_steps_down_and_says_so(self, bench: Any) -> None:
        import torch
        from ros_bench import NodeRuntime

        from bridgeta_core.deploy.fallback import FallbackRuntime
        from bridgeta_ros.node import bev_node as node_module

        class Gpu(NodeRuntime):
            def __init__(self, weights: str, device: str, precision: str, backend: str) -> None:
                super().__init__(weights, device, precision, backend)
                self.device, self.precision = device, precision

            def infer(self, images: np.ndarray, rig: Any) -> np.ndarray:
                if self.device == "cuda":
                    raise torch.OutOfMemoryError("CUDA out of memory (injected)")
                return super().infer(images, rig)

        bench.monkeypatch.setattr(node_module, "FallbackRuntime", partial(FallbackRuntime, make=Gpu))
        bench.start(device="cuda")
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        bench.drive(vehicle, status_is(bench, "network", WARN, "out of memory"))
        assert bench.listener.status("network")[2]["device"] == "cpu"
