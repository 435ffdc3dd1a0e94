"""Stamps that are missing or of another clock, and cameras that are dead, are named by the replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from bag_fakes import MS, RIG, START, FakeRuntime, jpeg, write_bag
from rich.console import Console

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import create_bag, open_bag
from bridgeta_ros.bags.replay import ReplaySettings, replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.bags.summary import ReplaySummary
from bridgeta_ros.pipeline.messages import stamp_to_ns

SECOND = 1000 * MS


def restamp(source: Path, out: Path, change: Callable[[str, int], int]) -> Path:
    """Write a bag anew with other stamps of its images: `change(camera, ns)`."""
    with open_bag(source) as bag, create_bag(out) as (target, _):
        for topic, kind in bag.topics.items():
            target.add_topic(topic, kind)
        for recorded, time, data in bag.raw(set(bag.topics)):
            message = bag.decode(recorded, data)
            if "/image/" in recorded.topic:
                stamp = message.header.stamp
                stamp.sec, stamp.nanosec = divmod(
                    change(recorded.topic.split("/")[1], stamp_to_ns(message.header)), SECOND
                )
            target.write(recorded.topic, time, message)
    return out


def run(bag: Path, **options) -> ReplaySummary:
    return replay(bag, bag.parent / "out", FakeRuntime(), ReplaySettings(**options), progress=False)


def printed(summary: ReplaySummary) -> str:
    text = StringIO()
    summary.print(Console(file=text, width=300))
    return text.getvalue()


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / "in", 40)


@pytest.mark.parametrize("unstamped", [{"cam_front", "cam_back"}, {"cam_back"}])
def test_images_without_stamps_take_the_times_of_recording(bag, tmp_path, unstamped):
    summary = run(restamp(bag, tmp_path / "zero", lambda name, ns: 0 if name in unstamped else ns))
    assert (summary.used, summary.late, summary.incomplete) == (40, 0, 0)
    assert summary.stamps == [START + 83 * MS * i for i in range(40)]
    (remark,) = summary.remarks
    assert f"{40 * len(unstamped)} images of " in remark
    assert all(name in remark for name in unstamped)
    write_report(tmp_path / "out", tmp_path / "zero", tmp_path / "report.html", progress=False)


@pytest.mark.parametrize(("offset", "words"), [(3600 * SECOND, "3600.000 s ahead of"), (-2 * SECOND, "2.000 s behind")])
def test_a_camera_of_another_clock_is_named(bag, tmp_path, offset, words):
    path = restamp(bag, tmp_path / "clock", lambda name, ns: ns + offset * (name == "cam_back"))
    with pytest.raises(BridgeTAError) as error:
        run(path)
    assert f"no set is complete: the stamps of cam_back are {words} those of the other cameras" in str(error.value)
    assert "cam_front are" not in str(error.value)


def test_one_camera_of_six_on_another_clock_is_named(tmp_path):
    cameras = [replace(RIG.cameras[0], name=f"cam_{i}") for i in range(6)]
    bag = write_bag(tmp_path / "in", 20, rig=Rig(tuple(cameras)))
    path = restamp(bag, tmp_path / "clock", lambda name, ns: ns + 7 * SECOND * (name == "cam_3"))
    with pytest.raises(BridgeTAError, match=r"the stamps of cam_3 are 7\.000 s ahead of") as error:
        run(path)
    assert "cam_2" not in str(error.value)


def test_stamps_since_boot_are_no_fault(bag, tmp_path):
    summary = run(restamp(bag, tmp_path / "boot", lambda name, ns: ns - START + 5 * SECOND))
    assert (summary.used, summary.remarks) == (40, [])


def test_a_camera_that_is_recorded_late_is_no_other_clock(tmp_path):
    lossy = write_bag(
        tmp_path / "in", 40, image=lambda cycle, name: None if (cycle, name) == (7, "cam_back") else jpeg(9)
    )
    with open_bag(lossy) as bag, create_bag(tmp_path / "late") as (target, _):
        for topic, kind in bag.topics.items():
            target.add_topic(topic, kind)
        for recorded, time, data in bag.raw(set(bag.topics)):
            target.write_raw(recorded.topic, time + 300 * MS * ("cam_back" in recorded.topic), data)
    summary = run(tmp_path / "late")
    assert (summary.used, summary.incomplete, summary.remarks) == (39, 1, [])


def test_a_camera_that_dies_is_named(tmp_path):
    dies = write_bag(
        tmp_path / "in", 40, image=lambda cycle, name: None if name == "cam_back" and cycle > 9 else jpeg(9)
    )
    summary = run(dies)
    assert (summary.used, summary.incomplete, summary.missed) == (10, 30, {"cam_back": 30})
    assert "cam_back is silent in the last 2.5 s" in summary.remarks
    assert "incomplete sets lacked cam_back 30 x" in printed(summary)


def test_a_camera_that_comes_late_is_named(tmp_path):
    late = write_bag(
        tmp_path / "in", 40, image=lambda cycle, name: None if name == "cam_back" and cycle < 30 else jpeg(9)
    )
    assert any("cam_back is silent until 2.5 s after" in remark for remark in run(late).remarks)


def test_stamps_that_stand_still_are_named_and_their_images_counted(bag, tmp_path):
    summary = run(restamp(bag, tmp_path / "same", lambda name, ns: START))
    assert (summary.used, summary.late) == (1, 78)
    assert "all 40 images of cam_back bear the same stamp: its driver does not set it" in summary.remarks
    assert "78 images were not newer" in printed(summary)


def test_times_that_sets_began_anew_are_printed(bag, tmp_path):
    summary = run(restamp(bag, tmp_path / "back", lambda name, ns: ns - 5 * SECOND * (ns > START + SECOND)))
    assert "stamps went back 1 x" in printed(summary)


def test_cameras_that_sets_lacked_are_in_the_report(tmp_path):
    bag = write_bag(tmp_path / "in", 4, image=lambda cycle, name: None if (cycle, name) == (2, "cam_back") else jpeg(9))
    run(bag)
    write_report(tmp_path / "out", bag, tmp_path / "report.html", progress=False)
    assert "incomplete sets lacked cam_back 1 x" in (tmp_path / "report.html").read_text()
