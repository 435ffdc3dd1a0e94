"""CameraInfo and TF become a rig, and what is wrong with them is named."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from bag_fakes import AHEAD, RIG, K
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import invert, project, rigid, transform
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import messages
from bridgeta_ros.pipeline.calibration import TfTree, camera_from_info, rig_from_messages, select_cameras

FACTORY = messages.RosbagsFactory(get_typestore(Stores.ROS2_JAZZY))
CAMERA = Camera("front", 160, 90, K, AHEAD)


def info(camera: Camera = CAMERA, frame: str = "front_optical", **changes):
    message = messages.make_camera_info(FACTORY, camera, 0, frame)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


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
    with pytest.raises(BridgeTAError, match="loop"):
        tree.lookup("a", "c")


@given(poses())
def test_a_tf_message_written_by_us_is_read_back(pose):
    tree = TfTree()
    tree.add_message(messages.make_tf_message(FACTORY, [(0, "base_link", "camera", pose)]))
    assert np.allclose(tree.lookup("base_link", "camera"), pose)


def test_a_zero_quaternion_is_refused_with_its_frames():
    message = messages.make_tf_message(FACTORY, [(0, "base_link", "camera", np.eye(4))])
    message.transforms[0].transform.rotation = SimpleNamespace(w=0.0, x=0.0, y=0.0, z=0.0)
    with pytest.raises(BridgeTAError, match="base_link <- camera"):
        TfTree().add_message(message)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_transform_that_is_not_rigid_is_named_and_costs_no_other(bad):
    names = ["left", "middle", "right"]
    message = messages.make_tf_message(FACTORY, [(0, "base_link", name, AHEAD) for name in names])
    message.transforms[bad].transform.translation.y = float("nan")
    tree = TfTree()
    with pytest.raises(BridgeTAError, match=f"TF base_link <- {names[bad]}"):
        tree.add_message(message)
    assert not tree.connects("base_link", names.pop(bad))
    for name in names:
        assert np.allclose(tree.lookup("base_link", name), AHEAD)


def test_a_transform_that_turns_bad_leaves_the_earlier_one():
    tree = TfTree()
    message = messages.make_tf_message(FACTORY, [(0, "base_link", "camera", AHEAD)])
    tree.add_message(message)
    message.transforms[0].transform.translation.x = float("inf")
    with pytest.raises(BridgeTAError):
        tree.add_message(message)
    assert np.allclose(tree.lookup("base_link", "camera"), AHEAD)


def test_a_rectified_camera_takes_its_intrinsics_from_p():
    p = np.array([[70.0, 0, 81, 0], [0, 71, 46, 0], [0, 0, 1, 0]])
    camera = camera_from_info("front", info(p=p.ravel()), AHEAD)
    assert np.array_equal(camera.intrinsics, p[:, :3])
    assert camera.distortion == ()


def test_an_unrectified_camera_takes_k_and_d():
    p = np.array([[70.0, 0, 81, 0], [0, 71, 46, 0], [0, 0, 1, 0]])
    d = np.array([-0.3, 0.1, 0.001, 0.002, 0.0])
    camera = camera_from_info("front", info(p=p.ravel(), d=d), AHEAD)
    assert np.array_equal(camera.intrinsics, K)
    assert camera.distortion == tuple(d)
    assert np.array_equal(camera_from_info("front", info(p=p.ravel(), d=d), AHEAD, rectified=True).intrinsics, p[:, :3])


def test_without_p_a_camera_without_distortion_takes_k():
    assert np.array_equal(camera_from_info("front", info(p=np.zeros(12), d=np.zeros(0)), AHEAD).intrinsics, K)


@given(baseline=st.floats(0.05, 1.0), x=st.floats(-3, 3), y=st.floats(-1, 1), z=st.floats(2, 30))
def test_the_right_camera_of_a_stereo_pair_projects_by_its_p(baseline, x, y, z):
    p = np.hstack((K, [[-K[0, 0] * baseline], [0], [0]]))
    camera = camera_from_info("right", info(p=p.ravel()), np.eye(4))
    u, v, w = p @ (x, y, z, 1)
    pixel, depth = project(camera.intrinsics, transform(invert(camera.ego_T_cam), np.array((x, y, z))))
    assert np.allclose(pixel, (u / w, v / w))
    assert np.isclose(depth, z)


def test_binning_and_region_of_interest_are_applied():
    message = info()
    message.roi = SimpleNamespace(x_offset=20, y_offset=10, width=120, height=60)
    message.binning_x = message.binning_y = 2
    camera = camera_from_info("front", message, AHEAD)
    assert (camera.width, camera.height) == (60, 30)
    # The full image's pixels 20 and 21 make the first of the binned ones, so 20.5 becomes 0.
    for full, binned in ((20.5, 0.0), (22.5, 1.0)):
        ray = (full - K[0, 2]) / K[0, 0]
        assert np.isclose(camera.intrinsics[0, 0] * ray + camera.intrinsics[0, 2], binned)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"k": np.full(9, np.nan)}, "not finite"),
        ({"k": np.zeros(9), "p": np.zeros(12)}, "not calibrated"),
        ({"d": np.array([0.1, 0, 0, 0]), "distortion_model": "equidistant"}, "equidistant"),
        ({"width": 0}, "empty"),
        ({"p": np.array([80.0, 0, 9, 4, 0, 80, 9, 0, 0, 0, 0, 0])}, "last row"),
    ],
)
def test_a_camera_info_that_is_no_calibration_is_refused_by_name(changes, what):
    with pytest.raises(BridgeTAError, match=what) as error:
        camera_from_info("front", info(**changes), AHEAD)
    assert "front" in str(error.value)


def test_a_rig_follows_the_frames_of_its_camera_infos():
    tree = TfTree()
    tree.add("base_link", "mast", rigid((0, 0, 1), (1, 0, 0, 0)))
    tree.add("mast", "front_optical", rigid((0.5, 0, 0.5), (0.5, -0.5, 0.5, -0.5)))
    rig = rig_from_messages({"front": info()}, tree)
    assert rig.names == ("front",)
    assert np.allclose(rig.cameras[0].ego_T_cam, rigid((0.5, 0, 1.5), (0.5, -0.5, 0.5, -0.5)))


def test_a_camera_without_a_frame_or_without_a_chain_is_named():
    with pytest.raises(BridgeTAError, match="names no frame"):
        rig_from_messages({"front": info(frame="")}, TfTree())
    with pytest.raises(BridgeTAError, match=r"camera front: .*front_optical"):
        rig_from_messages({"front": info()}, TfTree())


def test_a_calibration_file_may_use_nuscenes_spelling(tmp_path):
    upper = Rig(tuple(Camera(c.name.upper(), c.width, c.height, c.intrinsics, c.ego_T_cam) for c in RIG.cameras))
    upper.save(tmp_path / "rig.yaml")
    rig = select_cameras(["cam_back", "cam_front"], Rig.load(tmp_path / "rig.yaml"))
    assert rig.names == ("cam_back", "cam_front")
    assert np.allclose(rig.cameras[0].ego_T_cam, RIG.cameras[1].ego_T_cam)
    with pytest.raises(BridgeTAError, match="cam_roof"):
        select_cameras(["cam_roof"], RIG)
