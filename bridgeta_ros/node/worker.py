"""The worker thread: it takes the newest image set through the pipeline and hands the result on. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, Protocol

from bridgeta_core.geometry.coverage import CameraCoverage
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import return_memory
from bridgeta_ros.node.health import Health
from bridgeta_ros.pipeline.images import EncodedImage, Picture, RawImage, image_from_message, raw_to_rgb
from bridgeta_ros.pipeline.pipeline import BevPipeline, BevResult, BevRuntime, Fitted
from bridgeta_ros.pipeline.sync import ImageSet

_MOST_EARLY = 100  # images that wait to be made network inputs; as many cameras as a node may have


class Publisher(Protocol):
    """What the worker asks of the node, from its thread."""

    def is_wanted(self) -> bool:
        """Return whether anybody is interested in results."""
        ...

    def publish(self, result: BevResult) -> Mapping[str, float]:
        """Send a result; return the milliseconds of its stages, such as `encode` and `publish`."""
        ...

    def publish_latencies(self, stages: Mapping[str, float]) -> None:
        """Send the milliseconds of all stages of a set."""
        ...


class Frame:
    """An image message on its way into a set, and its network input once the worker has made that."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self._fitted: Fitted | None = None
        self._made_by = 0  # number of the pipeline; the pipeline itself would be held by what waits for its set

    @property
    def header(self) -> Any:
        """The message's header, by which message_filters finds sets."""
        return self.message.header

    def fit(self, name: str, pipeline: BevPipeline, number: int) -> None:
        """Make the network input."""
        self._fitted, self._made_by = pipeline.fit(name, image_from_message(self.message)), number

    def find_image(self, number: int) -> EncodedImage | RawImage | Fitted:
        """Return the network input if the pipeline of this number has made it, else the image."""
        if self._fitted is not None and self._made_by == number:
            return self._fitted
        return image_from_message(self.message)


@dataclass(frozen=True)
class _Job:
    images: ImageSet[Frame]
    received_ns: int  # when its last image came
    offered: float  # seconds of the performance counter, when it was offered


class Worker:
    """Runs image sets in a thread. A set that comes while another runs, or before the calibration, waits; a newer one
    replaces it. While there is nothing to run, the images that wait for the others of their set are made network
    inputs, so that little is left to do once the last one has come; a computer that is too slow for that has no time to
    waste on images that may never be in a set.

    `now_ns` is the clock that the stamps are of. `minimum` and `to_rgb` are those of `BevPipeline`. No message and no
    failure of the network ends the thread: failures go to `health`, unexpected ones also to `report`.
    """

    def __init__(
        self,
        runtime: BevRuntime,
        publisher: Publisher,
        health: Health,
        now_ns: Callable[[], int],
        report: Callable[[BaseException], None],
        *,
        minimum: int,
        max_rate: Callable[[], float] = lambda: 0.0,
        to_rgb: Callable[[RawImage], Picture] = raw_to_rgb,
    ) -> None:
        self.runtime = runtime
        self._publisher, self._health, self._now, self._report = publisher, health, now_ns, report
        self._minimum, self._max_rate, self._to_rgb = minimum, max_rate, to_rgb
        self._wake = threading.Condition()
        self._job: _Job | None = None
        self._rig: Rig | None = None
        self._pipeline: BevPipeline | None = None
        self._number = 0  # of the pipeline
        self._early: dict[Frame, str] = {}  # images whose sets are not complete, with their cameras
        self._tried: tuple[Rig, BevRuntime] | None = None  # what the pipeline was last made of, or could not be
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._last_run = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="bev_worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current set; drop a set that waits."""
        with self._wake:
            self._stopping, self._job = True, None
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def set_rig(self, rig: Rig | None) -> None:
        """Use another calibration from the next set on; the thread prepares for it before an image comes."""
        with self._wake:
            self._rig = rig
            self._wake.notify()

    def set_runtime(self, runtime: BevRuntime) -> None:
        """Use another network from the next set on."""
        with self._wake:
            self.runtime = runtime
            self._wake.notify()

    @property
    def coverage(self) -> tuple[CameraCoverage, ...]:
        """What the cameras of the calibration in use see of the grid; empty before there is one."""
        pipeline = self._pipeline
        return () if pipeline is None else pipeline.coverage

    def announce(self, name: str, frame: Frame) -> None:
        """Show an image of a camera whose set is not complete yet."""
        with self._wake:
            self._early[frame] = name
            if len(self._early) > _MOST_EARLY:
                del self._early[next(iter(self._early))]
            self._wake.notify()

    def offer(self, images: ImageSet[Frame], received_ns: int) -> None:
        """Offer a set whose last image came at `received_ns`."""
        with self._wake:
            if self._job is not None:
                self._health.count("uncalibrated" if self._rig is None else "replaced")
            self._job = _Job(images, received_ns, perf_counter())
            for frame in images.items.values():
                self._early.pop(frame, None)
            self._wake.notify()

    def drop_waiting(self) -> None:
        """Drop the set that waits."""
        with self._wake:
            self._job = None
            self._early.clear()

    def _loop(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(
                        lambda: self._stopping or self._has_ready_job() or self._is_outdated() or self._early
                    )
                    if self._stopping:
                        return
                    job = early = None
                    if self._has_ready_job():
                        job, self._job = self._job, None
                    elif self._early:
                        early = next(iter(self._early.items()))
                        del self._early[early[0]]
                self._health.set_working(True)
                try:
                    self._refresh_pipeline()
                    if job is not None:
                        self._run(job)
                    elif early is not None:
                        self._fit(*early)
                except BridgeTAError as error:
                    self._health.add_failure(str(error))
                except Exception as error:  # whatever a library raises on an image costs its set, not the node
                    self._health.add_failure(f"{type(error).__name__}: {error}")
                    self._report(error)
                finally:
                    self._health.set_working(False)
        finally:
            self._drop_pipeline()
            return_memory()

    def _has_ready_job(self) -> bool:
        """Return whether there is a set to run.

        Messages of different topics are not read in the order in which they came, so the newest set waits for a
        calibration that is yet to be read.
        """
        return self._job is not None and self._rig is not None

    def _is_outdated(self) -> bool:
        """Return whether no pipeline has been tried with the current calibration and network."""
        return self._current_parts() != self._tried

    def _current_parts(self) -> tuple[Rig, BevRuntime] | None:
        return None if self._rig is None else (self._rig, self.runtime)

    def _drop_pipeline(self) -> None:
        self._tried = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _refresh_pipeline(self) -> None:
        with self._wake:
            if not self._is_outdated():
                return
            parts = self._current_parts()
        self._drop_pipeline()
        # Set before the attempt: what fails would fail again, so it waits for another calibration or network.
        self._tried = parts
        if parts is None:
            return
        rig, runtime = parts
        minimum = min(self._minimum, len(rig.cameras))
        try:
            self._pipeline = BevPipeline(runtime, rig, minimum=minimum, to_rgb=self._to_rgb)
            self._number += 1
            if self._publisher.is_wanted():
                runtime.warm_up(rig)
        finally:
            return_memory()  # of the earlier network, pipeline and lift

    def _is_due(self) -> bool:
        """Return whether a set would not come too early for the greatest rate."""
        # Sets jitter around their period, so a tenth of it is tolerated.
        rate = self._max_rate()
        return not rate or monotonic() - self._last_run >= 0.9 / rate

    def _fit(self, frame: Frame, name: str) -> None:
        if self._pipeline is not None and self._publisher.is_wanted() and self._is_due():
            frame.fit(name, self._pipeline, self._number)

    def _run(self, job: _Job) -> None:
        pipeline, health, start = self._pipeline, self._health, perf_counter()
        if pipeline is None:
            health.count("uncalibrated")
            return
        wanted = self._publisher.is_wanted()
        health.set_idle(not wanted)
        if not wanted or not self._is_due():
            health.count("skipped")
            return
        self._last_run = monotonic()
        images = {name: frame.find_image(self._number) for name, frame in job.images.items.items()}
        result = pipeline.run(images, job.images.newest_ns)
        health.add_faults(result.faults)
        stages = {
            "transport": (job.received_ns - job.images.newest_ns) / 1e6,
            "wait": 1e3 * (start - job.offered),
            **result.latencies,
            **self._publisher.publish(result),
        }
        stages["total"] = (self._now() - job.images.newest_ns) / 1e6
        health.add_published(stages, result.cameras)
        self._publisher.publish_latencies(stages)
