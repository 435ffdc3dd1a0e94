"""What comes in: every kind of callback has its turn, CameraInfo is read when needed, sets are those of the replay."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from camera_streams import NAMES, SLOP, faulty_stream, synchronise


class Stamped:
    """What message_filters wants of a message."""

    def __init__(self, ns: int) -> None:
        from builtin_interfaces.msg import Time
        from std_msgs.msg import Header

        self.header = Header(stamp=Time(sec=ns // 10**9, nanosec=ns % 10**9))


class OfStreams:
    """The node's matcher, fed with streams of names and stamps."""

    def __init__(self) -> None:
        from bridgeta_ros.node.inputs import MessageFilterMatcher

        self.matcher = MessageFilterMatcher(NAMES, SLOP)

    def add(self, name: str, stamp_ns: int, item: Any) -> Any:
        from bridgeta_ros.pipeline.sync import ImageSet

        images = self.matcher.add(name, stamp_ns, Stamped(stamp_ns))
        if images is None:
            return None
        return ImageSet({name: (name, stamp) for name, stamp in images.stamps.items()}, images.stamps)

    def clear(self) -> None:
        self.matcher.clear()


@pytest.mark.parametrize("minimum", [None, 5, 3])
@pytest.mark.parametrize("seed", range(10))
def test_node_and_replay_make_the_same_sets_of_the_same_stream(ros: None, seed: int, minimum: int | None) -> None:
    stream = faulty_stream(seed)
    replayed, offline = synchronise(stream, minimum)
    live, online = synchronise(stream, minimum, OfStreams())
    assert live == replayed
    assert online.counts == offline.counts


@pytest.mark.parametrize("gap", [SLOP - 1, SLOP, SLOP + 1])
def test_the_slop_itself_is_near_enough(ros: None, gap: int) -> None:
    from bridgeta_ros.node.inputs import MessageFilterMatcher

    matcher = MessageFilterMatcher(["a", "b"], SLOP)
    assert matcher.add("a", 10**18, Stamped(10**18)) is None
    assert (matcher.add("b", 10**18 + gap, Stamped(10**18 + gap)) is not None) == (gap <= SLOP)


class Spinning:
    """A node of the test's in the node's executor, in a thread of its own."""

    def __init__(self) -> None:
        import rclpy

        from bridgeta_ros.node.graph.executor import MessageExecutor

        self.node, self.executor = rclpy.create_node("spinning"), MessageExecutor()
        self.executor.add_node(self.node)
        self.raised: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self) -> None:
        while not self._stop.is_set():
            try:
                self.executor.spin()
            except KeyError as error:
                self.raised.append(error)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.executor.shutdown()
        self._thread.join(15)
        assert not self._thread.is_alive()
        self.node.destroy_node()


@pytest.fixture
def spinning(bench: Any) -> Iterator[Spinning]:
    made = Spinning()
    yield made
    made.stop()


def flood(bench: Any, publishers: list[Any], condition: Callable[[], Any]) -> Any:
    """Publish without a pause until the condition holds."""
    from std_msgs.msg import Float64

    end = time.monotonic() + 15
    while not (result := condition()):
        assert time.monotonic() < end
        for publisher in publishers:
            publisher.publish(Float64(data=1.0))
        bench.executor.spin_once(timeout_sec=0.001)
    return result


def test_services_and_timers_have_their_turn_while_messages_pour_in(bench: Any, spinning: Spinning) -> None:
    from std_msgs.msg import Float64
    from std_srvs.srv import Trigger

    came, ticks = [], []
    for topic in ("a", "b"):
        spinning.node.create_subscription(Float64, topic, came.append, 10)
    spinning.node.create_timer(0.05, lambda: ticks.append(1))
    spinning.node.create_service(Trigger, "question", lambda _, response: response)
    spinning.start()
    publishers = [bench.node.create_publisher(Float64, topic, 10) for topic in ("a", "b")]
    flood(bench, publishers, lambda: len(came) > 100 and len(ticks) > 3)
    client = bench.node.create_client(Trigger, "question")
    assert client.wait_for_service(15)
    future = client.call_async(Trigger.Request())
    flood(bench, publishers, future.done)
    ticks.clear()
    bench.until(lambda: len(ticks) > 3)  # and when none come


def test_what_a_callback_raises_ends_spinning_and_loses_nothing_else(bench: Any, spinning: Spinning) -> None:
    from std_msgs.msg import Float64

    came = []

    def take(message: Float64) -> None:
        came.append(message)
        if len(came) % 10 == 1:
            raise KeyError(len(came))

    spinning.node.create_subscription(Float64, "a", take, 10)
    spinning.start()
    flood(bench, [bench.node.create_publisher(Float64, "a", 10)], lambda: len(came) > 50)
    assert [error.args[0] for error in spinning.raised][:5] == [1, 11, 21, 31, 41]


def test_subscriptions_come_and_go_in_callbacks(bench: Any, spinning: Spinning) -> None:
    from std_msgs.msg import Float64
    from std_srvs.srv import Trigger

    came, made = [], []

    def switch(request: Any, response: Any) -> Any:
        if made:
            spinning.node.destroy_subscription(made.pop())
        else:
            made.append(spinning.node.create_subscription(Float64, "a", came.append, 10))
        return response

    spinning.node.create_service(Trigger, "switch", switch)
    spinning.start()
    publisher = bench.node.create_publisher(Float64, "a", 10)
    for _ in range(3):
        bench.call(Trigger, "switch")
        came.clear()
        flood(bench, [publisher], lambda: len(came) > 20)
        bench.call(Trigger, "switch")
        came.clear()
        publisher.publish(Float64(data=1.0))
        bench.pause(0.2)
        assert not came


@pytest.fixture
def info_topic(bench: Any) -> Iterator[tuple[Any, Any]]:
    """Provide the CameraInfo topic as the node reads it, and a publisher on it."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo

    from bridgeta_ros.node.graph.polled import InfoTopic

    publisher = bench.node.create_publisher(CameraInfo, "/info", qos_profile_sensor_data)
    topic = InfoTopic(bench.node, "/info", None)
    bench.until(publisher.get_subscription_count)
    yield topic, publisher
    topic.close()


def read(bench: Any, topic: Any, publisher: Any, message: Any) -> Any:
    publisher.publish(message)
    bench.pause(0.05)
    return topic.read()


def test_a_camera_info_is_read_once_until_more_than_its_stamp_changes(bench: Any, info_topic: Any) -> None:
    from sensor_msgs.msg import CameraInfo

    def make(seconds: int, width: int) -> CameraInfo:
        message = CameraInfo(width=width, distortion_model="plumb_bob", d=[0.5])
        message.header.stamp.sec, message.header.frame_id = seconds, "front"
        return message

    assert info_topic[0].read() is None
    assert read(bench, *info_topic, make(1, 640)) == make(1, 640)
    assert info_topic[0].read() is None
    assert read(bench, *info_topic, make(2, 640)) is None
    assert read(bench, *info_topic, make(3, 800)) == make(3, 800)
    assert read(bench, *info_topic, make(3, 640)) == make(3, 640)


def test_bytes_that_are_no_camera_info_are_an_error_or_another_camera_info(bench: Any, info_topic: Any) -> None:
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo

    from bridgeta_core.utils.errors import BridgeTAError

    rng, good = random.Random(3), serialize_message(CameraInfo(distortion_model="plumb_bob", d=[0.1] * 5))
    refused: list[str] = []
    for number in range(150):
        data = bytearray(good)
        match number % 3:
            case 0:
                data = data[: rng.randrange(4, len(data))]
            case 1:
                at = rng.randrange(4, len(data) - 3)
                data[at : at + 4] = struct.pack("<I", rng.choice([2**32 - 1, 2**31, 10**6, 7, 0]))
            case 2:
                data[4:] = rng.randbytes(rng.randrange(400))
        info_topic[1].publish(bytes(data))
        time.sleep(0.002)
        try:
            message = info_topic[0].read()
        except BridgeTAError as error:
            refused.append(str(error))
        else:
            assert message is None or isinstance(message, CameraInfo)
    assert refused
    assert all("/info is no CameraInfo" in line for line in refused)
    assert read(bench, *info_topic, CameraInfo(width=7)) == CameraInfo(width=7)
