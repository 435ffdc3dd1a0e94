"""Which topics of a bag are its cameras, how they are calibrated, and what the user hears of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_fakes import RIG, FakeRuntime, K, jpeg, write_bag

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import create_bag, open_bag
from bridgeta_ros.bags.replay import ReplaySettings, replay
from bridgeta_ros.bags.summary import ReplaySummary
from bridgeta_ros.pipeline import messages, topics

FRONT, BACK = "/cam_front/image/compressed", "/cam_back/image/compressed"
D = np.array([-0.33, 0.12, 0.0005, -0.0003, -0.02])
Edit = Callable[[str, Any], list[tuple[str, Any]]]


def edit_bag(source: Path, out: Path, edit: Edit, silent: dict[str, str] | None = None) -> Path:
    """Write a bag anew: `edit(topic, message)` says what takes a message's place; `silent` topics get no message."""
    with open_bag(source) as bag, create_bag(out) as (target, _):
        declared = set()
        for topic, kind in (silent or {}).items():
            target.add_topic(topic, kind)
        for recorded, time, data in bag.raw(set(bag.topics)):
            for topic, message in edit(recorded.topic, bag.decode(recorded, data)):
                if topic not in declared:
                    declared.add(topic)
                    kind = topics.RAW if hasattr(message, "encoding") else recorded.msgtype
                    target.add_topic(topic, kind)
                target.write(topic, time, message)
    return out


def run(bag: Path, **options) -> tuple[ReplaySummary, Rig]:
    runtime = FakeRuntime(options.pop("weights", ("CAM_FRONT", "CAM_BACK")))
    summary = replay(bag, bag.parent / "out", runtime, ReplaySettings(**options), progress=False)
    return summary, runtime.rigs[0]


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / "in", 3)


def rename(names: dict[str, str]) -> Edit:
    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        for old, new in names.items():
            topic = topic.replace(old, new)
        return [(topic, message)]

    return edit


def test_of_raw_and_rectified_images_side_by_side_one_is_used(bag, tmp_path):
    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        names = ("image_raw", "image_rect_color") if "/image/" in topic else ("image",)
        return [(topic.replace("/image/", f"/{name}/"), message) for name in names]

    summary, _ = run(edit_bag(bag, tmp_path / "both", edit))
    assert summary.used == 3
    assert summary.cameras["cam_front"] == "/cam_front/image_raw/compressed"
    said = "cam_front: /cam_front/image_raw/compressed is used, not /cam_front/image_rect_color/compressed"
    assert said in summary.remarks


@pytest.mark.parametrize(("name", "rectified"), [("image_rect", True), ("image_raw", False)])
def test_rectified_topics_are_used_with_p_and_without_d(bag, tmp_path, name, rectified):
    other = K * np.array([[0.8], [0.8], [1]])

    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        if topic.endswith("camera_info"):
            message.d, message.p = D, np.hstack([other, np.zeros((3, 1))]).ravel()
        return [(topic.replace("/image/", f"/{name}/"), message)]

    _, rig = run(edit_bag(bag, tmp_path / name, edit))
    for camera in rig.cameras:
        assert np.allclose(camera.intrinsics, other if rectified else K)
        assert camera.distortion == (() if rectified else pytest.approx(tuple(D)))


def test_the_first_camera_info_that_is_a_calibration_counts(bag, tmp_path):
    seen = set()

    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        if topic.endswith("camera_info") and topic not in seen:
            seen.add(topic)
            message.k, message.p = np.zeros(9), np.zeros(12)
        return [(topic, message)]

    summary, rig = run(edit_bag(bag, tmp_path / "zeros", edit))
    assert summary.used == 3
    assert np.allclose(rig.cameras[0].intrinsics, K)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_beside_colour_is_no_camera(bag, tmp_path, encoding):
    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        if topic.endswith("camera_info"):
            return [(topic.replace("/camera_info", f"/{kind}/camera_info"), message) for kind in ("color", "depth")]
        if "/image/" not in topic:
            return [(topic, message)]
        with create_bag(tmp_path / f"{len(list(tmp_path.iterdir()))}") as (helper, _):
            depth = messages.make_rgb_image(helper.factory, np.zeros((90, 160, 3), np.uint8), 0, "cam")
        depth.header, depth.encoding = message.header, encoding
        camera = topic.split("/")[1]
        return [(f"/{camera}/color/image_raw/compressed", message), (f"/{camera}/depth/image_rect_raw", depth)]

    summary, rig = run(edit_bag(bag, tmp_path / "depth", edit))
    assert (summary.used, rig.names) == (3, ("cam_front/color", "cam_back/color"))
    assert any("passed over as depth: /cam_back/depth/image_rect_raw" in remark for remark in summary.remarks)


@pytest.mark.parametrize("from_file", [False, True])
def test_a_compressed_depth_topic_without_messages_is_passed_over(bag, tmp_path, from_file):
    silent = {f"/{name}/image/compressedDepth": topics.COMPRESSED for name in ("cam_front", "cam_back")}
    path = edit_bag(bag, tmp_path / "silent", rename({}), silent)
    RIG.save(tmp_path / "rig.yaml")
    summary, rig = run(path, calibration=tmp_path / "rig.yaml" if from_file else None)
    assert (summary.used, rig.names) == (3, ("cam_front", "cam_back"))


def test_a_raw_topic_without_messages_does_not_hide_the_one_with(bag, tmp_path):
    path = edit_bag(
        bag,
        tmp_path / "in2",
        rename({"image/compressed": "image_rect/compressed"}),
        {"/cam_front/image_raw/compressed": topics.COMPRESSED},
    )
    summary, _ = run(path)
    assert summary.cameras["cam_front"] == "/cam_front/image_rect/compressed"
    assert any("have no message: /cam_front/image_raw/compressed" in remark for remark in summary.remarks)


def test_a_bag_in_which_all_cameras_are_dead_names_their_topics(tmp_path):
    bag = write_bag(tmp_path / "in", 3, image=lambda cycle, name: None)
    with pytest.raises(BridgeTAError, match=rf"no camera with images \(without messages: {BACK}, {FRONT}\)"):
        run(bag)


def test_a_thumbnail_is_no_camera(bag, tmp_path):
    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        if "/image/" not in topic:
            return [(topic, message)]
        small = replace(message, data=np.frombuffer(jpeg(50, (80, 45)), np.uint8))
        return [(topic.replace("/image/", "/image_rect/"), message), (topic.replace("/image/", "/image_raw/"), small)]

    summary, _ = run(edit_bag(bag, tmp_path / "small", edit))
    assert summary.cameras["cam_front"] == "/cam_front/image_rect/compressed"


def test_the_size_of_a_binned_region_is_that_of_its_images(bag, tmp_path):
    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        if topic.endswith("camera_info"):
            message.width, message.height, message.binning_x, message.binning_y = 640, 360, 2, 2
            message.roi.width, message.roi.height = 320, 180
        small = replace(message, data=np.frombuffer(jpeg(50, (80, 45)), np.uint8)) if "/image/" in topic else message
        return [(topic, message)] + (
            [(topic.replace("/image/", "/image_color/"), small)] if small is not message else []
        )

    summary, _ = run(edit_bag(bag, tmp_path / "binned", edit))
    assert (summary.used, summary.cameras["cam_front"]) == (3, FRONT)


def test_a_camera_without_images_is_named_and_left_out(tmp_path):
    bag = write_bag(tmp_path / "in", 3, image=lambda cycle, name: jpeg(9) if name == "cam_front" else None)
    summary, rig = run(bag)
    assert (summary.used, rig.names) == (3, ("cam_front",))
    assert f"no message on {BACK}: replayed without these cameras" in summary.remarks
    with pytest.raises(BridgeTAError, match=f"no camera cam_back.*without messages: {BACK}"):
        run(bag, cameras=["cam_back"])


def test_a_camera_that_the_weights_know_and_the_bag_lacks_is_said(bag):
    summary, _ = run(bag, weights=("CAM_FRONT", "CAM_BACK", "CAM_LEFT"))
    assert any("using 2 of 3 cameras: no CAM_LEFT" in remark for remark in summary.remarks)


def test_cameras_that_the_weights_do_not_know_are_said(bag):
    summary, rig = run(bag, weights=("CAM_FRONT",))
    assert rig.names == ("cam_front",)
    assert any("do not know cam_back" in remark for remark in summary.remarks)


def test_names_that_match_none_of_the_weights_are_said(bag):
    summary, _ = run(bag, weights=("ONE", "TWO"))
    assert any("none of the weights' cameras (ONE, TWO)" in remark for remark in summary.remarks)


def test_a_camera_that_the_calibration_file_lacks_is_said(bag, tmp_path):
    RIG.select(("cam_front",)).save(tmp_path / "rig.yaml")
    summary, rig = run(bag, calibration=tmp_path / "rig.yaml")
    assert rig.names == ("cam_front",)
    assert any("rig.yaml has no camera cam_back" in remark for remark in summary.remarks)
    assert any("no CAM_BACK" in remark for remark in summary.remarks)


def test_image_topics_without_camera_info_are_said(bag, tmp_path):
    def edit(topic: str, message: Any) -> list[tuple[str, Any]]:
        return [(topic, message), *([("/debug/overlay/compressed", message)] if topic == FRONT else [])]

    summary, _ = run(edit_bag(bag, tmp_path / "debug", edit))
    assert any("no CameraInfo beside them: /debug/overlay/compressed" in remark for remark in summary.remarks)
    chosen, _ = run(tmp_path / "debug", cameras=["cam_front"], overwrite=True)
    assert chosen.remarks == []


def test_an_unreadable_transform_costs_nothing_but_a_remark(bag, tmp_path):
    with open_bag(bag) as source, create_bag(tmp_path / "cut") as (target, _):
        for topic, kind in source.topics.items():
            target.add_topic(topic, kind)
        target.write_raw("/tf_static", 0, b"\0\1\0\0\xff")
        for recorded, time, data in source.raw(set(source.topics)):
            target.write_raw(recorded.topic, time, data)
    summary, _ = run(tmp_path / "cut")
    assert summary.used == 3
    assert any("a message on /tf_static is not a valid" in remark for remark in summary.remarks)
