"""CameraInfo and TF become a rig, and what is wrong with them is named."""

from __future__ import annotations

import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bag_fakes import AHEAD, RIG, K
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import invert, project, rigid, transform
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import messages
from bridgeta_ros.pipeline.calibration import RigReader, camera_from_info, find_info_remark, select_cameras

FACTORY = messages.RosbagsFactory(get_typestore(Stores.ROS2_JAZZY))
CAMERA = Camera("front", 160, 90, K, AHEAD)


def info(camera: Camera = CAMERA, frame: str = "front_optical", **changes):
    message = messages.make_camera_info(FACTORY, camera, 0, frame)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


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


@pytest.mark.parametrize("model", ["equidistant", "fisheye", "kannala_brandt4"])
@pytest.mark.parametrize("d", [(0.1, -0.02, 0.003, 0.0), (0.1, -0.02, 0.003, 0.0, 0.0), (0.0,) * 4])
def test_a_fisheye_camera_keeps_k_and_four_coefficients(model, d):
    p = np.array([[70.0, 0, 81, 0], [0, 71, 46, 0], [0, 0, 1, 0]])
    message = info(d=np.array(d), distortion_model=model, p=p.ravel())
    camera = camera_from_info("front", message, AHEAD)
    assert (camera.distortion_model, camera.distortion) == ("equidistant", d[:4])
    assert np.array_equal(camera.intrinsics, K)
    assert (find_info_remark("front", message) is None) == any(d)
    rectified = camera_from_info("front", message, AHEAD, rectified=True)
    assert (rectified.distortion_model, rectified.distortion) == ("plumb_bob", ())
    assert np.array_equal(rectified.intrinsics, p[:, :3])


@pytest.mark.parametrize(("model", "is_named"), [("", False), ("none", False), ("plumb_bob", False), ("mei", True)])
def test_coefficients_of_zero_need_no_model_but_an_odd_one_is_named(model, is_named):
    message = info(d=np.zeros(3), distortion_model=model)
    assert camera_from_info("front", message, AHEAD).distortion == ()
    assert (find_info_remark("front", message) is not None) == is_named


def test_a_camera_info_written_by_us_keeps_the_lens():
    for model, d in (("equidistant", (0.1, 0.0, 0.0, 0.01)), ("rational_polynomial", (0.1,) * 8)):
        camera = Camera("front", 160, 90, K, AHEAD, d, model)
        again = camera_from_info("front", info(camera), AHEAD)
        assert (again.distortion, again.distortion_model) == (d, model)


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(-2, 2), st.floats(-1, 1))
def test_the_unrectified_image_of_a_stereo_pair_is_turned_by_r(a, b, c, x, y):
    r = Rotation.from_rotvec((a, b, c)).as_matrix()
    d = np.array([-0.1, 0.01, 0.001, 0.0, 0.0])
    camera = camera_from_info("left", info(r=r.ravel(), d=d), np.eye(4))
    # image_geometry's unrectifyPoint: the ray of the rectified image is projected by the inverse of R, D and K. Not by
    # cv2.Rodrigues, which takes angles below 1e-5 for none.
    point = np.array((x, y, 5.0))
    expected = cv2.projectPoints(point[None], -np.array((a, b, c)), np.zeros(3), K, d)[0].ravel()
    local = transform(invert(camera.ego_T_cam), point)
    ours = cv2.projectPoints(local[None], np.zeros(3), np.zeros(3), camera.intrinsics, np.array(camera.distortion))[0]
    assert np.allclose(ours.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("r", [np.zeros(9), np.full(9, np.nan), np.diag([1.0, 1, -1]).ravel(), AHEAD[:3, :3].ravel()])
def test_an_r_that_rectifies_nothing_is_not_used(r):
    d = np.array([-0.1, 0.01, 0.001, 0.0, 0.0])
    assert np.array_equal(camera_from_info("left", info(r=r, d=d), AHEAD).ego_T_cam, AHEAD)


@pytest.mark.parametrize("rectified", [None, True, False])
def test_without_p_a_camera_without_distortion_takes_k(rectified):
    message = info(p=np.zeros(12), d=np.zeros(0))
    assert np.array_equal(camera_from_info("front", message, AHEAD, rectified).intrinsics, K)


def test_rectified_images_need_p_when_the_lens_has_distortion():
    with pytest.raises(BridgeTAError, match="zero focal length in P, which holds for rectified images"):
        camera_from_info("front", info(p=np.zeros(12), d=np.ones(5)), AHEAD, rectified=True)


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
        ({"d": np.ones(5), "distortion_model": "equidistant"}, "5 coefficients, equidistant takes 4"),
        ({"d": np.ones(3), "distortion_model": "equidistant"}, "3 coefficients, equidistant takes 4"),
        ({"d": np.zeros(0), "distortion_model": "equidistant"}, "0 coefficients, equidistant takes 4"),
        ({"d": np.ones(3)}, "3 coefficients, plumb_bob takes 4, 5, 8, 12 or 14"),
        ({"d": np.ones(6), "distortion_model": "rational_polynomial"}, "6 coefficients, rational_polynomial takes"),
        ({"d": np.ones(5), "distortion_model": "mei"}, "model 'mei' is not one of plumb_bob"),
        ({"k": np.ones(4)}, "not 3x3"),
        ({"k": np.array([0.8, 0, 0.5, 0, 0.8, 0.5, 0, 0, 1]), "p": np.zeros(12)}, "normalised"),
        ({"width": 0}, "empty"),
        ({"p": np.array([80.0, 0, 9, 4, 0, 80, 9, 0, 0, 0, 0, 0])}, "last row"),
    ],
)
def test_a_camera_info_that_is_no_calibration_is_refused_by_name(changes, what):
    with pytest.raises(BridgeTAError, match=what) as error:
        camera_from_info("front", info(**changes), AHEAD)
    assert "front" in str(error.value)


def links(*entries, ns: int = 0):
    return messages.make_tf_message(FACTORY, [(ns, *entry) for entry in entries])


MOUNTED = links(("base_link", "front_optical", AHEAD))


def read(infos, tf=MOUNTED, **options):
    reader = RigReader(["front"], **options)
    reader.tree.add_message(tf, static=True)
    for message in infos:
        reader.add_info("front", message)
    return reader


def test_a_rig_follows_the_frames_of_its_camera_infos():
    mast, camera = rigid((0, 0, 1), (1, 0, 0, 0)), rigid((0.5, 0, 0.5), (0.5, -0.5, 0.5, -0.5))
    reader = read([info()], links(("base_link", "mast", mast), ("mast", "front_optical", camera)))
    assert reader.complete
    rig = reader.build_rig()
    assert rig.names == ("front",)
    assert np.allclose(rig.cameras[0].ego_T_cam, rigid((0.5, 0, 1.5), (0.5, -0.5, 0.5, -0.5)))
    assert reader.remarks == []


NO_CALIBRATIONS = {
    "zero focal length": {"k": np.zeros(9), "p": np.zeros(12)},
    "not finite": {"k": np.full(9, np.nan)},
    "empty": {"width": 0},
    "names no frame": {"frame": "/"},
    "unknown model": {"d": np.ones(5), "distortion_model": "mei"},
    "coefficients": {"d": np.ones(3)},
}


@pytest.mark.parametrize("changes", NO_CALIBRATIONS.values(), ids=NO_CALIBRATIONS)
def test_the_first_camera_info_that_is_a_calibration_counts(changes):
    later = info(k=(K * 2).ravel() / (1, 1, 1, 1, 1, 1, 1, 1, 2))
    reader = read([info(**changes), info(**changes), info(), later])
    assert np.array_equal(reader.build_rig().cameras[0].intrinsics, K)
    (remark,) = reader.remarks
    assert re.match(r"front: passed over 2 CameraInfo \(.*\) before the first that is a calibration", remark)


def test_cameras_that_were_passed_over_alike_share_a_remark():
    reader = RigReader(["front", "back"])
    for name in ("front", "back"):
        reader.add_info(name, info(k=np.zeros(9), p=np.zeros(12)))
        reader.add_info(name, info())
    (remark,) = reader.remarks
    assert remark.startswith("front, back: passed over 1 CameraInfo (is not calibrated")


@pytest.mark.parametrize("changes", NO_CALIBRATIONS.values(), ids=NO_CALIBRATIONS)
def test_a_camera_without_any_calibration_is_refused_by_name(changes):
    reader = read([info(**changes)] * 3)
    assert not reader.complete
    with pytest.raises(BridgeTAError, match="CameraInfo of front"):
        reader.build_rig()


def test_a_camera_without_a_chain_is_named():
    reader = read([info()], links(("base_link", "left_optical", AHEAD)))
    assert not reader.complete
    with pytest.raises(BridgeTAError, match=r"camera front: .*TF does not know front_optical"):
        reader.build_rig()


def test_an_ignored_transform_explains_the_missing_chain():
    tf = links(("base_link", "front_optical", AHEAD))
    tf.transforms[0].transform.rotation.w = 3.0
    with pytest.raises(BridgeTAError, match=r"front_optical is ignored, its quaternion has length 3"):
        read([info()], tf).build_rig()


def test_a_calibration_file_may_use_nuscenes_spelling(tmp_path):
    upper = Rig(tuple(Camera(c.name.upper(), c.width, c.height, c.intrinsics, c.ego_T_cam) for c in RIG.cameras))
    upper.save(tmp_path / "rig.yaml")
    rig = select_cameras(["cam_back", "cam_front"], Rig.load(tmp_path / "rig.yaml"))
    assert rig.names == ("cam_back", "cam_front")
    assert np.allclose(rig.cameras[0].ego_T_cam, RIG.cameras[1].ego_T_cam)
    with pytest.raises(BridgeTAError, match="cam_roof"):
        select_cameras(["cam_roof"], RIG)
