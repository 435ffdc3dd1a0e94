"""Topics that are read when their messages are needed, and cost nothing until then: /tf and CameraInfo."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rosidl_runtime_py.utilities import get_message

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import topics
from bridgeta_ros.pipeline.tf_stream import Link, TransformReader

_TRANSFORM_STAMPED = "geometry_msgs/msg/TransformStamped"
STATIC_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# What a vehicle sends between two sets, ten times a second: the middleware keeps it, newest last, at no cost to Python.
_TF_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
# Drivers publish CameraInfo with either reliability; best effort takes both.
_INFO_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
_STAMP_END = 12  # bytes; every message with a header begins with four of the encapsulation and eight of the stamp


class _Unwatched(CallbackGroup):
    """A group whose messages no executor waits for: to wait for one costs rclpy many times what reading it does.

    Its events, such as a publisher with incompatible QoS, are waited for.
    """

    def can_execute(self, entity: Any) -> bool:
        return not isinstance(entity, Subscription)

    def beginning_execution(self, entity: Any) -> bool:
        return self.can_execute(entity)

    def ending_execution(self, entity: Any) -> None:
        """Nothing excludes anything."""


class InfoTopic:
    """The CameraInfo of one camera; to be used in the executor's thread."""

    def __init__(self, node: LifecycleNode, topic: str, callbacks: Any) -> None:
        self._node, self._kind, self._last = node, get_message(topics.CAMERA_INFO), b""
        self._subscription: Any = node.create_subscription(
            self._kind,
            topic,
            lambda _: None,
            _INFO_QOS,
            callback_group=_Unwatched(),
            event_callbacks=callbacks,
            raw=True,
        )

    @property
    def topic(self) -> str:
        """Its name on the graph."""
        name: str = self._subscription.topic_name
        return name

    def read(self) -> Any | None:
        """Return the newest message if one has come and differs from the one before in more than its stamp, else None.

        Raises BridgeTAError for bytes that are no CameraInfo.
        """
        newest: bytes | None = None
        with self._subscription.handle:
            while (taken := self._subscription.handle.take_message(self._kind, True)) is not None:
                newest = taken[0]
        if newest is None or newest[_STAMP_END:] == self._last:
            return None
        self._last = newest[_STAMP_END:]
        try:
            return deserialize_message(newest, self._kind)
        except Exception as error:  # what rclpy raises for damaged bytes differs by middleware
            raise BridgeTAError(f"a message on {self.topic} is no CameraInfo ({error})") from error

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)


class TfTopic:
    """Reads of /tf what lies between `frames` and their roots. May be called from several threads."""

    def __init__(self, node: LifecycleNode, frames: Iterable[str]) -> None:
        self.reader = TransformReader(frames)
        self._node, self._lock = node, threading.Lock()
        self._kind, self._transform = get_message(topics.TF_MESSAGE), get_message(_TRANSFORM_STAMPED)
        self._subscription: Any = node.create_subscription(
            self._kind, topics.TF, lambda _: None, _TF_QOS, callback_group=_Unwatched(), raw=True
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
