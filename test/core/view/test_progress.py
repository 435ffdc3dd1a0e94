"""The picture of a training shows truth, before and now side by side, a row per sample."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.view.bev import OPACITIES, tint
from bridgeta_core.view.progress import WatchedSample, draw_progress

GRID = BevGrid(-10, 10, -10, 10, 0.5)
DRIVABLE = CLASS_NAMES.index("drivable_area")
COLOUR = tint(CLASSES[DRIVABLE].colour, OPACITIES[-1])
THRESHOLDS = (0.4,) * 6


def layers(value):
    result = np.zeros((6, *GRID.shape), dtype=np.uint8)
    result[DRIVABLE] = value
    return result


def share(picture, third):
    width = picture.shape[1] // 3
    return (picture[:, third * width : (third + 1) * width] == COLOUR).all(axis=2).mean()


@pytest.mark.parametrize(("before", "drawn"), [(None, False), (layers(0), False), (layers(100), True)])
def test_each_column_shows_its_own(before, drawn):
    picture = draw_progress(
        [WatchedSample("a", layers(1), layers(100), before)], GRID, THRESHOLDS, "epoch 2", "epoch 1"
    )
    assert share(picture, 0) > 0.5
    assert bool(share(picture, 1) > 0.5) is drawn
    assert share(picture, 2) > 0.5


def test_probabilities_are_in_per_cent():
    picture = draw_progress([WatchedSample("a", layers(1), layers(39))], GRID, THRESHOLDS, "now", "before")
    assert share(picture, 2) == 0


def test_every_sample_has_a_row():
    sample = WatchedSample("a", layers(1), layers(100))
    heights = [draw_progress([sample] * n, GRID, THRESHOLDS, "now", "before").shape[0] for n in (1, 2, 3)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 200
