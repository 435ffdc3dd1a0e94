"""metadata.yaml may be edited, old, broken or absent: it costs no message, and what it promises is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from bag_fakes import MS, START, FakeRuntime, jpeg, rewrite, write_bag
from memory_limit import little_memory

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.summary import ReplaySummary

IMAGE = jpeg(100)
IMAGES = "/cam_front/image/compressed"


def edit(bag: Path, change) -> None:
    path = bag / "metadata.yaml"
    content = yaml.safe_load(path.read_text())
    change(content["rosbag2_bagfile_information"])
    path.write_text(yaml.safe_dump(content))


def edit_topics(bag: Path, change) -> None:
    edit(bag, lambda info: [change(topic) for topic in info["topics_with_message_count"]])


def run(bag: Path) -> ReplaySummary:
    return replay(bag, bag.parent / "out", FakeRuntime(), progress=False)


@pytest.fixture(params=["mcap", "sqlite3"])
def bag(tmp_path, request):
    return write_bag(tmp_path / "in", storage=request.param)


@pytest.mark.parametrize("value", [[], "", "- history: 3", "- history: unknown\n  depth: many", None, 7])
def test_any_quality_of_service_is_accepted(bag, value):
    edit_topics(bag, lambda topic: topic["topic_metadata"].update(offered_qos_profiles=value))
    summary = run(bag)
    assert (summary.used, summary.remarks) == (6, [])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"storage_identifier": "acme"},
        {"storage_identifier": None},
        {"compression_format": "lz5", "compression_mode": "FILE"},
        {"duration": None},
        {"starting_time": {"nanoseconds_since_epoch": -1}},
        {"message_count": "many"},
        {"files": None},
        {"ros_distro": 5},
        {"relative_file_paths": lambda paths: [f"/elsewhere/{path}" for path in paths]},
        {"relative_file_paths": lambda paths: paths * 2},
    ],
)
def test_what_is_not_needed_is_not_read(bag, change):
    def apply(info: dict[str, Any]) -> None:
        for key, value in change.items():
            info[key] = value(info[key]) if callable(value) else value

    edit(bag, apply)
    summary = run(bag)
    assert (summary.used, summary.remarks) == (6, [])


@pytest.mark.parametrize("text", ["", "]:[", "a: 1", "rosbag2_bagfile_information: 3", "\t\0", "[" * 9999])
def test_metadata_that_is_none_costs_nothing_and_is_said(bag, text):
    (bag / "metadata.yaml").write_text(text)
    summary = run(bag)
    assert summary.used == 6
    assert any("not as rosbag2 writes it" in remark for remark in summary.remarks)


def test_counts_that_differ_from_what_was_read_are_said(bag):
    def change(topic: dict[str, Any]) -> None:
        if topic["topic_metadata"]["name"] == IMAGES:
            topic["message_count"] = 9

    edit_topics(bag, change)
    summary = run(bag)
    assert summary.used == 6
    (remark,) = summary.remarks
    assert f"metadata.yaml says: {IMAGES} 6 (not 9)" in remark


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("promised", [0, 99])
def test_numbers_of_messages_that_are_wrong_cost_no_camera(tmp_path, statistics, promised):
    bag = write_bag(tmp_path / "in")
    edit_topics(bag, lambda topic: topic.update(message_count=promised))
    rewritten = rewrite(bag, tmp_path / "in.mcap", use_statistics=statistics)
    rewritten.rename(bag / "in.mcap")
    summary = run(bag)
    assert (summary.used, len(summary.cameras)) == (6, 2)
    assert any(f"{IMAGES} 6 (not {promised})" in remark for remark in summary.remarks)


def test_a_camera_that_only_the_metadata_gives_messages_is_silent(tmp_path):
    bag = write_bag(tmp_path / "in", image=lambda cycle, name: IMAGE if name == "cam_front" else None)
    edit_topics(bag, lambda topic: topic.update(message_count=5))
    summary = run(bag)
    assert list(summary.cameras) == ["cam_front"]


def test_topics_that_only_the_metadata_has_are_said(bag):
    def change(topic: dict[str, Any]) -> None:
        if topic["topic_metadata"]["name"] == "/tf":
            topic["topic_metadata"]["name"] = "/cam_top/image"

    edit_topics(bag, change)
    assert any("/cam_top/image, which the data files do not hold" in remark for remark in run(bag).remarks)


def test_a_file_renamed_by_hand_is_read_and_said(bag):
    file = next(f for f in bag.iterdir() if f.suffix != ".yaml")
    file.rename(bag / f"mine{file.suffix}")
    summary = run(bag)
    assert summary.used == 6
    assert any(file.name in remark and "not in the folder" in remark for remark in summary.remarks)


def split(tmp_path: Path, order: tuple[str, ...] = ("z_9", "a_10", "m_2")) -> Path:
    """Write a folder of three files of two cycles each, whose names are not in the order of their times."""
    folder = tmp_path / "split"
    folder.mkdir()
    for number, name in enumerate(order):
        part = write_bag(tmp_path / name, 2, start=START + 2 * number * 83 * MS)
        (part / f"{name}.mcap").rename(folder / f"{name}.mcap")
    return folder


def test_split_files_without_metadata_are_read_in_order_of_time(tmp_path):
    folder = split(tmp_path)
    with open_bag(folder) as bag:
        times = [time for _, time, _ in bag.raw(set(bag.topics))]
        assert times == sorted(times)
        assert any("z_9" in remark for remark in bag.remarks)
    summary = run(folder)
    assert (summary.used, summary.incomplete, summary.resets) == (6, 0, 0)


def test_files_that_overlap_in_time_are_merged(tmp_path):
    folder = tmp_path / "recorders"
    folder.mkdir()
    for name in ("cam_front", "cam_back"):
        lost = lambda cycle, camera, name=name: None if camera != name else IMAGE  # noqa: E731
        (write_bag(tmp_path / name, image=lost) / f"{name}.mcap").rename(folder / f"{name}.mcap")
    assert run(folder).used == 6


def test_a_file_beside_those_of_the_metadata_is_said(tmp_path):
    bag = write_bag(tmp_path / "in")
    (write_bag(tmp_path / "more") / "more.mcap").rename(bag / "more.mcap")
    summary = run(bag)
    assert summary.used == 6
    assert any("more.mcap is not in metadata.yaml" in remark for remark in summary.remarks)


def test_metadata_without_any_data_file_is_an_error(bag):
    next(f for f in bag.iterdir() if f.suffix != ".yaml").unlink()
    with pytest.raises(BridgeTAError, match="no data file beside its metadata"), open_bag(bag):
        pass


def test_a_folder_of_ros1_bags_gets_advice(tmp_path):
    (tmp_path / "one.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BridgeTAError, match=r"ROS 1 bags.*rosbags-convert"), open_bag(tmp_path):
        pass


def test_metadata_of_aliases_of_aliases_costs_nothing_and_is_said(bag):
    text = "a: &a {x: 1, y: 2}\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True):
        text += f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    (bag / "metadata.yaml").write_text(text)
    with little_memory():
        summary = run(bag)
    assert summary.used == 6
    assert any("more than 300,000 values" in remark for remark in summary.remarks)
