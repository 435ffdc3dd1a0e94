"""Fused predictions are those of all samples of a scene so far, each at its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bridgeta_core.config.experiment import ImageConfig, LiftConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.evaluation.fused import Fusion
from bridgeta_core.evaluation.seen import SeenCells
from bridgeta_core.geometry.grid import BevGrid

GRID = BevGrid(-40, 40, -40, 40, 1.0)
SHAPE = (6, *GRID.shape)


@pytest.fixture
def drive(small_root):
    """A fusion, the cells in view, and a sample with a copy of it in which the ego has moved by whole cells."""
    image = ImageConfig(48, 32, margin=1.0)
    frames = FrameDataset(NuScenesDataset(small_root, "v1.0-mini"), "all", ("CAM_FRONT",), image, GRID)
    cells = SeenCells(frames, LiftConfig())

    def place(x, y, scene="first"):
        pose = np.eye(4)
        pose[:2, 3] = x, y
        sample = frames.sample(0)
        records = {name: replace(record, global_T_ego=pose) for name, record in sample.records.items()}
        return replace(sample, records=records, scene=scene)

    return Fusion(GRID, cells), cells.find_in_view(frames.sample(0)), place


def test_a_single_sample_stays_as_it_is(drive):
    fusion, _, place = drive
    probabilities = np.random.default_rng(0).uniform(0.05, 0.95, SHAPE).astype(np.float32)
    np.testing.assert_allclose(fusion.add(place(100, 200), probabilities), probabilities, rtol=1e-4)


def test_log_odds_are_averaged_where_both_look(drive):
    fusion, in_view, place = drive
    fusion.add(place(0, 0), np.full(SHAPE, 0.7, np.float32))
    fused = fusion.add(place(10, 0), np.full(SHAPE, 0.6, np.float32))
    before = np.zeros_like(in_view)
    before[:, :-10] = in_view[:, 10:]
    odds = np.sqrt(0.6 / 0.4 * (0.7 / 0.3))
    inner = erode(in_view) & erode(before)
    assert inner.any()
    np.testing.assert_allclose(fused[:, inner], odds / (1 + odds), rtol=1e-3)


def test_what_was_only_seen_before_keeps_what_was_said_then(drive):
    fusion, in_view, place = drive
    fusion.add(place(0, 0), np.full(SHAPE, 0.7, np.float32))
    fused = fusion.add(place(10, 0), np.full(SHAPE, 0.2, np.float32))
    before = np.zeros_like(in_view)
    before[:, :-10] = in_view[:, 10:]
    only = erode(before) & ~in_view & ~dilate(in_view)
    assert only.any()
    np.testing.assert_allclose(fused[:, only], 0.7, rtol=1e-3)
    np.testing.assert_allclose(fused[:, ~before & ~in_view], 0.2, rtol=1e-5)


def test_scenes_are_not_mixed(drive):
    fusion, _, place = drive
    fusion.add(place(0, 0), np.full(SHAPE, 0.9, np.float32))
    fused = fusion.add(place(0, 0, "second"), np.full(SHAPE, 0.3, np.float32))
    np.testing.assert_allclose(fused, 0.3, rtol=1e-4)


def erode(cells):
    return ~dilate(~cells)


def dilate(cells):
    padded = np.pad(cells, 1)
    rows, columns = cells.shape
    return np.logical_or.reduce([padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3)])
