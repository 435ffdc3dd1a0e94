"""The publishers of the live node: grids, the coloured picture, latencies and the local map."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import tf2_ros
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosidl_runtime_py.utilities import get_message

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.local_map import LocalMap
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node.graph.factory import RosFactory
from bridgeta_ros.node.graph.polled import STATIC_QOS, TfTopic
from bridgeta_ros.node.parameters import NodeParameters
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.pipeline import BevResult
from bridgeta_ros.pipeline.status import OK, WARN, Status

_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_MAX_WAITING = 5  # results that wait for their pose in the local map


class Outputs:
    """The publishers of a configured node, the worker's `Publisher`. `settings` is read at each result."""

    def __init__(self, node: LifecycleNode, grid: BevGrid, settings: Callable[[], NodeParameters]) -> None:
        self.grid = grid
        self._node, self._settings, self._make = node, settings, RosFactory()
        self._publishers = {
            topic: node.create_publisher(get_message(kind), topic.lstrip("/"), _LATCHED)
            for topic, kind in messages.list_output_topics().items()
        }
        float64 = get_message(topics.FLOAT64)
        self._latencies = {s: node.create_publisher(float64, f"~/latency/{s}", 10) for s in topics.LATENCIES}
        self.local_map = LocalMapOutput(node, grid, settings(), self._make) if settings().local_map.enabled else None

    def is_wanted(self) -> bool:
        """Return whether somebody subscribes to a grid, the picture or the local map, or the node is not lazy."""
        if not self._settings().lazy or any(p.get_subscription_count() for p in self._publishers.values()):
            return True
        return self.local_map is not None and self.local_map.is_wanted()

    def publish(self, result: BevResult) -> dict[str, float]:
        """Send what somebody subscribes to; send everything if the node is not lazy, for late subscribers."""
        settings, start = self._settings(), perf_counter()
        wanted = {t for t, p in self._publishers.items() if not settings.lazy or p.get_subscription_count()}
        results = messages.make_result_messages(
            self._make,
            result.probabilities,
            result.seen,
            self.grid,
            result.stamp_ns,
            settings.base_frame,
            settings.threshold,
            wanted,
            result.thresholds,
        )
        middle = perf_counter()
        for topic, message in results.items():
            self._publishers[topic].publish(message)
        if self.local_map is not None:
            self.local_map.add(result)
        return {"encode": 1e3 * (middle - start), "publish": 1e3 * (perf_counter() - middle)}

    def read_transforms(self) -> None:
        """Take note of where the vehicle is; to be called with each set, so that TF keeps up with the images."""
        if self.local_map is not None:
            self.local_map.read_transforms()

    def publish_latencies(self, stages: Mapping[str, float]) -> None:
        """Send the milliseconds of each stage that somebody subscribes to."""
        for stage, publisher in self._latencies.items():
            if publisher.get_subscription_count():
                publisher.publish(messages.make_float64(self._make, stages[stage]))

    def reset(self) -> None:
        """Forget what belongs to another time, after stamps went back."""
        if self.local_map is not None:
            self.local_map.reset()

    def close(self) -> None:
        """Remove the topics from the graph."""
        for publisher in (*self._publishers.values(), *self._latencies.values()):
            self._node.destroy_publisher(publisher)
        if self.local_map is not None:
            self.local_map.close()


class LocalMapOutput:
    """Fuses results in a fixed frame, by the pose that TF has at their stamps, and publishes the map.

    A result whose pose TF does not know yet waits until the next result comes. One whose pose is none is left out.
    """

    def __init__(self, node: LifecycleNode, grid: BevGrid, settings: NodeParameters, factory: RosFactory) -> None:
        options = settings.local_map
        self._node, self._make, self._frame, self._base = node, factory, options.frame, settings.base_frame
        self._map = LocalMap(grid, options.size, gain=options.gain)
        self._waiting: deque[BevResult] = deque(maxlen=_MAX_WAITING)
        self._problem: str | None = None  # why the oldest result waits
        self._fault: str | None = None  # why the last result that no longer waits was left out
        self._reset_pending = False
        self._updates = self._refused = self._surplus = 0
        kind = get_message(topics.OCCUPANCY_GRID)
        self._publishers = [
            node.create_publisher(kind, f"{topics.LOCAL_MAP}/{cls.name}".lstrip("/"), _LATCHED) for cls in CLASSES
        ]
        # tf2's listener decodes every transform, which takes a core where a vehicle sends thousands a second.
        self._buffer = tf2_ros.Buffer(Duration(seconds=10))
        self._tf = TfTopic(node, (self._frame, self._base))
        self._static = node.create_subscription(
            get_message(topics.TF_MESSAGE), topics.TF_STATIC, self._take_static, STATIC_QOS
        )

    def is_wanted(self) -> bool:
        """Return whether somebody subscribes to the map."""
        return any(publisher.get_subscription_count() for publisher in self._publishers)

    def add(self, result: BevResult) -> None:
        """Fuse the results that wait and this one, and publish the map."""
        if self._reset_pending:
            self._reset_pending = False
            self._waiting.clear()
            self._map.reset()
        self.read_transforms()
        self._waiting.append(result)
        fused = None
        while self._waiting:
            stamp = Time(nanoseconds=self._waiting[0].stamp_ns)
            try:
                pose = self._buffer.lookup_transform(self._frame, self._base, stamp).transform
            except tf2_ros.TransformException as error:
                self._problem = str(error)
                break
            result = self._waiting.popleft()
            t, q = pose.translation, pose.rotation
            try:
                map_T_base = rigid((t.x, t.y, t.z), (q.w, q.x, q.y, q.z))
                self._map.update(result.probabilities, result.seen, map_T_base)
            except BridgeTAError as error:  # an odometry that has gone astray; the grids do not need it
                self._refused += 1
                self._fault = str(error)
                continue
            fused = result
            self._updates += 1
            self._problem = self._fault = None
        if fused is None:
            return
        for publisher, layer in zip(self._publishers, self._map.probabilities(), strict=True):
            if publisher.get_subscription_count():
                values = messages.to_percent(layer)
                grid = messages.make_occupancy_grid(self._make, values, self._map.grid, fused.stamp_ns, self._frame)
                publisher.publish(grid)

    def read_transforms(self) -> None:
        """Take the transforms that have come."""
        for transform in self._tf.read().transforms:
            self._buffer.set_transform(transform, "")

    def _take_static(self, message: Any) -> None:
        for transform in message.transforms:
            if self._tf.reader.add_static(transform.header.frame_id, transform.child_frame_id):
                self._buffer.set_transform_static(transform, "")
            else:  # tf2 would keep each for ever
                self._surplus += 1

    def describe(self) -> Status:
        """Describe the map for /diagnostics."""
        values = {
            "frame": self._frame,
            "results fused": str(self._updates),
            "results without a usable pose": str(self._refused),
            "waiting for TF": str(len(self._waiting)),
            "static transforms of too many frames": str(self._surplus),
        }
        # One that waits for the next transform is normal.
        problem = self._fault or (self._problem if len(self._waiting) > 1 or not self._updates else None)
        return Status("local map", WARN if problem else OK, problem or f"in {self._frame}", values)

    def reset(self) -> None:
        """Forget TF's past now, and the map with the next result."""
        self._buffer.clear()
        self._reset_pending = True

    def close(self) -> None:
        """Remove the topics from the graph and stop listening to TF."""
        self._tf.close()
        self._node.destroy_subscription(self._static)
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
