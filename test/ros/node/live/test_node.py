"""The node on a live graph when all is well: lifecycle, topics, parameters, services."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

GRIDS = [
    f"/bev/{name}"
    for name in ("drivable_area", "ped_crossing", "walkway", "stop_line", "carpark_area", "divider", "navigation")
]


def topics_of(bench: Any) -> dict[str, list[str]]:
    return dict(bench.node.get_topic_names_and_types())


class TestGrids:
    def test_every_output_arrives_stamped_with_the_newest_image(self, bench: Any) -> None:
        from sensor_msgs.msg import Image

        bench.start()
        for topic in GRIDS[1:]:
            bench.listener.listen(topic)
        bench.listener.listen("/bev/image", Image)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: all(bench.listener.grids[t] for t in [*GRIDS, "/bev/image"]))
        stamp = vehicle.publish_cycle(100)
        bench.until(lambda: all(stamp in bench.listener.stamps(t) for t in [*GRIDS, "/bev/image"]))
        assert bench.listener.grids["/bev/image"][-1].encoding == "rgb8"

    def test_a_grid_holds_what_the_network_said(self, bench: Any) -> None:
        from ros_bench import GRID, cells

        bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.grids["/bev/drivable_area"], brightness=51)
        grid = bench.listener.grids["/bev/drivable_area"][-1]
        assert grid.header.frame_id == "base_link"
        assert (grid.info.resolution, grid.info.width, grid.info.height) == (1.0, 20, 16)
        assert (grid.info.origin.position.x, grid.info.origin.position.y) == (GRID.x_min, GRID.y_min)
        assert grid.info.origin.orientation.w == 1.0
        values = cells(grid)
        assert set(np.unique(values)) == {-1, 20}  # the brightness 51 of 255, and what no camera sees
        assert values[8, 19] == 20  # ahead

    def test_sets_at_12_hz_all_become_grids(self, bench: Any) -> None:
        bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        sent: list[int] = []

        def enough() -> bool:
            return len(sent) >= 24

        original = vehicle.publish_cycle
        vehicle.publish_cycle = lambda **kw: sent.append(original(**kw))
        bench.drive(vehicle, enough)
        bench.until(lambda: set(sent) <= set(bench.listener.stamps()))

    def test_a_late_subscriber_gets_the_last_grid(self, bench: Any) -> None:
        bench.start(lazy=False)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        last = bench.listener.stamps()[-1]
        bench.listener.listen("/bev/divider")
        bench.until(lambda: bench.listener.stamps("/bev/divider"))
        assert bench.listener.stamps("/bev/divider")[0] >= last

    def test_nobody_subscribes_so_the_network_rests(self, bench: Any) -> None:
        node = bench.add()
        bench.change(node, "configure")
        bench.change(node, "activate")
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.status("sets")[1] == "idle: nobody subscribes")
        level, _, values = bench.listener.status("sets")
        assert (level, values["published"]) == (0, "0")
        assert int(values["skipped"]) > 0
        bench.listener.listen()
        bench.drive(vehicle, lambda: bench.listener.stamps())

    def test_each_stage_has_a_latency_topic_and_they_add_up(self, bench: Any) -> None:
        from std_msgs.msg import Float64

        from bridgeta_ros.pipeline.topics import LATENCIES

        bench.start()
        for stage in LATENCIES:
            bench.listener.listen(f"/bev_node/latency/{stage}", Float64, 10)
        vehicle = bench.vehicle()
        got = bench.listener.grids
        bench.drive(vehicle, lambda: all(got[f"/bev_node/latency/{stage}"] for stage in LATENCIES))
        last = {stage: got[f"/bev_node/latency/{stage}"][-1].data for stage in LATENCIES}
        parts = sum(value for stage, value in last.items() if stage != "total")
        assert 0 < parts <= last["total"] + 1.0

    def test_raw_images_give_the_grids_of_compressed_ones(self, bench: Any) -> None:
        from ros_bench import SIZE, cells

        from bridgeta_ros.pipeline import messages

        bench.start(transport="raw")
        vehicle = bench.vehicle(calibrated=False)
        vehicle.publish_tf()
        bench.until(lambda: all(p.get_subscription_count() for p in [*vehicle.raw.values(), *vehicle.infos.values()]))
        vehicle.publish_infos()
        picture = np.full((SIZE[1], SIZE[0], 3), 51, np.uint8)

        def arrived() -> bool:
            now = bench.node.get_clock().now().nanoseconds
            for name, publisher in vehicle.raw.items():
                publisher.publish(messages.make_rgb_image(vehicle.make, picture, now, name))
            bench.pause(0.05)
            return bool(bench.listener.stamps())

        bench.until(arrived)
        assert set(np.unique(cells(bench.listener.grids["/bev/drivable_area"][-1]))) == {-1, 20}


class TestLifecycle:
    def test_goes_through_its_states(self, bench: Any) -> None:
        node = bench.add()
        assert bench.state(node) == "unconfigured"
        for transition, state in [
            ("configure", "inactive"),
            ("activate", "active"),
            ("deactivate", "inactive"),
            ("activate", "active"),
            ("deactivate", "inactive"),
            ("cleanup", "unconfigured"),
            ("configure", "inactive"),
            ("shutdown", "finalized"),
        ]:
            assert bench.change(node, transition), transition
            assert bench.state(node) == state

    def test_topics_come_and_go_with_the_states(self, bench: Any) -> None:
        image = "/bev_node/input/cam_front/image/compressed"
        node = bench.add()
        assert "/bev/divider" not in topics_of(bench)
        bench.change(node, "configure")
        bench.until(lambda: "/bev/divider" in topics_of(bench))
        assert bench.node.count_subscribers(image) == 0
        bench.change(node, "activate")
        bench.until(lambda: bench.node.count_subscribers(image) == 1)
        bench.change(node, "deactivate")
        bench.until(lambda: bench.node.count_subscribers(image) == 0)
        bench.change(node, "cleanup")
        bench.until(lambda: bench.node.count_publishers("/bev/divider") == 0)

    def test_inactive_it_publishes_nothing_and_active_again_it_does(self, bench: Any) -> None:
        node = bench.start()
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())
        bench.change(node, "deactivate")
        bench.pause(0.2)
        before = len(bench.listener.stamps())
        vehicle.publish_cycle()
        bench.pause(0.3)
        assert len(bench.listener.stamps()) == before
        bench.change(node, "activate")
        # /tf_static is latched; CameraInfo comes with every image on a vehicle.
        bench.until(lambda: all(p.get_subscription_count() for p in vehicle.infos.values()))
        vehicle.publish_infos()
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > before)

    def test_after_bad_weights_good_ones_can_be_configured(self, bench: Any) -> None:
        from bridgeta_core.deploy.fallback import FallbackRuntime
        from bridgeta_ros.node import bev_node as node_module

        fake = node_module.FallbackRuntime
        bench.monkeypatch.setattr(node_module, "FallbackRuntime", FallbackRuntime)
        node = bench.add(weights="/nowhere/weights.safetensors")
        assert not bench.change(node, "configure")
        assert bench.state(node) == "unconfigured"
        bench.monkeypatch.setattr(node_module, "FallbackRuntime", fake)
        assert bench.set_parameter(node, "weights", "tiny").successful
        assert bench.change(node, "configure")

    def test_a_forbidden_transition_does_not_end_the_node(self, bench: Any) -> None:
        from lifecycle_msgs.srv import ChangeState

        node = bench.start()
        request = ChangeState.Request()
        request.transition.id = 1  # configure, of an active node
        client = bench.node.create_client(ChangeState, "/bev_node/change_state")
        client.wait_for_service()
        client.call_async(request)
        bench.pause(0.3)
        assert bench.state(node) == "active"
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())

    def test_every_state_is_on_diagnostics(self, bench: Any) -> None:
        node = bench.add()
        bench.until(lambda: bench.listener.status("lifecycle")[1] == "unconfigured")
        bench.change(node, "configure")
        bench.until(lambda: bench.listener.status("lifecycle")[1] == "inactive")
        bench.change(node, "activate")
        bench.until(lambda: bench.listener.status("lifecycle")[1] == "active")


class TestParameters:
    def test_all_are_declared_with_description_type_and_range(self, bench: Any) -> None:
        from rcl_interfaces.srv import DescribeParameters

        from bridgeta_ros.node.parameters import list_parameters

        bench.add()
        table = list(list_parameters())
        request = DescribeParameters.Request(names=[p.name for p in table])
        described = bench.call(DescribeParameters, "/bev_node/describe_parameters", request).descriptors
        for parameter, descriptor in zip(table, described, strict=True):
            assert descriptor.name == parameter.name
            assert parameter.help in descriptor.description
            assert descriptor.type not in (0, 5)  # not set, bytes (which rclpy makes of an empty list)
            ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert len(ranges) == (parameter.low is not None)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("threshold", 1.5), ("transport", "theora"), ("min_cameras", -1), ("precision", "int3"), ("backend", "any")],
    )
    def test_a_wrong_value_is_refused_with_the_reason(self, bench: Any, name: str, value: object) -> None:
        node = bench.add()
        result = bench.set_parameter(node, name, value)
        assert not result.successful
        assert name in result.reason

    def test_a_wrong_type_is_refused(self, bench: Any) -> None:
        node = bench.add()
        result = bench.set_parameter(node, "slop", "wide")
        assert not result.successful
        assert "type" in result.reason  # in rclpy's own words

    def test_what_needs_configuring_is_refused_while_configured(self, bench: Any) -> None:
        node = bench.add()
        assert bench.set_parameter(node, "transport", "raw").successful
        bench.change(node, "configure")
        result = bench.set_parameter(node, "transport", "compressed")
        assert not result.successful
        assert "clean it up" in result.reason
        bench.change(node, "cleanup")
        assert bench.set_parameter(node, "transport", "compressed").successful

    def test_start_parameters_are_refused_after_the_start(self, bench: Any) -> None:
        node = bench.add()
        result = bench.set_parameter(node, "diagnostics.period", 0.2)
        assert not result.successful
        assert "when the node starts" in result.reason

    @pytest.mark.parametrize("cameras", [["front", "front"], ["left side"]])
    def test_cameras_that_cannot_be_topics_are_refused_at_configure(self, bench: Any, cameras: list[str]) -> None:
        node = bench.add(cameras=cameras)
        assert not bench.change(node, "configure")
        assert bench.state(node) == "unconfigured"

    def test_the_threshold_holds_from_the_next_set_on(self, bench: Any) -> None:
        from ros_bench import cells

        node = bench.start()
        bench.listener.listen("/bev/navigation")
        vehicle = bench.vehicle()

        def navigation_is(value: int) -> bool:
            grids = bench.listener.grids["/bev/navigation"]
            return bool(grids) and set(np.unique(cells(grids[-1]))) == {-1, value}

        bench.drive(vehicle, lambda: navigation_is(100))  # 100 / 255 is below one half
        assert bench.set_parameter(node, "threshold", 0.3).successful
        bench.drive(vehicle, lambda: navigation_is(0))

    def test_max_rate_skips_sets(self, bench: Any) -> None:
        bench.start(max_rate=2.0)
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: int(bench.listener.status("sets")[2].get("skipped", 0)) >= 6)
        values = bench.listener.status("sets")[2]
        assert int(values["published"]) < int(values["complete"]) / 2


class TestServices:
    def test_reload_takes_the_weights_of_the_parameter(self, bench: Any) -> None:
        from std_srvs.srv import Trigger

        node = bench.start()
        assert bench.set_parameter(node, "weights", "others").successful
        answer = bench.call(Trigger, "/bev_node/reload")
        assert answer.success, answer.message
        assert node._worker.runtime.weights == "others"
        vehicle = bench.vehicle()
        bench.drive(vehicle, lambda: bench.listener.stamps())

    def test_a_failed_reload_says_why_and_keeps_the_old_network(self, bench: Any) -> None:
        from std_srvs.srv import Trigger

        from bridgeta_core.utils.errors import BridgeTAError
        from bridgeta_ros.node import bev_node as node_module

        node = bench.start()
        old = node._worker.runtime

        def fail(*_: object) -> None:
            raise BridgeTAError("is truncated", where="w.safetensors")

        bench.monkeypatch.setattr(node_module, "FallbackRuntime", fail)
        answer = bench.call(Trigger, "/bev_node/reload")
        assert not answer.success
        assert answer.message == "w.safetensors: is truncated"
        assert node._worker.runtime is old

    def test_reload_refuses_weights_for_other_cameras(self, bench: Any) -> None:
        from ros_bench import NodeRuntime
        from std_srvs.srv import Trigger

        from bridgeta_ros.node import bev_node as node_module

        bench.start()

        def other(*_: object) -> NodeRuntime:
            runtime = NodeRuntime()
            runtime.info.cameras = ("CAM_LEFT",)
            return runtime

        bench.monkeypatch.setattr(node_module, "FallbackRuntime", other)
        answer = bench.call(Trigger, "/bev_node/reload")
        assert not answer.success
        assert "cam_left" in answer.message

    def test_calibrate_reads_the_topics_again(self, bench: Any) -> None:
        from std_srvs.srv import Trigger

        bench.start()
        vehicle = bench.vehicle()
        bench.until(lambda: bench.listener.status("calibration")[0] == 0)
        assert bench.call(Trigger, "/bev_node/calibrate").success
        bench.until(lambda: bench.listener.status("calibration")[0] == 2)
        vehicle.publish_tf()
        bench.until(lambda: all(p.get_subscription_count() for p in vehicle.infos.values()))
        vehicle.publish_infos()
        bench.until(lambda: bench.listener.status("calibration")[0] == 0)

    @pytest.mark.parametrize("name", ["reload", "calibrate"])
    def test_both_say_so_when_the_node_is_not_configured(self, bench: Any, name: str) -> None:
        from std_srvs.srv import Trigger

        bench.add()
        answer = bench.call(Trigger, f"/bev_node/{name}")
        assert not answer.success
        assert "not configured" in answer.message


def test_two_nodes_run_side_by_side_in_namespaces(bench: Any) -> None:
    from ros_bench import cells

    levels = {"/left": 51, "/right": 204}
    vehicles = {}
    for namespace in levels:
        node = bench.add(namespace=namespace)
        bench.change(node, "configure")
        bench.change(node, "activate")
        bench.listener.listen(f"{namespace}/bev/drivable_area")
        vehicles[namespace] = bench.vehicle(prefix=f"{namespace}/bev_node")
    for namespace, level in levels.items():
        topic = f"{namespace}/bev/drivable_area"
        bench.drive(vehicles[namespace], lambda topic=topic: bench.listener.grids[topic], brightness=level)
    for namespace, level in levels.items():
        grid = bench.listener.grids[f"{namespace}/bev/drivable_area"][-1]
        assert set(np.unique(cells(grid))) == {-1, round(100 * level / 255)}


def test_a_calibration_file_replaces_camera_info_and_tf(bench: Any, tmp_path: Any) -> None:
    from ros_bench import RIG

    RIG.save(tmp_path / "rig.yaml")
    bench.start(calibration_file=str(tmp_path / "rig.yaml"))
    vehicle = bench.vehicle(calibrated=False)
    bench.drive(vehicle, lambda: bench.listener.stamps())
    assert bench.node.count_subscribers("/bev_node/input/cam_front/camera_info") == 0
