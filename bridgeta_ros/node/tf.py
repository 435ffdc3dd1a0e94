"""The topic /tf, read when its transforms are needed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosidl_runtime_py.utilities import get_message

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import topics
from bridgeta_ros.pipeline.tf_stream import Link, TransformReader

_TRANSFORM_STAMPED = "geometry_msgs/msg/TransformStamped"
STATIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# What a vehicle sends between two sets, ten times a second: the middleware keeps it, newest last, at no cost to Python.
_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)


class _Unwatched(CallbackGroup):
    """A group that no executor waits for: with thousands of messages a second its waiting alone takes a core."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing has begun."""


class TfTopic:
    """Reads of /tf what lies between `frames` and their roots. May be called from several threads."""

    def __init__(self, node: LifecycleNode, frames: Iterable[str]) -> None:
        self.reader = TransformReader(frames)
        self._node, self._lock = node, threading.Lock()
        self._kind, self._transform = get_message(topics.TF_MESSAGE), get_message(_TRANSFORM_STAMPED)
        self._subscription: Any = node.create_subscription(
            self._kind, topics.TF, lambda _: None, _QOS, callback_group=_Unwatched(), raw=True
        )

    def read(self) -> Any:
        """Return the transforms that have come since the last call, oldest first, in one TFMessage."""
        links: list[Link] = []
        with self._lock, self._subscription.handle:
            while (taken := self._subscription.handle.take_message(self._kind, True)) is not None:
                try:
                    links += self.reader.read(taken[0])
                except BridgeTAError as error:
                    self._node.get_logger().warning(str(error), once=True)
        return self._kind(transforms=[_fill_transform(self._transform(), link) for link in links])

    def close(self) -> None:
        """Unsubscribe."""
        with self._lock:
            self._node.destroy_subscription(self._subscription)


def _fill_transform(message: Any, link: Link) -> Any:
    message.header.frame_id, message.child_frame_id = link.parent, link.child
    message.header.stamp.sec, message.header.stamp.nanosec = link.stamp
    position, turn = message.transform.translation, message.transform.rotation
    position.x, position.y, position.z = link.translation
    turn.x, turn.y, turn.z, turn.w = link.rotation
    return message
