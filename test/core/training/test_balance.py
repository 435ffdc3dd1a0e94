"""Class-balanced resampling."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bridgeta_core.config.experiment import ImageConfig
from bridgeta_core.data.dataset import FrameDataset
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.training.balance import balanced, presence

COMMON, RARE = (True, False, False), (False, True, False)


def test_every_class_is_drawn_equally_often_from_the_samples_that_show_it():
    positions = list(range(10, 20))
    shows = np.array([COMMON] * 8 + [RARE] * 2)  # the third class is nowhere
    counts = Counter(balanced(positions, shows, seed=0))
    assert sum(counts[i] for i in range(10, 18)) == sum(counts[i] for i in range(18, 20)) == 5
    assert set(counts) <= set(positions)


def test_within_a_class_no_sample_is_drawn_more_than_once_more_than_another():
    shows = np.array([COMMON] * 40 + [RARE] * 3)
    counts = Counter(balanced(range(43), shows, seed=3))
    assert {counts[i] for i in range(40)} <= {0, 1}
    assert {counts[i] for i in range(40, 43)} == {7}


def test_there_are_as_many_draws_as_pairs_of_sample_and_class():
    shows = np.random.default_rng(0).random((50, 6)) < 0.5
    drawn = balanced(range(50), shows, seed=1)
    assert shows.sum() - 6 < len(drawn) <= shows.sum()
    assert drawn == balanced(range(50), shows, seed=1)


def test_samples_without_any_class_stay_when_there_is_nothing_to_balance():
    assert balanced([4, 5], np.zeros((2, 6), bool), seed=0) == [4, 5]


def test_a_class_is_present_where_its_mask_shows_it(small_root):
    dataset = FrameDataset(small_root, "v1.0-mini", "all", (), ImageConfig(), BevGrid(resolution=2.0))
    expected = [dataset.labels(i)[0].reshape(6, -1).max(axis=1) > 0 for i in (3, 0)]
    assert np.array_equal(presence(dataset, [3, 0]), expected)
