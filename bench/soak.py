"""Soak test of the live node: `python bench/soak.py [--minutes 20] [--rate 12] [--faults [--seed 0]] [--bag BAG]`.

Needs a sourced ROS 2. The node is a process of its own. This process is the vehicle (one thread that publishes the
JPEGs of a bag over and over, with CameraInfo, stamped when sent and staggered like nuScenes' cameras) and the user,
who subscribes to every output and every latency. Without --bag it makes a synthetic drive with images of 800x450.

With --faults something goes wrong all the time, by a schedule that the seed decides: cameras that are late, dead or
hostile and come back, bags that loop, clocks that jump, /clock, calibrations that move, TF full of unknown frames,
subscribers and drivers that come and go, parameters, reloads and lifecycle transitions, right and wrong ones (see
soak_faults.py). After each the grids have to come again. The node runs with min_cameras 3 and patience 0.2.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from machine import read_cpu_name
from rclpy.executors import SingleThreadedExecutor
from rich.console import Console
from rich.table import Table
from soak_faults import Faults
from soak_user import User
from soak_vehicle import Vehicle, write_synthetic_bag
from usage import Usage, add_rows

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import topics

PERIOD = 10.0  # s between two looks at the node
RECOVERY = 30.0  # s within which grids have to come again
EVENTS = ["complete", "published", "partial", "replaced", "skipped", "failed", "incomplete", "late", "astray", "resets"]


@dataclass
class Course:
    """What a soak test has seen."""

    looks: list[Usage] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # s, by the faults before
    lost: list[str] = field(default_factory=list)  # faults after which no grid came


class Soak:
    """The node under test in a process of its own, and this process' part of the graph."""

    def __init__(self, bag: Path, rate: float, parameters: Mapping[str, str], faults: bool, log: Path) -> None:
        rclpy.init()
        self.node = rclpy.create_node("soak")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        # A node of its own that nobody spins, since its publishers come and go in the vehicle's thread.
        self._driver = rclpy.create_node("vehicle", start_parameter_services=False)
        self.vehicle, self.user = Vehicle(self._driver, bag, rate), User(self.node)
        self._clients: dict[str, Any] = {}
        command = [sys.executable, "-m", "bridgeta_ros.node.main", "--ros-args", "-p", "autostart:=true"]
        command += ["-p", f"cameras:=[{', '.join(self.vehicle.rig.names)}]"]
        command += [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        if faults:
            command += ["-p", "min_cameras:=3", "-p", "patience:=0.2", "-p", "diagnostics.expected_rate:=1.0"]
        self._log = log.open("wb")
        self.child = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Take messages for a time, or until something holds; return whether it does."""
        end = time.monotonic() + seconds
        while not (done := until()) and (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.5))
            if self.child.poll() is not None:
                raise SystemExit(f"the node ended with {self.child.returncode}")
        return done

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Ask a service of the node; return its answer, or None if none comes."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        if not client.wait_for_service(RECOVERY):
            return None
        future = client.call_async(request)
        return future.result() if self.spin(RECOVERY, future.done) else None

    def look(self) -> Usage:
        """Measure what the node holds."""
        return Usage.measure(self.child.pid)

    def run_faults(self, faults: Faults, seconds: float, course: Course) -> None:
        """Let things go wrong for so long, and look at the node whenever all is well again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            chosen = faults.choose()
            names = ", ".join(chosen)
            print(f"{seconds - (end - time.monotonic()):6.0f} s  {names}", flush=True)
            while chosen:
                for name, fault in list(chosen.items()):
                    hold = next(fault, None)
                    if hold is None:
                        del chosen[name]
                    else:
                        self.spin(hold)
            before, start = self.user.least, time.monotonic()
            if self.spin(RECOVERY, lambda before=before: self.user.least >= before + 3):
                course.recoveries[names].append(time.monotonic() - start)
            else:
                course.lost.append(names)
                print(f"no grid within {RECOVERY:g} s: {self.user.values}", flush=True)
            self.spin(1.0)
            course.looks.append(self.look())

    def end(self) -> int:
        """Interrupt the node and leave the graph; return the node's exit code."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
        try:
            code = self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        self._log.close()
        self.vehicle.stopping.set()
        self.vehicle.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self._driver.destroy_node()
        rclpy.try_shutdown()
        return code


def soak(bag: Path, folder: Path, options: argparse.Namespace) -> Table:
    """Run the node and return the table."""
    seconds, log = 60 * options.minutes, options.log or folder / "log"
    parameters = {"weights": options.weights, "backend": options.backend}
    run = Soak(bag, options.rate, parameters, options.faults, log)
    user, vehicle, course = run.user, run.vehicle, Course()
    faults = Faults(vehicle, run.call, folder, options.seed, user.subscribe)
    try:
        vehicle.start()
        run.spin(options.warm_up)
        if not run.spin(RECOVERY, lambda: user.least > 3):
            raise SystemExit(f"the node publishes nothing: {user.values}\n{log.read_text()}")
        user.clear()
        before, sent = dict(user.values["sets"]), vehicle.sent
        course.looks.append(run.look())
        if options.faults:
            run.run_faults(faults, seconds, course)
        else:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                run.spin(min(left, PERIOD))
                course.looks.append(run.look())
        after, sent = user.values["sets"], vehicle.sent - sent
        received, network = user.least, user.values["network"]
    finally:
        code = run.end()

    took = course.looks[-1].seconds - course.looks[0].seconds
    table = Table(title=f"{took / 60:.1f} minutes of {len(vehicle.rig.cameras)} cameras at {options.rate:g} Hz")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row("weights, size of the images", f"{options.weights}, {vehicle.rig.cameras[0].width} wide")
    table.add_row("network", ", ".join(network.values()))
    table.add_row("cycles sent", str(sent))
    if options.faults:
        add_faults(table, faults, course)
    else:
        for key in EVENTS:
            table.add_row(f"sets {key}", str(int(after[key]) - int(before[key])))
        add_latencies(table, user)
    table.add_row("grids received, least of the topics", str(received))
    add_rows(table, course.looks)
    if not options.faults:
        spent = course.looks[-1].cpu - course.looks[0].cpu
        table.add_row("processor time of the node, ms for each cycle sent", f"{1e3 * spent / sent:.1f}")
    for name, reasons in user.levels.items():
        shown = "; ".join(sorted(reasons))[:60]
        table.add_row(f"diagnostics not OK: {name}", f"{len(reasons)} messages" if options.faults else shown)
    text = log.read_text(errors="replace")
    table.add_row("tracebacks in the log", str(text.count("Traceback")))
    table.add_row("other errors in the log", str(len(re.findall(r"^\[ERROR\]", text, re.MULTILINE))))
    table.add_row("exit code of the node after SIGINT", str(code))
    return table


def add_faults(table: Table, faults: Faults, course: Course) -> None:
    """Add what was done, and whether the grids came again."""
    for name, count in sorted(faults.done.items()):
        table.add_row(name, str(count))
    times = [value for values in course.recoveries.values() for value in values]
    table.add_row("episodes after which grids came again", f"{len(times)} of {len(times) + len(course.lost)}")
    table.add_row("until the third grid, s: median / most", f"{np.median(times):.1f} / {max(times):.1f}")
    for what, lines in (("no grid after", course.lost), ("wrong answer", faults.wrong)):
        for line in lines:
            table.add_row(what, line[:200])


def add_latencies(table: Table, user: User) -> None:
    """Add the time of each stage."""
    columns = {stage: np.array(user.latencies[stage]) for stage in topics.LATENCIES}
    for stage, values in columns.items():
        cell = f"{np.median(values):.1f} / {np.percentile(values, 99):.1f} / {values.max():.1f}"
        table.add_row(f"{stage}, ms: median / p99 / max", cell)
    if len({len(values) for values in columns.values()}) == 1:  # no message was lost, so they are of the same sets
        rest = columns["total"] - columns["network"]
        cell = f"{np.median(rest):.1f} / {np.percentile(rest, 99):.1f} / {rest.max():.1f}"
        table.add_row("total without network, ms: median / p99 / max", cell)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=12.0, help="cycles per second")
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds before the figures begin")
    parser.add_argument("--faults", action="store_true", help="with random faults")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--bag", type=Path, help="bag with the images; a synthetic drive without")
    parser.add_argument("--scale", type=float, default=0.5, help="size of the synthetic images, of 1600x900")
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--backend", default="auto", help="what computes the network, as the node's parameter")
    parser.add_argument("--log", type=Path, help="file to write the node's log to")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            table = soak(options.bag or write_synthetic_bag(folder, options.scale), folder, options)
        except BridgeTAError as error:
            raise SystemExit(str(error)) from None
    console = Console(width=120)
    console.print(table)
    middleware = os.environ.get("RMW_IMPLEMENTATION", "default middleware")
    console.print(
        f"{read_cpu_name()}, {os.cpu_count()} cores, ROS 2 {os.environ.get('ROS_DISTRO')}, {middleware}, "
        f"Python {platform.python_version()}, {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
