"""Time from `ros2 launch` to the first grid: `python bench/start.py [--repeats 5] [--bag BAG] [NAME:=VALUE ...]`.

Needs a sourced workspace in which colcon has built this package. This process is the vehicle, which has been sending
images, CameraInfo and TF for a while when the launch begins, and the subscriber. Arguments of bev.launch.py may follow.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from lifecycle_msgs.msg import TransitionEvent
from machine import read_cpu_name
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import SingleThreadedExecutor
from rich.console import Console
from rich.table import Table
from soak_vehicle import LATCHED, Vehicle, write_synthetic_bag

PATIENCE = 120.0  # s
STEPS = ("node is there, configuring", "configured", "active", "first grid")


class Start:
    """One launch, watched."""

    def __init__(self, arguments: list[str], rate: float, bag: Path, folder: Path) -> None:
        self._node, driver = rclpy.create_node("start"), rclpy.create_node("vehicle", start_parameter_services=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._vehicle = Vehicle(driver, bag, rate)
        self._vehicle.start()
        self.steps: dict[str, float] = {}  # s since the launch
        self._node.create_subscription(TransitionEvent, "/bev_node/transition_event", self._take_transition, 10)
        self._node.create_subscription(OccupancyGrid, "/bev/drivable_area", lambda _: self._note(STEPS[3]), LATCHED)
        cameras = {name: {"image": f"/bev_node/input/{name}/image"} for name in self._vehicle.rig.names}
        file = folder / "cameras.yaml"
        file.write_text(json.dumps({"cameras": cameras}))
        self._command = ["ros2", "launch", "bridgeta_ros", "bev.launch.py", f"cameras_file:={file}", *arguments]

    def _note(self, step: str) -> None:
        self.steps.setdefault(step, time.monotonic() - self._begun)

    def _take_transition(self, event: TransitionEvent) -> None:
        goals = {"configuring": STEPS[0], "inactive": STEPS[1], "active": STEPS[2]}
        if event.goal_state.label in goals:
            self._note(goals[event.goal_state.label])

    def run(self) -> dict[str, float]:
        """Launch the node, wait for its first grid and end it; return the seconds of each step."""
        end = time.monotonic() + 2.0  # for the vehicle to be there first
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.1)
        self._begun = time.monotonic()
        child = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while STEPS[3] not in self.steps:
                self._executor.spin_once(timeout_sec=0.1)
                if child.poll() is not None or time.monotonic() - self._begun > PATIENCE:
                    raise SystemExit(f"no grid came: {self.steps}, {' '.join(self._command)} returned {child.poll()}")
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(30)
            self._vehicle.stopping.set()
            self._vehicle.join()
            self._executor.shutdown()
            self._vehicle.node.destroy_node()
            self._node.destroy_node()
        return self.steps


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rate", type=float, default=12.0, help="cycles per second")
    parser.add_argument("--bag", type=Path, help="bag with the images; a synthetic drive without")
    parser.add_argument("arguments", nargs="*", help="arguments of bev.launch.py")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    rclpy.init()
    with tempfile.TemporaryDirectory() as name:
        bag = options.bag or write_synthetic_bag(Path(name), 0.5)
        runs = [Start(options.arguments, options.rate, bag, Path(name)).run() for _ in range(options.repeats)]
    rclpy.try_shutdown()
    table = Table(title=f"seconds since ros2 launch, {options.repeats} starts")
    for column in ("until", "median", "least", "most"):
        table.add_column(column, justify="left" if column == "until" else "right")
    for step in STEPS:
        times = [run[step] for run in runs if step in run]
        table.add_row(step, *(f"{f(times):.1f}" for f in (np.median, min, max)) if times else ("not seen",) * 3)
    Console(width=100).print(table)
    print(f"{read_cpu_name()}, {os.cpu_count()} cores, ROS 2 {os.environ.get('ROS_DISTRO')}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
