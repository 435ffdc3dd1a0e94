"""Replay: a bag of camera images through the network into a bag of grids, without ROS."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.coverage import find_remarks
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.cameras import choose_cameras
from bridgeta_ros.bags.clocks import CameraClocks
from bridgeta_ros.bags.io import BagReader, BagWriter, Distro, Storage, create_bag, make_qos, open_bag, progress_bar
from bridgeta_ros.bags.storage.topic import RecordedTopic
from bridgeta_ros.bags.summary import FILE_NAME, Agreement, ReplaySummary, read_grid
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.images import EncodedImage, RawImage, image_from_message
from bridgeta_ros.pipeline.pipeline import BevPipeline, BevResult, BevRuntime, Prepared
from bridgeta_ros.pipeline.sync import DEFAULT_SLOP, Synchroniser

RIG_NAME = "rig.yaml"
_AHEAD = 2  # sets that are decoded while the network works on an earlier one
_LONGEST_QUEUE = 1000  # messages; where the cameras fall silent, transforms do not wait for the next set
_MOST_REASONS = 100  # of failures that are told apart


@dataclass(frozen=True)
class ReplaySettings:
    """How a bag is replayed. Raises BridgeTAError for numbers that make no sense."""

    calibration: Path | None = None  # a rig file in place of CameraInfo and TF
    cameras: Sequence[str] = ()  # names or topics; by default the weights' cameras if the bag has them all, else all
    base_frame: str = "base_link"
    slop: float = DEFAULT_SLOP  # seconds; longest time between the images of a set
    every: int = 1  # run every n-th complete set
    max_rate: float | None = None  # sets per second of recording that are run at most
    threshold: float = 0.5  # probability from which the navigation grid is drivable
    storage: Storage = "mcap"
    distro: Distro = "jazzy"  # the oldest ROS 2 that has to read the output
    device: str = "auto"
    backend: str = "torch"  # what computes the network; auto, the fastest here, may round differently next time
    precision: str = "float32"
    overwrite: bool = False

    def __post_init__(self) -> None:
        problem = None
        if self.every < 1:
            problem = f"every is {self.every}, it must be 1 or more"
        elif not 0 <= self.slop < math.inf:
            problem = f"slop is {self.slop} s, it must be 0 or more"
        elif self.max_rate is not None and not 0 < self.max_rate < math.inf:
            problem = f"max_rate is {self.max_rate} sets per second, it must be above 0"
        elif not 0 <= self.threshold <= 1:
            problem = f"threshold is {self.threshold}, it must be 0 to 1"
        if problem:
            raise BridgeTAError(f"cannot replay: {problem}", exit_code=2)


def replay(
    bag: Path,
    out: Path,
    weights: str | Path | BevRuntime = "tiny",
    settings: ReplaySettings | None = None,
    *,
    progress: bool = True,
) -> ReplaySummary:
    """Run the camera topics of a ROS 2 bag through a student and write the bag folder `out`.

    It holds one OccupancyGrid per class, the navigation grid, the coloured picture and the input's TF, at the
    input's times, so that both play side by side; `replay.json`, the summary that is returned; and `rig.yaml`, the
    calibration that was used. `weights` are a file, the name of shipped ones, or a runtime.

    Raises BridgeTAError when the bag, the weights or the calibration cannot be used, when no set is complete, and
    when every set fails. A broken image costs its set only.
    """
    settings = settings or ReplaySettings()
    bag, out = Path(bag), Path(out)
    if out.exists() and out.resolve() == bag.resolve():
        raise BridgeTAError("is the input bag itself", where=out, fix="Name another output", exit_code=2)
    with open_bag(bag) as source:
        runtime, network = weights, ""
        if isinstance(runtime, (str, Path)):
            runtime = Runtime(runtime, settings.device, settings.precision, settings.backend)
            network = f"{runtime.device}, {runtime.backend}, {runtime.precision} ({runtime.reason})"
        chosen = choose_cameras(
            source, settings.cameras, settings.calibration, settings.base_frame, runtime.info.cameras
        )
        rig = chosen.rig
        runtime.warm_up(rig)
        summary = ReplaySummary(
            source=str(bag),
            weights=str(weights) if isinstance(weights, (str, Path)) else type(weights).__name__,
            cameras={camera.name: camera.image for camera in chosen.topics},
            slop=settings.slop,
            grid=asdict(runtime.grid),
            thresholds=dict(zip(runtime.info.classes, runtime.info.thresholds, strict=True)),
            network=network,
            remarks=chosen.remarks,
        )
        files = [bag, settings.calibration, weights if isinstance(weights, (str, Path)) else None]
        inputs = [Path(file) for file in files if file is not None and Path(file).exists()]
        with (
            create_bag(out, settings.storage, settings.distro, settings.overwrite, inputs) as (target, folder),
            BevPipeline(runtime, rig) as pipeline,
            progress_bar(progress) as bar,
        ):
            summary.remarks += find_remarks(pipeline.coverage)
            summary.coverage = {view.camera.name: view.describe() for view in pipeline.coverage}
            run = _Replay(source, target, pipeline, summary, settings)
            task = bar.add_task("replay", total=source.count(run.inputs))
            run.run(lambda: bar.advance(task))
            summary.save(folder / FILE_NAME)
            rig.save(folder / RIG_NAME)
    return summary


class _SetFilter:
    """Chooses which of the complete sets are run."""

    def __init__(self, every: int, max_rate: float | None) -> None:
        self._every = every
        self._gap = round(1e9 / max_rate) if max_rate else 0  # ns
        self._count, self._last = 0, 0

    def accepts(self, stamp_ns: int) -> bool:
        """Return whether the set of this stamp is run; to be called once for each set."""
        number, self._count = self._count, self._count + 1
        # Stamps jitter around their period, so a tenth of the gap is tolerated.
        too_soon = 0 <= stamp_ns - self._last < 0.9 * self._gap
        if number % self._every or (number and too_soon):
            return False
        self._last = stamp_ns
        return True


@dataclass(frozen=True)
class _PassThrough:
    """A serialised message that is copied as it is."""

    time: int
    topic: str
    data: bytes | memoryview


@dataclass(frozen=True)
class _PendingSet:
    """A set that is being decoded for the network."""

    time: int
    prepared: Future[Prepared]


class _Replay:
    """The stream from one bag to the other.

    Messages are queued as they are read and leave in the same order: TF as it is, sets as the network's results.
    """

    def __init__(
        self,
        source: BagReader,
        target: BagWriter,
        pipeline: BevPipeline,
        summary: ReplaySummary,
        settings: ReplaySettings,
    ) -> None:
        self._source, self._target, self._pipeline, self._summary = source, target, pipeline, summary
        self._settings, self._grid = settings, pipeline.runtime.grid
        self._cameras = {topic: name for name, topic in summary.cameras.items()}
        self.inputs = {*self._cameras, *source.find_transforms(), *source.find_truths()}
        self._clocks = CameraClocks(list(summary.cameras), round(settings.slop * 1e9))
        self._sync: Synchroniser[EncodedImage | RawImage] = Synchroniser(
            list(summary.cameras), round(settings.slop * 1e9)
        )
        self._filter = _SetFilter(settings.every, settings.max_rate)
        self._agreement = Agreement(self._grid)
        self._failures: Counter[str] = Counter()
        self._queue: deque[_PassThrough | _PendingSet] = deque()
        self._pending = 0  # sets in the queue

    def run(self, advance: Callable[[], None]) -> None:
        """Work through the bag; `advance` is called after each message."""
        summary, source = self._summary, self._source
        self._declare_topics()
        first_last: list[int] = []
        start = perf_counter()
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as ahead:
            try:
                for topic, time, data in source.raw(self.inputs):
                    if topic.topic in self._cameras:
                        first_last = [*first_last[:1], time]
                        self._take_image(topic, time, data, ahead)
                    elif topic.topic.startswith(topics.GROUND_TRUTH):
                        self._take_truth(topic, data)
                    else:
                        self._pass_through(topic, time, data)
                    self._drain(_AHEAD)
                    advance()
                self._drain(0)
            finally:
                ahead.shutdown(wait=True, cancel_futures=True)
        summary.wall_seconds = perf_counter() - start
        summary.bag_seconds = (first_last[-1] - first_last[0]) / 1e9 if first_last else 0.0
        self._sync.flush()
        self._conclude()

    def _declare_topics(self) -> None:
        for topic, msgtype in messages.list_output_topics().items():
            self._target.add_topic(topic, msgtype, make_qos(latched=msgtype == topics.OCCUPANCY_GRID, depth=1))
        for topic in self._source.find_transforms():
            latched = topic == topics.TF_STATIC
            profile = make_qos(latched=latched, depth=max(1, self._source.count([topic]) or 0) if latched else 100)
            self._target.add_topic(topic, topics.TF_MESSAGE, profile)
        # The first message of each type takes long to serialise, since the library then compiles the code for it.
        rows, columns = self._grid.shape
        empty = np.zeros((len(CLASS_NAMES), rows, columns), dtype=np.float32)
        self._encode(BevResult(empty, self._pipeline.seen, 0, {}))

    def _take_image(self, topic: RecordedTopic, time: int, data: bytes, ahead: ThreadPoolExecutor) -> None:
        """Add an image to its set, and queue the set that it completes."""
        name = self._cameras[topic.topic]
        try:
            message = self._source.decode(topic, data)
            stamp = self._clocks.add(name, message, time)
        except BridgeTAError as error:
            self._count_failure(error)
            return
        for images in self._sync.add(name, stamp, image_from_message(message)):
            if self._filter.accepts(images.newest_ns):
                prepared = ahead.submit(self._pipeline.prepare, images.items, images.newest_ns)
                self._queue.append(_PendingSet(time, prepared))
                self._pending += 1
            else:
                self._summary.dropped += 1

    def _pass_through(self, topic: RecordedTopic, time: int, data: bytes) -> None:
        try:
            self._queue.append(_PassThrough(time, topic.topic, self._source.encode(topic, data)))
        except BridgeTAError as error:
            self._count_failure(error)

    def _count_failure(self, error: BridgeTAError) -> None:
        """Count a reason; those of a bag in which every message is damaged in its own way are not all kept."""
        reason = str(error)
        many = len(self._failures) >= _MOST_REASONS and reason not in self._failures
        self._failures["other reasons" if many else reason] += 1

    def _take_truth(self, topic: RecordedTopic, data: bytes) -> None:
        try:
            message = self._source.decode(topic, data)
            stamp = messages.stamp_to_ns(message.header)
        except BridgeTAError as error:
            self._count_failure(error)
            return
        values = read_grid(message, self._grid)
        if values is not None:
            self._agreement.add_truth(stamp, topic.topic.rpartition("/")[2], values)
            return
        remark = "the bag's ground truth lies on another grid than the weights', so there is no IoU"
        if remark not in self._summary.remarks:
            self._summary.remarks.append(remark)

    def _drain(self, pending: int) -> None:
        """Write out the queue until `pending` sets are left in it."""
        while self._queue:
            is_short = self._pending <= pending and len(self._queue) <= _LONGEST_QUEUE
            if is_short and isinstance(self._queue[0], _PendingSet):
                return
            match self._queue.popleft():
                case _PassThrough(time, topic, data):
                    self._target.write_raw(topic, time, data)
                case _PendingSet(time, prepared):
                    self._pending -= 1
                    self._finish(time, prepared)

    def _finish(self, time: int, prepared: Future[Prepared]) -> None:
        summary, target = self._summary, self._target
        try:
            result = self._pipeline.infer(prepared.result())
        except BridgeTAError as error:
            summary.failed += 1
            self._count_failure(error)
            return
        start = perf_counter()
        encoded = self._encode(result)
        middle = perf_counter()
        for topic, data in encoded.items():
            target.write_raw(topic, time, data)
        end = perf_counter()
        latencies = {**result.latencies, "encode": 1e3 * (middle - start), "write": 1e3 * (end - middle)}
        for stage, milliseconds in latencies.items():
            summary.latencies[stage].append(milliseconds)
        summary.stamps.append(result.stamp_ns)
        summary.used += 1
        self._agreement.add_result(result.stamp_ns, result.probabilities)

    def _encode(self, result: BevResult) -> dict[str, memoryview]:
        """Return the serialised messages of a result, by topic."""
        results = messages.make_result_messages(
            self._target.factory,
            result.probabilities,
            result.seen,
            self._grid,
            result.stamp_ns,
            self._settings.base_frame,
            self._settings.threshold,
            thresholds=result.thresholds,
        )
        return {topic: self._target.serialise(topic, message) for topic, message in results.items()}

    def _conclude(self) -> None:
        summary, counts = self._summary, self._sync.counts
        summary.incomplete, summary.late, summary.resets = counts.incomplete, counts.late, counts.resets
        summary.astray, summary.missed = counts.astray, dict(counts.missed)
        clocks = self._clocks.describe(counts)
        summary.remarks += clocks + self._source.remarks
        summary.failures = dict(self._failures.most_common())
        iou = self._agreement.conclude()
        summary.pairs = self._agreement.pairs
        if self._agreement.lost:
            summary.remarks.append(
                f"{self._agreement.lost} ground-truth keyframes waited too long for a result, and do not count"
            )
        if summary.pairs:
            summary.iou = iou.to_columns()
            summary.remarks += iou.notes
        if summary.used:
            return
        if summary.failed:
            reason, _ = self._failures.most_common(1)[0]
            raise BridgeTAError(f"each of the {summary.failed} sets failed: {reason}", where=self._source.path)
        reasons = clocks or [f"{counts.incomplete} lack {summary.describe_missed() or 'one of the cameras'}"]
        reasons += self._source.remarks  # such as a data file that is missing
        raise BridgeTAError(
            f"no set is complete: {'; '.join(reasons)}",
            where=self._source.path,
            fix="Widen --slop, or choose the cameras that are there with --cameras",
        )
