"""A bag of camera images through the network into a bag of grids, without ROS."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.ground_truth import Agreement, as_table, grid_values
from bridgeta_ros.bags.io import BagReader, BagWriter, Distro, Storage, create_bag, open_bag, qos
from bridgeta_ros.bags.progress import progress_bar
from bridgeta_ros.bags.summary import FILE_NAME, ReplaySummary
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.calibration import TfTree, rig_for, rig_from_messages
from bridgeta_ros.pipeline.images import EncodedImage, RawImage, image_from_message
from bridgeta_ros.pipeline.pipeline import BevPipeline, BevResult, BevRuntime, Prepared
from bridgeta_ros.pipeline.sync import DEFAULT_SLOP, Synchroniser

RIG_NAME = "rig.yaml"
_AHEAD = 2  # sets that are decoded while the network works on an earlier one


def replay(
    bag: Path,
    out: Path,
    weights: str | Path | BevRuntime = "tiny",
    *,
    calibration: Path | None = None,
    cameras: Sequence[str] = (),
    base_frame: str = "base_link",
    slop: float = DEFAULT_SLOP,
    every: int = 1,
    max_rate: float | None = None,
    threshold: float = 0.5,
    storage: Storage = "mcap",
    distro: Distro = "jazzy",
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
    console: Console | None = None,
) -> ReplaySummary:
    """Run the camera topics of a ROS 2 bag through a student and write the bag folder `out`.

    It holds one OccupancyGrid per class, the navigation grid, the coloured picture and the input's TF, at the
    input's times, so that both play side by side; `replay.json`, the summary that is returned; and `rig.yaml`, the
    calibration that was used, which `calibration` takes.

    `weights` are a file, the name of shipped ones, or a runtime. `calibration` (a rig file) replaces CameraInfo and
    TF. `cameras` chooses by name or topic; by default all cameras are used, or those the weights were trained with
    when the bag has each of them. `slop` is the longest time between the images of a set, in seconds. Of the sets
    each `every`-th is run, and at most `max_rate` per second of recording.

    Raises BridgeTAError when the bag, the weights or the calibration cannot be used, when no set is complete, and
    when every set fails. A broken image costs its set only.
    """
    if every < 1 or slop < 0 or (max_rate is not None and not max_rate > 0):
        raise BridgeTAError(f"every={every}, slop={slop}, rate={max_rate} must be positive", exit_code=2)
    bag, out = Path(bag), Path(out)
    if out.exists() and out.resolve() == bag.resolve():
        raise BridgeTAError("is the input bag itself", where=out, fix="Name another output", exit_code=2)
    with open_bag(bag) as source:
        found = topics.find_cameras(source.topics, cameras, need_info=calibration is None)
        if calibration is not None and not cameras:
            named = topics.match_names(Rig.load(calibration).names, (camera.name for camera in found))
            found = [camera for camera in found if camera.name in named] or found
        runtime = _runtime(weights, device)
        if not cameras:
            found = topics.order_cameras(found, runtime.info.cameras)
        names = [camera.name for camera in found]
        rig = rig_for(names, Rig.load(calibration)) if calibration else _rig_of_bag(source, found, base_frame)
        runtime.warm_up(rig)
        summary = ReplaySummary(
            source=str(bag),
            weights=str(weights) if isinstance(weights, (str, Path)) else type(weights).__name__,
            cameras={camera.name: camera.image for camera in found},
            slop=slop,
            grid=asdict(runtime.grid),
        )
        with (
            create_bag(out, storage, distro, overwrite) as (target, folder),
            BevPipeline(runtime, rig) as pipeline,
            progress_bar(console, progress) as bar,
        ):
            inputs = {camera.image for camera in found} | {topics.TF, topics.TF_STATIC}
            inputs |= {f"{topics.GROUND_TRUTH}/{name}" for name in CLASS_NAMES}
            task = bar.add_task("replay", total=source.count(inputs))
            run = _Replay(source, target, pipeline, summary, base_frame, threshold)
            by_topic = {camera.image: camera.name for camera in found}
            run(inputs, by_topic, round(slop * 1e9), _Chooser(every, max_rate), lambda: bar.advance(task))
            summary.save(folder / FILE_NAME)
            rig.save(folder / RIG_NAME)
    return summary


def _runtime(weights: str | Path | BevRuntime, device: str) -> BevRuntime:
    return Runtime(weights, device=device) if isinstance(weights, (str, Path)) else weights


def _rig_of_bag(source: BagReader, cameras: Sequence[topics.CameraTopic], base_frame: str) -> Rig:
    """The calibration that the bag tells, read from as much of it as is needed.

    Raises BridgeTAError for a camera without CameraInfo and for a missing link of TF.
    """
    by_info = {camera.info: camera.name for camera in cameras if camera.info is not None}
    without = [camera.image for camera in cameras if camera.info is None]
    if without:
        raise BridgeTAError(
            f"no CameraInfo beside {', '.join(without)}", where=source.path, fix="Give --calibration rig.yaml"
        )
    tree, infos = TfTree(), dict[str, Any]()
    for connection, _, data in source.raw({*by_info, topics.TF, topics.TF_STATIC}):
        message = source.decode(connection, data)
        if connection.topic in by_info:
            infos.setdefault(by_info[connection.topic], message)
        else:
            tree.add_message(message)
        if len(infos) == len(by_info) and all(tree.connects(base_frame, i.header.frame_id) for i in infos.values()):
            break
    silent = [topic for topic, name in by_info.items() if name not in infos]
    if silent:
        raise BridgeTAError(f"no message on {', '.join(silent)}", where=source.path, fix="Give --calibration rig.yaml")
    try:
        return rig_from_messages({camera.name: infos[camera.name] for camera in cameras}, tree, base_frame)
    except BridgeTAError as error:
        raise BridgeTAError(f"{error.where}: {error.what}", where=source.path, fix=error.fix) from error


class _Chooser:
    """Which of the complete sets are run."""

    def __init__(self, every: int, max_rate: float | None) -> None:
        self._every = every
        self._gap = round(1e9 / max_rate) if max_rate else 0
        self._count, self._last = 0, 0

    def __call__(self, ns: int) -> bool:
        number, self._count = self._count, self._count + 1
        # Stamps jitter around their period, so a tenth of the gap is given.
        too_soon = 0 <= ns - self._last < 0.9 * self._gap
        if number % self._every or (number and too_soon):
            return False
        self._last = ns
        return True


class _Replay:
    """The stream from one bag to the other.

    What is read is queued and leaves in the same order: TF as it is, sets once the network is through with them.
    """

    def __init__(
        self,
        source: BagReader,
        target: BagWriter,
        pipeline: BevPipeline,
        summary: ReplaySummary,
        base_frame: str,
        threshold: float,
    ) -> None:
        self._source, self._target, self._pipeline, self._summary = source, target, pipeline, summary
        self._frame, self._threshold = base_frame, threshold
        self._grid = pipeline.runtime.grid
        self._agreement = Agreement(self._grid)
        self._failures: Counter[str] = Counter()
        self._queue: deque[tuple[int, str, bytes] | tuple[int, Future[Prepared]]] = deque()
        self._waiting = 0

    def __call__(
        self,
        inputs: set[str],
        cameras: dict[str, str],
        slop_ns: int,
        choose: Callable[[int], bool],
        advance: Callable[[], None],
    ) -> None:
        summary, source = self._summary, self._source
        self._declare()
        sync: Synchroniser[EncodedImage | RawImage] = Synchroniser(list(cameras.values()), slop_ns)
        first_last: list[int] = []
        start = perf_counter()
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as ahead:
            try:
                for connection, time, data in source.raw(inputs):
                    topic = connection.topic
                    if topic in cameras:
                        first_last = [*first_last[:1], time]
                        complete = self._take_image(sync, cameras[topic], connection, data)
                        if complete is not None and choose(complete.newest_ns):
                            future = ahead.submit(self._pipeline.prepare, complete.items, complete.newest_ns)
                            self._queue.append((time, future))
                            self._waiting += 1
                        elif complete is not None:
                            summary.dropped += 1
                    elif topic.startswith(topics.GROUND_TRUTH):
                        self._take_truth(topic, source.decode(connection, data))
                    else:
                        self._queue.append((time, topic, data))
                    self._drain(_AHEAD)
                    advance()
                self._drain(0)
            finally:
                ahead.shutdown(wait=True, cancel_futures=True)
        summary.wall_seconds = perf_counter() - start
        summary.bag_seconds = (first_last[-1] - first_last[0]) / 1e9 if first_last else 0.0
        sync.flush()
        self._conclude(sync)

    def _declare(self) -> None:
        for topic, msgtype in messages.output_topics().items():
            self._target.add_topic(topic, msgtype, qos(latched=msgtype == topics.OCCUPANCY_GRID, depth=1))
        for topic in (topics.TF, topics.TF_STATIC):
            if topic in self._source.topics:
                latched = topic == topics.TF_STATIC
                profile = qos(latched=latched, depth=max(1, self._source.count([topic])) if latched else 100)
                self._target.add_topic(topic, topics.TF_MESSAGE, profile)
        # The first message of each type takes long to serialise: the library compiles the code for it then.
        rows, columns = self._grid.shape
        empty = np.zeros((len(CLASS_NAMES), rows, columns), dtype=np.float32)
        self._encode(BevResult(empty, self._pipeline.seen, 0, {}))

    def _take_image(self, sync: Synchroniser[Any], camera: str, connection: Any, data: bytes) -> Any:
        try:
            message = self._source.decode(connection, data)
        except BridgeTAError as error:
            self._failures[str(error)] += 1
            return None
        return sync.add(camera, messages.stamp_ns(message.header), image_from_message(message))

    def _take_truth(self, topic: str, message: Any) -> None:
        values = grid_values(message, self._grid)
        if values is not None:
            self._agreement.add_truth(messages.stamp_ns(message.header), topic.rpartition("/")[2], values)
        elif (remark := "the bag's ground truth lies on another grid than the weights', so there is no IoU") not in (
            self._summary.remarks
        ):
            self._summary.remarks.append(remark)

    def _drain(self, keep: int) -> None:
        """Write what the head of the queue holds until `keep` sets wait, or one that must be waited for comes."""
        while self._queue and (self._waiting > keep or len(self._queue[0]) == 3):
            entry = self._queue.popleft()
            if len(entry) == 3:
                time, topic, data = entry
                self._target.write_raw(topic, time, data)
            else:
                self._waiting -= 1
                self._finish(*entry)

    def _finish(self, time: int, future: Future[Prepared]) -> None:
        summary, target = self._summary, self._target
        try:
            result = self._pipeline.infer(future.result())
        except BridgeTAError as error:
            summary.failed += 1
            self._failures[str(error)] += 1
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
        """The serialised messages of a result, by topic."""
        make = self._target.factory
        made = messages.result_messages(
            make, result.probabilities, result.seen, self._grid, result.stamp_ns, self._frame, self._threshold
        )
        return {topic: self._target.serialise(topic, message) for topic, message in made.items()}

    def _conclude(self, sync: Synchroniser[Any]) -> None:
        summary, counts = self._summary, sync.counts
        summary.incomplete, summary.late, summary.resets = counts.incomplete, counts.late, counts.resets
        summary.failures = dict(self._failures.most_common())
        iou = self._agreement.result()
        summary.pairs = self._agreement.pairs
        if summary.pairs:
            summary.iou = as_table(iou)
            summary.remarks += iou.notes
        if summary.used:
            return
        if summary.failed:
            reason, _ = self._failures.most_common(1)[0]
            raise BridgeTAError(f"each of the {summary.failed} sets failed: {reason}", where=self._source.path)
        raise BridgeTAError(
            f"no set is complete: {counts.incomplete} lack a camera of {', '.join(summary.cameras)}",
            where=self._source.path,
            fix="Widen --slop, or choose the cameras that are there with --cameras",
        )
