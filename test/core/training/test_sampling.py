"""Which frames make up which batch."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.training.sampling import MixedBatches

LABELLED, UNLABELLED = range(100, 120), range(200, 230)


def batches(*args, epoch: int = 0, **options) -> list[list[int]]:
    sampler = MixedBatches(*args, **options)
    sampler.set_epoch(epoch)
    result = list(sampler)
    assert len(result) == len(sampler)
    return result


@given(
    size=st.sampled_from([2, 4, 6]),
    share=st.sampled_from([0.0, 0.5]),
    world=st.integers(1, 4),
    steps=st.integers(0, 12),
    epoch=st.integers(0, 3),
)
def test_many_processes_together_take_what_one_with_as_large_a_batch_takes(size, share, world, steps, epoch):
    options = {"share": share, "steps": steps, "seed": 5, "epoch": epoch}
    one = batches(LABELLED, UNLABELLED, size=size * world, **options)
    many = [batches(LABELLED, UNLABELLED, size=size, rank=r, world=world, **options) for r in range(world)]
    for whole, *parts in zip(one, *many, strict=True):
        assert sorted(whole) == sorted(i for part in parts for i in part)


@given(size=st.integers(1, 9), share=st.floats(0, 0.95))
def test_a_batch_has_its_share_of_unlabelled_frames_and_a_labelled_one(size, share):
    expected = min(round(share * size), size - 1)
    for batch in batches(LABELLED, UNLABELLED, size=size, share=share):
        assert len(batch) == size
        assert sum(i in UNLABELLED for i in batch) == expected


def test_without_unlabelled_frames_a_batch_is_all_labelled():
    assert all(set(batch) <= set(LABELLED) for batch in batches(LABELLED, size=4, share=0.5))


def test_an_epoch_is_one_pass_over_the_labelled_frames_without_a_smaller_batch():
    taken = [i for batch in batches(LABELLED, size=6) for i in batch]
    assert len(taken) == len(set(taken)) == 18
    taken = [i for batch in batches(LABELLED, UNLABELLED, size=4, share=0.5) for i in batch]
    assert sorted(i for i in taken if i in LABELLED) == list(LABELLED)


def test_more_steps_than_a_pass_take_every_frame_about_equally_often():
    counts = Counter(i for batch in batches(LABELLED, size=4, steps=13) for i in batch)
    assert set(counts) == set(LABELLED)
    assert set(counts.values()) == {2, 3}


def test_order_depends_on_seed_and_epoch_alone():
    first = batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=1, epoch=2)
    assert first == batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=1, epoch=2)
    assert first != batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=2, epoch=2)
    assert first != batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=1, epoch=3)


def test_the_labelled_order_is_the_same_with_and_without_unlabelled_frames():
    alone = [i for batch in batches(LABELLED, size=4) for i in batch]
    mixed = [i for batch in batches(LABELLED, UNLABELLED, size=4, share=0.5) for i in batch if i in LABELLED]
    assert alone == mixed


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [sorted(batch) for batch in batches([3, 4, 5], size=8)] == [[3, 4, 5]]
    parts = [batches([3, 4, 5], size=8, rank=r, world=2)[0] for r in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    assert set(parts[0] + parts[1]) == {3, 4, 5}
