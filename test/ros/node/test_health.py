"""Each fault is reported at its level and in words."""

from __future__ import annotations

import threading
from dataclasses import fields

import pytest

from bridgeta_ros.node.health import Health, SetCounts
from bridgeta_ros.node.parameters import DiagnosticsParameters
from bridgeta_ros.pipeline.status import ERROR, OK, WARN, Status

CAMERAS = ("front", "left", "right")
LIMITS = DiagnosticsParameters(expected_rate=10.0, late_after=0.5, error_after=2.0)


class Bench:
    """A health whose clock is set by hand."""

    def __init__(self, minimum: int = 3, limits: DiagnosticsParameters = LIMITS) -> None:
        self.now, self.limits = 1000.0, limits
        self.health = Health(CAMERAS, minimum, lambda: self.limits, lambda: self.now)

    def send(self, seconds: float, hertz: float = 10.0, cameras: tuple[str, ...] = CAMERAS) -> None:
        """Send images for so long, the last of them now."""
        start = self.now
        for i in range(1, round(seconds * hertz) + 1):
            self.now = start + i / hertz
            for name in cameras:
                self.health.add_image(name)

    def publish(self, total: float = 100.0, cameras: tuple[str, ...] = CAMERAS, **stages: float) -> None:
        self.health.add_published({**stages, "total": total}, cameras)

    def cycle(self, cameras: tuple[str, ...] = CAMERAS) -> None:
        """Publish a cycle that had to go on without the other cameras."""
        self.health.count("complete" if cameras == CAMERAS else "incomplete")
        self.health.add_cycle(cameras)
        self.health.add_missed({name: 1 for name in CAMERAS if name not in cameras})
        self.publish(cameras=cameras)

    def status(self, name: str) -> Status:
        (status,) = [s for s in self.health.list_statuses() if s.name == name]
        return status

    def says(self, name: str) -> tuple[int, str]:
        status = self.status(name)
        return status.level, status.message


def test_there_is_a_status_for_each_part():
    assert [s.name for s in Bench().health.list_statuses()] == ["cameras", "sets", "latency", "connections"]


# Cameras


def test_cameras_that_all_send_are_ok():
    bench = Bench()
    bench.send(6)
    assert bench.says("cameras") == (OK, "all cameras send")
    assert bench.status("cameras").values["left last image (s ago)"] == "0.00"


@pytest.mark.parametrize("seconds", [2, 30])
def test_the_rate_of_a_camera_covers_the_last_seconds(seconds):
    bench = Bench()
    bench.send(seconds)
    # Five seconds hold 50 or, with those at both ends, 51 images.
    assert abs(float(bench.status("cameras").values["front rate (Hz)"]) - 10) <= 0.2


def test_the_rate_follows_a_camera_that_slows_down():
    bench = Bench()
    bench.send(30, 20)
    bench.send(10, 10)
    assert abs(float(bench.status("cameras").values["front rate (Hz)"]) - 10) <= 0.2


def test_a_silent_camera_is_a_warning_while_enough_others_send():
    bench = Bench(minimum=2)
    bench.send(6)
    bench.send(60, cameras=("front", "right"))
    assert bench.says("cameras") == (WARN, "no image from left")


def test_too_few_cameras_warn_first_and_err_when_it_lasts():
    bench = Bench(minimum=2)
    bench.send(6)
    bench.send(0.4, cameras=("front",))
    assert bench.status("cameras").level == OK
    bench.send(1, cameras=("front",))
    assert bench.says("cameras") == (WARN, "no image from left, right")
    bench.send(1, cameras=("front",))
    assert bench.says("cameras") == (ERROR, "no image from left, right")
    bench.send(0.5)
    assert bench.status("cameras").level == OK


def test_a_camera_lost_long_ago_does_not_turn_a_short_gap_into_an_error():
    bench = Bench(minimum=2)
    bench.send(6)
    bench.send(60, cameras=("front", "right"))
    bench.send(1, cameras=("front",))
    assert bench.status("cameras").level == WARN
    bench.send(1.5, cameras=("front",))
    assert bench.status("cameras").level == ERROR


def test_cameras_that_never_send_are_reported_from_the_start():
    bench = Bench()
    assert bench.status("cameras").level == OK
    bench.now += 1
    assert bench.says("cameras") == (WARN, "no image from front, left, right")
    assert bench.status("cameras").values["front last image (s ago)"] == "never"
    bench.now += 1.5
    assert bench.status("cameras").level == ERROR


def test_the_age_of_the_last_image_is_right_after_any_time():
    bench = Bench(minimum=1)
    bench.send(100)
    bench.now += 30
    for _ in range(3):
        assert bench.status("cameras").values["left last image (s ago)"] == "30.00"
        assert bench.status("cameras").values["left rate (Hz)"] == "0.0"


def test_less_than_half_the_expected_rate_is_a_warning():
    bench = Bench()
    bench.send(10, 10, ("front", "right"))
    bench.now -= 10
    bench.send(10, 4, ("left",))
    assert bench.says("cameras") == (WARN, "low rate of left")
    bench.limits = DiagnosticsParameters(expected_rate=0.0)
    assert bench.status("cameras").level == OK


def test_a_low_rate_is_reported_only_after_a_full_window():
    bench = Bench()
    bench.now += 3
    bench.send(0.4)
    assert bench.says("cameras") == (OK, "all cameras send")


def test_unusable_images_warn_with_their_reason_until_they_are_past():
    bench = Bench(minimum=2)
    bench.send(6)
    bench.health.add_faults({"left": "is truncated"})
    assert bench.says("cameras") == (WARN, "unusable images from left")
    assert bench.status("cameras").values["left fault"] == "is truncated"
    bench.send(6)
    assert bench.says("cameras") == (OK, "all cameras send")
    assert "left fault" not in bench.status("cameras").values


def test_several_problems_are_reported_together():
    bench = Bench(minimum=1)
    bench.send(6)
    bench.send(1, cameras=("front", "right"))
    bench.health.add_faults({"right": "is black"})
    assert bench.says("cameras") == (WARN, "no image from left; unusable images from right")


# Sets


def test_before_the_first_result_the_sets_are_a_warning():
    assert Bench().says("sets") == (WARN, "nothing published yet")


def test_all_counts_are_reported():
    bench = Bench()
    numbers = {
        f.name: i + 1 for i, f in enumerate(fields(SetCounts)) if f.name not in ("failed", "published", "partial")
    }
    for name, number in numbers.items():
        bench.health.count(name, number)
    bench.health.add_failure("x")
    bench.publish()
    bench.publish(cameras=CAMERAS[:2])
    values = bench.status("sets").values
    assert {name: values[name] for name in numbers} == {name: str(number) for name, number in numbers.items()}
    assert (values["failed"], values["published"], values["partial"]) == ("1", "2", "1")


@pytest.mark.parametrize("seconds", [2, 30])
def test_the_rate_of_sets_covers_the_last_seconds(seconds):
    bench = Bench()
    for _ in range(8 * seconds):
        bench.now += 1 / 8
        bench.publish()
    assert abs(float(bench.status("sets").values["rate (Hz)"]) - 8) <= 0.2
    assert bench.says("sets") == (OK, "publishing")


def test_a_failed_set_warns_then_errs_until_one_succeeds():
    bench = Bench()
    bench.publish()
    bench.now += 0.1
    bench.health.add_failure("camera left: is truncated")
    assert bench.says("sets") == (WARN, "camera left: is truncated")
    bench.now += 3
    bench.health.add_failure("camera left: is truncated")
    assert bench.says("sets") == (ERROR, "camera left: is truncated")
    bench.publish()
    assert bench.says("sets") == (OK, "publishing")


def test_when_the_first_set_fails_it_is_an_error():
    bench = Bench()
    bench.health.add_failure("out of memory")
    assert bench.says("sets") == (ERROR, "out of memory")


def test_a_resting_network_is_ok_and_earlier_failures_are_forgotten():
    bench = Bench()
    bench.health.add_failure("camera left: is truncated")
    bench.health.set_idle(True)
    assert bench.says("sets") == (OK, "idle: nobody subscribes")
    bench.health.set_idle(False)
    bench.publish()
    assert bench.says("sets") == (OK, "publishing")


# Latency


def test_results_in_time_are_ok_with_median_and_p99_by_stage():
    bench = Bench()
    for value in range(1, 102):
        bench.now += 0.01
        bench.publish(total=2.0 * value, network=float(value))
    assert bench.says("latency") == (OK, "in time")
    # Of 1 to 101 the median is 51; 99 % of the way from the first to the last is 100.
    assert bench.status("latency").values == {
        "network median (ms)": "51.0",
        "network p99 (ms)": "100.0",
        "total median (ms)": "102.0",
        "total p99 (ms)": "200.0",
    }


def test_only_the_last_seconds_count_for_the_latency():
    bench = Bench()
    bench.publish(total=400)
    bench.now += 10
    assert bench.says("latency") == (OK, "nothing published lately")
    assert bench.status("latency").values == {}
    bench.publish(total=100)
    assert bench.status("latency").values["total p99 (ms)"] == "100.0"


def test_late_results_warn_then_err_until_one_is_in_time():
    bench = Bench()
    bench.publish(total=700)
    assert bench.says("latency") == (WARN, "0.70 s from stamp to publish")
    bench.now += 1.9
    bench.publish(total=800)
    assert bench.says("latency") == (WARN, "0.80 s from stamp to publish")
    bench.now += 0.2
    bench.publish(total=900)
    assert bench.says("latency") == (ERROR, "0.90 s from stamp to publish")
    bench.publish(total=400)
    assert bench.says("latency") == (OK, "in time")
    bench.publish(total=700)
    assert bench.status("latency").level == WARN


def test_the_limits_are_read_each_time():
    bench = Bench()
    bench.limits = DiagnosticsParameters(late_after=0.05, error_after=0.01)
    bench.publish(total=100)
    bench.now += 0.02
    assert bench.status("latency").level == ERROR
    bench.limits = LIMITS
    bench.publish(total=100)
    assert bench.status("latency").level == OK


@pytest.mark.parametrize("years", [8.0, -8.0, -1e-8])
def test_stamps_of_another_clock_are_named_as_such(years):
    bench = Bench()
    bench.publish(total=years * 365 * 86400e3 if abs(years) > 1 else -2000.0)
    level, message = bench.says("latency")
    assert level == WARN
    assert "not of this node's clock" in message
    assert "use_sim_time" in message
    bench.now += 3
    assert bench.status("latency").level == ERROR


def test_a_clock_that_is_a_little_behind_is_no_fault():
    bench = Bench()
    bench.publish(total=-3.0)
    assert bench.says("latency") == (OK, "in time")


# Connections


def test_topics_without_a_publisher_are_a_warning():
    bench = Bench()
    assert bench.status("connections").level == OK
    bench.health.set_publishers({"/a": 1, "/b": 0})
    assert bench.status("connections").level == OK  # a driver may be starting again
    bench.now += 1
    assert bench.says("connections") == (WARN, "no publisher on /b")
    assert bench.status("connections").values == {"/a": "1 publishers", "/b": "0 publishers"}
    bench.health.set_publishers({"/a": 1, "/b": 2})
    assert bench.says("connections") == (OK, "all topics connected")


@pytest.mark.parametrize(
    ("policy", "remedy"), [("RELIABILITY", "parameter reliability"), ("DURABILITY", "transient local")]
)
def test_incompatible_qos_warns_with_topic_policy_and_remedy(policy, remedy):
    bench = Bench()
    bench.health.set_publishers({"/a": 1})
    bench.health.add_incompatible_qos("/a", policy)
    level, message = bench.says("connections")
    assert (level, "/a" in message, remedy in message) == (WARN, True, True)
    assert ("reliability" in message) == (policy == "RELIABILITY")
    assert bench.status("connections").values == {"/a": f"incompatible QoS: {policy}"}


def test_events_from_many_threads_are_all_counted():
    bench = Bench()
    begin = threading.Barrier(5)

    def work() -> None:
        begin.wait(30)
        for _ in range(300):
            bench.health.add_image("front")
            bench.health.count("complete")
            bench.health.add_failure("x")
            bench.publish()
            bench.health.add_faults({"left": "y"})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin.wait(30)
    for _ in range(100):
        assert len(bench.health.list_statuses()) == 4
    for thread in threads:
        thread.join(30)
    counts = bench.health.counts
    assert (counts.complete, counts.failed, counts.published) == (1200, 1200, 1200)


# What is missing, and why


def test_a_camera_that_keeps_missing_its_sets_is_named_with_its_delay():
    bench = Bench(minimum=2)
    for _ in range(60):
        bench.now += 0.1
        for name in CAMERAS:
            bench.health.add_image(name, 0.25 if name == "left" else 0.01)
        bench.cycle(("front", "right"))
    level, message = bench.says("cameras")
    assert level == WARN
    assert message.startswith("most sets lack left (its images come 0.24 s after the others'")
    assert "patience" in message
    assert bench.status("cameras").values["left sets missed"] in ("50 of 50", "51 of 51")
    assert bench.status("cameras").values["left stamp to arrival (s)"] == "0.250"
    bench.send(10)
    assert bench.says("cameras") == (OK, "all cameras send")


def test_stamps_ahead_of_the_other_cameras_are_named_as_such():
    bench = Bench(minimum=2)
    for _ in range(20):
        bench.now += 0.1
        for name in CAMERAS:
            bench.health.add_image(name, -3600.0 if name == "left" else 0.01)
        bench.cycle(("front", "right"))
    assert "left (its stamps are 3600.01 s ahead of the others')" in bench.says("cameras")[1]


def test_a_camera_that_misses_a_set_now_and_then_is_fine():
    bench = Bench(minimum=2)
    for i in range(60):
        bench.send(0.1)
        bench.cycle(("front", "right") if i % 4 == 0 else CAMERAS)
    assert bench.says("cameras") == (OK, "all cameras send")
    level, message = bench.says("sets")
    assert (level, "without left" in message) == (OK, True)


def test_mostly_partial_sets_are_a_warning_that_counts_them():
    bench = Bench(minimum=2)
    for i in range(40):
        bench.send(0.1)
        bench.cycle(("front", "right") if i % 4 else CAMERAS)
    assert bench.says("sets") == (WARN, "publishing; of the last 40 sets 30 without left")


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (lambda bench: bench.health.count("uncalibrated"), "wait for the calibration"),
        (lambda bench: bench.health.set_working(True), "the network has been at work on one set for 6 s"),
        (lambda bench: bench.health.count("late"), "another clock"),
        (lambda bench: bench.health.add_missed({"left": 9, "right": 1}), "each cycle lacks left (see cameras"),
        (lambda bench: None, "too far apart (slop)"),
    ],
    ids=["calibration", "busy", "late", "missing", "slop"],
)
def test_without_results_the_cause_is_named(event, cause):
    bench = Bench()
    bench.health.set_working(False)
    if "network" in cause:
        event(bench)
    bench.send(6)
    if "network" not in cause:
        event(bench)
    level, message = bench.says("sets")
    assert level == WARN
    assert "no result for 6 s" in message
    assert cause in message
    bench.health.set_working(False)
    bench.publish()
    assert bench.says("sets") == (OK, "publishing")


def test_without_images_the_sets_point_to_the_cameras():
    bench = Bench()
    bench.now += 7
    assert "no camera sends" in bench.says("sets")[1]


def test_it_starts_until_the_grace_is_over_or_a_set_fails():
    bench = Bench()
    assert bench.health.is_starting()
    bench.now += LIMITS.start_grace - 0.1
    assert bench.health.is_starting()
    bench.now += 0.2
    assert not bench.health.is_starting()
    bench.health.restart()
    assert bench.health.is_starting()
    bench.health.add_failure("out of memory")
    assert not bench.health.is_starting()


def test_skipped_sets_are_not_missing_sets():
    bench = Bench()
    bench.publish()
    bench.send(6)
    bench.health.count("skipped")
    assert bench.says("sets") == (OK, "publishing")


def test_lateness_starts_over_after_a_pause():
    bench = Bench()
    bench.publish(total=900.0)
    bench.now += 3600
    bench.publish(total=900.0)
    assert bench.says("latency")[0] == WARN


def test_nothing_is_kept_for_longer_than_it_is_reported():
    bench = Bench()
    for _ in range(600):
        bench.send(0.1)
        bench.cycle(CAMERAS[:2])
        bench.health.count("replaced")
    health = bench.health
    kept = [health._results, health._latencies, *(recent._events for recent in health._events.values())]
    for stream in health._streams.values():
        kept += [stream.delays._events, stream.used._events, stream.missed._events]
    assert max(map(len, kept)) <= 51  # of 5 s
