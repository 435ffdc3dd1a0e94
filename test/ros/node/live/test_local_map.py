"""The local map on a live graph: successive results in a fixed frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from bridgeta_core.geometry.transforms import rigid
from bridgeta_ros.pipeline import messages


def drive_along(bench: Any, vehicle: Any, positions: list[float], publish_pose: bool = True, others: int = 0) -> None:
    """Drive along x; `others` are the transforms of other frames that come with each pose."""
    for x in positions:
        for i in range(others):
            joints = [(0, "base_link", f"joint_{i}_{j}", np.eye(4)) for j in range(5)]
            vehicle.tf.publish(messages.make_tf_message(vehicle.make, joints))
        stamp = bench.node.get_clock().now().nanoseconds
        if publish_pose:
            vehicle.publish_pose(stamp, rigid((x, 0, 0), (1, 0, 0, 0)))
        vehicle.publish_cycle(204, stamp_ns=stamp)
        bench.pause(0.1)


def test_it_grows_along_the_way_and_stays_in_its_frame(bench: Any) -> None:
    from ros_bench import cells

    topic = "/bev/local_map/drivable_area"
    bench.start(local_map__enabled=True, local_map__size=60.0)
    bench.listener.listen(topic)
    vehicle = bench.vehicle()
    drive_along(bench, vehicle, [float(x) for x in range(0, 11)])
    bench.until(lambda: len(bench.listener.grids[topic]) >= 5)
    first, last = bench.listener.grids[topic][0], bench.listener.grids[topic][-1]
    assert last.header.frame_id == "map"
    assert (last.info.width, last.info.height, last.info.resolution) == (60, 60, 1.0)
    known = [np.flatnonzero((cells(grid) >= 0).any(axis=0)) + grid.info.origin.position.x for grid in (first, last)]
    assert known[1].max() > known[0].max() + 3  # it reaches further ahead
    assert known[1].min() <= known[0].min()  # and has kept what lies behind
    values = cells(last)
    assert np.unique(values).tolist() == [-1, 80]  # what every frame says


def test_without_tf_it_says_so_and_the_grids_go_on(bench: Any) -> None:
    bench.start(local_map__enabled=True, local_map__frame="odom")
    bench.listener.listen("/bev/local_map/drivable_area")
    vehicle = bench.vehicle()
    bench.drive(vehicle, lambda: bench.listener.status("local map")[0] == 1 and len(bench.listener.stamps()) > 2)
    assert "odom" in bench.listener.status("local map")[1]
    assert not bench.listener.grids["/bev/local_map/drivable_area"]


def test_when_time_goes_back_the_map_is_empty_again(bench: Any) -> None:
    from ros_bench import cells

    topic = "/bev/local_map/drivable_area"
    bench.start(local_map__enabled=True, local_map__size=60.0)
    bench.listener.listen(topic)
    vehicle = bench.vehicle()
    drive_along(bench, vehicle, [float(x) for x in range(0, 11)])
    bench.until(lambda: bench.listener.grids[topic])
    wide = (cells(bench.listener.grids[topic][-1]) >= 0).any(axis=0).sum()
    earlier = bench.node.get_clock().now().nanoseconds - 3_600_000_000_000
    for cycle in range(10):
        stamp = earlier + cycle * 83_000_000
        vehicle.publish_pose(stamp, rigid((10.0, 0, 0), (1, 0, 0, 0)))
        vehicle.publish_cycle(204, stamp_ns=stamp)
        bench.pause(0.1)
    bench.until(lambda: bench.listener.stamps(topic)[-1] < earlier + 3_600_000_000)
    assert (cells(bench.listener.grids[topic][-1]) >= 0).any(axis=0).sum() < wide


def test_a_busy_tf_does_not_hide_the_pose(bench: Any) -> None:
    topic = "/bev/local_map/drivable_area"
    bench.start(local_map__enabled=True, local_map__size=60.0)
    bench.listener.listen(topic)
    vehicle = bench.vehicle()
    drive_along(bench, vehicle, [float(x) for x in range(0, 11)], others=100)
    bench.until(lambda: len(bench.listener.grids[topic]) >= 5)


def test_the_way_to_the_frame_may_lead_over_tf_static(bench: Any) -> None:
    topic = "/bev/local_map/drivable_area"
    vehicle = bench.vehicle(calibrated=False)
    bench.start(local_map__enabled=True, local_map__size=60.0, local_map__frame="world")
    bench.listener.listen(topic)
    links = [(0, "base_link", c.name, c.ego_T_cam) for c in vehicle.rig.cameras]
    links.append((0, "world", "map", rigid((100, 0, 0), (1, 0, 0, 0))))
    vehicle.tf_static.publish(messages.make_tf_message(vehicle.make, links))
    bench.until(lambda: all(p.get_subscription_count() for p in vehicle.infos.values()))
    vehicle.publish_infos()
    drive_along(bench, vehicle, [0.0] * 10)
    bench.until(lambda: bench.listener.grids[topic])
    grid = bench.listener.grids[topic][-1]
    assert grid.header.frame_id == "world"
    assert grid.info.origin.position.x == 70.0


def test_a_pose_beyond_all_bounds_costs_the_map_alone(bench: Any) -> None:
    from std_msgs.msg import Float64

    node = bench.start(local_map__enabled=True, local_map__size=60.0)
    bench.listener.listen("/bev/local_map/drivable_area")
    bench.listener.listen("/bev_node/latency/total", Float64, 10)
    vehicle = bench.vehicle()
    drive_along(bench, vehicle, [0.0] * 6)
    bench.until(lambda: bench.listener.grids["/bev/local_map/drivable_area"])
    before = len(bench.listener.stamps()), len(bench.listener.grids["/bev_node/latency/total"])
    drive_along(bench, vehicle, [1e300] * 20)
    bench.until(lambda: bench.listener.status("local map")[0] == 1)
    assert "farther than" in bench.listener.status("local map")[1]
    assert int(bench.listener.status("local map")[2]["results without a usable pose"]) > 0
    assert len(bench.listener.stamps()) > before[0] + 5
    assert len(bench.listener.grids["/bev_node/latency/total"]) > before[1] + 5
    assert bench.listener.status("sets")[2]["failed"] == "0"
    drive_along(bench, vehicle, [0.0] * 6)
    bench.until(lambda: bench.listener.status("local map")[0] == 0)
    assert bench.state(node) == "active"
