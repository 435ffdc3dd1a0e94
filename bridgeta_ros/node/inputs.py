"""The subscriptions of the live node: images, CameraInfo and TF in, image sets and calibrations out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from message_filters import ApproximateTimeSynchronizer, SimpleFilter
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rosidl_runtime_py.utilities import get_message

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node.calibration import LiveCalibration
from bridgeta_ros.node.graph.polled import STATIC_QOS, InfoTopic, TfTopic
from bridgeta_ros.node.health import Health
from bridgeta_ros.node.parameters import NodeParameters
from bridgeta_ros.node.worker import Frame
from bridgeta_ros.pipeline import topics
from bridgeta_ros.pipeline.images import Picture, RawImage, raw_to_rgb, remove_padding
from bridgeta_ros.pipeline.messages import stamp_to_ns
from bridgeta_ros.pipeline.sync import ImageSet, Synchroniser

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_QUEUE = 10  # images per camera that wait for those of the others, without patience
_FASTEST = 30  # images per second of a camera for which there is patience
# Takes no offence at a publisher whose messages another subscription gets.
_QUIET = SubscriptionEventCallbacks(incompatible_qos=lambda _: None)


def _make_qos(depth: int, reliable: bool, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class MessageFilterMatcher:
    """Finds complete sets with the approximate-time policy of message_filters; a `Matcher` of messages with stamps."""

    def __init__(self, names: Sequence[str], slop_ns: int, patience_ns: int = 0) -> None:
        self._filters = {name: SimpleFilter() for name in names}
        # The library wants the images closer together than its slop; a set of exactly this slop counts here.
        slop = (slop_ns + 1) / 1e9
        queue = _QUEUE + round(_FASTEST * patience_ns / 1e9)
        self._synchronizer = ApproximateTimeSynchronizer(list(self._filters.values()), queue, slop)
        self._synchronizer.registerCallback(self._take)
        self._complete: ImageSet[Any] | None = None

    def add(self, name: str, stamp_ns: int, item: Any) -> ImageSet[Any] | None:
        """Take a message; return the set that it completes."""
        self._complete = None
        self._filters[name].signalMessage(item)
        return self._complete

    def clear(self) -> None:
        """Forget all messages."""
        for queue in self._synchronizer.queues:
            queue.clear()

    def _take(self, *messages: Any) -> None:
        items = dict(zip(self._filters, messages, strict=True))
        self._complete = ImageSet(items, {name: stamp_to_ns(message.header) for name, message in items.items()})


class CameraInputs:
    """The subscriptions of an active node. All callbacks are quick and run in the executor's thread.

    `on_image` gets each image that completes no set, `on_set` each image set and the time in nanoseconds at which its
    last image came. Sets are complete, or lack some cameras if the parameters allow it. `on_rig` is called when the
    calibration has changed, `on_reset` when stamps went back.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: NodeParameters,
        names: tuple[str, ...],
        calibration: LiveCalibration,
        health: Health,
        *,
        on_image: Callable[[str, Frame], None],
        on_set: Callable[[ImageSet[Frame], int], None],
        on_rig: Callable[[], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._node, self._names, self._calibration, self._health = node, names, calibration, health
        self._on_image, self._on_set, self._on_rig, self._on_reset = on_image, on_set, on_rig, on_reset
        self._newest = 0  # stamp of the last set, ns
        slop_ns, patience_ns = round(settings.slop * 1e9), round(settings.patience * 1e9)
        self._sync: Synchroniser[Frame] = Synchroniser(
            names,
            slop_ns,
            minimum=settings.min_cameras or None,
            matcher=MessageFilterMatcher(names, slop_ns, patience_ns),
            # Where a set needs all cameras, only the counts depend on it.
            **({"patience_ns": patience_ns} if settings.min_cameras else {}),
        )
        self._subscriptions: list[Any] = []
        self._infos: dict[str, InfoTopic] = {}  # by camera
        self._latched: dict[str, Any] = {}  # by camera, a subscription to its latched CameraInfo
        self._tf: TfTopic | None = None
        self._base = settings.base_frame
        self._frames: dict[str, str] = {}  # optical frames by camera
        self._subscribe(settings)

    def _subscribe(self, settings: NodeParameters) -> None:
        raw = settings.transport == "raw"
        image_type, suffix = (topics.RAW, "") if raw else (topics.COMPRESSED, "/compressed")
        qos = _make_qos(settings.depth, settings.reliability == "reliable")
        for name in self._names:
            self._create(image_type, f"~/input/{name}/image{suffix}", partial(self._take_image, name), qos)
            if not self._calibration.from_file:
                topic = f"~/input/{name}/camera_info"
                self._infos[name] = InfoTopic(self._node, topic, self._make_callbacks(topic))
        if not self._calibration.from_file:
            self._create(topics.TF_MESSAGE, topics.TF_STATIC, self._take_static, STATIC_QOS)
            self._tf = TfTopic(self._node, [settings.base_frame])

    def _create(self, msgtype: str, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        callbacks = self._make_callbacks(topic)
        self._subscriptions.append(
            self._node.create_subscription(get_message(msgtype), topic, callback, qos, event_callbacks=callbacks)
        )

    def _make_callbacks(self, topic: str) -> SubscriptionEventCallbacks:
        name = self._node.resolve_topic_name(topic)

        def incompatible(event: Any) -> None:
            self._health.add_incompatible_qos(name, qos_policy_name_from_kind(event.last_policy_kind))

        return SubscriptionEventCallbacks(incompatible_qos=incompatible)

    def tick(self) -> None:
        """Check what changes with time alone; to be called about once a second."""
        for name in self._infos:
            self._read_info(name)
        self._read_tf()
        if self._calibration.update_rig():
            self._on_rig()
        if self._tf is not None and self._calibration.complete:
            # A vehicle sends thousands of transforms per second, and cameras do not move; /tf_static stays. What was
            # latched has come.
            self._tf.close()
            self._tf = None
            self._destroy_latched()
        elif self._tf is not None:
            self._ask_for_latched_infos()
        names = [s.topic_name for s in self._subscriptions if "/input/" in s.topic_name]
        names += [info.topic for info in self._infos.values()]
        self._health.set_publishers({name: self._node.count_publishers(name) for name in names})

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        for info in self._infos.values():
            info.close()
        self._infos.clear()
        self._destroy_latched()
        if self._tf is not None:
            self._tf.close()
            self._tf = None

    def _ask_for_latched_infos(self) -> None:
        """Subscribe again to each CameraInfo that is missing and latched.

        A driver may have published it once, before the node came, and a volatile subscription gets only what comes from
        then on. A latched one would not get what is volatile, and the publishers would complain of it.
        """
        for name in self._calibration.problems.keys() - self._latched.keys():
            topic = self._node.resolve_topic_name(f"~/input/{name}/camera_info")
            publishers = self._node.get_publishers_info_by_topic(topic)
            if any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers):
                info, qos = partial(self._take_info, name), _make_qos(1, True, latched=True)
                self._latched[name] = self._node.create_subscription(
                    get_message(topics.CAMERA_INFO), topic, info, qos, event_callbacks=_QUIET
                )

    def _destroy_latched(self) -> None:
        for subscription in self._latched.values():
            self._node.destroy_subscription(subscription)
        self._latched.clear()

    def _read_info(self, name: str) -> None:
        try:
            message = self._infos[name].read()
        except BridgeTAError as error:
            self._health.add_faults({name: str(error)})
            return
        if message is not None:
            self._take_info(name, message)

    def _take_info(self, name: str, message: Any) -> None:
        if self._tf is not None:
            if self._frames.get(name) != message.header.frame_id:
                self._frames[name] = message.header.frame_id
                self._tf.reader.watch([self._base, *self._frames.values()])
            if name in self._calibration.problems:
                self._read_tf()
        if self._calibration.add_info(name, message):
            self._on_rig()

    def _take_static(self, message: Any) -> None:
        if self._tf is not None:
            for entry in message.transforms:
                self._tf.reader.add_static(entry.header.frame_id, entry.child_frame_id)
        if self._calibration.add_tf(message, static=True):
            self._on_rig()

    def _read_tf(self) -> None:
        if self._tf is not None and self._calibration.add_tf(self._tf.read()):
            self._on_rig()

    def _take_image(self, name: str, message: Any) -> None:
        if name in self._infos:
            self._read_info(name)
        try:
            stamp = stamp_to_ns(message.header)
        except BridgeTAError as error:
            self._health.add_faults({name: error.what})
            return
        now = self._node.get_clock().now().nanoseconds
        self._health.add_image(name, (now - stamp) / 1e9)
        if not stamp:
            self._health.add_faults({name: "its header has no stamp"})
            return
        counts = self._sync.counts
        before, missed = replace(counts), counts.missed.copy()
        frame = Frame(message)
        sets = self._sync.add(name, stamp, frame)
        for event in ("complete", "incomplete", "resets", "astray"):
            self._health.count(event, getattr(counts, event) - getattr(before, event))
        self._health.add_missed({n: count - missed.get(n, 0) for n, count in counts.missed.items()})
        if counts.resets > before.resets:
            self._newest = 0
            self._on_reset()
        if not sets:
            self._on_image(name, frame)
        for images in sets:
            self._hand_on(images)

    def _hand_on(self, images: ImageSet[Frame]) -> None:
        if images.newest_ns <= self._newest:
            self._health.count("late")
            return
        self._newest = images.newest_ns
        self._health.add_cycle(tuple(images.items))
        self._on_set(images, cast(int, self._node.get_clock().now().nanoseconds))


# What cv_bridge turns to the same pixels as `raw_to_rgb`. Others it refuses, or knows in some distributions only.
_BRIDGED = frozenset(
    {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "yuv422_yuy2"}
    | {f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")}
)


def make_raw_decoder() -> Callable[[RawImage], Picture]:
    """Make a decoder of raw images: cv_bridge where it is installed and knows the encoding, else as in the replay.

    Humble's and Jazzy's cv_bridge is compiled for NumPy 1, and ends the process when it converts colours under NumPy 2.
    """
    if int(np.__version__.split(".")[0]) > 1:
        return raw_to_rgb
    try:
        from cv_bridge import CvBridge
    except ImportError:
        return raw_to_rgb
    bridge = CvBridge()

    def to_rgb(image: RawImage) -> Picture:
        image = remove_padding(image)
        return bridge.imgmsg_to_cv2(image, "rgb8") if image.encoding in _BRIDGED else raw_to_rgb(image)

    return to_rgb
