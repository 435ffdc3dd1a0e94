"""Jumps of time are followed, and a camera on a clock of its own is left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridgeta_ros.pipeline.stamps import CommonClock, Stamped

SECOND = 10**9
NAMES = ["a", "b", "c"]


class Stream:
    """Feeds a clock and keeps what it passes on."""

    def __init__(self, names=NAMES):
        self.clock = CommonClock(names, SECOND)
        self.passed, self.resets, self.sent = [], 0, 0

    def send(self, name, seconds):
        images, went_back = self.clock.add(Stamped(name, round(seconds * SECOND), self.sent))
        self.sent += 1
        self.resets += went_back
        self.passed += [image.item for image in images]

    def cycle(self, seconds, names=NAMES):
        for name in names:
            self.send(name, seconds)


def test_images_of_one_clock_pass_at_once():
    stream = Stream()
    for i in range(20):
        stream.cycle(100 + i / 12)
        assert len(stream.passed) == stream.sent
    assert not stream.clock.astray.total()


def test_a_bag_that_starts_over_loses_no_image():
    stream = Stream()
    for start in (100, 100, 50):
        for i in range(30):
            stream.cycle(start + i / 12)
    assert stream.passed == list(range(stream.sent))
    assert stream.resets == 2


def test_a_pause_of_all_cameras_loses_no_image_and_is_no_reset():
    stream = Stream()
    for start in (100, 200):
        for i in range(30):
            stream.cycle(start + i / 12)
    assert sorted(stream.passed) == list(range(stream.sent))
    assert stream.resets == 0


def test_a_jump_is_believed_while_some_cameras_still_send_the_old_time():
    stream = Stream()
    stream.cycle(100)
    stream.send("a", 50)
    stream.send("b", 100.1)
    stream.send("c", 100.1)
    assert stream.resets == 0
    stream.send("b", 50)
    stream.send("c", 50)
    assert stream.resets == 1
    assert sorted(stream.passed) == list(range(stream.sent))


def test_the_only_camera_left_is_believed_after_a_while():
    stream = Stream()
    for i in range(12):
        stream.cycle(100 + i / 12)
    for i in range(12):
        stream.send("b", 50 + i / 12)
    assert stream.resets == 1
    assert stream.passed == list(range(stream.sent))


def test_a_rig_of_one_camera_is_always_believed():
    stream = Stream(["a"])
    for seconds in (100, 50, 1000, 2):
        stream.send("a", seconds)
    assert stream.passed == [0, 1, 2, 3]
    assert stream.resets == 2


def test_the_first_image_may_be_the_wrong_one():
    stream = Stream()
    for i in range(20):
        stream.send("a", 5000 + i / 12)
        stream.cycle(100 + i / 12, ["b", "c"])
    assert [n for n in range(stream.sent) if n % 3] == [n for n in stream.passed if n % 3]
    assert stream.passed[3:] == [n for n in stream.passed[3:] if n % 3]


WRONG = st.sampled_from([0, 0, 0, -5, 3600, 3600, 10**8, 10**6])  # seconds that a camera's clock is off


@given(st.lists(st.tuples(*[WRONG] * 3), max_size=40), st.integers(0, 3), st.sets(st.integers(0, 2)))
def test_whatever_half_of_the_cameras_sent_all_are_used_once_they_are_well(cycles, silent, wrong):
    names = ["a", "b", "c", "d", "e", "f"]
    stream = Stream(names)
    for i, offsets in enumerate(cycles):
        for k, name in enumerate(names):
            if k >= 3 + silent or k < 3:
                off = offsets[k] if k in wrong else 0
                stream.send(name, 10**9 + i / 4 + k / 100 + off)
    for i in range(len(cycles), len(cycles) + 30):
        for k, name in enumerate(names):
            stream.send(name, 10**9 + i / 4 + k / 100)
    assert set(stream.passed) >= set(range(stream.sent - 6 * 20, stream.sent))


def test_two_cameras_whose_clocks_are_set_wrongly_together_do_not_take_the_others_along():
    names = ["a", "b", "c", "d"]
    stream = Stream(names)
    for i in range(20):
        stream.cycle(100 + i / 12, names)
    for i in range(20, 40):
        stream.cycle(3700 + i / 12, ["a", "b"])
        stream.cycle(100 + i / 12, ["c", "d"])
    for i in range(40, 60):
        stream.cycle(100 + i / 12, names)
    assert stream.resets == 0
    assert set(range(stream.sent)) - set(stream.passed) == {n for n in range(80, 160) if n % 4 < 2}


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-(2**31), 2**31)), max_size=120))
def test_every_image_is_passed_on_once_or_counted_or_held(sent):
    stream = Stream()
    for name, seconds in sent:
        stream.send(name, seconds / 7)
    assert len(set(stream.passed)) == len(stream.passed)
    held = sum(len(images) for images in stream.clock._held.values())
    assert len(stream.passed) + stream.clock.astray.total() + held == stream.sent
    assert held <= 30
