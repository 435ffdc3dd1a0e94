"""Transforms are taken as tf2 takes them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from bag_fakes import AHEAD
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.geometry.transforms import invert, rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import messages, tf_tree
from bridgeta_ros.pipeline.calibration import RigReader
from bridgeta_ros.pipeline.tf_tree import TfTree

FACTORY = messages.RosbagsFactory(get_typestore(Stores.ROS2_JAZZY))


def poses():
    numbers = st.floats(-5, 5)
    quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
    return st.builds(rigid, st.tuples(numbers, numbers, numbers), quaternions)


@given(st.lists(poses(), min_size=1, max_size=5), st.integers(0, 4), st.integers(0, 4))
def test_a_chain_of_links_is_the_product_of_its_transforms(chain, a, b):
    tree = TfTree()
    for i, pose in enumerate(chain):
        tree.add(f"f{i}", f"f{i + 1}", pose)
    a, b = sorted((a % (len(chain) + 1), b % (len(chain) + 1)))
    expected = np.linalg.multi_dot([np.eye(4), *chain[a:b], np.eye(4)])
    assert np.allclose(tree.lookup(f"f{a}", f"f{b}"), expected)
    assert np.allclose(tree.lookup(f"f{b}", f"f{a}"), np.linalg.inv(expected))


def test_frames_that_hang_on_a_common_parent_are_related():
    tree = TfTree()
    left, right = rigid((1, 2, 0), (1, 0, 0, 0)), rigid((0, 0, 3), (0, 1, 0, 0))
    tree.add("roof", "/left", left)
    tree.add("roof", "right", right)
    assert np.allclose(tree.lookup("left", "right"), invert(left) @ right)


def test_the_newest_transform_of_a_link_holds():
    tree = TfTree()
    tree.add("map", "base_link", np.eye(4))
    tree.add("map", "base_link", AHEAD)
    assert np.allclose(tree.lookup("map", "base_link"), AHEAD)


def test_a_missing_link_is_named_with_both_ends():
    tree = TfTree()
    tree.add("map", "base_link", np.eye(4))
    tree.add("mast", "camera", np.eye(4))
    with pytest.raises(BridgeTAError, match="camera hangs on mast, base_link on map"):
        tree.lookup("base_link", "camera")
    assert not tree.connects("base_link", "camera")
    with pytest.raises(BridgeTAError, match=r"does not know radar.*tf_static.*rig.md"):
        tree.lookup("base_link", "radar")


def test_a_loop_of_links_is_an_error_and_not_a_hang():
    tree = TfTree()
    tree.add("a", "b", np.eye(4))
    tree.add("b", "c", np.eye(4))
    tree.add("c", "a", np.eye(4))
    assert not tree.connects("a", "c")
    with pytest.raises(BridgeTAError, match="loop"):
        tree.lookup("a", "c")


@given(poses())
def test_a_tf_message_written_by_us_is_read_back(pose):
    tree = TfTree()
    tree.add_message(messages.make_tf_message(FACTORY, [(0, "base_link", "camera", pose)]))
    assert np.allclose(tree.lookup("base_link", "camera"), pose)


def spoil(entry, how):
    match how:
        case "itself":
            entry.child_frame_id = entry.header.frame_id
        case "no parent":
            entry.header.frame_id = ""
        case "no child":
            entry.child_frame_id = "/"
        case "nan":
            entry.transform.translation.y = float("nan")
        case "inf":
            entry.transform.translation.y = float("inf")
        case "zero":
            entry.transform.rotation = SimpleNamespace(w=0.0, x=0.0, y=0.0, z=0.0)
        case "long":
            entry.transform.rotation = SimpleNamespace(w=1.0, x=0.2, y=0.0, z=0.0)


SPOILT = ["itself", "no parent", "no child", "nan", "inf", "zero", "long"]


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_what_tf2_ignores_costs_no_other_transform(bad, how):
    names = ["left", "middle", "right"]
    message = messages.make_tf_message(FACTORY, [(0, "base_link", name, AHEAD) for name in names])
    spoil(message.transforms[bad], how)
    tree = TfTree()
    tree.add_message(message)
    lost = names.pop(bad)
    assert not tree.connects("base_link", lost)
    for name in names:
        assert np.allclose(tree.lookup("base_link", name), AHEAD)
        assert tree.find_fault("base_link", name) is None
    with pytest.raises(BridgeTAError, match="ignored"):
        tree.lookup("base_link", lost)


@pytest.mark.parametrize("how", ["no parent", "nan", "inf", "zero", "long"])
def test_a_transform_that_turns_bad_leaves_the_earlier_one(how):
    tree = TfTree()
    message = messages.make_tf_message(FACTORY, [(0, "base_link", "camera", AHEAD)])
    tree.add_message(message)
    spoil(message.transforms[0], how)
    tree.add_message(message)
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)
    assert "<- camera is ignored" in str(tree.find_fault("base_link", "camera"))
    tree.add_message(messages.make_tf_message(FACTORY, [(1, "base_link", "camera", AHEAD)]))
    assert tree.find_fault("base_link", "camera") is None


def test_a_bad_pose_on_the_map_is_no_fault_of_a_camera():
    tree = TfTree()
    tree.add_message(
        messages.make_tf_message(FACTORY, [(0, "map", "base_link", AHEAD), (0, "base_link", "cam", AHEAD)])
    )
    message = messages.make_tf_message(FACTORY, [(1, "map", "base_link", AHEAD)])
    message.transforms[0].transform.translation.x = float("nan")
    tree.add_message(message)
    assert tree.find_fault("base_link", "cam") is None
    assert "TF map <- base_link is ignored" in str(tree.find_fault("map", "cam"))


def test_a_frame_that_is_sent_as_its_own_parent_is_no_fault():
    tree = TfTree()
    tree.add("base_link", "camera", AHEAD)
    tree.add_message(
        messages.make_tf_message(FACTORY, [(0, name, name, np.eye(4)) for name in ("camera", "/base_link")])
    )
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)
    tree.add_message(messages.make_tf_message(FACTORY, [(0, "camera", "camera", np.eye(4))]))
    assert tree.find_fault("camera", "camera") is None


def test_an_older_transform_does_not_replace_a_newer_one():
    tree = TfTree()
    for ns, pose in ((200, AHEAD), (100, np.eye(4))):
        tree.add_message(messages.make_tf_message(FACTORY, [(ns, "base_link", "camera", pose)]))
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)


def test_the_last_static_transform_holds_whatever_its_stamp():
    tree = TfTree()
    for ns, pose in ((200, np.eye(4)), (100, AHEAD)):
        tree.add_message(messages.make_tf_message(FACTORY, [(ns, "base_link", "camera", pose)]), static=True)
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)


def test_leading_slashes_do_not_count():
    tree = TfTree()
    tree.add_message(messages.make_tf_message(FACTORY, [(0, "/base_link", "/camera", AHEAD)]))
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)


def count_held(tree: TfTree) -> int:
    return sum(len(held) for held in (tree._links, tree._faults, tree._selfish))


@pytest.mark.parametrize(
    ("parent", "pose"),
    [("base_link", np.eye(4)), ("base_link", np.diag([np.nan, 1, 1, 1])), (None, np.eye(4))],
    ids=["sound", "not_finite", "own_parent"],
)
def test_frames_that_all_have_other_names_are_bounded_and_counted(monkeypatch, parent, pose):
    monkeypatch.setattr(tf_tree, "MOST_FRAMES", 50)
    tree = TfTree()
    links = [(0, parent or f"joint_{i}", f"joint_{i}", np.eye(4)) for i in range(200)]
    message = messages.make_tf_message(FACTORY, links)
    for entry in message.transforms:
        entry.transform.translation.x = float(pose[0, 0])
    tree.add_message(message)
    assert count_held(tree) == 50
    assert "150 transforms were ignored" in tree.overflow


def test_known_frames_move_on_however_many_others_come(monkeypatch):
    monkeypatch.setattr(tf_tree, "MOST_FRAMES", 3)
    tree = TfTree()
    for name in ("camera", "a", "b", "c", "d"):
        tree.add("base_link", name, np.eye(4))
    tree.add("base_link", "camera", AHEAD)
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)
    with pytest.raises(BridgeTAError, match="more than 3 frames"):
        tree.lookup("base_link", "d")


def test_a_frame_with_an_endless_name_is_ignored_and_counted():
    tree = TfTree()
    for name in ("x" * 100_000, "y" * 100_000):
        tree.add_message(messages.make_tf_message(FACTORY, [(0, "base_link", name, np.eye(4))]))
        tree.add_message(messages.make_tf_message(FACTORY, [(0, name, name, np.eye(4))]))
    assert count_held(tree) == 0
    assert "4 transforms" in tree.overflow


def test_a_rig_of_a_crowded_tf_says_so(monkeypatch):
    monkeypatch.setattr(tf_tree, "MOST_FRAMES", 1)
    reader = RigReader([])
    assert reader.remarks == []
    links = [(0, "base_link", name, np.eye(4)) for name in "ab"]
    reader.tree.add_message(messages.make_tf_message(FACTORY, links))
    assert reader.remarks == [reader.tree.overflow]
