"""Soak test of the live node under six cameras at 12 Hz: `python bench/soak.py [--minutes 20] [--faults] [--bag BAG]`.

Needs a sourced ROS 2. The node is a process of its own. This process is the vehicle (one thread that publishes the
JPEGs of a bag over and over, with CameraInfo, stamped when sent and staggered like nuScenes' cameras) and the user,
who subscribes to every output and every latency. Without --bag it makes a synthetic drive with images of 800x450.

With --faults three of the cameras are not well: one sends each image 150 ms late, one dies at the end of the warm-up,
and one is hostile (broken, huge and foreign images, stamps of all times, calibrations that are none). The node runs
with min_cameras 3 and patience 0.2.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import heapq
import os
import platform
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from machine import read_cpu_name
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rosidl_runtime_py.utilities import get_message
from std_msgs.msg import Float64

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.node.factory import RosFactory
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.calibration import RigReader
from bridgeta_ros.pipeline.sync import Synchroniser
from bridgeta_synth import SynthSettings, write_dataset

LATE, DEAD, HOSTILE = 1, 3, 4  # the cameras that are not well with --faults, by their place in the rig
SPREAD = 0.0426  # s, between the first and the last camera of a nuScenes cycle
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TICKS = os.sysconf("SC_CLK_TCK")


def read_sets(bag: Path) -> tuple[list[dict[str, Any]], dict[str, Any], list[Any]]:
    """Read the complete sets of JPEGs of a bag, a CameraInfo of each camera, and its static transforms."""
    with open_bag(bag) as source:
        cameras = topics.find_cameras(source.topics)
        by_topic = {camera.image: camera.name for camera in cameras}
        by_info = {camera.info: camera.name for camera in cameras}
        sync: Synchroniser[bytes] = Synchroniser([camera.name for camera in cameras])
        sets, infos, static = [], {}, []
        for connection, _, data in source.raw({*by_topic, *by_info, topics.TF_STATIC}):
            message = source.decode(connection, data)
            if connection.topic in by_info:
                infos[by_info[connection.topic]] = message
            elif connection.topic == topics.TF_STATIC:
                static.append(message)
            else:
                name, stamp = by_topic[connection.topic], messages.stamp_to_ns(message.header)
                sets += [dict(images.items) for images in sync.add(name, stamp, bytes(message.data))]
    return sets, infos, static


class Vehicle(threading.Thread):
    """Publishes sets at a steady rate until `stopping` is set."""

    def __init__(self, node: Node, bag: Path, rate: float) -> None:
        super().__init__(daemon=True)
        sets, infos, static = read_sets(bag)
        reader = RigReader(list(infos))
        for message in static:
            reader.tree.add_message(message, static=True)
        for name, info in infos.items():
            reader.add_info(name, info)
        self.rig: Rig = reader.build_rig()
        self.node, self.make, self.rate, self.sent = node, RosFactory(), rate, 0
        self.stopping = threading.Event()
        self.delays: dict[int, float] = {}  # seconds by camera
        self.dead: set[int] = set()
        self.hostile: dict[int, Hostile] = {}
        self.sets = [
            [messages.make_compressed_image(self.make, images[c.name], 0, c.name) for c in self.rig.cameras]
            for images in sets
        ]
        self.infos = [messages.make_camera_info(self.make, c, 0, c.name) for c in self.rig.cameras]

        def publisher(camera: str, kind: str, name: str) -> Any:
            return node.create_publisher(get_message(kind), f"/bev_node/input/{camera}/{name}", qos_profile_sensor_data)

        names = self.rig.names
        self.image_publishers = [publisher(n, topics.COMPRESSED, "image/compressed") for n in names]
        self.info_publishers = [publisher(n, topics.CAMERA_INFO, "camera_info") for n in names]
        self.static = node.create_publisher(get_message(topics.TF_MESSAGE), topics.TF_STATIC, LATCHED)
        links = [(0, "base_link", c.name, c.ego_T_cam) for c in self.rig.cameras]
        self.static.publish(messages.make_tf_message(self.make, links))

    def run(self) -> None:
        """Publish camera by camera, each at its time within the cycle, and later where it is late."""
        start, gap = time.monotonic(), SPREAD / (len(self.rig.cameras) - 1)
        due: list[tuple[float, int, Any]] = []  # when to publish an image, of which camera
        while not self.stopping.is_set():
            for i, image in enumerate(self.sets[self.sent % len(self.sets)]):
                captured = start + self.sent / self.rate + i * gap
                self._publish(due, captured)
                wait = captured - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                image = copy.copy(image)
                image.header.stamp = messages.make_time(self.make, time.time_ns())
                heapq.heappush(due, (captured + self.delays.get(i, 0.0), i, image))
                self._publish(due, time.monotonic())
            self.sent += 1

    def _publish(self, due: list[tuple[float, int, Any]], until: float) -> None:
        """Publish what is due."""
        while due and due[0][0] <= until:
            when, i, image = heapq.heappop(due)
            if (wait := when - time.monotonic()) > 0:
                time.sleep(wait)
            if i in self.dead:
                continue
            info = self.infos[i]
            info.header.stamp = image.header.stamp
            if i in self.hostile:
                info, image = self.hostile[i].spoil(info, image)
            self.info_publishers[i].publish(info)
            self.image_publishers[i].publish(image)


class Hostile:
    """Spoils the messages of a camera in every way, and leaves some whole."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)

    def spoil(self, info: Any, image: Any) -> tuple[Any, Any]:
        """Return a CameraInfo and an image of which one or both may be nonsense."""
        rng, info, image = self._rng, copy.deepcopy(info), copy.deepcopy(image)
        data = bytes(image.data)
        kinds = {
            "whole": data,
            "empty": b"",
            "cut": data[: rng.randrange(len(data))],
            "noise": rng.randbytes(rng.randrange(100_000)),
            "huge": self._resize(data, 30_000, 30_000),
            "other size": self._resize(data, 640, 480),
            "damaged": data[:600] + rng.randbytes(200) + data[800:],
            "png bomb": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60_000, 60_000) + b"\x08\2\0\0\0",
        }
        image.data = array("B", kinds[rng.choice(list(kinds))])
        seconds = image.header.stamp.sec
        image.header.stamp.sec = rng.choice([seconds] * 6 + [0, seconds + 3600, seconds - 5, rng.randrange(2**31)])
        match rng.randrange(8):
            case 0:
                info.k[rng.randrange(9)] = rng.choice([float("nan"), 0.0, -1e9])
            case 1:
                info.width = rng.randrange(2**32)
            case 2:
                info.k[2] += rng.uniform(-5, 5)
            case 3:
                info.header.frame_id = rng.choice(["", "nowhere", "/" * 50])
            case 4:
                info.distortion_model, info.d = "unheard of", array("d", [rng.random()] * rng.randrange(20))
        return info, image

    @staticmethod
    def _resize(jpeg: bytes, width: int, height: int) -> bytes:
        """Change the size that a JPEG's header states."""
        at = jpeg.find(b"\xff\xc0")
        return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


class User:
    """Subscribes to everything that the node publishes."""

    def __init__(self, node: Node) -> None:
        self.grids: dict[str, int] = defaultdict(int)
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.values: dict[str, dict[str, str]] = {}
        self.levels: dict[str, set[str]] = defaultdict(set)
        for topic, kind in messages.list_output_topics().items():
            node.create_subscription(get_message(kind), topic, lambda _, t=topic: self._grid(t), LATCHED, raw=True)
        for stage in topics.LATENCIES:
            append = self.latencies[stage].append
            node.create_subscription(
                Float64, f"/bev_node/latency/{stage}", lambda m, append=append: append(m.data), 100
            )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostics, 10)

    def _grid(self, topic: str) -> None:
        self.grids[topic] += 1

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.rpartition(": ")[2]
            self.values[name] = {v.key: v.value for v in status.values}
            if status.level != b"\0":
                self.levels[name].add(status.message)

    def clear(self) -> None:
        """Forget what came so far."""
        for column in self.latencies.values():
            column.clear()
        self.grids.clear()
        self.levels.clear()


def measure_usage(pid: int) -> tuple[float, float]:
    """Return CPU seconds and resident MiB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return (int(fields[11]) + int(fields[12])) / TICKS, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_synthetic_bag(folder: Path) -> Path:
    """Write the bag of a drive of 4 s with images of 800x450."""
    settings = SynthSettings(scenes=1, seed=22, duration=4.0, version="v1.0-mini", image_scale=0.5)
    write_dataset(folder / "root", settings)
    write_scene_bag(folder / "root", "v1.0-mini", "scene-0001", folder / "bag", SceneBagSettings(lidar=False))
    return folder / "bag"


def soak(bag: Path, minutes: float, rate: float, warm_up: float, weights: str, faults: bool) -> Table:
    """Run the node and return the table."""
    rclpy.init()
    node = rclpy.create_node("soak")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    vehicle, user = Vehicle(node, bag, rate), User(node)
    command = [sys.executable, "-m", "bridgeta_ros.node.main", "--ros-args", "-p", "autostart:=true"]
    names = ", ".join(vehicle.rig.names)
    command += ["-p", f"cameras:=[{names}]", "-p", f"weights:={weights}"]
    if faults:
        command += ["-p", "min_cameras:=3", "-p", "patience:=0.2"]
        vehicle.delays[LATE], vehicle.hostile[HOSTILE] = 0.15, Hostile()
    child = subprocess.Popen(command)
    try:

        def spin(seconds: float, label: str) -> None:
            end = time.monotonic() + seconds
            for _ in track(range(max(1, round(seconds))), description=label):
                step = min(end, time.monotonic() + 1)
                while (left := step - time.monotonic()) > 0:
                    executor.spin_once(timeout_sec=left)
                if child.poll() is not None:
                    raise SystemExit(f"the node ended with {child.returncode}")

        vehicle.start()
        spin(warm_up, "warm-up")
        vehicle.dead |= {DEAD} if faults else set()
        user.clear()
        before, sent = dict(user.values["sets"]), vehicle.sent
        (cpu, memory), start = measure_usage(child.pid), time.monotonic()
        spin(60 * minutes, "soak")
        after, sent = user.values["sets"], vehicle.sent - sent
        (cpu_end, memory_end), seconds = measure_usage(child.pid), time.monotonic() - start
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(10)
        vehicle.stopping.set()
        vehicle.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()

    table = Table(title=f"{seconds / 60:.1f} minutes of {len(vehicle.rig.cameras)} cameras at {rate:g} Hz, {weights}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    counts = {key: int(after[key]) - int(before[key]) for key in before if key in after and before[key].isdecimal()}
    table.add_row("cycles sent", str(sent))
    for key in (
        "complete",
        "published",
        "partial",
        "replaced",
        "skipped",
        "failed",
        "incomplete",
        "late",
        "astray",
        "resets",
    ):
        table.add_row(f"sets {key}", str(counts[key]))
    table.add_row("grids received, least of the topics", str(min(user.grids.values())))
    columns = {stage: np.array(user.latencies[stage]) for stage in topics.LATENCIES}
    for stage, values in columns.items():
        cell = f"{np.median(values):.1f} / {np.percentile(values, 99):.1f} / {values.max():.1f}"
        table.add_row(f"{stage}, ms: median / p99 / max", cell)
    share = 1 - columns["network"].mean() / columns["total"].mean()
    table.add_row("share of all but the network in the time from stamp to publish", f"{100 * share:.1f} %")
    table.add_row("CPU of the node, cores", f"{(cpu_end - cpu) / seconds:.2f}")
    table.add_row("resident memory, MiB: start / end", f"{memory:.0f} / {memory_end:.0f}")
    for name, reasons in user.levels.items():
        table.add_row(f"diagnostics not OK: {name}", "; ".join(sorted(reasons))[:60])
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=12.0, help="cycles per second")
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds before the figures begin")
    parser.add_argument("--faults", action="store_true", help="with a late, a dead and a hostile camera")
    parser.add_argument("--bag", type=Path, help="bag with the images; a synthetic drive without")
    parser.add_argument("--weights", default="tiny")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with tempfile.TemporaryDirectory() as folder:
        bag = options.bag or write_synthetic_bag(Path(folder))
        try:
            table = soak(bag, options.minutes, options.rate, options.warm_up, options.weights, options.faults)
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
