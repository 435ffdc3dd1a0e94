"""Cycles that lack cameras are counted, handed out when enough cameras remain, and never made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.cycles import CycleWatch
from bridgeta_ros.pipeline.sync import ImageSet, Synchroniser

MS = 1_000_000
SLOP = 60 * MS
# Camera stamps relative to the LiDAR's in nuScenes, in order, and its 12 Hz.
OFFSETS = {
    "FRONT_LEFT": -43_100_000,
    "FRONT": -35_500_000,
    "FRONT_RIGHT": -27_600_000,
    "BACK_RIGHT": -20_100_000,
    "BACK": -10_400_000,
    "BACK_LEFT": -500_000,
}
NAMES = list(OFFSETS)
PERIOD = 83_333_333
SILENT = 13  # cycles, after which a camera has sent nothing for a second
Message = tuple[str, int]
Cycle = list[Message]


def nuscenes(cycles: int, names: Sequence[str] = NAMES, first: int = 0) -> list[Cycle]:
    start = 10**18 + first * PERIOD
    return [[(name, start + i * PERIOD + OFFSETS[name]) for name in NAMES if name in names] for i in range(cycles)]


@dataclass
class Outcome:
    """What came out, as items; `when` says after how many messages each partial set did."""

    complete: list[Cycle] = field(default_factory=list)
    partial: list[Cycle] = field(default_factory=list)
    sets: list[ImageSet[Message]] = field(default_factory=list)
    when: list[int] = field(default_factory=list)


def feed(watch: CycleWatch[Message], names: Sequence[str], messages: Sequence[Message], slop: int = SLOP) -> Outcome:
    """As the node does: beside a synchroniser that finds the complete sets."""
    sync: Synchroniser[Message] = Synchroniser(names, slop)
    out = Outcome()
    for number, message in enumerate(messages, 1):
        watch.add(*message, message)
        if found := sync.add(*message, message):
            watch.used(found.stamps)
            out.complete.append(sorted(found.items.values()))
        if due := watch.due():
            out.partial.append(sorted(due.items.values()))
            out.sets.append(due)
            out.when.append(number)
    return out


def flat(cycles: list[Cycle]) -> list[Message]:
    return [message for cycle in cycles for message in cycle]


def handed_out(partial: list[Cycle], expected: list[Cycle]) -> bool:
    """Whether these are the expected sets in their order, but for one: when a camera is first known to be silent, its
    last cycle that was waited for may be due together with the next one, and the newer goes out.
    """
    sets = [sorted(cycle) for cycle in expected]
    skipped = [cycle for cycle in sets if cycle not in partial]
    return len(skipped) <= 1 and partial == [cycle for cycle in sets if cycle not in skipped]


def held(watch: CycleWatch[Message]) -> int:
    return sum(map(len, watch._waiting.values()))


@st.composite
def jittered(draw: st.DrawFn, period: int, spread: int) -> tuple[list[str], list[Cycle]]:
    """Cycles of up to six cameras, each stamp within `spread` of its cycle's start, each cycle in its own order."""
    names = NAMES[: draw(st.integers(2, 6))]
    cycles = []
    for i in range(draw(st.integers(1, 12))):
        stamps = draw(st.lists(st.integers(0, spread), min_size=len(names), max_size=len(names)))
        cycle = [(name, 10**18 + i * period + stamp) for name, stamp in zip(names, stamps, strict=True)]
        cycles.append(draw(st.permutations(cycle)))
    return names, cycles


@given(jittered(PERIOD, 43 * MS), st.data())
def test_of_full_streams_no_set_is_partial_and_no_cycle_incomplete(streams, data):
    names, cycles = streams
    watch: CycleWatch[Message] = CycleWatch(names, SLOP, data.draw(st.integers(1, len(names))))
    out = feed(watch, names, flat(cycles))
    assert out.complete == [sorted(cycle) for cycle in cycles]
    assert out.partial == []
    assert watch.incomplete == 0
    assert held(watch) == 0


@given(st.lists(st.integers(0, 75 * MS), min_size=6, max_size=6), st.integers(1, 6))
def test_cameras_whose_images_take_up_to_a_cycle_longer_are_waited_for(delays, minimum):
    delay = dict(zip(NAMES, delays, strict=True))
    cycles = nuscenes(30)
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, minimum)
    out = feed(watch, NAMES, sorted(flat(cycles), key=lambda m: m[1] + delay[m[0]]))
    assert len(out.complete) == 30
    assert (out.partial, watch.incomplete) == ([], 0)


@given(jittered(200 * MS, 40 * MS), st.data())
def test_each_cycle_with_lost_images_is_counted_once_and_handed_out_once_if_enough_cameras_are_left(streams, data):
    names, cycles = streams
    minimum = data.draw(st.integers(1, len(names)))
    kept = [[m for m in cycle if data.draw(st.booleans())] for cycle in cycles]
    end = [(name, 10**18 + len(cycles) * 200 * MS) for name in names]  # so that the last one is over too
    watch: CycleWatch[Message] = CycleWatch(names, SLOP, minimum, silent_ns=10**12)
    out = feed(watch, names, [*flat(kept), *end])
    whole = [sorted(cycle) for cycle in [*kept, end] if len(cycle) == len(names)]
    lacking = [sorted(cycle) for cycle in kept if 0 < len(cycle) < len(names)]
    assert out.complete == whole
    assert out.partial == [cycle for cycle in lacking if len(cycle) >= minimum]
    assert watch.incomplete == len(lacking)
    assert held(watch) == 0


@given(
    minimum=st.integers(1, 3),
    slop=st.integers(0, 100),
    stream=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000)), max_size=80),
)
def test_whatever_comes_a_set_has_enough_cameras_within_the_slop_and_only_unused_images(minimum, slop, stream):
    watch: CycleWatch[int] = CycleWatch("abc", slop, minimum, reset_ns=1000, silent_ns=300)
    sync: Synchroniser[int] = Synchroniser("abc", slop, reset_ns=1000)
    used: set[int] = set()
    for number, (name, stamp) in enumerate(stream):
        watch.add(name, stamp, number)
        if found := sync.add(name, stamp, number):
            watch.used(found.stamps)
            used |= set(found.items.values())
        if due := watch.due():
            assert len(due.items) >= minimum
            assert due.spread_ns <= slop
            assert not used & set(due.items.values())
            used |= set(due.items.values())
            for camera, item in due.items.items():
                assert stream[item] == (camera, due.stamps[camera])


@pytest.mark.parametrize("dead", NAMES)
def test_a_camera_that_never_sends_costs_its_own_place_in_each_set_only(dead):
    alive = [name for name in NAMES if name != dead]
    cycles = nuscenes(40, alive)
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    out = feed(watch, NAMES, flat(cycles))
    assert out.complete == []
    assert out.partial == [sorted(cycle) for cycle in cycles]
    assert watch.incomplete == 40


@pytest.mark.parametrize("dead", NAMES)
def test_a_camera_that_dies_is_missing_from_then_on(dead):
    before, after = nuscenes(12), nuscenes(40, [n for n in NAMES if n != dead], first=12)
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    out = feed(watch, NAMES, flat([*before, *after]))
    assert out.complete == [sorted(cycle) for cycle in before]
    assert handed_out(out.partial, after)
    assert watch.incomplete == 40


@pytest.mark.parametrize("before", [0, 12])
@pytest.mark.parametrize("dead", NAMES)
def test_once_a_camera_is_silent_each_set_is_due_with_the_last_image_of_the_others(dead, before):
    alive = [name for name in NAMES if name != dead]
    full, rest = nuscenes(before), nuscenes(40, alive, first=before)
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    out = feed(watch, NAMES, flat([*full, *rest]))
    last_images = [6 * before + 5 * (i + 1) for i in range(40)]
    assert out.when[-25:] == last_images[-25:]
    # Before, it is waited for, but less than two cycles long.
    assert all(last < number < last + 10 for number, last in zip(out.when[:10], last_images, strict=False))


@pytest.mark.parametrize("lost", NAMES)
def test_a_camera_that_returns_is_in_the_sets_from_its_first_image_on(lost):
    gap = nuscenes(30, [n for n in NAMES if n != lost], first=12)
    whole = [*nuscenes(12), *nuscenes(12, first=42)]
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    out = feed(watch, NAMES, flat([*whole[:12], *gap, *whole[12:]]))
    assert out.complete == [sorted(cycle) for cycle in whole]
    # Nobody waited for it any more: where it comes last, its first cycle has already gone without it.
    early = [sorted(whole[12][:-1])] if lost == NAMES[-1] else []
    assert handed_out(out.partial, [*gap, *early])
    assert watch.incomplete == 30 + len(early)


def test_a_whole_cycle_is_left_to_the_synchroniser():
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 1)
    for message in flat(nuscenes(1)):
        watch.add(*message, message)
        assert watch.due() is None
    assert watch.incomplete == 0


def test_a_lost_image_costs_its_cycle_only():
    cycles = nuscenes(20)
    lost = cycles[5].pop(3)
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    out = feed(watch, NAMES, flat(cycles))
    assert out.partial == [sorted(cycles[5])]
    assert len(out.complete) == 19
    assert lost not in flat(out.partial)
    assert watch.incomplete == 1


def test_when_all_cameras_are_asked_for_nothing_is_handed_out_but_all_is_counted():
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 6)
    out = feed(watch, NAMES, flat(nuscenes(41, NAMES[1:])))  # the last is not over
    assert out.partial == []
    assert watch.incomplete == 40


def test_a_cycle_of_too_few_cameras_is_counted_and_dropped():
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 4)
    out = feed(watch, NAMES, flat(nuscenes(41, NAMES[:3])))
    assert out.partial == []
    assert watch.incomplete == 40


def test_time_that_goes_back_forgets_what_was_before_and_keeps_the_count():
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    feed(watch, NAMES, [*flat(nuscenes(20, NAMES[1:], first=100)), *nuscenes(1, first=120)[0][:3]])
    assert watch.incomplete == 20
    assert held(watch) == 3
    name, stamp = NAMES[1], 10**18
    assert watch.add(name, stamp, (name, stamp))
    assert watch.due() is None
    assert held(watch) == 1
    assert watch.incomplete == 20


def test_a_bag_that_loops_gives_the_same_sets_again():
    once = flat([*nuscenes(20), *nuscenes(20, NAMES[1:], first=20)])
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    first = feed(watch, NAMES, once)
    second = feed(watch, NAMES, once)
    assert second == first
    assert watch.incomplete == 40


def test_a_stamp_that_goes_back_a_little_is_no_jump():
    watch: CycleWatch[int] = CycleWatch("ab", 10, 1, reset_ns=1000)
    assert not watch.add("a", 5000, 0)
    assert not watch.add("a", 4000, 1)
    assert watch.add("a", 3999, 2)


def test_one_stamp_from_the_future_is_over_with_the_next_of_its_camera():
    cycles = nuscenes(30, NAMES[1:])
    name, stamp = cycles[9][2]
    cycles[9][2] = (name, stamp + 10**15)
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 5)
    out = feed(watch, NAMES, flat(cycles))
    assert out.partial[-19:] == [sorted(cycle) for cycle in cycles[11:]]


@pytest.mark.parametrize("minimum", [1, 2, 6])
@pytest.mark.parametrize("hertz", [12, 30])
def test_one_camera_alone_does_not_fill_the_memory_in_an_hour(hertz, minimum):
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, minimum)
    most = 0
    for i in range(3600 * hertz):
        stamp = i * 10**9 // hertz
        watch.add("BACK", stamp, ("BACK", stamp))
        watch.due()
        most = max(most, held(watch))
    assert most <= 2 * SLOP * hertz // 10**9 + 1  # no more than are within twice the slop
    assert set(watch._latest) == {"BACK"}


def test_a_dead_camera_does_not_fill_the_memory():
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 6)
    for message in flat(nuscenes(1000, NAMES[1:])):
        watch.add(*message, message)
        watch.due()
        assert held(watch) <= 2 * 5


@pytest.mark.parametrize("minimum", [2, 3])
def test_cameras_of_30_hz_whose_period_is_under_the_slop_lose_no_set(minimum):
    names = ["a", "b", "c"]
    cycles = [[(name, 10**18 + i * 33_333_333 + j * 5 * MS) for j, name in enumerate(names)] for i in range(60)]
    watch: CycleWatch[Message] = CycleWatch(names, SLOP, minimum)
    out = feed(watch, names, flat(cycles))
    assert out.complete == cycles
    assert (out.partial, watch.incomplete) == ([], 0)


def test_of_cameras_of_30_hz_with_a_dead_one_each_image_goes_out_once():
    names = ["a", "b", "c"]
    cycles = [[(name, 10**18 + i * 33_333_333 + j * 5 * MS) for j, name in enumerate("ab")] for i in range(90)]
    watch: CycleWatch[Message] = CycleWatch(names, SLOP, 2)
    out = feed(watch, names, flat(cycles))
    assert len(set(flat(out.partial))) == len(flat(out.partial))
    assert out.partial[-50:] == cycles[-50:]
    assert all(due.spread_ns <= SLOP for due in out.sets)


@pytest.mark.parametrize("fast", NAMES)
def test_the_images_that_a_30_hz_camera_has_over_make_no_sets_of_their_own(fast):
    slow = flat(nuscenes(36, [n for n in NAMES if n != fast]))
    start = min(stamp for _, stamp in slow)
    quick = [(fast, start + i * 33_333_333) for i in range(90)]
    watch: CycleWatch[Message] = CycleWatch(NAMES, SLOP, 2)
    out = feed(watch, NAMES, sorted([*slow, *quick], key=lambda m: m[1]))
    assert len(out.complete) >= 35
    assert out.partial == []
    assert held(watch) < 12


@pytest.mark.parametrize(("names", "minimum"), [([], 1), (["a"], 0), (["a"], 2)])
def test_nonsense_is_refused(names, minimum):
    with pytest.raises(BridgeTAError) as error:
        CycleWatch(names, SLOP, minimum)
    assert error.value.exit_code == 2
