"""The complete sets of message_filters in the node are those of the replay."""

from __future__ import annotations

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
