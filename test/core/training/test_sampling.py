"""Which scenes are labelled, and which frames make up which batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import DataConfig, ImageConfig
from bridgeta_core.data.dataset import Dataset
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.joined import open_roots
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.training.sampling import (
    MixedBatches,
    Selection,
    balance_classes,
    find_classes,
    space_evenly,
    weigh_parts,
)
from bridgeta_core.utils.errors import BridgeTAError

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
def test_processes_together_take_the_batch_of_one(size, share, world, steps, epoch):
    options = {"share": share, "steps": steps, "seed": 5, "epoch": epoch}
    one = batches(LABELLED, UNLABELLED, size=size * world, **options)
    many = [batches(LABELLED, UNLABELLED, size=size, rank=r, world=world, **options) for r in range(world)]
    for whole, *parts in zip(one, *many, strict=True):
        assert sorted(whole) == sorted(i for part in parts for i in part)


@given(size=st.integers(1, 9), share=st.floats(0, 0.95))
def test_a_batch_has_its_share_of_unlabelled_frames(size, share):
    expected = min(round(share * size), size - 1)
    for batch in batches(LABELLED, UNLABELLED, size=size, share=share):
        assert len(batch) == size
        assert sum(i in UNLABELLED for i in batch) == expected


def test_without_unlabelled_frames_a_batch_is_all_labelled():
    assert all(set(batch) <= set(LABELLED) for batch in batches(LABELLED, size=4, share=0.5))


def test_an_epoch_is_one_pass_without_a_smaller_batch():
    taken = [i for batch in batches(LABELLED, size=6) for i in batch]
    assert len(taken) == len(set(taken)) == 18
    taken = [i for batch in batches(LABELLED, UNLABELLED, size=4, share=0.5) for i in batch]
    assert sorted(i for i in taken if i in LABELLED) == list(LABELLED)


def test_longer_epochs_take_frames_equally_often():
    counts = Counter(i for batch in batches(LABELLED, size=4, steps=13) for i in batch)
    assert set(counts) == set(LABELLED)
    assert set(counts.values()) == {2, 3}


def test_order_depends_on_seed_and_epoch_alone():
    first = batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=1, epoch=2)
    assert first == batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=1, epoch=2)
    assert first != batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=2, epoch=2)
    assert first != batches(LABELLED, UNLABELLED, size=4, share=0.5, seed=1, epoch=3)


def test_unlabelled_frames_do_not_change_the_labelled_order():
    alone = [i for batch in batches(LABELLED, size=4) for i in batch]
    mixed = [i for batch in batches(LABELLED, UNLABELLED, size=4, share=0.5) for i in batch if i in LABELLED]
    assert alone == mixed


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [sorted(batch) for batch in batches([3, 4, 5], size=8)] == [[3, 4, 5]]
    parts = [batches([3, 4, 5], size=8, rank=r, world=2)[0] for r in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    assert set(parts[0] + parts[1]) == {3, 4, 5}


COMMON, RARE = (True, False, False), (False, True, False)


def test_every_class_is_drawn_equally_often():
    positions = list(range(10, 20))
    shows = np.array([COMMON] * 8 + [RARE] * 2)  # the third class is nowhere
    counts = Counter(balance_classes(positions, shows, seed=0))
    assert sum(counts[i] for i in range(10, 18)) == sum(counts[i] for i in range(18, 20)) == 5
    assert set(counts) <= set(positions)


def test_within_a_class_samples_are_drawn_equally_often():
    shows = np.array([COMMON] * 40 + [RARE] * 3)
    counts = Counter(balance_classes(range(43), shows, seed=3))
    assert {counts[i] for i in range(40)} <= {0, 1}
    assert {counts[i] for i in range(40, 43)} == {7}


def test_there_is_a_draw_per_pair_of_sample_and_class():
    shows = np.random.default_rng(0).random((50, 6)) < 0.5
    drawn = balance_classes(range(50), shows, seed=1)
    assert shows.sum() - 6 < len(drawn) <= shows.sum()
    assert drawn == balance_classes(range(50), shows, seed=1)


def test_samples_without_classes_stay_as_they_are():
    assert balance_classes([4, 5], np.zeros((2, 6), bool), seed=0) == [4, 5]


def test_a_class_is_present_where_its_mask_shows_it(small_root):
    dataset = FrameDataset(NuScenesDataset(small_root, "v1.0-mini"), "all", (), ImageConfig(), BevGrid(resolution=2.0))
    expected = [dataset.read_labels(i)[0].reshape(6, -1).max(axis=1) > 0 for i in (3, 0)]
    assert np.array_equal(find_classes(dataset, [3, 0]), expected)


FIRST, SECOND = "scene-0061", "scene-0103"


@pytest.fixture(scope="module")
def index(small_root) -> NuScenesDataset:
    return NuScenesDataset(small_root, "v1.0-mini")


@given(st.integers(1, 60), st.integers(1, 80))
def test_chosen_items_are_evenly_spaced(n, count):
    chosen = space_evenly(range(n), count)
    assert len(chosen) == min(n, count)
    assert chosen[0] == 0
    gaps = {b - a for a, b in zip(chosen, [*chosen[1:], n], strict=True)}
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_all_scenes_are_labelled_by_default(index):
    assert Selection.choose(index, DataConfig(), True) == Selection((FIRST, SECOND), ())


def test_the_rest_takes_part_unlabelled(index):
    data = DataConfig(labelled=0.5)
    assert Selection.choose(index, data, True) == Selection((FIRST,), (SECOND,))
    assert Selection.choose(index, data, False) == Selection((FIRST,), ())
    assert Selection.choose(index, replace(data, unlabelled="none"), True) == Selection((FIRST,), ())


def test_at_least_one_scene_is_labelled(index):
    assert Selection.choose(index, DataConfig(labelled=0.0), True).labelled == (FIRST,)


def test_labelled_scenes_are_never_among_the_unlabelled(index):
    data = DataConfig(train_scenes="mini_train", unlabelled="all")
    assert Selection.choose(index, data, True) == Selection((FIRST,), (SECOND,))
    assert Selection.choose(index, replace(data, unlabelled=FIRST), True) == Selection((FIRST,), ())


@pytest.fixture(scope="module")
def with_fleet(small_root, fleet_root) -> Dataset:
    return open_roots("nuscenes", [small_root], "v1.0-mini", [fleet_root])


def test_scenes_of_unlabelled_roots_are_never_among_the_labelled(with_fleet, small_root, fleet_root):
    data = DataConfig(train_root=str(small_root), unlabelled_root=str(fleet_root))
    ours, theirs = (tuple(f"{root}/{name}" for name in (FIRST, SECOND)) for root in ("root", "fleet"))
    assert Selection.choose(with_fleet, data, True) == Selection(ours, theirs)
    few = replace(data, labelled=0.5)
    assert Selection.choose(with_fleet, few, True) == Selection(ours[:1], (ours[1], *theirs))
    named = replace(few, train_scenes="mini_val")
    assert Selection.choose(with_fleet, named, True) == Selection(ours[1:], theirs[1:])
    assert Selection.choose(with_fleet, replace(few, unlabelled="none"), True) == Selection(ours[:1], ())
    assert Selection.choose(with_fleet, replace(data, unlabelled=theirs[0]), True) == Selection(ours, theirs[:1])


def test_a_missing_scene_is_named(index):
    with pytest.raises(BridgeTAError, match="scene-9"):
        Selection.choose(index, DataConfig(unlabelled="scene-9"), True)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=4, max_size=4),
    seed=st.integers(0, 9),
)
def test_parts_are_drawn_as_often_as_their_weights_say(sizes, weights, seed):
    starts = np.cumsum([0, *sizes])
    parts = [range(start, start + size) for start, size in zip(starts, sizes, strict=False)]
    weights = weights[: len(parts)]
    counts = Counter(weigh_parts(parts, weights, seed))
    shares = [sum(counts[i] for i in part) / weight for part, weight in zip(parts, weights, strict=True)]
    assert max(shares) - min(shares) <= max(1 / weight for weight in weights)  # whole samples only
    for part in parts:
        assert min(counts[i] for i in part) >= 1
        assert max(counts[i] for i in part) - min(counts[i] for i in part) <= 1


def test_a_part_without_samples_has_no_weight():
    assert weigh_parts([[1, 2], []], [1.0, 5.0], 0) == [1, 2]


def test_weights_that_would_repeat_a_root_for_ever_are_refused():
    with pytest.raises(BridgeTAError, match="repeat the 1 samples of root 2 2000000 times"):
        weigh_parts([[1, 2], [3]], [1e-3, 1e3], 0)
