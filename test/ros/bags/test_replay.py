"""A bag in, a bag of grids out: what is used and counted, and how a broken bag is answered."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import threading
from collections import defaultdict
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fakes import GRID, MS, RIG, START, FakeRuntime, jpeg, write_bag
from rich.console import Console

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import create_bag, open_bag
from bridgeta_ros.bags.replay import ReplaySettings, _Replay, replay
from bridgeta_ros.bags.summary import ReplaySummary
from bridgeta_ros.pipeline import messages, topics


def run(bag: Path, out: Path, runtime: FakeRuntime | None = None, **options) -> ReplaySummary:
    return replay(bag, out, runtime or FakeRuntime(), ReplaySettings(**options), progress=False)


def contents(path: Path):
    found = defaultdict(list)
    with open_bag(path) as bag:
        for connection, time, data in bag.raw(set(bag.topics)):
            found[connection.topic].append((time, bag.decode(connection, data)))
    return found


def brightness(cycle: int, name: str) -> bytes:
    return jpeg(20 * cycle + (100 if name == "cam_front" else 10))


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / "in", image=brightness)


def test_every_set_becomes_grids_stamped_with_its_newest_image(bag, tmp_path):
    summary = run(bag, tmp_path / "out")
    found = contents(tmp_path / "out")
    assert set(found) == {*messages.list_output_topics(), "/tf", "/tf_static"}
    stamps = [START + i * 83 * MS for i in range(6)]
    assert summary.stamps == stamps
    for topic in messages.list_output_topics():
        assert [(t, messages.stamp_to_ns(m.header)) for t, m in found[topic]] == [(s, s) for s in stamps]
    assert (summary.used, summary.incomplete, summary.dropped, summary.failed) == (6, 0, 0, 0)


def test_the_grids_hold_the_networks_probabilities_of_that_set(bag, tmp_path):
    run(bag, tmp_path / "out")
    found = contents(tmp_path / "out")
    for cycle, (_, grid) in enumerate(found["/bev/drivable_area"]):
        seen = grid.data >= 0
        assert np.abs(grid.data[seen] - (20 * cycle + 100) / 2.55).max() <= 1
        assert 0 < seen.sum() < GRID.shape[0] * GRID.shape[1]
    for _, grid in found["/bev/ped_crossing"]:  # the second class shows the second camera
        assert grid.data.max() <= 45
    assert {m.encoding for _, m in found["/bev/image"]} == {"rgb8"}
    assert (found["/bev/image"][0][1].width, found["/bev/image"][0][1].height) == GRID.shape


def test_the_transforms_of_the_input_are_copied_as_they_are(bag, tmp_path):
    run(bag, tmp_path / "out")
    with open_bag(bag) as before, open_bag(tmp_path / "out") as after:
        for topic in ("/tf", "/tf_static"):
            copies = [[(t, bytes(d)) for _, t, d in b.raw({topic})] for b in (before, after)]
            assert copies[0] == copies[1]
        times = [t for _, t, _ in after.raw(set(after.topics))]
    assert times == sorted(times)


def test_a_bag_recorded_with_a_delay_plays_beside_the_original(tmp_path):
    with create_bag(tmp_path / "in") as (bag, _):
        bag.add_topic("/front/image/compressed", topics.COMPRESSED)
        bag.add_topic("/front/camera_info", topics.CAMERA_INFO)
        bag.add_topic("/tf_static", topics.TF_MESSAGE)
        camera = RIG.cameras[0]
        bag.write("/tf_static", START, messages.make_tf_message(bag.factory, [(0, "base_link", "f", camera.ego_T_cam)]))
        bag.write("/front/camera_info", START, messages.make_camera_info(bag.factory, camera, 5, "f"))
        image = messages.make_compressed_image(bag.factory, jpeg(9), START - 70 * MS, "f")
        bag.write("/front/image/compressed", START, image)
    run(tmp_path / "in", tmp_path / "out")
    ((time, grid),) = contents(tmp_path / "out")["/bev/navigation"]
    assert (time, messages.stamp_to_ns(grid.header)) == (START, START - 70 * MS)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("distro", ["jazzy", "humble"])
def test_all_storages_and_distros_are_read_and_written(tmp_path, storage, distro):
    write_bag(tmp_path / "in", 2, storage=storage, distro=distro)
    run(tmp_path / "in", tmp_path / "out", storage=storage, distro=distro)
    assert len(contents(tmp_path / "out")["/bev/navigation"]) == 2


def test_a_single_mcap_file_is_read_like_its_folder(bag, tmp_path):
    assert run(bag / "in.mcap", tmp_path / "out").used == 6


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_raw_images_give_the_grids_of_their_pixels(tmp_path, encoding):
    channels = 1 if encoding == "mono8" else 3

    def make(factory, level, ns, frame):
        image = messages.make_rgb_image(factory, np.zeros((90, 160, 3), np.uint8), ns, frame)
        image.encoding, image.step = encoding, 160 * channels + 4
        image.data = np.full(90 * image.step, level, np.uint8)
        return image

    write_bag(tmp_path / "in", 2, image=lambda *_: 51, make_image=make, image_type=topics.RAW, suffix="image_raw")
    run(tmp_path / "in", tmp_path / "out")
    for _, grid in contents(tmp_path / "out")["/bev/drivable_area"]:
        assert set(np.unique(grid.data)) == {-1, 20}


def test_cameras_go_to_the_network_in_the_order_of_its_weights(bag, tmp_path):
    runtime = FakeRuntime(("CAM_BACK", "CAM_FRONT"))
    run(bag, tmp_path / "out", runtime)
    assert runtime.rigs[0].names == ("cam_back", "cam_front")


def test_cameras_can_be_chosen(bag, tmp_path):
    runtime = FakeRuntime()
    summary = run(bag, tmp_path / "out", runtime, cameras=["cam_back"])
    assert runtime.rigs[0].names == ("cam_back",)
    assert summary.cameras == {"cam_back": "/cam_back/image/compressed"}


def test_a_calibration_file_replaces_camera_info_and_tf(tmp_path):
    write_bag(tmp_path / "in", 2, info=False, tf=False)
    upper = Rig(tuple(Camera(c.name.upper(), c.width, c.height, c.intrinsics, c.ego_T_cam) for c in RIG.cameras))
    upper.save(tmp_path / "rig.yaml")
    runtime = FakeRuntime()
    assert run(tmp_path / "in", tmp_path / "out", runtime, calibration=tmp_path / "rig.yaml").used == 2
    assert np.allclose(runtime.rigs[0].cameras[1].ego_T_cam, RIG.cameras[1].ego_T_cam)


def test_images_that_are_lost_make_incomplete_sets(tmp_path):
    lost = {(1, "cam_front"), (3, "cam_back")}
    write_bag(tmp_path / "in", image=lambda c, n: None if (c, n) in lost else jpeg(50))
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.used, summary.incomplete) == (4, 2)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(jpeg(50)[:300], "truncated"), (b"", "holds no data"), (jpeg(50, (80, 45)), "calibration is for 160x90")],
)
def test_a_bad_image_costs_only_its_set_and_its_reason_is_counted(tmp_path, bad, reason):
    write_bag(tmp_path / "in", image=lambda c, n: bad if (c, n) == (2, "cam_back") else jpeg(50))
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.used, summary.failed, summary.incomplete) == (5, 1, 0)
    ((failure, count),) = summary.failures.items()
    assert count == 1
    assert "cam_back" in failure
    assert reason in failure
    assert START + 2 * 83 * MS not in summary.stamps


def test_an_invalid_message_is_counted_and_leaves_its_set_incomplete(tmp_path):
    write_bag(tmp_path / "in")
    with open_bag(tmp_path / "in") as bag, create_bag(tmp_path / "cut") as (out, _):
        for topic, kind in bag.topics.items():
            out.add_topic(topic, kind)
        for connection, time, data in bag.raw(set(bag.topics)):
            bad = connection.topic == "/cam_back/image/compressed" and time == START
            out.write_raw(connection.topic, time, data[:10] if bad else data)
    summary = run(tmp_path / "cut", tmp_path / "out")
    assert (summary.used, summary.incomplete) == (5, 1)
    assert "not a valid" in next(iter(summary.failures))


def test_when_every_set_fails_the_reason_is_the_error(tmp_path):
    write_bag(tmp_path / "in", image=lambda *_: b"nothing")
    with pytest.raises(BridgeTAError, match="each of the 6 sets failed: camera cam_front"):
        run(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "used", "dropped"), [({"every": 2}, 3, 3), ({"max_rate": 6.0}, 3, 3), ({"max_rate": 100.0}, 6, 0)]
)
def test_sets_may_be_left_out_on_request(bag, tmp_path, options, used, dropped):
    summary = run(bag, tmp_path / "out", **options)
    assert (summary.used, summary.dropped) == (used, dropped)
    assert (f"{dropped} left out on request" in summary.describe_sets()) is (dropped > 0)


def test_a_looped_recording_is_used_to_its_end(tmp_path):
    write_bag(tmp_path / "once", 20)
    with open_bag(tmp_path / "once") as bag, create_bag(tmp_path / "in") as (out, _):
        for topic, kind in bag.topics.items():
            out.add_topic(topic, kind)
        for loop in range(2):  # recorded again while it was played again: log times go on, stamps go back
            for connection, time, data in bag.raw(set(bag.topics)):
                out.write_raw(connection.topic, time + loop * 5_000 * MS, data)
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.used, summary.resets, summary.incomplete) == (40, 1, 0)


def truth_of(levels) -> np.ndarray:
    return np.stack([np.full(GRID.shape, level, np.int8) for level in levels])


def test_agreement_with_the_bags_ground_truth_is_scored_by_class(tmp_path):
    truth = truth_of((100, 0, -1, 100, 100, 0))
    truth[0, :4] = 0  # a quarter of the 16 rows is not drivable, a quarter unknown
    truth[0, 4:8] = -1
    write_bag(tmp_path / "in", image=lambda c, n: jpeg(255 if n == "cam_front" else 0), truth=truth)
    summary = run(tmp_path / "in", tmp_path / "out")
    assert summary.pairs == 6
    # The fake says 1 for the even classes and 0 for the odd ones.
    assert summary.iou["drivable_area"]["half"] == pytest.approx(8 / 12)
    assert summary.iou["stop_line"]["half"] == 0.0
    assert summary.iou["carpark_area"]["half"] == 1.0
    assert summary.iou["walkway"]["best"] is None
    assert summary.mean_iou == pytest.approx((8 / 12 + 0 + 1) / 3)
    assert any("walkway" in remark for remark in summary.remarks)


def test_ground_truth_is_paired_with_the_nearest_result_only(tmp_path):
    def image(cycle, name):
        return jpeg(255 if cycle == 1 else 0)

    write_bag(tmp_path / "in", 3, image=image, truth=truth_of((100,) * 6))
    with open_bag(tmp_path / "in") as bag, create_bag(tmp_path / "one") as (out, _):
        for topic, kind in bag.topics.items():
            out.add_topic(topic, kind)
        for connection, time, data in bag.raw(set(bag.topics)):
            if topics.GROUND_TRUTH not in connection.topic or time == START + 83 * MS:
                out.write_raw(connection.topic, time, data)
    summary = run(tmp_path / "one", tmp_path / "out")
    assert summary.pairs == 1
    assert summary.mean_iou == 1.0


def test_ground_truth_on_another_grid_is_left_out_with_a_remark(tmp_path):
    other = BevGrid(-10, 10, -8, 8, 0.5)
    write_bag(tmp_path / "in", 2, truth=np.zeros((6, *other.shape), np.int8), truth_grid=other)
    summary = run(tmp_path / "in", tmp_path / "out")
    assert summary.iou == {}
    assert len([remark for remark in summary.remarks if "another grid" in remark]) == 1


def test_ground_truth_of_another_type_or_without_its_values_costs_no_set(tmp_path):
    write_bag(tmp_path / "in", 2, truth=truth_of((100,) * 6))
    with open_bag(tmp_path / "in") as bag, create_bag(tmp_path / "cut") as (out, _):
        for topic, kind in bag.topics.items():
            out.add_topic(topic, topics.FLOAT64 if topic == f"{topics.GROUND_TRUTH}/walkway" else kind)
        for recorded, time, data in bag.raw(set(bag.topics)):
            message = bag.decode(recorded, data)
            if recorded.topic == f"{topics.GROUND_TRUTH}/divider":
                message.data = message.data[:7]
            if recorded.topic == f"{topics.GROUND_TRUTH}/stop_line":
                out.write_raw(recorded.topic, time, data[:9])
            elif recorded.topic != f"{topics.GROUND_TRUTH}/walkway":
                out.write(recorded.topic, time, message)
    summary = run(tmp_path / "cut", tmp_path / "out")
    assert (summary.used, summary.iou["drivable_area"]["best"]) == (2, 1.0)
    assert any("stop_line is not a valid" in reason for reason in summary.failures)


def test_the_summary_lies_in_the_bag_and_is_printed(bag, tmp_path):
    summary = run(bag, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert content["used"] == 6
    assert set(content["stages_ms"]) == {"decode", "preprocess", "network", "encode", "write", "total"}
    assert content["stages_ms"]["decode"]["p99"] >= content["stages_ms"]["decode"]["median"] >= 0
    loaded = ReplaySummary.load(tmp_path / "out" / "replay.json")
    assert (loaded.stamps, loaded.cameras) == (summary.stamps, summary.cameras)
    text = StringIO()
    loaded.print(Console(file=text, width=120))
    assert "6 used, 0 incomplete, 0 failed" in text.getvalue()
    assert "network" in text.getvalue()
    with pytest.raises(BridgeTAError, match="cannot be read"):
        ReplaySummary.load(bag / "replay.json")


def test_a_summary_of_an_earlier_version_is_read(bag, tmp_path):
    run(bag, tmp_path / "out")
    path = tmp_path / "out" / "replay.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("missed", "astray")}))
    assert ReplaySummary.load(path).missed == {}


def copy_without(source: Path, out: Path, *gone: str) -> Path:
    with open_bag(source) as bag, create_bag(out) as (target, _):
        kept = {topic: kind for topic, kind in bag.topics.items() if not any(g in topic for g in gone)}
        for topic, kind in kept.items():
            target.add_topic(topic, kind)
        for connection, time, data in bag.raw(set(kept)):
            target.write_raw(connection.topic, time, data)
    return out


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        (("/image",), "no camera topics"),
        (("camera_info",), "no CameraInfo.*--calibration"),
        (("tf_static",), "camera cam_front: no transform base_link <- cam_front.*tf_static"),
        (("/cam_back/camera_info", "/cam_back/image"), None),
    ],
)
def test_what_a_bag_lacks_is_named(bag, tmp_path, gone, what):
    path = copy_without(bag, tmp_path / "less", *gone)
    if what is None:
        assert run(path, tmp_path / "out").used == 6
        return
    with pytest.raises(BridgeTAError, match=what):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_chosen_camera_without_camera_info_is_named(bag, tmp_path):
    path = copy_without(bag, tmp_path / "less", "/cam_back/camera_info")
    with pytest.raises(BridgeTAError, match="no CameraInfo beside /cam_back/image/compressed"):
        run(path, tmp_path / "out", cameras=["cam_front", "/cam_back/image/compressed"])


def test_a_camera_info_topic_without_messages_is_named(tmp_path):
    write_bag(tmp_path / "in", info=False)
    with pytest.raises(BridgeTAError, match="no message on /cam_front/camera_info, /cam_back/camera_info"):
        run(tmp_path / "in", tmp_path / "out")


def test_cameras_that_never_fire_together_are_named(tmp_path):
    write_bag(tmp_path / "in", image=lambda c, n: jpeg(9) if (n == "cam_front") == bool(c % 2) else None)
    with pytest.raises(BridgeTAError, match=r"no set is complete: 6 lack.*--slop"):
        run(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("kind", ["missing", "empty folder", "text", "cut mcap", "cut db3", "no metadata", "garbage"])
def test_what_is_no_bag_is_one_clear_error_and_no_output(tmp_path, kind):
    path = write_bag(tmp_path / "in", storage="sqlite3" if kind == "cut db3" else "mcap")
    data = next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    if kind == "missing":
        path = tmp_path / "nothing"
    elif kind == "empty folder":
        path = tmp_path / "empty"
        path.mkdir()
    elif kind == "text":
        path = tmp_path / "notes.txt"
        path.write_text("hello")
    elif kind.startswith("cut"):
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    elif kind == "no metadata":
        shutil.rmtree(path)
        path.mkdir()
        (path / "a.txt").write_text("1")
    else:
        data.write_bytes(b"garbage" * 1000)
    with pytest.raises(BridgeTAError) as error:
        run(path, tmp_path / "out")
    assert str(path) in str(error.value)
    assert not (tmp_path / "out").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("place", np.linspace(0.02, 0.98, 17))
def test_damage_anywhere_is_one_clear_error_or_costs_only_its_sets(bag, tmp_path, place):
    data = bytearray((bag / "in.mcap").read_bytes())
    start = int(place * len(data))
    data[start : start + 300] = bytes(np.random.default_rng(start).integers(0, 256, 300, dtype=np.uint8))
    (bag / "in.mcap").write_bytes(data)
    try:
        summary = run(bag, tmp_path / "out")
    except BridgeTAError:
        assert not (tmp_path / "out").exists()
    else:
        assert 0 < summary.used <= 6


def test_the_output_is_not_replaced_unasked_and_never_the_input(bag, tmp_path):
    run(bag, tmp_path / "out")
    with pytest.raises(BridgeTAError, match="already exists"):
        run(bag, tmp_path / "out")
    assert run(bag, tmp_path / "out", every=3, overwrite=True).used == 2
    assert len(contents(tmp_path / "out")["/bev/navigation"]) == 2
    with pytest.raises(BridgeTAError, match="input bag itself"):
        run(bag, bag, overwrite=True)
    assert len(contents(bag)["/cam_front/camera_info"]) == 6


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"slop": -1.0}, {"max_rate": 0.0}, {"threshold": 1.5}, {"threshold": math.nan}]
)
def test_options_that_make_no_sense_are_refused(bag, tmp_path, options):
    with pytest.raises(BridgeTAError) as error:
        run(bag, tmp_path / "out", **options)
    assert error.value.exit_code == 2


def test_an_interrupt_leaves_no_output_and_no_threads(bag, tmp_path):
    class Interrupted(FakeRuntime):
        def infer(self, images, rig):
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(bag, tmp_path / "out", Interrupted())
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert threading.active_count() == before


def test_a_full_disk_is_one_clear_error_and_no_output(bag, tmp_path, monkeypatch):
    from rosbags.rosbag2.storage_mcap import McapWriter

    calls = itertools.count()

    def full(self, connection, timestamp, data):
        if next(calls) > 20:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(McapWriter, "write", full)
    with pytest.raises(BridgeTAError, match="No space left on device"):
        run(bag, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_the_bag_is_streamed_with_few_sets_decoded_ahead(tmp_path):
    write_bag(tmp_path / "in", 30)
    ahead: list[int] = []
    prepared = itertools.count(1)

    class Watching(FakeRuntime):
        done = 0

        def infer(self, images, rig):
            self.done += 1
            ahead.append(count[0] - self.done)
            return super().infer(images, rig)

    count = [0]
    original = cv2.imdecode

    def counting(*arguments):
        number = next(prepared)
        count[0] = number // 2
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "imdecode", counting)
        run(tmp_path / "in", tmp_path / "out", Watching())
    assert len(ahead) == 30
    assert max(ahead) <= 3


def test_class_names_are_the_topics():
    assert set(messages.list_output_topics()) == {f"/bev/{n}" for n in (*CLASS_NAMES, "navigation", "image")}


def restamp(source: Path, out: Path, change, **options) -> Path:
    """Copy a bag; `change(topic, time, message)` edits a message in place, and may return another time."""
    with open_bag(source) as bag, create_bag(out, **options) as (target, _):
        for topic, kind in bag.topics.items():
            target.add_topic(topic, kind)
        for connection, time, data in bag.raw(set(bag.topics)):
            message = bag.decode(connection, data)
            changed = change(connection.topic, time, message)
            target.write(connection.topic, time if changed is None else changed, message)
    return out


@pytest.mark.parametrize(("seconds", "nanoseconds"), [(2**31 - 1, 2**32 - 1), (-1, 0), (-(2**31), 2**32 - 1)])
def test_a_stamp_that_no_time_is_costs_its_image_and_is_counted(tmp_path, seconds, nanoseconds):
    source = write_bag(tmp_path / "in", truth=np.zeros((6, *GRID.shape), dtype=np.int8))
    hit = set()

    def change(topic, time, message):
        if topic not in hit and hasattr(message, "header") and not topic.endswith("camera_info"):
            hit.add(topic)
            message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds

    summary = run(restamp(source, tmp_path / "odd", change), tmp_path / "out")
    assert summary.used == 5
    assert sum(n for reason, n in summary.failures.items() if "is no time" in reason) == len(hit) == 8


def test_the_latest_stamp_of_all_is_replayed(tmp_path):
    latest = (2**31 - 10) * 10**9
    source = write_bag(tmp_path / "in", start=latest)
    assert run(source, tmp_path / "out").stamps[0] == latest


def test_transforms_do_not_wait_for_cameras_that_fell_silent(bag, tmp_path, monkeypatch):
    source = tmp_path / "long"
    with open_bag(bag) as before, create_bag(source) as (target, _):
        for topic, kind in before.topics.items():
            target.add_topic(topic, kind)
        last = 0
        for connection, time, data in before.raw(set(before.topics)):
            target.write_raw(connection.topic, time, data)
            last = time
        pose = messages.make_tf_message(target.factory, [(last, "map", "base_link", np.eye(4))])
        for i in range(5000):
            target.write("/tf", last + (i + 1) * MS, pose)
    longest = []
    take = _Replay._pass_through

    def watch(self, *arguments):
        take(self, *arguments)
        longest.append(len(self._queue))

    monkeypatch.setattr(_Replay, "_pass_through", watch)
    summary = run(source, tmp_path / "out")
    assert summary.used == 6
    assert max(longest) <= 1010
    with open_bag(tmp_path / "out") as after:
        assert after.count(["/tf"]) == 5006


def test_reasons_that_all_differ_are_not_all_kept(tmp_path):
    source = write_bag(
        tmp_path / "in", 300, period=100 * MS, image=lambda cycle, name: b"x" * (cycle + 1) if cycle else jpeg(9)
    )
    summary = run(source, tmp_path / "out")
    assert len(summary.failures) <= 101
    assert sum(summary.failures.values()) == 299
