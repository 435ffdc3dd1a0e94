"""The time by which a node judges its cameras: that of the drive. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from bridgeta_ros.pipeline.status import OK, WARN, Status

_LONGEST_STEP = 60.0  # s of simulated time between two looks; more is a jump to another time
_FIRST_AFTER = 10.0  # s without any simulated time before that is a warning: a player takes its time to start
_STANDS_AFTER = 2.0  # s without progress of simulated time before it stands still


class DriveClock:
    """Counts the seconds that pass for the node; never goes back.

    Without simulated time they are those of a steady clock. With it they are those of /clock, so that ages and rates
    are those of the drive: a bag at a quarter of its speed has cameras of the same rate, and none falls silent where
    the bag ends or is paused. May be called from several threads.

    Parameters
    ----------
    now_ns
        The node's time in nanoseconds; 0 for simulated time before the first message on /clock.
    is_simulated
        Whether that is simulated time.
    steady
        Seconds of a steady clock.
    """

    def __init__(
        self, now_ns: Callable[[], int], is_simulated: Callable[[], bool], steady: Callable[[], float] = monotonic
    ) -> None:
        self._now_ns, self._is_simulated, self._steady = now_ns, is_simulated, steady
        self._lock = threading.Lock()
        self._start = self._moved = self._last = steady()
        self._last_ns, self._elapsed, self._images = 0, 0.0, 0

    def __call__(self) -> float:
        """Return the seconds that have passed."""
        with self._lock:
            steady = self._steady()
            if not self._is_simulated():
                self._elapsed += steady - self._last
                self._last_ns = 0
            else:
                ns = self._now_ns()
                step = (ns - self._last_ns) / 1e9
                if self._last_ns and 0 < step <= _LONGEST_STEP:
                    self._elapsed += step
                if step:
                    self._moved = steady
                self._last_ns = ns
            self._last = steady
            return self._elapsed

    def restart(self) -> None:
        """Begin the time again within which /clock has to send something."""
        with self._lock:
            self._start = self._steady()

    def describe(self, images: int) -> Status:
        """Describe the clock for /diagnostics; `images` is how many have come so far."""
        self()
        if not self._is_simulated():
            return Status("clock", OK, "system time", {})
        stands = self._last - self._moved
        if stands < _STANDS_AFTER:
            self._images = images
        values = {"stands still for (s)": f"{stands:.1f}"}
        if not self._last_ns:
            waited = self._last - self._start
            message = "use_sim_time is set, and /clock has sent nothing: play the bag with --clock, or set it to false"
            return Status("clock", WARN if waited > _FIRST_AFTER else OK, message, values)
        if stands < _STANDS_AFTER:
            return Status("clock", OK, "simulated time", values)
        if images > self._images:
            return Status("clock", WARN, "images come, but /clock stands still: stamps and ages are wrong", values)
        return Status("clock", OK, "/clock stands still: paused, or the bag is over", values)
