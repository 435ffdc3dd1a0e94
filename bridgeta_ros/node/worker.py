"""The one thread that works: the newest set of images through the pipeline, its result handed on. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, Protocol

from bridgeta_core.geometry.rig import Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.node.health import Health
from bridgeta_ros.pipeline.images import Picture, RawImage, image_from_message, raw_to_rgb
from bridgeta_ros.pipeline.pipeline import BevPipeline, BevResult, BevRuntime
from bridgeta_ros.pipeline.sync import ImageSet


class Publisher(Protocol):
    """What the worker asks of the node, from its thread."""

    def wanted(self) -> bool:
        """Whether anybody is interested in results."""
        ...

    def publish(self, result: BevResult) -> Mapping[str, float]:
        """Send a result; returns the milliseconds of its stages, such as `encode` and `publish`."""
        ...

    def publish_latencies(self, stages: Mapping[str, float]) -> None:
        """Send the milliseconds of all stages of a set."""
        ...


@dataclass(frozen=True)
class _Job:
    images: ImageSet[Any]
    received_ns: int  # when its last image came
    handed: float  # seconds of the performance counter, at that moment


class Worker:
    """Runs sets of image messages. A set that comes while another is worked on, or before the calibration, waits; a
    newer one replaces it.

    `now_ns` is the clock that the stamps are of. `minimum` and `to_rgb` are those of `BevPipeline`. Nothing that a
    message or the network does ends the thread: a failure is told to `health`, and one that is not expected also
    to `report`, with its exception.
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
        self._made_of: tuple[Rig, BevRuntime] | None = None  # what the pipeline was made of, or could not be
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._last_run = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="bev_worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after the set that it works on; one that waits is dropped."""
        with self._wake:
            self._stopping, self._job = True, None
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def set_rig(self, rig: Rig | None) -> None:
        """Use another calibration from the next set on; its lift is made by the worker, before any image of it."""
        with self._wake:
            self._rig = rig
            self._wake.notify()

    def set_runtime(self, runtime: BevRuntime) -> None:
        """Use another network from the next set on."""
        with self._wake:
            self.runtime = runtime
            self._wake.notify()

    def offer(self, images: ImageSet[Any], received_ns: int) -> None:
        """Hand over a set whose last image came at `received_ns`."""
        with self._wake:
            if self._job is not None:
                self._health.count("uncalibrated" if self._rig is None else "replaced")
            self._job = _Job(images, received_ns, perf_counter())
            self._wake.notify()

    def forget(self) -> None:
        """Drop the set that waits."""
        with self._wake:
            self._job = None

    def _work(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping or self._ready() or self._outdated())
                    if self._stopping:
                        return
                    job = None
                    if self._ready():
                        job, self._job = self._job, None
                try:
                    self._refresh()
                    if job is not None:
                        self._run(job)
                except BridgeTAError as error:
                    self._health.failed(str(error))
                except Exception as error:  # whatever an image makes a library raise costs its set, not the node
                    self._health.failed(f"{type(error).__name__}: {error}")
                    self._report(error)
        finally:
            self._drop_pipeline()

    def _ready(self) -> bool:
        """Whether there is a set to run. Messages of different topics are not taken in the order they came in, so the
        newest set waits for a calibration that is yet to be read.
        """
        return self._job is not None and self._rig is not None

    def _outdated(self) -> bool:
        """Whether there is a calibration or a network that no pipeline was tried with yet."""
        return self._parts() != self._made_of

    def _parts(self) -> tuple[Rig, BevRuntime] | None:
        return None if self._rig is None else (self._rig, self.runtime)

    def _drop_pipeline(self) -> None:
        self._made_of = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _refresh(self) -> None:
        with self._wake:
            if not self._outdated():
                return
            parts = self._parts()
        self._drop_pipeline()
        # Set before it is tried: what fails would fail again at once, so it waits for another calibration or network.
        self._made_of = parts
        if parts is None:
            return
        rig, runtime = parts
        minimum = min(self._minimum, len(rig.cameras))
        self._pipeline = BevPipeline(runtime, rig, minimum=minimum, to_rgb=self._to_rgb)
        if self._publisher.wanted():
            runtime.warm_up(rig)

    def _run(self, job: _Job) -> None:
        pipeline, health, start = self._pipeline, self._health, perf_counter()
        if pipeline is None:
            health.count("uncalibrated")
            return
        wanted = self._publisher.wanted()
        health.idle(not wanted)
        rate, now = self._max_rate(), monotonic()
        # Sets jitter around their period, so a tenth of it is given.
        if not wanted or (rate and now - self._last_run < 0.9 / rate):
            health.count("skipped")
            return
        self._last_run = now
        images = {name: image_from_message(message) for name, message in job.images.items.items()}
        result = pipeline.run(images, job.images.newest_ns)
        health.faults(result.faults)
        stages = {
            "transport": (job.received_ns - job.images.newest_ns) / 1e6,
            "wait": 1e3 * (start - job.handed),
            **result.latencies,
            **self._publisher.publish(result),
        }
        stages["total"] = (self._now() - job.images.newest_ns) / 1e6
        health.published(stages, len(result.cameras))
        self._publisher.publish_latencies(stages)
