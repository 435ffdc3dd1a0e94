"""What each camera sends: its rate, its delay, and the cycles that it misses. No ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from bridgeta_ros.node.parameters import DiagnosticsParameters
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Status

WINDOW = 5.0  # seconds over which rates, delays and latencies are measured
_FEW = 3  # missed cycles that are no habit yet


class Recent:
    """The events of the last seconds, each with a value."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, float]] = deque(maxlen=4096)

    def add(self, now: float, value: float = 1.0) -> None:
        """Note an event."""
        self._forget(now)
        self._events.append((now, value))

    def values(self, now: float) -> list[float]:
        """List the values of the events within the window."""
        self._forget(now)
        return [value for _, value in self._events]

    def _forget(self, now: float) -> None:
        while self._events and self._events[0][0] < now - WINDOW:
            self._events.popleft()

    def total(self, now: float) -> int:
        """Add up the values within the window."""
        return round(sum(self.values(now)))


class CameraStream:
    """One camera's images."""

    def __init__(self) -> None:
        self.delays = Recent()  # of each image, seconds from its stamp to its arrival
        self.used, self.missed = Recent(), Recent()  # cycles with and without an image of this camera
        self.last: float | None = None
        self.fault: tuple[float, str] | None = None  # when and why an image could not be used

    def add_image(self, now: float, delay: float) -> None:
        """Note that an image came."""
        self.last = now
        self.delays.add(now, delay)

    def misses_its_cycles(self, now: float) -> bool:
        """Return whether most cycles go on without this camera."""
        return self.missed.total(now) > max(_FEW, self.used.total(now))


def describe_cameras(
    streams: Mapping[str, CameraStream], now: float, start: float, limits: DiagnosticsParameters, minimum: int
) -> Status:
    """Describe the cameras for /diagnostics: silent, slow, broken ones, and those that keep missing their sets."""
    span = min(WINDOW, max(now - start, 1e-3))
    delays = {name: _find_median(stream.delays.values(now)) for name, stream in streams.items()}
    values: dict[str, str] = {}
    silent, slow, absent, broken, lost = [], [], [], {}, 0
    for name, stream in streams.items():
        age = now - (start if stream.last is None else stream.last)
        rate = len(stream.delays.values(now)) / span
        values[f"{name} rate (Hz)"] = f"{rate:.1f}"
        values[f"{name} last image (s ago)"] = "never" if stream.last is None else f"{age:.2f}"
        if delays[name] is not None:
            values[f"{name} stamp to arrival (s)"] = f"{delays[name]:.3f}"
        if stream.missed.total(now):
            missed = stream.missed.total(now)
            values[f"{name} sets missed"] = f"{missed} of {missed + stream.used.total(now)}"
        if age > limits.late_after:
            silent.append(name)
            lost += age > limits.error_after
        elif rate < limits.expected_rate / 2 and now - start >= WINDOW:
            slow.append(name)
        elif stream.misses_its_cycles(now):
            absent.append(f"{name} ({_explain_missing(name, delays)})")
        if stream.fault is not None and now - stream.fault[0] < WINDOW:
            broken[name] = stream.fault[1]
    values.update({f"{name} fault": reason for name, reason in broken.items()})
    groups = {
        "no image from": silent,
        "low rate of": slow,
        "unusable images from": list(broken),
        "most sets lack": absent,
    }
    problems = [f"{what} {', '.join(names)}" for what, names in groups.items() if names]
    level = ERROR if len(streams) - lost < minimum else WARN if problems else OK
    return Status("cameras", level, "; ".join(problems) or "all cameras send", values)


def _find_median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _explain_missing(name: str, delays: Mapping[str, float | None]) -> str:
    own, others = delays[name], [d for n, d in delays.items() if n != name and d is not None]
    if own is None or not others:
        return "its images do not fit the others'"
    lag = own - float(np.median(others))
    if lag < 0:
        return f"its stamps are {-lag:.2f} s ahead of the others'"
    return f"its images come {lag:.2f} s after the others', or their stamps are that old; see patience and slop"
