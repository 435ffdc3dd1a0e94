"""The local map on a live graph: successive results in a fixed frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from bridgeta_core.geometry.transforms import rigid


def drive_along(bench: Any, vehicle: Any, positions: list[float], publish_pose: bool = True) -> None:
    for x in positions:
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
    # Once seen, 0.8 gives 1 / (1 + 4 ** -0.2) = 0.569; seen again and again, it becomes surer.
    assert values[values >= 0].min() >= 57
    assert values.max() > 80


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
