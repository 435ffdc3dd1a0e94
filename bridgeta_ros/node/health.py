"""The health of the node: events in, diagnostic statuses out. No ROS; times are seconds of a steady clock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from bridgeta_ros.node.parameters import DiagnosticsParameters
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Status

_WINDOW = 5.0  # seconds over which rates and latencies are measured


@dataclass
class SetCounts:
    """What became of the sets since the node was activated."""

    complete: int = 0  # with all cameras
    partial: int = 0  # run without some cameras
    incomplete: int = 0  # cycles that lacked cameras, the partial ones among them
    replaced: int = 0  # a newer set came before the worker was free
    skipped: int = 0  # max_rate, or nobody subscribes
    failed: int = 0
    uncalibrated: int = 0  # came before the calibration
    late: int = 0  # not newer than the set before
    published: int = 0
    resets: int = 0  # times that stamps went back


@dataclass
class _Stream:
    """One camera's images."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=4096))  # of the window only
    last: float | None = None

    def count(self, now: float) -> int:
        """Count the images within the window."""
        while self.times and self.times[0] < now - _WINDOW:
            self.times.popleft()
        return len(self.times)


class Health:
    """Takes events from the executor and the worker, in any thread, and reports the state of the node.

    `limits` is read at every call, so that changed parameters take effect at once.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        minimum: int,
        limits: Callable[[], DiagnosticsParameters],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.counts = SetCounts()
        self._lock = threading.Lock()
        self._clock, self._limits, self._minimum = clock, limits, minimum
        self._start = clock()
        self._streams = {name: _Stream() for name in cameras}
        self._image_faults: dict[str, tuple[float, str]] = {}
        self._latencies: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=4096)
        self._failure: tuple[float, str] | None = None
        self._late_since: float | None = None
        self._idle = False
        self._last_skip = self._start  # when a set was last left out on purpose
        self._qos: dict[str, str] = {}
        self._publishers: Mapping[str, int] = {}

    def add_image(self, camera: str) -> None:
        """Note that an image arrived."""
        with self._lock:
            stream = self._streams[camera]
            stream.last = self._clock()
            stream.times.append(stream.last)

    def add_faults(self, faults: Mapping[str, str]) -> None:
        """Note why the images of some cameras could not be used."""
        with self._lock:
            self._image_faults.update({name: (self._clock(), reason) for name, reason in faults.items()})

    def count(self, event: str, by: int = 1) -> None:
        """Increase a field of `SetCounts`."""
        with self._lock:
            if event == "skipped":
                self._last_skip = self._clock()
            setattr(self.counts, event, getattr(self.counts, event) + by)

    def set_idle(self, idle: bool) -> None:
        """Note whether the network rests because nobody subscribes; forget earlier failures if it does."""
        with self._lock:
            self._idle = idle
            if idle:
                self._failure = None

    def add_failure(self, reason: str) -> None:
        """Note that a set could not be run."""
        with self._lock:
            self.counts.failed += 1
            self._failure = (self._clock(), reason)

    def add_published(self, latencies: Mapping[str, float], cameras: int) -> None:
        """Note that a result of `cameras` cameras went out; milliseconds by stage, `total` among them."""
        with self._lock:
            self.counts.published += 1
            self.counts.partial += cameras < len(self._streams)
            self._failure = None
            now = self._clock()
            self._latencies.append((now, latencies))
            if len(self._latencies) > 1 and self._latencies[-2][0] < now - _WINDOW:
                self._late_since = None  # start over after a pause
            # A stamp of the future is as bad as an old one.
            late = abs(latencies["total"]) > 1e3 * self._limits().late_after
            if not late:
                self._late_since = None
            elif self._late_since is None:
                self._late_since = now

    def add_incompatible_qos(self, topic: str, policy: str) -> None:
        """Note that a publisher of a topic offers less than the subscription asks for."""
        with self._lock:
            self._qos[topic] = policy

    def set_publishers(self, counts: Mapping[str, int]) -> None:
        """Set how many publishers each input topic has."""
        with self._lock:
            self._publishers = dict(counts)

    def list_statuses(self) -> list[Status]:
        """List the statuses `cameras`, `sets`, `latency` and `connections`."""
        with self._lock:
            now = self._clock()
            return [
                self._describe_cameras(now),
                self._describe_sets(now),
                self._describe_latency(now),
                self._describe_connections(),
            ]

    def _span(self, now: float) -> float:
        """Return the seconds over which rates are measured."""
        return min(_WINDOW, max(now - self._start, 1e-3))

    def _describe_cameras(self, now: float) -> Status:
        limits, span = self._limits(), self._span(now)
        values, silent, slow, lost = {}, [], [], 0
        for name, stream in self._streams.items():
            age = now - (self._start if stream.last is None else stream.last)
            rate = stream.count(now) / span
            values[f"{name} rate (Hz)"] = f"{rate:.1f}"
            values[f"{name} last image (s ago)"] = "never" if stream.last is None else f"{age:.2f}"
            if age > limits.late_after:
                silent.append(name)
                lost += age > limits.error_after
            elif rate < limits.expected_rate / 2 and now - self._start >= _WINDOW:
                slow.append(name)
        broken = {n: reason for n, (t, reason) in self._image_faults.items() if now - t < _WINDOW}
        values.update({f"{name} fault": reason for name, reason in broken.items()})
        problems = []
        if silent:
            problems.append(f"no image from {', '.join(silent)}")
        if slow:
            problems.append(f"low rate of {', '.join(slow)}")
        if broken:
            problems.append(f"unusable images from {', '.join(broken)}")
        too_few = len(self._streams) - lost < self._minimum
        level = ERROR if too_few else WARN if problems else OK
        return Status("cameras", level, "; ".join(problems) or "all cameras send", values)

    def _describe_sets(self, now: float) -> Status:
        counts, values = self.counts, {}
        for name in counts.__dataclass_fields__:
            values[name] = str(getattr(counts, name))
        values["rate (Hz)"] = f"{sum(now - t <= _WINDOW for t, _ in self._latencies) / self._span(now):.1f}"
        if self._failure is not None:
            lasting = not self._latencies or now - self._latencies[-1][0] > self._limits().error_after
            return Status("sets", ERROR if lasting else WARN, self._failure[1], values)
        if self._idle:
            return Status("sets", OK, "idle: nobody subscribes", values)
        last_run = max(self._last_skip, self._latencies[-1][0]) if self._latencies else self._last_skip
        if now - last_run > _WINDOW:
            since = f"nothing to run for {now - last_run:.0f} s: cameras are missing, or their stamps are too far apart"
            return Status("sets", WARN, f"{since} (slop, min_cameras)", values)
        if not counts.published:
            return Status("sets", WARN, "nothing published yet", values)
        return Status("sets", OK, "publishing", values)

    def _describe_latency(self, now: float) -> Status:
        recent = [latencies for t, latencies in self._latencies if now - t <= _WINDOW]
        values: dict[str, str] = {}
        for stage in recent[-1] if recent else ():
            column = np.array([latencies[stage] for latencies in recent if stage in latencies])
            values[f"{stage} median (ms)"] = f"{np.median(column):.1f}"
            values[f"{stage} p99 (ms)"] = f"{np.percentile(column, 99):.1f}"
        if not recent or self._late_since is None:
            return Status("latency", OK, "in time" if recent else "nothing published lately", values)
        total, limits = recent[-1]["total"] / 1e3, self._limits()
        message = f"{total:.2f} s from stamp to publish"
        if not 0 <= total <= 60:
            message += ": the stamps are not of this node's clock (a bag needs use_sim_time and ros2 bag play --clock)"
        return Status("latency", ERROR if now - self._late_since > limits.error_after else WARN, message, values)

    def _describe_connections(self) -> Status:
        without = [topic for topic, count in self._publishers.items() if not count]
        values = {topic: f"{count} publishers" for topic, count in self._publishers.items()}
        values.update({topic: f"incompatible QoS: {policy}" for topic, policy in self._qos.items()})
        problems = []
        if self._qos:
            problems.append(f"incompatible QoS on {', '.join(self._qos)} (see parameter reliability)")
        if without:
            problems.append(f"no publisher on {', '.join(without)}")
        return Status("connections", WARN if problems else OK, "; ".join(problems) or "all topics connected", values)
