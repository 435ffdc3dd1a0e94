"""Which scenes lend their labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import DataConfig
from bridgeta_core.data.nuscenes.index import SampleIndex
from bridgeta_core.training.scenes import Selection, evenly
from bridgeta_core.utils.errors import BridgeTAError

FIRST, SECOND = "scene-0061", "scene-0103"


@pytest.fixture(scope="module")
def index(small_root) -> SampleIndex:
    return SampleIndex.open(small_root, "v1.0-mini")


@given(st.integers(1, 60), st.integers(1, 80))
def test_chosen_items_differ_and_lie_at_even_distances(n, count):
    chosen = evenly(range(n), count)
    assert len(chosen) == min(n, count)
    assert chosen[0] == 0
    gaps = {b - a for a, b in zip(chosen, [*chosen[1:], n], strict=True)}
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_all_scenes_lend_their_labels_by_default(index):
    assert Selection.of(index, DataConfig(), True) == Selection((FIRST, SECOND), ())


def test_the_rest_takes_part_without_labels(index):
    data = DataConfig(labelled=0.5)
    assert Selection.of(index, data, True) == Selection((FIRST,), (SECOND,))
    assert Selection.of(index, data, False) == Selection((FIRST,), ())
    assert Selection.of(index, replace(data, unlabelled="none"), True) == Selection((FIRST,), ())


def test_at_least_one_scene_lends_its_labels(index):
    assert Selection.of(index, DataConfig(labelled=0.0), True).labelled == (FIRST,)


def test_unlabelled_scenes_may_be_named_and_never_show_labels_that_are_used(index):
    data = DataConfig(train_scenes="mini_train", unlabelled="all")
    assert Selection.of(index, data, True) == Selection((FIRST,), (SECOND,))
    assert Selection.of(index, replace(data, unlabelled=FIRST), True) == Selection((FIRST,), ())


def test_a_scene_that_is_not_there_is_named(index):
    with pytest.raises(BridgeTAError, match="scene-9"):
        Selection.of(index, DataConfig(unlabelled="scene-9"), True)
