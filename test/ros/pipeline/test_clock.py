"""Time passes for the node as it does in the drive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_ros.pipeline.clock import DriveClock
from bridgeta_ros.pipeline.status import OK, WARN


class Bench:
    """A clock whose times are set by hand."""

    def __init__(self, simulated: bool = True) -> None:
        self.ns, self.steady, self.simulated = 0, 50.0, simulated
        self.clock = DriveClock(lambda: self.ns, lambda: self.simulated, lambda: self.steady)

    def play(self, seconds: float, rate: float = 1.0) -> None:
        """Let simulated time run in steps of 10 ms."""
        for _ in range(round(100 * seconds)):
            self.steady += 0.01 / rate
            self.ns += 10_000_000
            self.clock()

    def says(self, images: int = 0) -> tuple[int, str]:
        status = self.clock.describe(images)
        return status.level, status.message


def test_without_simulated_time_it_is_the_steady_clock():
    bench = Bench(simulated=False)
    bench.ns = 10**18
    before = bench.clock()
    bench.steady += 3
    bench.ns -= 10**18  # somebody sets the system's clock
    assert bench.clock() - before == pytest.approx(3)
    assert bench.says() == (OK, "system time")


@pytest.mark.parametrize("rate", [0.25, 1.0, 4.0])
def test_seconds_are_those_of_the_drive_at_any_speed(rate):
    bench = Bench()
    bench.ns = 10**18
    before = bench.clock()
    bench.play(8, rate)
    assert bench.clock() - before == pytest.approx(8)
    assert bench.says() == (OK, "simulated time")


def test_no_time_passes_after_the_end_of_a_bag():
    bench = Bench()
    bench.play(3)
    before = bench.clock()
    bench.steady += 100
    assert bench.clock() == before
    assert bench.says() == (OK, "/clock stands still: paused, or the bag is over")


@given(st.lists(st.integers(0, 2**62), max_size=30))
def test_jumps_of_time_never_set_it_back(stamps):
    bench = Bench()
    seen = []
    for stamp in stamps:
        bench.ns = stamp
        seen.append(bench.clock())
    assert seen == sorted(seen)
    assert all(later - earlier <= 60 for earlier, later in pairwise(seen))


def test_a_clock_that_never_sends_is_named_with_the_remedy():
    bench = Bench()
    assert bench.says()[0] == OK
    bench.steady += 11
    level, message = bench.says(images=100)
    assert level == WARN
    assert "--clock" in message
    bench.play(1)
    assert bench.says() == (OK, "simulated time")


def test_the_wait_for_a_clock_begins_with_the_restart():
    bench = Bench()
    bench.steady += 60  # the network is loaded
    bench.clock.restart()
    assert bench.says()[0] == OK
    bench.steady += 11
    assert bench.says()[0] == WARN


def test_images_without_progress_of_the_clock_are_a_warning():
    bench = Bench()
    bench.play(1)
    for images in range(10, 500, 72):  # the last images of a bag come after the last look
        level, message = bench.says(images)
        bench.steady += 1
    assert level == WARN
    assert "/clock stands still" in message
