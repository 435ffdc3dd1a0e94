"""Helpers of the live tests: the vehicle, the listener, and nodes that spin in threads of their own."""

from __future__ import annotations

import gc
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import rclpy
from bag_fakes import AHEAD, BACK, GRID, RIG, SIZE, FakeRuntime, K, jpeg
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosidl_runtime_py.utilities import get_message

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_ros.node import bev_node as node_module
from bridgeta_ros.node.bev_node import BevNode
from bridgeta_ros.node.graph.executor import MessageExecutor
from bridgeta_ros.node.graph.factory import RosFactory
from bridgeta_ros.node.main import spin_some
from bridgeta_ros.pipeline import messages, topics

__all__ = ["AHEAD", "BACK", "GRID", "RIG", "SIZE", "Bench", "K", "Vehicle", "jpeg", "spin_until"]

LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PERIOD = 83_000_000  # ns, 12 Hz
STAGGER = 5_000_000  # ns between the cameras of a cycle
PATIENCE = 15.0  # s; how long a test waits for what must come


class NodeRuntime(FakeRuntime):
    """The fake network as the node sees one."""

    device, precision, backend, reason, remarks = "cpu", "float32", "fake", "as asked for", ()

    def __init__(
        self, weights: str = "tiny", device: str = "auto", precision: str = "float32", backend: str = "auto"
    ) -> None:
        super().__init__(cameras=("CAM_FRONT", "CAM_BACK"))
        self.weights = weights


def spin_until(
    executor: SingleThreadedExecutor, condition: Callable[[], Any], timeout: float = PATIENCE, step: float = 0.02
) -> Any:
    """Spin until the condition holds; return its value, or fail the test."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if result := condition():
            return result
        executor.spin_once(timeout_sec=step)
    return condition() or pytest.fail(f"not within {timeout} s: {getattr(condition, '__name__', condition)}")


class Vehicle:
    """Publishes the cameras of a rig, their CameraInfo and TF."""

    def __init__(self, node: Node, rig: Rig = RIG, prefix: str = "/bev_node", *, qos: Any = None) -> None:
        self.node, self.rig, self.make = node, rig, RosFactory()
        self.cycle = 0
        self.start_ns = 0
        qos = qos or qos_profile_sensor_data
        self.images, self.raw, self.infos = {}, {}, {}
        for camera in rig.cameras:
            base = f"{prefix}/input/{camera.name}"
            self.images[camera.name] = node.create_publisher(
                get_message(topics.COMPRESSED), f"{base}/image/compressed", qos
            )
            self.raw[camera.name] = node.create_publisher(get_message(topics.RAW), f"{base}/image", qos)
            self.infos[camera.name] = node.create_publisher(get_message(topics.CAMERA_INFO), f"{base}/camera_info", qos)
        self.tf_static = node.create_publisher(get_message(topics.TF_MESSAGE), "/tf_static", LATCHED)
        self.tf = node.create_publisher(get_message(topics.TF_MESSAGE), "/tf", 100)

    def publish_tf(self, rig: Rig | None = None) -> None:
        links = [(0, "base_link", c.name, c.ego_T_cam) for c in (rig or self.rig).cameras]
        self.tf_static.publish(messages.make_tf_message(self.make, links))

    def publish_pose(self, ns: int, map_T_base: np.ndarray) -> None:
        self.tf.publish(messages.make_tf_message(self.make, [(ns, "map", "base_link", map_T_base)]))

    def publish_infos(self, rig: Rig | None = None, ns: int = 0) -> None:
        for camera in (rig or self.rig).cameras:
            self.infos[camera.name].publish(messages.make_camera_info(self.make, camera, ns, camera.name))

    def publish_info_with(self, name: str, **fields: Any) -> None:
        camera = self.rig.select((name,)).cameras[0]
        message = messages.make_camera_info(self.make, camera, 0, name)
        for key, value in fields.items():
            setattr(message, key, value)
        self.infos[name].publish(message)

    def publish_cycle(
        self,
        brightness: int = 100,
        *,
        without: Sequence[str] = (),
        data: Mapping[str, bytes] | None = None,
        stamp_ns: int | None = None,
    ) -> int:
        """Publish one image of each camera, stamped now; return the stamp of the newest."""
        now = stamp_ns or self.node.get_clock().now().nanoseconds
        cameras = [c for c in self.rig.cameras if c.name not in without]
        for i, camera in enumerate(cameras):
            ns = now - STAGGER * (len(cameras) - 1 - i)
            content = (data or {}).get(camera.name, jpeg(brightness, (camera.width, camera.height)))
            self.images[camera.name].publish(messages.make_compressed_image(self.make, content, ns, camera.name))
        self.cycle += 1
        return now


class Listener:
    """Collects what the nodes publish."""

    def __init__(self, node: Node, namespace: str = "") -> None:
        self.node, self.grids, self.statuses = node, defaultdict(list), {}
        self.namespace, self._subscriptions = namespace, []
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostics, 10)

    def _diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.statuses[status.name] = (
                int.from_bytes(status.level, "little"),
                status.message,
                {v.key: v.value for v in status.values},
            )

    def listen(self, topic: str = "/bev/drivable_area", msgtype: Any = OccupancyGrid, qos: Any = LATCHED) -> Any:
        append = self.grids[topic].append
        subscription = self.node.create_subscription(msgtype, f"{self.namespace}{topic}", append, qos)
        self._subscriptions.append(subscription)
        return subscription

    def stamps(self, topic: str = "/bev/drivable_area") -> list[int]:
        return [messages.stamp_to_ns(m.header) for m in self.grids[topic]]

    def status(self, name: str, node: str = "/bev_node") -> tuple[int, str, dict[str, str]]:
        return self.statuses.get(f"{node}: {name}", (-1, "", {}))


class Bench:
    """Nodes under test, each spinning in a thread, and a node of the test's own in the calling thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(node_module, "FallbackRuntime", NodeRuntime)
        self.monkeypatch = monkeypatch
        self.node = rclpy.create_node("test_bench")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.listener = Listener(self.node)
        self.running: list[tuple[BevNode, MessageExecutor, threading.Event, threading.Thread]] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: Any) -> None:
        while self.running:
            self.remove(self.running[-1][0])
        self.executor.shutdown()
        self.node.destroy_node()
        # rclpy leaves the lifecycle services of a destroyed node on the graph until it is collected, and a client of
        # the next test would take them for those of its own node.
        gc.collect()

    def add(self, *, namespace: str = "", **values: Any) -> BevNode:
        """Add a node with these parameters (dots as double underscores), unconfigured and spinning."""
        values = {"diagnostics__period": 0.1, "diagnostics__start_grace": 0.0, **values}
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        node = BevNode(namespace=namespace, parameter_overrides=overrides)
        stop, executor = threading.Event(), MessageExecutor()
        executor.add_node(node)
        thread = threading.Thread(target=self._spin, args=(node, executor, stop), name="node under test", daemon=True)
        thread.start()
        self.running.append((node, executor, stop, thread))
        return node

    @staticmethod
    def _spin(node: BevNode, executor: MessageExecutor, stop: threading.Event) -> None:
        while not stop.is_set():
            spin_some(node, executor)

    def remove(self, node: BevNode) -> None:
        entry = next(entry for entry in self.running if entry[0] is node)
        self.running.remove(entry)
        _, executor, stop, thread = entry
        stop.set()
        executor.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        node.destroy_node()

    def start(self, **values: Any) -> BevNode:
        """Start a node with these parameters, active and with a subscriber."""
        node = self.add(**values)
        self.change(node, "configure")
        self.change(node, "activate")
        if not self.listener.grids:
            self.listener.listen()
        return node

    def change(self, node: BevNode, transition: str) -> bool:
        """Request a transition over the lifecycle service."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label = transition
        return self.call(ChangeState, f"{node.get_fully_qualified_name()}/change_state", request).success

    def state(self, node: BevNode) -> str:
        from lifecycle_msgs.srv import GetState

        # A process of its own answers when it has loaded its libraries and the network.
        return self.call(GetState, f"{node.get_fully_qualified_name()}/get_state", timeout=60).current_state.label

    def call(self, kind: Any, name: str, request: Any = None, timeout: float = PATIENCE) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE), name
        future = client.call_async(request or kind.Request())
        spin_until(self.executor, future.done, timeout)
        self.node.destroy_client(client)
        return future.result()

    def set_parameter(self, node: BevNode, name: str, value: Any) -> Any:
        """Set a parameter over its service; return the result."""
        from rcl_interfaces.srv import SetParameters

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f"{node.get_fully_qualified_name()}/set_parameters", request).results[0]

    def until(self, condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        return spin_until(self.executor, condition, timeout)

    def pause(self, seconds: float) -> None:
        """Spin for a while, to see that nothing happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def drive(self, vehicle: Vehicle, condition: Callable[[], Any], **cycle: Any) -> Any:
        """Publish cycles at 12 Hz until the condition holds."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            vehicle.publish_cycle(**cycle)
            next_cycle = time.monotonic() + PERIOD / 1e9
            while time.monotonic() < next_cycle:
                self.executor.spin_once(timeout_sec=0.01)
            if result := condition():
                return result
        return pytest.fail(f"not within {PATIENCE} s of driving")

    def vehicle(self, rig: Rig = RIG, calibrated: bool = True, **options: Any) -> Vehicle:
        """Make a vehicle that has published its calibration, and whose topics the node has discovered."""
        vehicle = Vehicle(self.node, rig, **options)
        if calibrated:
            vehicle.publish_tf()
            found = [*vehicle.infos.values(), *vehicle.images.values()]
            self.until(
                lambda: all(p.get_subscription_count() for p in found if p.topic.endswith(("info", "compressed")))
            )
            vehicle.publish_infos()
        return vehicle


def camera(name: str, ego_T_cam: np.ndarray = AHEAD, intrinsics: np.ndarray = K) -> Camera:
    return Camera(name, *SIZE, intrinsics, ego_T_cam)


def cells(grid: Any) -> np.ndarray:
    """Return the values `[Y, X]` of an OccupancyGrid."""
    return np.frombuffer(grid.data, dtype=np.int8).reshape(grid.info.height, grid.info.width)


def doubles(*values: float) -> array:
    return array("d", values)
