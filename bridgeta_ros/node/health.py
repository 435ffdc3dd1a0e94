"""The health of the node: events in, diagnostic statuses out. No ROS; times are seconds of a steady clock."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from bridgeta_ros.node.parameters import DiagnosticsParameters
from bridgeta_ros.node.streams import WINDOW, CameraStream, Recent, describe_cameras
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Status

# What makes a publisher and the subscription to it compatible, by the policy that is not.
_QOS_REMEDIES = {
    "RELIABILITY": "set the parameter reliability to best_effort, or publish reliably",
    "DURABILITY": "its publisher is volatile, and has to be transient local",
}


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
    astray: int = 0  # images that were not used, since their stamps are of another clock than the other cameras'


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
        self.images = 0  # of all cameras
        self._lock = threading.Lock()
        self._clock, self._limits, self._minimum = clock, limits, minimum
        self._start = clock()
        self._streams = {name: CameraStream() for name in cameras}
        self._latencies: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=4096)
        self._results: deque[tuple[float, frozenset[str]]] = deque(maxlen=4096)  # times, and the cameras left out
        self._events: defaultdict[str, Recent] = defaultdict(Recent)  # what `counts` counts, of late
        self._failure: tuple[float, str] | None = None
        self._late_since: float | None = None
        self._working_since: float | None = None
        self._idle = False
        self._last_skip = self._start  # when a set was last left out on purpose
        self._qos: dict[str, str] = {}
        self._publishers: Mapping[str, int] = {}
        self._without_since: dict[str, float] = {}  # by topic, since when it has had no publisher

    def is_starting(self) -> bool:
        """Return whether what is missing may still come, and no set has failed yet."""
        with self._lock:
            return not self.counts.failed and self._clock() - self._start < self._limits().start_grace

    def restart(self) -> None:
        """Begin the time again within which what is missing may still come."""
        with self._lock:
            self._start = self._clock()

    def add_image(self, camera: str, delay: float = 0.0) -> None:
        """Note that an image arrived, `delay` seconds after its stamp."""
        with self._lock:
            self.images += 1
            self._streams[camera].add_image(self._clock(), delay)

    def add_cycle(self, used: Sequence[str]) -> None:
        """Note that a set of these cameras was handed on."""
        with self._lock:
            for name in used:
                self._streams[name].used.add(self._clock())

    def add_missed(self, missed: Mapping[str, int]) -> None:
        """Note how many cycles each camera was missing in."""
        with self._lock:
            for name, cycles in missed.items():
                if cycles:
                    self._streams[name].missed.add(self._clock(), cycles)

    def add_faults(self, faults: Mapping[str, str]) -> None:
        """Note why the images of some cameras could not be used."""
        with self._lock:
            for name, reason in faults.items():
                self._streams[name].fault = (self._clock(), reason)

    def count(self, event: str, by: int = 1) -> None:
        """Increase a field of `SetCounts`."""
        with self._lock:
            if event == "skipped":
                self._last_skip = self._clock()
            if by:
                setattr(self.counts, event, getattr(self.counts, event) + by)
                self._events[event].add(self._clock(), by)

    def set_working(self, working: bool) -> None:
        """Note whether the worker prepares or runs something."""
        with self._lock:
            self._working_since = self._clock() if working else None

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

    def add_published(self, latencies: Mapping[str, float], cameras: Sequence[str]) -> None:
        """Note that a result of these cameras went out; milliseconds by stage, `total` among them."""
        with self._lock:
            absent = self._streams.keys() - set(cameras)
            self.counts.published += 1
            self.counts.partial += bool(absent)
            self._failure = None
            now = self._clock()
            for events in (self._results, self._latencies):
                while len(events) > 1 and events[0][0] < now - WINDOW:  # the last one says when it was
                    events.popleft()
            self._results.append((now, frozenset(absent)))
            self._latencies.append((now, latencies))
            if len(self._latencies) > 1 and self._latencies[-2][0] < now - WINDOW:
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
            now = self._clock()
            self._without_since = {t: self._without_since.get(t, now) for t, count in counts.items() if not count}

    def list_statuses(self) -> list[Status]:
        """List the statuses `cameras`, `sets`, `latency` and `connections`."""
        with self._lock:
            now = self._clock()
            return [
                describe_cameras(self._streams, now, self._start, self._limits(), self._minimum),
                self._describe_sets(now),
                self._describe_latency(now),
                self._describe_connections(now),
            ]

    def _describe_sets(self, now: float) -> Status:
        counts, values = self.counts, {}
        for name in counts.__dataclass_fields__:
            values[name] = str(getattr(counts, name))
        span = min(WINDOW, max(now - self._start, 1e-3))
        recent = [absent for t, absent in self._results if now - t <= WINDOW]
        values["rate (Hz)"] = f"{len(recent) / span:.1f}"
        if self._failure is not None:
            lasting = not self._latencies or now - self._latencies[-1][0] > self._limits().error_after
            return Status("sets", ERROR if lasting else WARN, self._failure[1], values)
        if self._idle:
            return Status("sets", OK, "idle: nobody subscribes", values)
        last_run = max(self._last_skip, self._latencies[-1][0]) if self._latencies else self._last_skip
        if now - last_run > WINDOW:
            return Status("sets", WARN, f"no result for {now - last_run:.0f} s: {self._explain_nothing(now)}", values)
        if not counts.published:
            return Status("sets", WARN, "nothing published yet", values)
        absent = Counter(name for names in recent for name in names)
        if not absent:
            return Status("sets", OK, "publishing", values)
        lacking = ", ".join(f"{count} without {name}" for name, count in absent.most_common())
        often = sum(map(bool, recent)) > len(recent) / 2
        return Status("sets", WARN if often else OK, f"publishing; of the last {len(recent)} sets {lacking}", values)

    def _explain_nothing(self, now: float) -> str:
        """Say why no set has become a result within the window."""
        if self._working_since is not None and now - self._working_since > self._limits().late_after:
            return f"the network has been at work on one set for {now - self._working_since:.0f} s"
        if self._events["uncalibrated"].total(now):
            return "the sets wait for the calibration (see calibration)"
        if not any(stream.delays.values(now) for stream in self._streams.values()):
            return "no camera sends (see cameras)"
        if self._events["late"].total(now):
            return "sets are not newer than those before; a camera's stamps may be of another clock (see cameras)"
        missed = {name: stream.missed.total(now) for name, stream in self._streams.items()}
        if any(missed.values()):
            most = max(missed.values())
            names = ", ".join(name for name, count in missed.items() if 2 * count > most)
            return f"each cycle lacks {names} (see cameras; min_cameras does without)"
        return "the stamps of the cameras are too far apart (slop)"

    def _describe_latency(self, now: float) -> Status:
        recent = [latencies for t, latencies in self._latencies if now - t <= WINDOW]
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

    def _describe_connections(self, now: float) -> Status:
        # A moment without is how a driver restarts and how a replay ends.
        without = [topic for topic, since in self._without_since.items() if now - since >= self._limits().late_after]
        values = {topic: f"{count} publishers" for topic, count in self._publishers.items()}
        values.update({topic: f"incompatible QoS: {policy}" for topic, policy in self._qos.items()})
        by_policy: dict[str, list[str]] = {}
        for topic, policy in self._qos.items():
            by_policy.setdefault(policy, []).append(topic)
        problems = [
            f"incompatible QoS ({policy.lower()}) on {', '.join(names)}: {_QOS_REMEDIES.get(policy, 'see both sides')}"
            for policy, names in by_policy.items()
        ]
        if without:
            problems.append(f"no publisher on {', '.join(without)}")
        return Status("connections", WARN if problems else OK, "; ".join(problems) or "all topics connected", values)
