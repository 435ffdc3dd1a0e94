"""Cameras are found by how image_transport names topics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def with_info(*images: str, info: str = "/cam/camera_info", kind: str = COMPRESSED) -> dict[str, str]:
    return dict.fromkeys(images, kind) | {info: CAMERA_INFO}


@pytest.mark.parametrize(
    ("images", "taken"),
    [
        (["/cam/image_raw/compressed", "/cam/image_rect_color/compressed"], "/cam/image_raw/compressed"),
        (["/cam/image_rect/compressed", "/cam/image_rect_color/compressed"], "/cam/image_rect_color/compressed"),
        (["/cam/image_mono/compressed", "/cam/image_color/compressed"], "/cam/image_color/compressed"),
        (["/cam/image_mono", "/cam/image_rect_color"], "/cam/image_rect_color"),
        (["/cam/image_thumb/compressed", "/cam/image_raw/compressed"], "/cam/image_raw/compressed"),
        (["/cam/annotated/compressed", "/cam/image_rect/compressed"], "/cam/image_rect/compressed"),
        (["/cam/image/compressed", "/cam/image/zstd"], "/cam/image/compressed"),
    ],
)
def test_a_camera_info_belongs_to_one_image_topic(images, taken):
    (camera,) = find_cameras(with_info(*images))
    assert (camera.name, camera.image) == ("cam", taken)
    assert camera.others == tuple(image for image in images if image != taken)
    (by_topic,) = find_cameras(with_info(*images), [camera.others[0]])
    assert by_topic.image == camera.others[0]


def test_the_stream_in_the_size_of_its_camera_info_is_taken():
    sizes = {"/cam/camera_info": (1600, 900), "/cam/image_raw": (400, 225), "/cam/preview": (1600, 900)}
    (camera,) = find_cameras(with_info("/cam/image_raw", "/cam/preview", kind=RAW), sizes=sizes)
    assert camera.image == "/cam/preview"


def test_streams_without_camera_info_are_told_apart_by_their_own_words():
    kinds = dict.fromkeys(["/cam/image_raw", "/cam/image_rect", "/images/front", "/images/back"], RAW)
    images = [camera.image for camera in find_cameras(kinds, need_info=False)]
    assert images == ["/cam/image_raw", "/images/back", "/images/front"]


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/cam/image_rect", True),
        ("/cam/image_rect_color/compressed", True),
        ("/cam/image_rectified", True),
        ("/zed/rgb/color/rect/image/compressed", True),
        ("/cam/infra1/image_rect_raw", True),
        ("/CAM_FRONT/image_rect_compressed", True),
        ("/cam/image_raw", False),
        ("/cam/rect/image_raw", False),
        ("/cam/image/compressed", False),
        ("/rectory/image", False),
        ("/cam/direct_image", False),
    ],
)
def test_rectified_topics_are_known_by_their_names(topic, rectified):
    assert CameraTopic("cam", topic, RAW, None).rectified is rectified


@pytest.mark.parametrize(
    ("topic", "encoding", "depth"),
    [
        ("/cam/image_raw/compressedDepth", "", True),
        ("/cam/depth/image", "16UC1", True),
        ("/cam/depth/image", "32FC1", True),
        ("/cam/depth/image/compressed", "16UC1; png compressed ", True),
        ("/cam/depth_of_field/image", "rgb8", False),
        ("/cam/image", "mono16", False),
        ("/cam/image/compressed", "rgb8; jpeg compressed bgr8", False),
    ],
)
def test_depth_is_known_by_transport_and_encoding(topic, encoding, depth):
    assert topics.is_depth(topic, encoding) is depth


@pytest.mark.parametrize("name", ["cam_front/color", "cam_front/image_raw", "rgb_front", "camera/front/rgb"])
def test_words_for_streams_do_not_distinguish_cameras(name):
    assert match_names([name, "cam_back/color"], ["CAM_FRONT"]) == {"CAM_FRONT": name}


def test_an_equal_name_matches_before_a_similar_one():
    assert match_names(["front_rgb", "front_raw"], ["front_raw"]) == {"front_raw": "front_raw"}


def test_a_camera_info_of_its_own_does_not_make_a_second_camera():
    kinds = with_info("/cam/image_raw", "/cam/image_rect", kind=RAW) | {"/cam/image_rect/camera_info": CAMERA_INFO}
    (camera,) = find_cameras(kinds)
    assert (camera.image, camera.others) == ("/cam/image_raw", ("/cam/image_rect",))


SEGMENTS = st.sampled_from(
    [
        "cam",
        "front",
        "back",
        "image",
        "image_raw",
        "image_rect",
        "image_mono",
        "color",
        "compressed",
        "compressedDepth",
        "rect",
    ]
)
TOPICS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize("chosen", ["/cam", "/cam/compressed"])
def test_the_very_topic_that_is_named_is_taken(chosen):
    images = {"/cam": RAW, "/cam/compressed": COMPRESSED}
    assert [camera.image for camera in find_cameras(images, [chosen], need_info=False)] == [chosen]


@given(
    images=st.dictionaries(TOPICS, st.sampled_from([RAW, COMPRESSED]), min_size=1, max_size=8),
    namespaces=st.lists(TOPICS | st.just(""), max_size=4),
    need_info=st.booleans(),
    data=st.data(),
)
def test_any_topics_give_cameras_of_their_own_names_and_calibrations(images, namespaces, need_info, data):
    kinds = images | {f"{namespace}/camera_info": CAMERA_INFO for namespace in namespaces}
    try:
        found = find_cameras(kinds, need_info=need_info)
    except BridgeTAError:
        assert need_info
        assert not any(topics.find_info(image, kinds) for image in images)
        return
    assert len({camera.name for camera in found}) == len(found)
    infos = [camera.info for camera in found if camera.info is not None]
    assert len(set(infos)) == len(infos)
    if need_info:
        assert len(infos) == len(found)
    taken = [topic for camera in found for topic in (camera.image, *camera.others)]
    assert len(set(taken)) == len(taken)
    if not need_info:
        assert set(taken) == set(images)
    choice = data.draw(st.sampled_from(sorted(taken)))
    assert [camera.image for camera in find_cameras(kinds, [choice], need_info)] == [choice]
