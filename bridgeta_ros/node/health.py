"""How the node is doing: events in, diagnostic statuses out. No ROS; times are seconds of a steady clock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from bridgeta_ros.node.parameters import DiagnosticsParameters
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Status

_WINDOW = 5.0  # seconds over which rates and latencies are taken


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
        """Images within the window."""
        while self.times and self.times[0] < now - _WINDOW:
            self.times.popleft()
        return len(self.times)


class Health:
    """Takes events from the executor and the worker, in any thread, and says how things are.

    `limits` is read at every call, so that changed parameters hold at once.
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
        self._handed = self._start  # when a set was last run or left out on purpose
        self._qos: dict[str, str] = {}
        self._publishers: Mapping[str, int] = {}

    def image(self, camera: str) -> None:
        """An image arrived."""
        with self._lock:
            stream = self._streams[camera]
            stream.last = self._clock()
            stream.times.append(stream.last)

    def faults(self, faults: Mapping[str, str]) -> None:
        """Cameras whose image could not be used, and why."""
        with self._lock:
            self._image_faults.update({name: (self._clock(), reason) for name, reason in faults.items()})

    def count(self, event: str, by: int = 1) -> None:
        """So many more of a field of `SetCounts`."""
        with self._lock:
            if event == "skipped":
                self._handed = self._clock()
            setattr(self.counts, event, getattr(self.counts, event) + by)

    def idle(self, idle: bool) -> None:
        """Whether the network rests because nobody subscribes; what failed before it rested is no news then."""
        with self._lock:
            self._idle = idle
            if idle:
                self._failure = None

    def failed(self, reason: str) -> None:
        """A set could not be run."""
        with self._lock:
            self.counts.failed += 1
            self._failure = (self._clock(), reason)

    def published(self, latencies: Mapping[str, float], cameras: int) -> None:
        """A result of so many cameras went out; milliseconds by stage, `total` among them."""
        with self._lock:
            self.counts.published += 1
            self.counts.partial += cameras < len(self._streams)
            self._failure = None
            now = self._clock()
            self._latencies.append((now, latencies))
            # A stamp of the future is as bad as an old one.
            if len(self._latencies) > 1 and self._latencies[-2][0] < now - _WINDOW:
                self._late_since = None  # after a pause it begins anew
            late = abs(latencies["total"]) > 1e3 * self._limits().late_after
            if not late:
                self._late_since = None
            elif self._late_since is None:
                self._late_since = now

    def incompatible_qos(self, topic: str, policy: str) -> None:
        """A publisher of a topic offers less than the subscription asks for."""
        with self._lock:
            self._qos[topic] = policy

    def set_publishers(self, counts: Mapping[str, int]) -> None:
        """How many publishers each input topic has."""
        with self._lock:
            self._publishers = dict(counts)

    def statuses(self) -> list[Status]:
        """`cameras`, `sets`, `latency` and `connections`."""
        with self._lock:
            now = self._clock()
            return [self._cameras(now), self._sets(now), self._latency(now), self._connections()]

    def _watched(self, now: float) -> float:
        """Seconds over which rates are taken."""
        return min(_WINDOW, max(now - self._start, 1e-3))

    def _cameras(self, now: float) -> Status:
        limits, watched = self._limits(), self._watched(now)
        values, silent, slow, lost = {}, [], [], 0
        for name, stream in self._streams.items():
            age = now - (self._start if stream.last is None else stream.last)
            rate = stream.count(now) / watched
            values[f"{name} rate (Hz)"] = f"{rate:.1f}"
            values[f"{name} last image (s ago)"] = "never" if stream.last is None else f"{age:.2f}"
            if age > limits.late_after:
                silent.append(name)
                lost += age > limits.error_after
            elif rate < limits.expected_rate / 2 and now - self._start >= _WINDOW:
                slow.append(name)
        broken = {n: reason for n, (t, reason) in self._image_faults.items() if now - t < _WINDOW}
        values.update({f"{name} fault": reason for name, reason in broken.items()})
        problems = [f"no image from {', '.join(silent)}"] * bool(silent)
        problems += [f"low rate of {', '.join(slow)}"] * bool(slow)
        problems += [f"unusable images from {', '.join(broken)}"] * bool(broken)
        too_few = len(self._streams) - lost < self._minimum
        level = ERROR if too_few else WARN if problems else OK
        return Status("cameras", level, "; ".join(problems) or "all cameras send", values)

    def _sets(self, now: float) -> Status:
        counts, values = self.counts, {}
        for name in counts.__dataclass_fields__:
            values[name] = str(getattr(counts, name))
        values["rate (Hz)"] = f"{sum(now - t <= _WINDOW for t, _ in self._latencies) / self._watched(now):.1f}"
        if self._failure is not None:
            lasting = not self._latencies or now - self._latencies[-1][0] > self._limits().error_after
            return Status("sets", ERROR if lasting else WARN, self._failure[1], values)
        if self._idle:
            return Status("sets", OK, "idle: nobody subscribes", values)
        handed = max([self._handed, *(t for t, _ in list(self._latencies)[-1:])])
        if now - handed > _WINDOW:
            since = f"nothing to run for {now - handed:.0f} s: cameras are missing, or their stamps are too far apart"
            return Status("sets", WARN, f"{since} (slop, min_cameras)", values)
        if not counts.published:
            return Status("sets", WARN, "nothing published yet", values)
        return Status("sets", OK, "publishing", values)

    def _latency(self, now: float) -> Status:
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

    def _connections(self) -> Status:
        without = [topic for topic, count in self._publishers.items() if not count]
        values = {topic: f"{count} publishers" for topic, count in self._publishers.items()}
        values.update({topic: f"incompatible QoS: {policy}" for topic, policy in self._qos.items()})
        problems = [f"incompatible QoS on {', '.join(self._qos)} (see parameter reliability)"] * bool(self._qos)
        problems += [f"no publisher on {', '.join(without)}"] * bool(without)
        return Status("connections", WARN if problems else OK, "; ".join(problems) or "all topics connected", values)
