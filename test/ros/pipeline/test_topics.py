"""Cameras are found by how image_transport names topics."""

from __future__ import annotations

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline import topics
from bridgeta_ros.pipeline.topics import (
    CAMERA_INFO,
    COMPRESSED,
    RAW,
    CameraTopic,
    find_cameras,
    match_names,
    order_cameras,
)

NUSCENES = ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_BACK"]


def test_a_camera_is_an_image_topic_with_a_camera_info_beside_it():
    found = find_cameras(
        {
            "/sensing/front/image/compressed": COMPRESSED,
            "/sensing/front/camera_info": CAMERA_INFO,
            "/sensing/back/image_raw": RAW,
            "/sensing/back/camera_info": CAMERA_INFO,
            "/debug/overlay": RAW,
            "/points": "sensor_msgs/msg/PointCloud2",
        }
    )
    assert found == [
        CameraTopic("back", "/sensing/back/image_raw", RAW, "/sensing/back/camera_info"),
        CameraTopic("front", "/sensing/front/image/compressed", COMPRESSED, "/sensing/front/camera_info"),
    ]


def test_a_compressed_topic_is_preferred_to_a_raw_one():
    found = find_cameras({"/a/image": RAW, "/a/image/compressed": COMPRESSED, "/a/camera_info": CAMERA_INFO})
    assert [camera.image for camera in found] == ["/a/image/compressed"]


def test_names_are_as_long_as_it_takes_to_tell_cameras_apart():
    kinds = {f"/{side}/{place}/image": RAW for side in ("left", "right") for place in ("front", "back")}
    kinds |= {topic.replace("image", "camera_info"): CAMERA_INFO for topic in kinds}
    names = {camera.name for camera in find_cameras(kinds)}
    assert names == {"left/front", "left/back", "right/front", "right/back"}


def test_the_choice_may_be_names_or_topics_and_keeps_its_order():
    kinds = {topics.to_image_topic(c): COMPRESSED for c in NUSCENES} | {
        topics.to_info_topic(c): CAMERA_INFO for c in NUSCENES
    }
    found = find_cameras(kinds, ["cam_front", "/cam_back/image/compressed"])
    assert [camera.name for camera in found] == ["cam_front", "cam_back"]
    with pytest.raises(BridgeTAError, match=r"no camera cam_top.*cam_back, cam_front") as error:
        find_cameras(kinds, ["cam_top"])
    assert error.value.exit_code == 2


def test_a_bag_without_images_says_what_it_holds_instead():
    with pytest.raises(BridgeTAError, match="PointCloud2"):
        find_cameras({"/points": "sensor_msgs/msg/PointCloud2"})


def test_images_without_camera_info_need_a_calibration_file():
    with pytest.raises(BridgeTAError, match="--calibration"):
        find_cameras({"/front/image": RAW})
    assert find_cameras({"/front/image": RAW}, need_info=False)[0].name == "front"


@pytest.mark.parametrize("names", [["cam_front", "cam_back"], ["front", "back"], ["camera/front", "camera/back"]])
def test_names_match_however_they_are_spelt(names):
    assert match_names(names, ["CAM_FRONT", "CAM_BACK"]) == dict(zip(["CAM_FRONT", "CAM_BACK"], names, strict=True))


def test_ambiguous_names_do_not_match():
    assert match_names(["cam_front", "front"], ["CAM_FRONT"]) == {}


def test_cameras_come_in_the_order_of_the_weights_if_all_are_there():
    cameras = [CameraTopic(n, f"/{n}", RAW, None) for n in ("cam_back", "cam_front", "cam_front_left", "cam_top")]
    assert [c.name for c in order_cameras(cameras, NUSCENES)] == ["cam_front_left", "cam_front", "cam_back"]
    assert order_cameras(cameras[:2], NUSCENES) == cameras[:2]
