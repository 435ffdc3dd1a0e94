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
from bridgeta_ros.pipeline.images import Picture, RawImage, image_from_message, raw_to_rgb
from bridgeta_ros.pipeline.pipeline import BevPipeline, BevResult, BevRuntime
from bridgeta_ros.pipeline.sync import ImageSet


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


@dataclass(frozen=True)
class _Job:
    images: ImageSet[Any]
    received_ns: int  # when its last image came
    offered: float  # seconds of the performance counter, when it was offered


class Worker:
    """Runs image sets in a thread. A set that comes while another runs, or before the calibration, waits; a newer one
    replaces it.

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

    def offer(self, images: ImageSet[Any], received_ns: int) -> None:
        """Offer a set whose last image came at `received_ns`."""
        with self._wake:
            if self._job is not None:
                self._health.count("uncalibrated" if self._rig is None else "replaced")
            self._job = _Job(images, received_ns, perf_counter())
            self._wake.notify()

    def drop_waiting(self) -> None:
        """Drop the set that waits."""
        with self._wake:
            self._job = None

    def _loop(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping or self._has_ready_job() or self._is_outdated())
                    if self._stopping:
                        return
                    job = None
                    if self._has_ready_job():
                        job, self._job = self._job, None
                self._health.set_working(True)
                try:
                    self._refresh_pipeline()
                    if job is not None:
                        self._run(job)
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
            if self._publisher.is_wanted():
                runtime.warm_up(rig)
        finally:
            return_memory()  # of the earlier network, pipeline and lift

    def _run(self, job: _Job) -> None:
        pipeline, health, start = self._pipeline, self._health, perf_counter()
        if pipeline is None:
            health.count("uncalibrated")
            return
        wanted = self._publisher.is_wanted()
        health.set_idle(not wanted)
        rate, now = self._max_rate(), monotonic()
        # Sets jitter around their period, so a tenth of it is tolerated.
        if not wanted or (rate and now - self._last_run < 0.9 / rate):
            health.count("skipped")
            return
        self._last_run = now
        images = {name: image_from_message(message) for name, message in job.images.items.items()}
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
