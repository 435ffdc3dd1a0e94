"""The vehicle of the soak test: it publishes the JPEGs of a bag over and over, with CameraInfo, TF and /clock."""

from __future__ import annotations

import copy
import heapq
import queue
import random
import struct
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from rosidl_runtime_py.utilities import get_message

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.node.graph.factory import RosFactory
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.calibration import RigReader
from bridgeta_ros.pipeline.sync import Synchroniser
from bridgeta_synth import SynthSettings, write_dataset

SPREAD = 0.0426  # s, between the first and the last camera of a nuScenes cycle
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def write_synthetic_bag(folder: Path, scale: float) -> Path:
    """Write the bag of a drive of 4 s."""
    settings = SynthSettings(scenes=1, seed=22, duration=4.0, version="v1.0-mini", image_scale=scale)
    write_dataset(folder / "root", settings)
    write_scene_bag(folder / "root", "v1.0-mini", "scene-0001", folder / "bag", SceneBagSettings(lidar=False))
    return folder / "bag"


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
    """Publishes sets at a steady rate until `stopping` is set.

    What may be changed from outside at any time: `delays` and `hostile` by camera, `dead` cameras, `offset_ns` (stamps
    beside the system's clock), `simulated` (whether /clock is sent) and `frozen` (whether it stands still), `silent`.
    Other changes go through `do`, which has the vehicle's thread do them between two cycles.
    """

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
        self.dead: frozenset[int] = frozenset()
        self.hostile: dict[int, Hostile] = {}
        self.offset_ns = 0
        self.simulated = self.frozen = self.silent = False
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.sets = [
            [messages.make_compressed_image(self.make, images[c.name], 0, c.name) for c in self.rig.cameras]
            for images in sets
        ]
        self.infos: list[Any] = []
        self.image_publishers = [self._create(i, "image/compressed") for i in range(len(self.rig.cameras))]
        self.info_publishers = [self._create(i, "camera_info") for i in range(len(self.rig.cameras))]
        tf = get_message(topics.TF_MESSAGE)
        self.static = node.create_publisher(tf, topics.TF_STATIC, LATCHED)
        self.others = node.create_publisher(tf, topics.TF_STATIC, LATCHED)  # what has nothing to do with the cameras
        self.tf = node.create_publisher(tf, topics.TF, 100)
        self.clock = node.create_publisher(Clock, "/clock", 10)
        self.calibrate(self.rig)

    def _create(self, camera: int, name: str) -> Any:
        kind = topics.COMPRESSED if name.startswith("image") else topics.CAMERA_INFO
        topic = f"/bev_node/input/{self.rig.names[camera]}/{name}"
        return self.node.create_publisher(get_message(kind), topic, qos_profile_sensor_data)

    def do(self, task: Callable[[], None]) -> None:
        """Have the vehicle's thread do something."""
        self._tasks.put(task)

    def calibrate(self, rig: Rig) -> None:
        """Send the calibration of a rig from now on."""
        self.infos = [messages.make_camera_info(self.make, c, 0, c.name) for c in rig.cameras]
        links = [(0, "base_link", c.name, c.ego_T_cam) for c in rig.cameras]
        self.static.publish(messages.make_tf_message(self.make, links))

    def restart_camera(self, camera: int) -> None:
        """Restart the driver of a camera: its publishers leave the graph and come again."""
        for publishers, name in ((self.image_publishers, "image/compressed"), (self.info_publishers, "camera_info")):
            self.node.destroy_publisher(publishers[camera])
            publishers[camera] = self._create(camera, name)

    def name_frames(self, prefix: str, count: int) -> None:
        """Send transforms of so many frames that nobody has heard of, on /tf and /tf_static."""
        links = [(0, "base_link", f"{prefix}_{i}", np.eye(4)) for i in range(count)]
        for publisher in (self.tf, self.others):
            publisher.publish(messages.make_tf_message(self.make, links))

    def now_ns(self) -> int:
        """Return the time of the stamps."""
        return time.time_ns() + self.offset_ns

    def run(self) -> None:
        """Publish camera by camera, each at its time within the cycle, and later where it is late."""
        start, gap = time.monotonic(), SPREAD / (len(self.rig.cameras) - 1)
        due: list[tuple[float, int, int, Any]] = []  # when to publish an image, of which camera
        while not self.stopping.is_set():
            while not self._tasks.empty():
                self._tasks.get()()
            pose = rigid((0.1 * (self.sent % 1000), 0, 0), (1, 0, 0, 0))
            self.tf.publish(messages.make_tf_message(self.make, [(self.now_ns(), "map", "base_link", pose)]))
            for i, image in enumerate(self.sets[self.sent % len(self.sets)]):
                captured = start + self.sent / self.rate + i * gap
                self._publish(due, captured)
                wait = captured - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                image = copy.copy(image)
                image.header.stamp = messages.make_time(self.make, self.now_ns())
                heapq.heappush(due, (captured + self.delays.get(i, 0.0), self.sent, i, image))
                self._publish(due, time.monotonic())
            self.sent += 1

    def _publish(self, due: list[tuple[float, int, int, Any]], until: float) -> None:
        """Publish what is due."""
        while due and due[0][0] <= until:
            when, _, i, image = heapq.heappop(due)
            if (wait := when - time.monotonic()) > 0:
                time.sleep(wait)
            if self.simulated and not self.frozen:
                self.clock.publish(Clock(clock=messages.make_time(self.make, self.now_ns())))
            if i in self.dead or self.silent:
                continue
            info = self.infos[i]
            info.header.stamp = image.header.stamp
            if (hostile := self.hostile.get(i)) is not None:
                info, image = hostile.spoil(info, image)
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
