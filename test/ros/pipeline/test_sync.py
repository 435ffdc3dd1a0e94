"""The synchroniser finds every complete cycle, and hands out the others if enough cameras remain."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import pytest
from camera_streams import MS, NAMES, PERIOD, SLOP, Cycle, Message, faulty_stream, flat, nuscenes, synchronise
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.sync import ImageSet, Synchroniser


@dataclass
class Outcome:
    """The sets that came out, as items; `when` says after how many messages each partial set did."""

    complete: list[Cycle] = field(default_factory=list)
    partial: list[Cycle] = field(default_factory=list)
    sets: list[ImageSet[Message]] = field(default_factory=list)
    when: list[int] = field(default_factory=list)


def feed(sync: Synchroniser[Message], messages: Sequence[Message], cameras: int = len(NAMES)) -> Outcome:
    out = Outcome()
    for number, message in enumerate(messages, 1):
        for images in sync.add(*message, message):
            out.sets.append(images)
            if len(images.items) == cameras:
                out.complete.append(sorted(images.items.values()))
            else:
                out.partial.append(sorted(images.items.values()))
                out.when.append(number)
    return out


def live(names: Sequence[str] = NAMES, minimum: int | None = None, **options: int) -> Synchroniser[Message]:
    """Make a synchroniser as impatient as the live node's."""
    return Synchroniser(names, SLOP, minimum=minimum, patience_ns=SLOP, **options)


def waiting(sync: Synchroniser[Message]) -> int:
    """Count the cycles that would be incomplete if the streams ended now."""
    before = sync.counts.incomplete
    sync.flush()
    return sync.counts.incomplete - before


def handed_out(partial: list[Cycle], expected: list[Cycle]) -> bool:
    """Return whether these are the expected sets in their order, except for one.

    When a camera is first known to be silent, the last cycle that waited for it may be due together with the next one.
    Then the newer one is handed out.
    """
    sets = [sorted(cycle) for cycle in expected]
    skipped = [cycle for cycle in sets if cycle not in partial]
    return len(skipped) <= 1 and partial == [cycle for cycle in sets if cycle not in skipped]


@st.composite
def jittered(draw: st.DrawFn, period: int, spread: int) -> tuple[list[str], list[Cycle]]:
    """Draw cycles of up to six cameras in any order, each stamp within `spread` of its cycle's start."""
    names = NAMES[: draw(st.integers(2, 6))]
    cycles = []
    for i in range(draw(st.integers(1, 12))):
        stamps = draw(st.lists(st.integers(0, spread), min_size=len(names), max_size=len(names)))
        cycle = [(name, 10**18 + i * period + stamp) for name, stamp in zip(names, stamps, strict=True)]
        cycles.append(draw(st.permutations(cycle)))
    return names, cycles


class TestCompleteSets:
    def test_every_nuscenes_cycle_is_found_with_the_default_slop(self):
        sync: Synchroniser[Message] = Synchroniser(NAMES)
        sets = feed(sync, flat(nuscenes(24))).sets
        assert len(sets) == 24
        assert {s.spread_ns for s in sets} == {42_600_000}
        assert sets[0].newest_ns == 10**18 - 500_000
        sync.flush()
        assert (sync.counts.complete, sync.counts.incomplete, sync.counts.late) == (24, 0, 0)

    def test_a_slop_under_the_spread_of_a_cycle_yields_nothing(self):
        assert feed(Synchroniser(NAMES, 40 * MS), flat(nuscenes(12))).sets == []

    @given(lost=st.sets(st.tuples(st.integers(0, 19), st.sampled_from(NAMES)), max_size=25))
    def test_lost_images_cost_their_own_cycle_only(self, lost):
        cycles = nuscenes(20)
        sent = [m for i, cycle in enumerate(cycles) for m in cycle if (i, m[0]) not in lost]
        sync: Synchroniser[Message] = Synchroniser(NAMES)
        out = feed(sync, sent)
        whole = [i for i in range(20) if not any((i, name) in lost for name in NAMES)]
        assert out.complete == [sorted(cycles[i]) for i in whole]
        sync.flush()
        touched = {i for i, _ in lost}
        silent = sum(all((i, name) in lost for name in NAMES) for i in touched)
        assert sync.counts.incomplete == len(touched) - silent

    @given(seed=st.integers(0, 2**32 - 1), lost=st.sets(st.integers(0, 59), max_size=10))
    def test_cameras_that_arrive_up_to_a_cycle_late_are_waited_for(self, seed, lost):
        delays = random.Random(seed)
        delay = {name: delays.randrange(0, 80 * MS) for name in NAMES}
        cycles = nuscenes(10)
        sent = [m for i, m in enumerate(flat(cycles)) if i not in lost]
        out = feed(Synchroniser(NAMES), sorted(sent, key=lambda m: m[1] + delay[m[0]]))
        assert out.complete == [sorted(c) for c in cycles if all(m in sent for m in c)]

    @given(
        slop=st.integers(0, 100),
        stream=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000)), max_size=80),
    )
    def test_any_set_is_whole_within_the_slop_and_of_unused_images(self, slop, stream):
        sync: Synchroniser[int] = Synchroniser("abc", slop, reset_ns=1000)
        used: set[int] = set()
        for number, (name, stamp) in enumerate(stream):
            for images in sync.add(name, stamp, number):
                assert set(images.items) == set("abc")
                assert images.spread_ns <= slop
                assert not used & set(images.items.values())
                used |= set(images.items.values())
                for camera, item in images.items.items():
                    assert stream[item] == (camera, images.stamps[camera])
        sync.flush()
        assert 3 * sync.counts.complete + sync.counts.incomplete + sync.counts.late <= len(stream)

    @given(stream=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500)), max_size=60))
    def test_the_same_stream_gives_the_same_sets(self, stream):
        runs = [[Synchroniser("ab", 20).add(n, s, i) for i, (n, s) in enumerate(stream)] for _ in range(2)]
        assert runs[0] == runs[1]

    def test_the_newest_image_of_a_fast_camera_that_fits_is_taken(self):
        sync: Synchroniser[int] = Synchroniser(["fast", "slow"], 60)
        for stamp in (0, 30, 50):
            assert sync.add("fast", stamp, stamp) == []
        (images,) = sync.add("slow", 55, 55)
        assert images.items == {"fast": 50, "slow": 55}

    def test_one_camera_alone_makes_a_set_of_each_image(self):
        sync: Synchroniser[int] = Synchroniser(["only"])
        assert [len(sync.add("only", ns, ns)) for ns in (5, 10, 15)] == [1, 1, 1]

    def test_duplicates_and_outdated_stamps_are_counted_and_ignored(self):
        sync: Synchroniser[int] = Synchroniser(["a", "b"], 10)
        sync.add("a", 100, 0)
        assert sync.add("a", 100, 1) == []
        (images,) = sync.add("b", 105, 2)
        assert images.items["a"] == 0
        assert sync.add("a", 100, 3) == []
        assert sync.add("a", 95, 4) == []
        assert sync.counts.late == 3

    def test_images_out_of_order_within_a_camera_find_their_sets(self):
        sync: Synchroniser[int] = Synchroniser(["a", "b"], 10)
        assert sync.add("a", 200, 200) == []
        assert sync.add("a", 100, 100) == []
        assert len(sync.add("b", 105, 105)) == 1
        assert len(sync.add("b", 205, 205)) == 1

    def test_a_bag_that_loops_starts_over(self):
        sync: Synchroniser[Message] = Synchroniser(NAMES)
        once = flat(nuscenes(24))
        assert len(feed(sync, once).complete) == 24
        assert len(feed(sync, once).complete) == 24
        assert (sync.counts.resets, sync.counts.incomplete) == (1, 0)

    def test_one_stamp_from_the_future_does_not_silence_the_cameras(self):
        cycles = nuscenes(20)
        cycles[5][2] = (cycles[5][2][0], cycles[5][2][1] + 10**15)
        assert len(feed(Synchroniser(NAMES), flat(cycles)).complete) >= 18

    def test_with_a_dead_camera_every_cycle_is_counted(self):
        sync: Synchroniser[Message] = Synchroniser([*NAMES, "DEAD"])
        assert feed(sync, flat(nuscenes(100))).sets == []
        sync.flush()
        assert sync.counts.incomplete == 100

    @pytest.mark.parametrize("minimum", [None, 4])
    def test_incomplete_cycles_are_counted_by_the_cameras_they_lack(self, minimum):
        sync = live(minimum=minimum)
        feed(sync, flat(nuscenes(20, [name for name in NAMES if name != "BACK"])))
        sync.flush()
        assert sync.counts.missed == {"BACK": 20}


class TestPartialSets:
    @given(jittered(PERIOD, 43 * MS), st.data())
    def test_full_streams_give_no_partial_set_and_no_incomplete_cycle(self, streams, data):
        names, cycles = streams
        sync = live(names, data.draw(st.integers(1, len(names))))
        out = feed(sync, flat(cycles), len(names))
        assert out.complete == [sorted(cycle) for cycle in cycles]
        assert out.partial == []
        assert waiting(sync) == 0
        assert sync.counts.incomplete == 0

    @given(st.lists(st.integers(0, 75 * MS), min_size=6, max_size=6), st.integers(1, 6))
    def test_images_that_take_up_to_a_cycle_longer_are_waited_for(self, delays, minimum):
        delay = dict(zip(NAMES, delays, strict=True))
        sync = live(minimum=minimum)
        out = feed(sync, sorted(flat(nuscenes(30)), key=lambda m: m[1] + delay[m[0]]))
        assert len(out.complete) == 30
        assert (out.partial, sync.counts.incomplete) == ([], 0)

    @given(jittered(200 * MS, 40 * MS), st.data())
    def test_each_cycle_with_lost_images_is_handed_out_once(self, streams, data):
        names, cycles = streams
        minimum = data.draw(st.integers(1, len(names)))
        left = [[m for m in cycle if data.draw(st.booleans())] for cycle in cycles]
        end = [(name, 10**18 + len(cycles) * 200 * MS) for name in names]  # so that the last one is over too
        sync = live(names, minimum, silent_ns=10**12)
        out = feed(sync, [*flat(left), *end], len(names))
        whole = [sorted(cycle) for cycle in [*left, end] if len(cycle) == len(names)]
        lacking = [sorted(cycle) for cycle in left if 0 < len(cycle) < len(names)]
        assert out.complete == whole
        assert out.partial == [cycle for cycle in lacking if len(cycle) >= minimum]
        assert sync.counts.incomplete == len(lacking)
        assert waiting(sync) == 0

    @given(
        minimum=st.integers(1, 3),
        slop=st.integers(0, 100),
        stream=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000)), max_size=80),
    )
    def test_any_set_has_enough_unused_images_within_the_slop(self, minimum, slop, stream):
        sync: Synchroniser[int] = Synchroniser(
            "abc", slop, minimum=minimum, patience_ns=slop, reset_ns=1000, silent_ns=300
        )
        # A set that becomes whole after it was handed out without a camera is handed out again.
        used: dict[bool, set[int]] = {True: set(), False: set()}
        for number, (name, stamp) in enumerate(stream):
            for images in sync.add(name, stamp, number):
                assert len(images.items) >= minimum
                assert images.spread_ns <= slop
                whole = len(images.items) == 3
                assert not used[whole] & set(images.items.values())
                used[whole] |= set(images.items.values())
                for camera, item in images.items.items():
                    assert stream[item] == (camera, images.stamps[camera])

    @pytest.mark.parametrize("dead", NAMES)
    def test_a_camera_that_never_sends_costs_only_its_own_place(self, dead):
        cycles = nuscenes(40, [name for name in NAMES if name != dead])
        sync = live(minimum=5)
        out = feed(sync, flat(cycles))
        assert out.complete == []
        assert out.partial == [sorted(cycle) for cycle in cycles]
        assert sync.counts.incomplete == 40

    @pytest.mark.parametrize("dead", NAMES)
    def test_a_camera_that_dies_is_missing_from_then_on(self, dead):
        before, after = nuscenes(12), nuscenes(40, [n for n in NAMES if n != dead], first=12)
        sync = live(minimum=5)
        out = feed(sync, flat([*before, *after]))
        assert out.complete == [sorted(cycle) for cycle in before]
        assert handed_out(out.partial, after)
        assert sync.counts.incomplete == 40

    @pytest.mark.parametrize("before", [0, 12])
    @pytest.mark.parametrize("dead", NAMES)
    def test_a_silent_camera_is_no_longer_waited_for(self, dead, before):
        full, rest = nuscenes(before), nuscenes(40, [name for name in NAMES if name != dead], first=before)
        out = feed(live(minimum=5), flat([*full, *rest]))
        last_images = [6 * before + 5 * (i + 1) for i in range(40)]
        assert out.when[-25:] == last_images[-25:]
        # Before, it is waited for, but less than two cycles long.
        assert all(last < number < last + 10 for number, last in zip(out.when[:10], last_images, strict=False))

    @pytest.mark.parametrize("lost", NAMES)
    def test_a_camera_that_returns_is_used_from_its_first_image(self, lost):
        gap = nuscenes(30, [n for n in NAMES if n != lost], first=12)
        whole = [*nuscenes(12), *nuscenes(12, first=42)]
        sync = live(minimum=5)
        out = feed(sync, flat([*whole[:12], *gap, *whole[12:]]))
        assert out.complete == [sorted(cycle) for cycle in whole]
        # Nobody waited for it any more: where it comes last, its first cycle has already gone without it.
        early = [sorted(whole[12][:-1])] if lost == NAMES[-1] else []
        assert handed_out(out.partial, [*gap, *early])
        assert sync.counts.incomplete == 30 + len(early)

    def test_a_whole_cycle_is_complete_even_when_one_camera_would_do(self):
        sync = live(minimum=1)
        out = feed(sync, flat(nuscenes(1)))
        assert (len(out.complete), out.partial, sync.counts.incomplete) == (1, [], 0)

    def test_a_lost_image_costs_its_cycle_only(self):
        cycles = nuscenes(20)
        lost = cycles[5].pop(3)
        sync = live(minimum=5)
        out = feed(sync, flat(cycles))
        assert out.partial == [sorted(cycles[5])]
        assert len(out.complete) == 19
        assert lost not in flat(out.partial)
        assert sync.counts.incomplete == 1

    @pytest.mark.parametrize("minimum", [None, 6])
    def test_incomplete_cycles_are_only_counted_when_all_cameras_are_needed(self, minimum):
        sync = live(minimum=minimum)
        assert feed(sync, flat(nuscenes(41, NAMES[1:]))).sets == []  # the last is not over
        assert sync.counts.incomplete == 40

    def test_a_cycle_of_too_few_cameras_is_counted_and_dropped(self):
        sync = live(minimum=4)
        assert feed(sync, flat(nuscenes(41, NAMES[:3]))).sets == []
        assert sync.counts.incomplete == 40

    def test_when_time_goes_back_waiting_cycles_are_incomplete(self):
        sync = live(minimum=5)
        feed(sync, [*flat(nuscenes(20, NAMES[1:], first=100)), *nuscenes(1, first=120)[0][:3]])
        assert sync.counts.incomplete == 20
        for name in NAMES[1:4]:
            assert feed(sync, [(name, 10**18)]).sets == []
            assert sync.counts.resets == 0  # the clocks of half of the cameras may be at fault
        assert feed(sync, [(NAMES[4], 10**18)]).sets == []
        assert (sync.counts.resets, sync.counts.incomplete) == (1, 21)
        assert waiting(sync) == 1

    def test_a_bag_that_loops_gives_the_same_sets_again(self):
        once = flat([*nuscenes(20), *nuscenes(20, NAMES[1:], first=20)])
        sync = live(minimum=5)
        first = feed(sync, once)
        second = feed(sync, once)
        assert second == first
        assert sync.counts.incomplete == 40

    def test_a_stamp_that_goes_back_a_little_is_no_jump(self):
        sync: Synchroniser[int] = Synchroniser("ab", 10, minimum=1, reset_ns=1000)
        resets = []
        for number, stamp in enumerate((5000, 4000, 3999)):
            sync.add("a", stamp, number)
            sync.add("b", stamp, number)
            resets.append(sync.counts.resets)
        assert resets == [0, 0, 1]

    @pytest.mark.parametrize("wrong", ["ahead", "behind", "random", "far future", "jumping"])
    def test_a_camera_of_another_clock_costs_only_its_own_place(self, wrong):
        rng, hour = random.Random(3), 3600 * 1000 * MS
        clocks = {
            "ahead": lambda stamp: stamp + hour,
            "behind": lambda stamp: stamp - hour,
            "random": lambda stamp: rng.randrange(2**31) * 1000 * MS,
            "far future": lambda stamp: (2**31 - 1) * 1000 * MS + stamp % 1000,
            "jumping": lambda stamp: stamp + rng.choice((-5000, 5000, 60_000)) * MS,
        }
        cycles = nuscenes(100)
        stream = [(n, clocks[wrong](stamp) if n == "BACK" else stamp) for n, stamp in flat(cycles)]
        sync = live(minimum=5)
        out = feed(sync, stream)
        assert len(out.partial) >= 98
        assert all("BACK" not in dict(cycle) for cycle in out.partial[1:])
        assert sync.counts.resets == 0
        assert set(sync.counts.missed) == {"BACK"}
        assert sync.counts.astray >= 85  # the last ones may still find company

    def test_a_stamp_from_the_future_costs_only_the_sets_around_it(self):
        cycles = nuscenes(30, NAMES[1:])
        name, stamp = cycles[9][2]
        cycles[9][2] = (name, stamp + 10**15)
        out = feed(live(minimum=5), flat(cycles))
        assert out.partial[-19:] == [sorted(cycle) for cycle in cycles[11:]]

    @pytest.mark.parametrize("minimum", [2, 3])
    def test_cameras_whose_period_is_under_the_slop_lose_no_set(self, minimum):
        names = ["a", "b", "c"]
        cycles = [[(name, 10**18 + i * 33_333_333 + j * 5 * MS) for j, name in enumerate(names)] for i in range(60)]
        sync = live(names, minimum)
        out = feed(sync, flat(cycles), 3)
        assert out.complete == cycles
        assert (out.partial, sync.counts.incomplete) == ([], 0)

    def test_at_30_hz_with_a_dead_camera_each_image_goes_out_once(self):
        cycles = [[(name, 10**18 + i * 33_333_333 + j * 5 * MS) for j, name in enumerate("ab")] for i in range(90)]
        out = feed(live(["a", "b", "c"], 2), flat(cycles), 3)
        assert len(set(flat(out.partial))) == len(flat(out.partial))
        assert out.partial[-50:] == cycles[-50:]
        assert all(images.spread_ns <= SLOP for images in out.sets)

    @pytest.mark.parametrize("fast", NAMES)
    def test_surplus_images_of_a_fast_camera_make_no_sets(self, fast):
        slow = flat(nuscenes(36, [n for n in NAMES if n != fast]))
        start = min(stamp for _, stamp in slow)
        quick = [(fast, start + i * 33_333_333) for i in range(90)]
        sync = live(minimum=2)
        out = feed(sync, sorted([*slow, *quick], key=lambda m: m[1]))
        assert len(out.complete) >= 35
        assert out.partial == []
        assert waiting(sync) < 12


class Image:
    """An item that can be referenced weakly."""


class TestMemory:
    @pytest.mark.parametrize("minimum", [None, 1, 2, 6])
    @pytest.mark.parametrize("hertz", [12, 30])
    def test_one_camera_alone_does_not_fill_it(self, hertz, minimum):
        sync: Synchroniser[Image] = Synchroniser(NAMES, SLOP, minimum=minimum)
        alive: WeakSet[Image] = WeakSet()
        for i in range(600 * hertz):
            image = Image()
            alive.add(image)
            sync.add("BACK", i * 10**9 // hertz, image)
        assert len(alive) <= max(11, hertz + 3)  # the matcher's ten, or what came in the last second

    def test_a_dead_camera_does_not_fill_it(self):
        sync: Synchroniser[Image] = Synchroniser(NAMES, SLOP)
        alive: WeakSet[Image] = WeakSet()
        for name, stamp in flat(nuscenes(1000, NAMES[1:])):
            image = Image()
            alive.add(image)
            sync.add(name, stamp, image)
            assert len(alive) <= 5 * 15


class LikeMessageFilters:
    """ApproximateTimeSynchronizer of message_filters in a few lines; the live tests have the original."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[int, Message]] = {name: {} for name in NAMES}

    def add(self, name: str, stamp_ns: int, item: Message) -> ImageSet[Message] | None:
        self.queues[name][stamp_ns] = item
        if len(self.queues[name]) > 10:
            del self.queues[name][min(self.queues[name])]
        near = [sorted(queue, key=lambda stamp: abs(stamp - stamp_ns)) for queue in self.queues.values()]
        near[NAMES.index(name)] = [stamp_ns]
        for stamps in itertools.product(*([s for s in n if abs(s - stamp_ns) <= SLOP] for n in near)):
            if max(stamps) - min(stamps) <= SLOP:
                chosen = dict(zip(NAMES, stamps, strict=True))
                return ImageSet({n: self.queues[n].pop(stamp) for n, stamp in chosen.items()}, chosen)
        return None

    def clear(self) -> None:
        for queue in self.queues.values():
            queue.clear()


@pytest.mark.parametrize("minimum", [None, 5, 3])
@pytest.mark.parametrize("seed", range(20))
def test_node_and_replay_make_the_same_sets_of_the_same_stream(seed, minimum):
    stream = faulty_stream(seed)
    replayed, offline = synchronise(stream, minimum)
    live_sets, online = synchronise(stream, minimum, LikeMessageFilters())
    assert live_sets == replayed
    assert online.counts == offline.counts
    assert online.counts.resets == 1


@pytest.mark.parametrize(
    ("names", "slop", "minimum"), [([], 10, None), (["a"], -1, None), ([], 10, 1), (["a"], 10, 0), (["a"], 10, 2)]
)
def test_nonsense_is_refused(names, slop, minimum):
    with pytest.raises(BridgeTAError) as error:
        Synchroniser(names, slop, minimum=minimum)
    assert error.value.exit_code == 2


def test_images_that_are_held_back_at_the_end_are_counted():
    sync = live()
    feed(sync, flat(nuscenes(20)))
    sync.add("BACK", 10**15, None)
    sync.flush()
    assert sync.counts.astray == 1


def test_stamps_that_creep_do_not_pile_up_images():
    sync: Synchroniser[int] = Synchroniser(("a", "b"))
    for i in range(2000):
        sync.add("a", i, i)
    assert sync.counts.incomplete >= 1400
    assert sum(map(len, sync._waiting.values())) <= 501
