"""The synchroniser finds every complete cycle and never makes up a set."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.sync import ImageSet, Synchroniser

MS = 1_000_000
SLOP = 60 * MS
# Camera stamps relative to the LiDAR's in nuScenes, and its 12 Hz.
OFFSETS = {
    "FRONT_LEFT": -43_100_000,
    "FRONT": -35_500_000,
    "FRONT_RIGHT": -27_600_000,
    "BACK_RIGHT": -20_100_000,
    "BACK": -10_400_000,
    "BACK_LEFT": -500_000,
}
PERIOD = 83_333_333
Message = tuple[str, int]


def nuscenes(cycles: int, start: int = 10**18) -> list[list[Message]]:
    return [[(name, start + cycle * PERIOD + offset) for name, offset in OFFSETS.items()] for cycle in range(cycles)]


def feed(sync: Synchroniser[Message], messages: list[Message]) -> list[ImageSet[Message]]:
    return [found for m in messages if (found := sync.add(m[0], m[1], m)) is not None]


def test_every_complete_nuscenes_cycle_is_found_with_the_default_slop():
    sync: Synchroniser[Message] = Synchroniser(list(OFFSETS))
    sets = feed(sync, [m for cycle in nuscenes(24) for m in cycle])
    assert len(sets) == 24
    assert {s.spread_ns for s in sets} == {42_600_000}
    assert sets[0].newest_ns == 10**18 - 500_000
    sync.flush()
    assert (sync.counts.complete, sync.counts.incomplete, sync.counts.late) == (24, 0, 0)


def test_a_slop_under_the_spread_of_a_cycle_yields_nothing():
    sync: Synchroniser[Message] = Synchroniser(list(OFFSETS), 40 * MS)
    assert feed(sync, [m for cycle in nuscenes(12) for m in cycle]) == []


@given(lost=st.sets(st.tuples(st.integers(0, 19), st.sampled_from(list(OFFSETS))), max_size=25))
def test_lost_images_cost_their_own_cycle_only(lost):
    cycles = nuscenes(20)
    sent = [m for i, cycle in enumerate(cycles) for m in cycle if (i, m[0]) not in lost]
    sync: Synchroniser[Message] = Synchroniser(list(OFFSETS))
    sets = feed(sync, sent)
    whole = [i for i in range(20) if not any((i, name) in lost for name in OFFSETS)]
    assert [sorted(s.items.values()) for s in sets] == [sorted(cycles[i]) for i in whole]
    sync.flush()
    touched = {i for i, _ in lost}
    silent = sum(all((i, name) in lost for name in OFFSETS) for i in touched)
    assert sync.counts.incomplete == len(touched) - silent


@given(seed=st.integers(0, 2**32 - 1), lost=st.sets(st.integers(0, 59), max_size=10))
def test_cameras_that_arrive_late_by_up_to_a_cycle_are_waited_for(seed, lost):
    delays = random.Random(seed)
    delay = {name: delays.randrange(0, 80 * MS) for name in OFFSETS}
    cycles = nuscenes(10)
    sent = [m for i, m in enumerate(m for cycle in cycles for m in cycle) if i not in lost]
    sets = feed(Synchroniser(list(OFFSETS)), sorted(sent, key=lambda m: m[1] + delay[m[0]]))
    assert [sorted(s.items.values()) for s in sets] == [sorted(c) for c in cycles if all(m in sent for m in c)]


@given(
    slop=st.integers(0, 100),
    stream=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3000)), max_size=80),
)
def test_whatever_comes_a_set_is_whole_within_the_slop_and_of_unused_items(slop, stream):
    sync: Synchroniser[int] = Synchroniser("abc", slop, reset_ns=1000, depth=4)
    used: set[int] = set()
    for number, (name, stamp) in enumerate(stream):
        found = sync.add(name, stamp, number)
        if found is None:
            continue
        assert set(found.items) == set("abc")
        assert found.spread_ns <= slop
        assert not used & set(found.items.values())
        used |= set(found.items.values())
        for camera, item in found.items.items():
            assert stream[item] == (camera, found.stamps[camera])
    sync.flush()
    assert 3 * sync.counts.complete + sync.counts.incomplete + sync.counts.late <= len(stream)


@given(stream=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500)), max_size=60))
def test_the_same_stream_gives_the_same_sets(stream):
    runs = [[Synchroniser("ab", 20).add(n, s, i) for i, (n, s) in enumerate(stream)] for _ in range(2)]
    assert runs[0] == runs[1]


def test_of_several_images_of_a_fast_camera_the_newest_that_fits_is_taken():
    sync: Synchroniser[int] = Synchroniser(["fast", "slow"], 60)
    for stamp in (0, 30, 50):
        assert sync.add("fast", stamp, stamp) is None
    found = sync.add("slow", 55, 55)
    assert found is not None
    assert found.items == {"fast": 50, "slow": 55}


def test_one_camera_alone_makes_a_set_of_each_image():
    sync: Synchroniser[int] = Synchroniser(["only"])
    assert [sync.add("only", ns, ns) is not None for ns in (5, 10, 15)] == [True, True, True]


def test_duplicates_and_stamps_before_a_used_one_are_counted_and_ignored():
    sync: Synchroniser[int] = Synchroniser(["a", "b"], 10)
    sync.add("a", 100, 0)
    assert sync.add("a", 100, 1) is None
    found = sync.add("b", 105, 2)
    assert found is not None
    assert found.items["a"] == 0
    assert sync.add("a", 100, 3) is None
    assert sync.add("a", 95, 4) is None
    assert sync.counts.late == 3


def test_images_out_of_order_within_a_camera_still_find_their_sets():
    sync: Synchroniser[int] = Synchroniser(["a", "b"], 10)
    assert sync.add("a", 200, 200) is None
    assert sync.add("a", 100, 100) is None
    assert sync.add("b", 105, 105) is not None
    assert sync.add("b", 205, 205) is not None


def test_a_bag_that_loops_starts_anew():
    sync: Synchroniser[Message] = Synchroniser(list(OFFSETS))
    once = [m for cycle in nuscenes(24) for m in cycle]
    assert len(feed(sync, once)) == 24
    assert len(feed(sync, once)) == 24
    assert (sync.counts.resets, sync.counts.incomplete) == (1, 0)


def test_one_stamp_from_the_future_does_not_silence_the_cameras():
    sync: Synchroniser[Message] = Synchroniser(list(OFFSETS))
    cycles = nuscenes(20)
    cycles[5][2] = (cycles[5][2][0], cycles[5][2][1] + 10**15)
    assert len(feed(sync, [m for cycle in cycles for m in cycle])) >= 18


def test_a_dead_camera_costs_bounded_memory_and_every_cycle_is_counted():
    sync: Synchroniser[Message] = Synchroniser([*OFFSETS, "DEAD"], depth=10)
    assert feed(sync, [m for cycle in nuscenes(100) for m in cycle]) == []
    assert max(len(queue) for queue in sync._queues.values()) == 10
    sync.flush()
    assert sync.counts.incomplete == 100


@pytest.mark.parametrize(("names", "slop"), [([], 10), (["a"], -1)])
def test_nonsense_is_refused(names, slop):
    with pytest.raises(BridgeTAError) as error:
        Synchroniser(names, slop)
    assert error.value.exit_code == 2
