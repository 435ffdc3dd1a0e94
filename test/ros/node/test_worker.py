"""The worker runs the newest set, survives whatever a set does, and leaves nothing behind when it stops."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bag_fakes import GRID, MS, RIG, SIZE, START, FakeRuntime, jpeg
from rosbags.typesys import Stores, get_typestore

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node import worker as worker_module
from bridgeta_ros.node.health import Health
from bridgeta_ros.node.parameters import DiagnosticsParameters
from bridgeta_ros.node.worker import Frame, Worker
from bridgeta_ros.pipeline import messages
from bridgeta_ros.pipeline.images import RawImage
from bridgeta_ros.pipeline.pipeline import BevResult
from bridgeta_ros.pipeline.status import ERROR, OK, WARN
from bridgeta_ros.pipeline.sync import ImageSet
from bridgeta_ros.pipeline.topics import LATENCIES

PATIENCE = 30  # seconds before a test gives up
MAKE = messages.RosbagsFactory(get_typestore(Stores.ROS2_JAZZY))
NOW = START + 500 * MS
SHAPE = {"width": SIZE[0], "height": SIZE[1]}
OTHER_RIG = Rig(RIG.cameras[::-1])


def images(number: int, brightness: int = 100, **data: bytes) -> ImageSet[Frame]:
    """Make a set whose newest stamp is `number` milliseconds after START."""
    stamps = {name: START + (number - i) * MS for i, name in enumerate(RIG.names)}
    items = {
        name: Frame(messages.make_compressed_image(MAKE, data.get(name, jpeg(brightness)), stamp, name))
        for name, stamp in stamps.items()
    }
    return ImageSet(items, stamps)


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


class Gate(FakeRuntime):
    """A network that works on a set until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def infer(self, images: np.ndarray, rig: Rig) -> np.ndarray:
        self.entered.release()
        assert self.go.acquire(timeout=PATIENCE)
        return super().infer(images, rig)


class Broken(FakeRuntime):
    """A network that raises `error` in the method `where`."""

    def __init__(self, where: str = "", error: Exception | None = None) -> None:
        super().__init__()
        self.where, self.error = where, error or BridgeTAError("no such calibration")
        self.calls = {"fits": 0, "warm_up": 0, "infer": 0}

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if name == self.where:
            raise self.error

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        self._call("fits")
        return super().fits(rig)

    def warm_up(self, rig: Rig) -> None:
        self._call("warm_up")
        super().warm_up(rig)

    def infer(self, images: np.ndarray, rig: Rig) -> np.ndarray:
        self._call("infer")
        return super().infer(images, rig)


class Bench:
    """A worker with all that it talks to, the publisher being the bench itself."""

    def __init__(self, runtime: FakeRuntime | None = None, minimum: int = 2, rig: Rig | None = RIG) -> None:
        self.decoded: list[str] = []  # encodings of the raw images
        self.runtime = runtime or FakeRuntime()
        self.rate, self.interest, self.fail_to_publish = 0.0, True, False
        self.results: queue.Queue[BevResult] = queue.Queue()
        self.stages: queue.Queue[Mapping[str, float]] = queue.Queue()
        self.reports: list[BaseException] = []
        self.health = Health(RIG.names, minimum, lambda: DiagnosticsParameters(expected_rate=0.0))
        self.worker = Worker(
            self.runtime,
            self,
            self.health,
            lambda: NOW,
            self.reports.append,
            minimum=minimum,
            max_rate=lambda: self.rate,
            to_rgb=self.decode,
        )
        self.worker.set_rig(rig)

    def decode(self, image: RawImage) -> np.ndarray:
        self.decoded.append(image.encoding)
        if image.encoding == "bad":
            raise ValueError("bad")
        return np.full((SIZE[1], SIZE[0], 3), image.step, np.uint8)

    def is_wanted(self) -> bool:
        return self.interest

    def publish(self, result: BevResult) -> Mapping[str, float]:
        if self.fail_to_publish:
            raise RuntimeError("the context is gone")
        self.results.put(result)
        return {"encode": 1.5, "publish": 2.5}

    def publish_latencies(self, stages: Mapping[str, float]) -> None:
        self.stages.put(stages)

    def offer(self, number: int, **data: bytes) -> None:
        self.worker.offer(images(number, **data), START + (number + 7) * MS)

    def next(self) -> int:
        """Return the milliseconds after START of the next result."""
        result = self.results.get(timeout=PATIENCE)
        self.stages.get(timeout=PATIENCE)
        return (result.stamp_ns - START) // MS

    def counted(self, name: str, number: int) -> None:
        """Wait until so many sets were counted."""
        eventually(lambda: getattr(self.health.counts, name) >= number)
        assert getattr(self.health.counts, name) == number

    def says(self) -> tuple[int, str]:
        (status,) = [s for s in self.health.list_statuses() if s.name == "sets"]
        return status.level, status.message


@pytest.fixture
def new() -> Iterator[Callable[..., Bench]]:
    """Make benches whose workers are started, and stopped at the end; none leaves a thread."""
    before, made = set(threading.enumerate()), []

    def make(*args: Any, **options: Any) -> Bench:
        made.append(Bench(*args, **options))
        made[-1].worker.start()
        return made[-1]

    yield make
    for bench in made:
        if isinstance(bench.runtime, Gate):
            bench.runtime.go.release(100)
        bench.worker.stop()
    assert set(threading.enumerate()) <= before


def threads(before: set[threading.Thread], name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and t.name.startswith(name)]


def test_a_set_goes_through_to_the_publisher(new):
    bench = new()
    bench.worker.offer(images(0, brightness=200), START)
    result = bench.results.get(timeout=PATIENCE)
    assert result.stamp_ns == START
    assert result.cameras == RIG.names
    assert abs(result.probabilities.mean() * 255 - 200) < 2
    assert result.seen.shape == GRID.shape
    bench.counted("published", 1)
    assert bench.says() == (OK, "publishing")


def test_while_a_set_is_worked_on_the_newest_that_comes_wins(new):
    bench = new(Gate())
    bench.offer(1)
    assert bench.runtime.entered.acquire(timeout=PATIENCE)
    for number in (2, 3, 4):
        bench.offer(number)
    bench.runtime.go.release(2)
    assert [bench.next(), bench.next()] == [1, 4]
    assert bench.health.counts.replaced == 2
    bench.counted("published", 2)


def test_a_dropped_set_is_neither_run_nor_counted_as_replaced(new):
    bench = new(Gate())
    bench.offer(1)
    assert bench.runtime.entered.acquire(timeout=PATIENCE)
    bench.offer(2)
    bench.worker.drop_waiting()
    bench.offer(3)
    bench.runtime.go.release(2)
    assert [bench.next(), bench.next()] == [1, 3]
    assert bench.health.counts.replaced == 0


def test_each_published_stage_has_its_own_latency(new):
    bench = new()
    bench.offer(100)
    stages = bench.stages.get(timeout=PATIENCE)
    assert tuple(stages) == LATENCIES
    assert stages["transport"] == 7.0
    assert (stages["encode"], stages["publish"]) == (1.5, 2.5)
    assert stages["total"] == 400.0  # from the newest stamp to NOW
    assert min(stages.values()) >= 0


@pytest.mark.parametrize("error", [BridgeTAError("out of memory"), ValueError("shapes differ"), KeyError("x")])
def test_a_network_failure_costs_its_set_and_is_reported(new, error):
    runtime = Broken("infer", error)
    bench = new(runtime)
    bench.offer(1)
    bench.counted("failed", 1)
    level, message = bench.says()
    assert level == ERROR
    assert str(error) in message
    runtime.where = ""
    bench.offer(2)
    assert bench.next() == 2
    bench.counted("published", 1)
    assert bench.says() == (OK, "publishing")
    # Only what nobody expects needs its traceback.
    assert bench.reports == ([] if isinstance(error, BridgeTAError) else [error])


def test_an_unusable_image_costs_its_set_and_names_its_camera(new):
    bench = new()
    bench.offer(1, cam_back=b"no JPEG")
    bench.counted("failed", 1)
    assert "camera cam_back" in bench.says()[1]
    assert bench.reports == []
    bench.offer(2)
    assert bench.next() == 2


def test_with_min_cameras_a_bad_image_costs_only_its_camera(new):
    bench = new(minimum=1)
    bench.offer(1, cam_back=b"no JPEG")
    assert bench.results.get(timeout=PATIENCE).cameras == ("cam_front",)
    bench.counted("published", 1)
    assert (bench.health.counts.partial, bench.health.counts.failed) == (1, 0)
    bench.health.add_image("cam_front")
    bench.health.add_image("cam_back")
    cameras = bench.health.list_statuses()[0]
    assert (cameras.level, cameras.message) == (WARN, "unusable images from cam_back")


def test_with_min_cameras_a_set_without_a_camera_is_run(new):
    bench = new(minimum=1)
    whole = images(1)
    bench.worker.offer(ImageSet({"cam_back": whole.items["cam_back"]}, {"cam_back": START}), START)
    assert bench.results.get(timeout=PATIENCE).cameras == ("cam_back",)
    bench.counted("partial", 1)


@pytest.mark.parametrize("minimum", [1, 2])
def test_a_rig_of_fewer_cameras_than_the_minimum_needs_all(new, minimum):
    bench = new(minimum=minimum, rig=Rig(RIG.cameras[:1]))
    bench.offer(1)
    assert bench.results.get(timeout=PATIENCE).cameras == ("cam_front",)


def test_an_invalid_message_costs_its_set(new):
    bench = new()
    bench.worker.offer(ImageSet({"cam_front": Frame(object())}, {"cam_front": START}), START)
    bench.counted("failed", 1)
    bench.offer(2)
    assert bench.next() == 2
    assert isinstance(bench.reports[0], AttributeError)


def test_a_publisher_that_fails_costs_its_set(new):
    bench = new()
    bench.fail_to_publish = True
    bench.offer(1)
    bench.counted("failed", 1)
    assert "the context is gone" in bench.says()[1]
    bench.fail_to_publish = False
    bench.offer(2)
    assert bench.next() == 2
    assert bench.health.counts.published == 1


def test_the_newest_set_waits_for_a_calibration(new):
    bench = new(rig=None)
    bench.offer(1)
    bench.offer(2)
    bench.counted("uncalibrated", 1)
    bench.worker.set_rig(RIG)
    assert bench.next() == 2


def test_a_calibration_is_prepared_for_before_any_image_comes(new):
    bench = new()
    eventually(lambda: bench.runtime.rigs == [RIG])


def test_a_new_calibration_is_used_at_once_and_the_old_threads_end(new):
    before = set(threading.enumerate())
    bench = new()
    bench.offer(1)
    assert bench.next() == 1
    old = threads(before, "decode")
    assert old
    bench.worker.set_rig(OTHER_RIG)
    eventually(lambda: not any(thread.is_alive() for thread in old))
    bench.offer(2)
    assert bench.results.get(timeout=PATIENCE).cameras == OTHER_RIG.names
    assert bench.runtime.rigs[-1].names == OTHER_RIG.names


def test_removing_the_calibration_ends_the_pipeline_and_its_threads(new):
    before = set(threading.enumerate())
    bench = new()
    bench.offer(1)
    assert bench.next() == 1
    bench.worker.set_rig(None)
    eventually(lambda: not threads(before, "decode"))
    bench.offer(2)
    bench.offer(3)
    bench.counted("uncalibrated", 1)
    assert bench.health.counts.published == 1


def test_another_network_is_used_from_the_next_set_on(new):
    bench = new()
    bench.offer(1)
    assert bench.next() == 1
    used = len(bench.runtime.rigs)
    other = FakeRuntime()
    bench.worker.set_runtime(other)
    assert bench.worker.runtime is other
    bench.offer(2)
    assert bench.next() == 2
    assert len(bench.runtime.rigs) == used
    assert other.rigs[0] is RIG  # warmed up for the calibration in use


def test_a_network_is_swapped_while_a_set_is_worked_on(new):
    bench = new(Gate())
    bench.offer(1)
    assert bench.runtime.entered.acquire(timeout=PATIENCE)
    other = FakeRuntime()
    bench.worker.set_runtime(other)
    bench.offer(2)
    bench.runtime.go.release()
    assert [bench.next(), bench.next()] == [1, 2]
    assert len(other.rigs) == 2


@pytest.mark.parametrize("error", [BridgeTAError("no such calibration"), ValueError("singular")])
@pytest.mark.parametrize("cure", ["rig", "network"])
def test_an_unusable_calibration_is_tried_once_until_something_changes(new, error, cure):
    runtime = Broken("fits", error)
    bench = new(runtime)
    bench.counted("failed", 1)
    assert str(error) in bench.says()[1]
    for number in (1, 2, 3):
        bench.offer(number)
        bench.counted("uncalibrated", number)
    assert runtime.calls["fits"] == 1
    assert bench.health.counts.failed == 1
    if cure == "rig":
        runtime.where = ""
        bench.worker.set_rig(OTHER_RIG)
    else:
        bench.worker.set_runtime(FakeRuntime())
    bench.offer(4)
    assert bench.next() == 4


def test_a_failed_warm_up_is_reported_and_not_repeated(new):
    runtime = Broken("warm_up", BridgeTAError("out of memory"))
    bench = new(runtime)
    bench.counted("failed", 1)
    assert bench.says() == (ERROR, "out of memory")
    for number in (1, 2):
        bench.offer(number)
        assert bench.next() == number  # there may be memory again
    assert runtime.calls["warm_up"] == 1
    bench.counted("published", 2)


def test_while_nobody_subscribes_the_network_rests(new):
    runtime = Broken()
    bench = Bench(runtime)
    bench.interest = False
    bench.worker.start()
    try:
        for number in (1, 2):
            bench.offer(number)
            bench.counted("skipped", number)
        assert (runtime.calls["warm_up"], runtime.calls["infer"]) == (0, 0)
        assert bench.says() == (OK, "idle: nobody subscribes")
        bench.interest = True
        bench.offer(3)
        assert bench.next() == 3
        bench.counted("published", 1)
        assert bench.says() == (OK, "publishing")
    finally:
        bench.worker.stop()


def test_max_rate_limits_the_sets_and_may_change_at_any_time(new):
    bench = new()
    bench.rate = 1e-6
    bench.offer(1)
    assert bench.next() == 1
    for number in (2, 3):
        bench.offer(number)
        bench.counted("skipped", number - 1)
    bench.rate = 0.0
    for number in (4, 5):
        bench.offer(number)
        assert bench.next() == number
    assert bench.health.counts.skipped == 2


def test_a_stop_leaves_no_thread(new):
    before = set(threading.enumerate())
    bench = new()
    bench.offer(1)
    assert bench.next() == 1
    assert threads(before, "bev_worker")
    bench.worker.stop()
    assert set(threading.enumerate()) <= before


def test_stopping_finishes_the_current_set_and_drops_the_waiting_one(new):
    before = set(threading.enumerate())
    bench = new(Gate())
    bench.offer(1)
    assert bench.runtime.entered.acquire(timeout=PATIENCE)
    bench.offer(2)
    stopper = threading.Thread(target=bench.worker.stop)
    stopper.start()
    eventually(lambda: bench.worker._job is None)
    assert threads(before, "bev_worker")
    bench.runtime.go.release(2)
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    assert set(threading.enumerate()) <= before
    assert bench.next() == 1
    assert bench.results.empty()
    assert bench.health.counts.published == 1


def test_a_worker_that_never_started_can_be_stopped():
    bench = Bench()
    bench.worker.stop()
    bench.worker.stop()


def test_a_worker_that_was_stopped_can_be_started_again(new):
    bench = new()
    bench.offer(1)
    assert bench.next() == 1
    for number in (2, 3):
        bench.worker.stop()
        bench.worker.start()
        bench.offer(number)
        assert bench.next() == number


def test_many_starts_and_stops_leave_nothing_behind():
    before = set(threading.enumerate())
    bench = Bench()
    for number in range(30):
        bench.worker.start()
        bench.offer(number)
        bench.worker.stop()
    assert set(threading.enumerate()) <= before


def test_memory_is_returned_after_each_change_and_at_the_end(new, monkeypatch):
    returned = queue.SimpleQueue[int]()
    monkeypatch.setattr(worker_module, "return_memory", lambda: returned.put(1))
    bench = new(rig=None)
    for change in (
        lambda: bench.worker.set_rig(RIG),
        lambda: bench.worker.set_runtime(FakeRuntime()),
        bench.worker.stop,
    ):
        change()
        assert returned.get(timeout=PATIENCE)
    assert returned.empty()


def raw(number: int, **encodings: str) -> ImageSet[Frame]:
    """Make a set of raw images that the bench decodes to pixels of 60; their encodings are their cameras' names."""
    stamps = dict.fromkeys(RIG.names, START + number * MS)
    items = {
        name: Frame(
            SimpleNamespace(height=SIZE[1], width=SIZE[0], step=60, is_bigendian=0, data=b"", encoding=encoding)
        )
        for name, encoding in {**{name: name for name in RIG.names}, **encodings}.items()
    }
    return ImageSet(items, stamps)


def test_images_are_decoded_while_their_set_is_incomplete_and_only_once(new):
    bench, whole = new(), raw(1)
    bench.worker.announce("cam_front", whole.items["cam_front"])
    eventually(lambda: bench.decoded == ["cam_front"])
    bench.worker.offer(whole, START)
    result = bench.results.get(timeout=PATIENCE)
    assert bench.decoded == ["cam_front", "cam_back"]
    assert (result.cameras, result.faults) == (RIG.names, {})
    assert np.allclose(result.probabilities[:2] * 255, 60)


def test_an_image_decoded_ahead_for_another_calibration_is_decoded_again(new):
    bench, whole = new(), raw(1)
    bench.worker.announce("cam_front", whole.items["cam_front"])
    eventually(lambda: bench.decoded == ["cam_front"])
    bench.worker.set_rig(OTHER_RIG)
    bench.worker.offer(whole, START)
    assert bench.results.get(timeout=PATIENCE).cameras == OTHER_RIG.names
    assert sorted(bench.decoded) == ["cam_back", "cam_front", "cam_front"]


def test_a_bad_image_decoded_ahead_costs_only_its_camera(new):
    bench, whole = new(minimum=1), raw(1, cam_front="bad")
    bench.worker.announce("cam_front", whole.items["cam_front"])
    eventually(lambda: bench.decoded == ["bad"])
    bench.worker.offer(whole, START)
    result = bench.results.get(timeout=PATIENCE)
    assert (result.cameras, list(result.faults)) == (("cam_back",), ["cam_front"])
    assert bench.reports == []


@pytest.mark.parametrize("why", ["nobody subscribes", "max_rate", "an unknown camera", "not calibrated"])
def test_nothing_is_decoded_ahead_that_will_not_be_run(new, why):
    bench = new(rig=None if why == "not calibrated" else RIG)
    if why == "max_rate":
        bench.offer(1)
        assert bench.next() == 1
        bench.rate = 1e-6
    bench.interest = why != "nobody subscribes"
    frame = raw(2).items["cam_front"]
    bench.worker.announce("roof" if why == "an unknown camera" else "cam_front", frame)
    eventually(lambda: not bench.worker._early)
    bench.worker.stop()
    assert bench.decoded == []


def test_images_that_no_set_takes_are_not_held_for_ever(new):
    bench = new(Gate())
    bench.offer(1)
    assert bench.runtime.entered.acquire(timeout=PATIENCE)
    frames = [Frame(None) for _ in range(1000)]
    kept = [weakref.ref(frame) for frame in frames]
    while frames:
        bench.worker.announce("cam_front", frames.pop())
    assert sum(ref() is not None for ref in kept) <= 101


def test_while_a_set_runs_nothing_is_decoded_ahead(new):
    bench, later = new(Gate()), raw(2)
    bench.offer(1)
    assert bench.runtime.entered.acquire(timeout=PATIENCE)
    bench.worker.announce("cam_front", later.items["cam_front"])
    bench.worker.offer(later, START + 9 * MS)
    assert bench.decoded == []
    bench.runtime.go.release(2)
    bench.next()
    assert bench.results.get(timeout=PATIENCE).cameras == RIG.names
    assert sorted(bench.decoded) == ["cam_back", "cam_front"]
