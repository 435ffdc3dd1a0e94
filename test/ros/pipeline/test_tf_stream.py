"""The reader of /tf finds the links above its frames, and passes over all others."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import messages, tf_stream, topics
from bridgeta_ros.pipeline.tf_stream import TransformReader

STORE = get_typestore(Stores.ROS2_JAZZY)
MAKE = messages.RosbagsFactory(STORE)
FRAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=9)


def serialise(*links: tuple[int, str, str], little_endian: bool = True) -> bytes:
    """Serialise transforms of (stamp in ns, parent, child), each one of (1, 2, 3) m and a turn by pi about z."""
    pose = rigid((1, 2, 3), (0, 0, 0, 1))
    message = messages.make_tf_message(MAKE, [(*link, pose) for link in links])
    return bytes(STORE.serialize_cdr(message, topics.TF_MESSAGE, little_endian=little_endian))


@pytest.mark.parametrize("little_endian", [True, False])
@given(st.lists(FRAMES, min_size=2, max_size=12, unique=True), st.integers(0, 2**31 * 10**9 - 1))
def test_a_chain_is_read_whatever_its_names_and_bytes(little_endian, names, stamp):
    links = [(stamp, parent, child) for child, parent in pairwise(names)]
    read = TransformReader(names[:1]).read(serialise(*links, little_endian=little_endian))
    assert [(link.stamp, link.parent, link.child) for link in read] == [
        (divmod(stamp, 10**9), parent, child) for _, parent, child in links
    ]
    for link in read:
        assert link.translation == (1, 2, 3)
        np.testing.assert_allclose(np.abs(link.rotation), (0, 0, 1, 0), atol=1e-12)


def test_links_off_the_way_are_passed_over():
    reader = TransformReader(["base_link"])
    assert reader.read(serialise(*((0, "base_link", f"joint_{i}") for i in range(55)))) == []
    (link,) = reader.read(serialise((0, "base_link", "arm"), (7, "odom", "base_link"), (0, "arm", "hand")))
    assert (link.stamp, link.parent, link.child) == ((0, 7), "odom", "base_link")


def test_a_chain_in_other_order_is_known_once_each_link_came_again():
    reader = TransformReader(["base_link"])
    data = [serialise((0, "map", "odom")), serialise((0, "odom", "base_link"))]
    assert [len(reader.read(d)) for d in data * 2] == [0, 1, 1, 1]


def test_leading_slashes_do_not_matter():
    reader = TransformReader(["/base_link"])
    assert len(reader.read(serialise((0, "/odom", "/base_link"), (0, "map", "odom")))) == 2


def test_other_frames_can_be_watched():
    reader = TransformReader(["left"])
    data = serialise((0, "base_link", "front"), (0, "base_link", "left"))
    assert [link.child for link in reader.read(data)] == ["left"]
    reader.watch(["front"])
    assert [link.child for link in reader.read(data)] == ["front"]


@pytest.mark.parametrize("early", [True, False])
def test_the_way_may_lead_over_static_links(early):
    reader = TransformReader(["base_link"] if early else [])
    reader.add_static("base_footprint", "base_link")
    reader.add_static("base_link", "front")
    reader.watch(["base_link"])
    data = serialise((0, "odom", "base_footprint"), (0, "arm", "hand"))
    assert [link.child for link in reader.read(data)] == ["base_footprint"]


@given(st.integers(0, 200), st.binary(max_size=40))
def test_bytes_that_are_no_message_raise_one_error_or_nothing(cut, tail):
    data = serialise((1, "odom", "base_link"), (1, "map", "odom"))
    with contextlib.suppress(BridgeTAError):
        TransformReader(["base_link"]).read(data[:cut] + tail)


def test_a_count_of_billions_costs_nothing():
    data = bytearray(serialise((1, "odom", "base_link")))
    data[4:8] = b"\xff\xff\xff\xff"
    with pytest.raises(BridgeTAError, match="no TFMessage"):
        TransformReader(["base_link"]).read(bytes(data))


def test_parents_that_change_all_the_time_do_not_pile_up():
    reader = TransformReader(["base_link"])
    for i in range(3000):
        reader.read(serialise((i, f"odom_{i}", "base_link")))
    assert len(reader._wanted) <= 1001
    data = [serialise((0, "odom", "base_link")), serialise((0, "map", "odom"))]
    assert [len(reader.read(d)) for d in data] == [1, 1]


def test_static_links_of_ever_new_frames_are_bounded(monkeypatch):
    monkeypatch.setattr(tf_stream, "MOST_FRAMES", 10)
    reader = TransformReader(["base_link"])
    assert [reader.add_static("mast", f"lamp_{i}") for i in range(30)] == [True] * 10 + [False] * 20
    assert reader.add_static("roof", "lamp_0")
    assert len(reader._above) == 10
