"""Messages are decoded by the definitions of their bag, and no bytes in them do more than fail."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from bag_fakes import write_bag
from hypothesis import given
from hypothesis import strategies as st
from memory_limit import little_memory

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.bags.storage.definitions import Decoder
from bridgeta_ros.bags.storage.topic import RecordedTopic

EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x10"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Return a message of each type that is read of a bag."""
    path = write_bag(tmp_path_factory.mktemp("bag") / "in", 1, truth=np.zeros((6, 20, 16), np.int8))
    found = {}
    with open_bag(path) as bag:
        for topic, _, data in bag.raw(set(bag.topics)):
            found[topic.msgtype] = topic, data
    return found


@given(data=st.data())
def test_any_change_of_a_message_gives_a_message_or_one_clear_error(samples, data):
    topic, content = samples[data.draw(st.sampled_from(sorted(samples)))]
    changed = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(changed) - 4)), max_size=4)):
        changed[place : place + 4] = data.draw(st.sampled_from(EXTREMES) | st.binary(min_size=4, max_size=4))
    with suppress(BridgeTAError):
        assert Decoder({}).decode(topic, bytes(changed)) is not None


@pytest.mark.parametrize(
    "text",
    [
        b"# nothing",
        b"string transforms",
        b"geometry_msgs/TransformStamped[] links\n" + b"=" * 80 + b"\nMSG: geometry_msgs/TransformStamped\nint8 x",
    ],
)
def test_a_definition_without_the_fields_of_the_standard_type_is_replaced(samples, text):
    topic, content = samples["tf2_msgs/msg/TFMessage"]
    decoder = Decoder({})
    message = decoder.decode(replace(topic, definition=text), content)
    assert [entry.header.frame_id for entry in message.transforms] == ["map"]
    assert "TFMessage cannot be used" in decoder.remarks[0]


def test_a_standard_type_with_more_fields_is_read_as_recorded(samples):
    topic, content = samples["tf2_msgs/msg/TFMessage"]
    longer = replace(topic, definition=topic.definition.replace(b"transforms\n", b"transforms\nuint8 more\n", 1))
    assert longer.definition != topic.definition
    assert Decoder({}).decode(longer, content + b"\7").more == 7


@given(definition=st.binary(max_size=80), form=st.sampled_from(["ros2msg", "ros2idl", "omgidl", "", "none"]))
def test_any_definition_of_a_standard_type_is_used_or_replaced(samples, definition, form):
    topic, content = samples["tf2_msgs/msg/TFMessage"]
    decoder = Decoder({})
    message = decoder.decode(replace(topic, definition=definition, definition_format=form), content)
    assert [entry.header.frame_id for entry in message.transforms] == ["map"]


def test_two_topics_may_define_one_type_differently():
    decoder = Decoder({})
    for text, value in ((b"uint8 a", 1), (b"uint8 a\nuint8 b", 1)):
        topic = RecordedTopic("/t", "acme/msg/Thing", definition_format="ros2msg", definition=text)
        assert decoder.decode(topic, b"\0\1\0\0\1\2").a == value


def test_a_type_without_definition_names_itself():
    with pytest.raises(BridgeTAError, match=r"definition of acme/msg/Thing on /t is not in the bag.*Record"):
        Decoder({}).decode(RecordedTopic("/t", "acme/msg/Thing"), b"\0\1\0\0")


@pytest.mark.parametrize(
    "fields",
    ["string[100000000] x", "a/E[100000000] x", "a/F[1000] x", "a/G[] x", "a/T x"],
    ids=["texts", "messages", "arrays of arrays", "sequences of arrays", "itself"],
)
def test_a_definition_of_a_hundred_million_elements_is_refused(fields):
    parts = [fields, "MSG: a/E\nuint8 y", "MSG: a/F\na/E[1000] z", "MSG: a/G\na/F[1000] f", "MSG: a/T\na/T t"]
    text = f"\n{'=' * 80}\n".join(parts)
    topic = RecordedTopic("/a", "a/msg/M", definition_format="ros2msg", definition=text.encode())
    with little_memory(), pytest.raises(BridgeTAError, match="definition of a/msg/M on /a cannot be used"):
        Decoder({}).decode(topic, bytes(100))
