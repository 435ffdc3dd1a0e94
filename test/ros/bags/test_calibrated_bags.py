"""Bags of vehicles with other lenses, rigs and habits: what the replay makes of their calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from bag_fakes import AHEAD, RIG, START, FakeRuntime, K, jpeg, write_bag

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import create_bag
from bridgeta_ros.bags.replay import RIG_NAME, ReplaySettings, replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.bags.summary import FILE_NAME, ReplaySummary
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.images import EncodedImage
from bridgeta_ros.pipeline.pipeline import BevPipeline


def run(bag: Path, out: Path, **options) -> ReplaySummary:
    return replay(bag, out, FakeRuntime(options.pop("known", RIG.names)), ReplaySettings(**options), progress=False)


FISHEYES = Rig(
    tuple(
        Camera(c.name, 160, 120, K * ((0.5,), (0.5,), (1,)), c.ego_T_cam, (0.05, -0.01, 0.0, 0.0), "equidistant")
        for c in RIG.cameras
    )
)


def bright_middle(size: tuple[int, int]) -> bytes:
    """Make a JPEG that is white up to 40 degrees from the axis of a fisheye of `FISHEYES`, black outside."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    angle = np.radians(40)
    radius = 40 * angle * (1 + 0.05 * angle**2 - 0.01 * angle**4)
    cv2.circle(picture, (40, 22), round(radius), (255, 255, 255), cv2.FILLED)
    return cv2.imencode(".jpg", picture)[1].tobytes()


@pytest.mark.parametrize("distro", ["jazzy", "humble"])
def test_fisheye_cameras_are_replayed_from_camera_info(tmp_path, distro):
    data = bright_middle((160, 120))
    bag = write_bag(tmp_path / "in", 2, rig=FISHEYES, image=lambda cycle, name: data, distro=distro)
    summary = run(bag, tmp_path / "out")
    assert (summary.used, summary.failed) == (2, 0)
    used = Rig.load(tmp_path / "out" / RIG_NAME)
    for camera, expected in zip(used.cameras, FISHEYES.cameras, strict=True):
        assert (camera.distortion_model, camera.distortion) == ("equidistant", expected.distortion)
        assert np.allclose(camera.intrinsics, expected.intrinsics)
        assert np.allclose(camera.ego_T_cam, expected.ego_T_cam)
    again = run(bag, tmp_path / "again", calibration=tmp_path / "out" / RIG_NAME)
    assert again.used == 2
    # The white disc is 40 degrees wide to each side, so its rim lies at tan(40) focal lengths.
    with BevPipeline(FakeRuntime(), FISHEYES) as pipeline:
        inputs = pipeline.prepare({name: EncodedImage(data) for name in FISHEYES.names}, 0).inputs
    row = inputs[0, 15, :, 0] > 127
    focal = 32 / np.tan(np.radians(50))
    assert abs(row.sum() - 2 * focal * np.tan(np.radians(40))) < 6


def test_a_fisheye_is_undistorted_by_a_map_that_is_made_once(monkeypatch):
    made = []
    original = cv2.fisheye.initUndistortRectifyMap
    monkeypatch.setattr(cv2.fisheye, "initUndistortRectifyMap", lambda *args: made.append(1) or original(*args))
    with BevPipeline(FakeRuntime(), FISHEYES) as pipeline:
        assert len(made) == len(FISHEYES.cameras)
        for _ in range(3):
            pipeline.run({name: EncodedImage(jpeg(50, (160, 120))) for name in FISHEYES.names}, 0)
    assert len(made) == len(FISHEYES.cameras)


def write_infos(path: Path, infos, transforms=None) -> Path:
    """Write a bag of one camera with a set and the CameraInfo messages that `infos` makes of a good one."""
    with create_bag(path) as (bag, _):
        make = bag.factory
        for topic, kind in (
            ("/tf_static", topics.TF_MESSAGE),
            ("/front/image/compressed", topics.COMPRESSED),
            ("/front/camera_info", topics.CAMERA_INFO),
        ):
            bag.add_topic(topic, kind)
        links = [(START, "base_link", "cam", AHEAD)]
        for message in [messages.make_tf_message(make, links)] if transforms is None else transforms(make, links):
            bag.write("/tf_static", START, message)
        for i, change in enumerate(infos):
            message = messages.make_camera_info(make, Camera("front", 160, 90, K, AHEAD), START, "cam")
            change(message)
            bag.write("/front/camera_info", START + i, message)
        bag.write("/front/image/compressed", START, messages.make_compressed_image(make, jpeg(90), START, "cam"))
    return path


def keep(message):
    pass


def empty(message):
    message.k, message.p = np.zeros(9), np.zeros(12)


def test_the_first_camera_info_of_a_bag_that_is_a_calibration_is_used(tmp_path):
    summary = run(write_infos(tmp_path / "in", [empty, empty, keep]), tmp_path / "out", known=["front"])
    assert summary.used == 1
    (remark,) = summary.remarks
    assert remark.startswith("front: passed over 2 CameraInfo (is not calibrated")


def test_an_impossible_distortion_is_one_error_before_the_first_set(tmp_path):
    def change(message):
        message.d, message.distortion_model = np.ones(3), "plumb_bob"

    with pytest.raises(BridgeTAError, match="CameraInfo of front: distortion has 3 coefficients, plumb_bob takes"):
        run(write_infos(tmp_path / "in", [change]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_transforms_that_tf2_ignores_do_not_stop_a_replay(tmp_path):
    def transforms(make, links):
        yield messages.make_tf_message(make, links)
        bad = messages.make_tf_message(make, [(START, "map", "odom", AHEAD), (START, "cam", "cam", AHEAD), *links])
        for entry, value in zip(bad.transforms, (np.nan, 0.0, np.inf), strict=True):
            entry.transform.translation.x = value
        yield bad

    summary = run(write_infos(tmp_path / "in", [keep], transforms), tmp_path / "out", known=["front"])
    assert summary.used == 1
    assert summary.remarks == ["TF base_link <- cam is ignored, it holds values that are not finite"]


def test_an_implausible_calibration_is_remarked_on_the_screen_and_in_the_report(tmp_path):
    sky = replace(RIG.cameras[1], ego_T_cam=rigid((0, 0, 1.5), (1, 0, 0, 0)))
    bag = write_bag(tmp_path / "in", 2, rig=Rig((RIG.cameras[0], sky)))
    summary = run(bag, tmp_path / "out")
    remark = "cam_back sees 0 of the 320 cells: it looks 90 degrees up, is its frame an optical frame"
    assert any(text.startswith(remark) for text in summary.remarks)
    assert ReplaySummary.load(tmp_path / "out" / FILE_NAME).coverage["cam_back"] == "sees no cell of the grid"
    write_report(tmp_path / "out", bag, tmp_path / "report.html", progress=False)
    assert remark in (tmp_path / "report.html").read_text()


def test_a_plausible_calibration_gives_no_remark(tmp_path):
    assert run(write_bag(tmp_path / "in", 2), tmp_path / "out").remarks == []


def test_the_crop_of_a_calibration_file_is_used(tmp_path):
    def halves(cycle, name):
        picture = np.zeros((160, 160, 3), np.uint8)
        picture[80:] = 255
        return cv2.imencode(".png", picture)[1].tobytes()

    rig = Rig(tuple(Camera(c.name, 160, 160, K, c.ego_T_cam) for c in RIG.cameras))
    bag = write_bag(tmp_path / "in", 1, rig=rig, image=halves)
    rig.save(tmp_path / "rig.yaml")
    content = yaml.safe_load((tmp_path / "rig.yaml").read_text())
    content["cameras"]["cam_front"]["crop_bottom"] = 80
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    runtime = FakeRuntime()
    with BevPipeline(runtime, Rig.load(tmp_path / "rig.yaml")) as pipeline:
        inputs = pipeline.prepare({name: EncodedImage(halves(0, name)) for name in rig.names}, 0).inputs
    assert inputs[0].max() == 0
    assert inputs[1].min() == 255
    assert run(bag, tmp_path / "out", calibration=tmp_path / "rig.yaml").used == 1
    assert Rig.load(tmp_path / "out" / RIG_NAME).cameras[0].crop_bottom == 80
