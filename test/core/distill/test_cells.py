"""Cell weights: metric alignment of labels and features, and how classes share the weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.cells import AreaAverage, CellWeighting, draw_cells, shrink_weights, take_cells
from bridgeta_core.distill.distance import squared_distance
from bridgeta_core.geometry.grid import BevGrid

LABEL, FEATURE = BevGrid(-10, 10, -10, 10, 0.8), BevGrid(-12, 12, -12, 12, 1.5)
KINDS = ("balanced", "foreground", "uniform", "correct")


def labels_of(*cells: tuple[int, int, int], batch: int = 1) -> Labels:
    masks = torch.zeros(batch, 6, *LABEL.shape, dtype=torch.uint8)
    for k, row, column in cells:
        masks[:, k, row, column] = 1
    return Labels(masks, torch.ones(batch, 6, dtype=torch.bool))


def nothing_seen(batch: int = 1) -> torch.Tensor:
    return torch.full((batch, 6, *LABEL.shape), -5.0)


def test_a_label_corner_lands_in_the_same_feature_corner():
    masks = torch.zeros(LABEL.shape)
    masks[:4, -6:] = 1  # most negative y, largest x
    shares = AreaAverage(LABEL, FEATURE)(masks)
    rows, columns = shares.nonzero(as_tuple=True)
    x, y = FEATURE.centres()
    assert y[rows.numpy()].max() < -10 + 4 * 0.8 + 0.75
    assert x[columns.numpy()].min() > 10 - 6 * 0.8 - 0.75


def test_the_average_equals_a_supersampled_mean():
    rng = np.random.default_rng(0)
    masks = rng.random(LABEL.shape).astype(np.float32)
    fine = 150  # points per feature cell and axis
    n = FEATURE.shape[0]
    places = FEATURE.y_min + (np.arange(n * fine) + 0.5) * FEATURE.resolution / fine
    index = np.floor((places - LABEL.y_min) / LABEL.resolution).astype(int)
    valid = (index >= 0) & (index < LABEL.shape[0])
    sampled = np.where(np.outer(valid, valid), masks[np.ix_(index.clip(0, 24), index.clip(0, 24))], np.nan)
    with np.errstate(all="ignore"):
        blocks = sampled.reshape(n, fine, n, fine).transpose(0, 2, 1, 3).reshape(n, n, -1)
        count = np.isfinite(blocks).sum(axis=2)
        expected = np.nansum(blocks, axis=2) / np.maximum(count, 1)
    ours = AreaAverage(LABEL, FEATURE)(torch.from_numpy(masks)).numpy()
    assert np.abs(ours - expected)[count > 0.01 * fine**2].max() < 0.02


def test_features_beyond_the_labels_have_no_weight():
    inside = AreaAverage(LABEL, FEATURE).inside
    x, y = FEATURE.centres()
    expected = (np.abs(y) < 10)[:, None] & (np.abs(x) < 10)
    assert np.array_equal(inside.numpy() > 0, expected)
    for kind in KINDS:
        weights = CellWeighting(kind, LABEL, FEATURE)(labels_of((0, 0, 0)), nothing_seen())
        assert float(weights.feature[0][inside == 0].sum()) == 0


@given(st.integers(0, 2**31), st.sampled_from(KINDS))
@settings(max_examples=30)
def test_weights_are_not_negative_and_sum_to_one(seed, kind):
    g = torch.Generator().manual_seed(seed)
    masks = (torch.rand(2, 6, *LABEL.shape, generator=g) < torch.rand(2, 6, 1, 1, generator=g) ** 3).to(torch.uint8)
    known = torch.rand(2, 6, generator=g) < 0.7
    logits = torch.randn(2, 6, *LABEL.shape, generator=g)
    weights = CellWeighting(kind, LABEL, FEATURE)(Labels(masks, known), logits)
    for m in (weights.feature, weights.label):
        assert (m >= 0).all()
        torch.testing.assert_close(m.sum(dim=(1, 2)), torch.ones(2))


def test_u8_the_distance_counts_weighted_cells_only():
    m = torch.zeros(1, 4, 5)
    m[0, 2, 3] = 1
    a, c = torch.randn(2, 1, 3, 4, 5)
    expected = (a - c)[0, :, 2, 3].square().mean()
    torch.testing.assert_close(squared_distance(a, c, m), expected)


def test_rare_and_common_classes_get_the_same_weight():
    masks = torch.zeros(1, 6, *LABEL.shape, dtype=torch.uint8)
    masks[0, 0, 2:20, 2:20] = 1  # 324 cells
    masks[0, 5, 22, 3] = 1  # one cell
    labels = Labels(masks, torch.ones(1, 6, dtype=torch.bool))
    m = CellWeighting("balanced", LABEL, FEATURE)(labels, nothing_seen()).label
    assert float(m[0, 22, 3]) == pytest.approx(0.25, rel=1e-4)
    assert float(m[0, 2:20, 2:20].sum()) == pytest.approx(0.25, rel=1e-4)
    foreground = CellWeighting("foreground", LABEL, FEATURE)(labels, nothing_seen())
    assert float(foreground.label[0, 22, 3]) == pytest.approx(0.5, rel=1e-4)


def test_without_foreground_the_background_gets_all_weight():
    for kind in ("balanced", "foreground"):
        m = CellWeighting(kind, LABEL, FEATURE)(labels_of(), nothing_seen()).label
        torch.testing.assert_close(m, torch.full_like(m, 1 / m[0].numel()))


def test_correct_gives_no_weight_where_the_teacher_errs():
    labels = labels_of((0, 5, 5), (0, 5, 6))
    logits = nothing_seen()
    logits[0, 0, 5, 5] = 5.0  # sees one of the two, and one that is not there
    logits[0, 1, 9, 9] = 5.0
    m = CellWeighting("correct", LABEL, FEATURE)(labels, logits).label[0]
    assert float(m[5, 6]) == 0
    assert float(m[9, 9]) == 0
    assert float(m[5, 5]) > 0


def test_unknown_classes_come_from_the_teacher():
    logits = nothing_seen()
    logits[0, 2, 7, 8] = 5.0
    unknown = Labels(torch.zeros(1, 6, *LABEL.shape, dtype=torch.uint8), torch.zeros(1, 6, dtype=torch.bool))
    cells = CellWeighting("balanced", LABEL, FEATURE)
    torch.testing.assert_close(cells(unknown, logits).label, cells(labels_of((2, 7, 8)), nothing_seen()).label)


def test_cells_are_drawn_as_often_as_their_weight_says():
    weights = torch.tensor([[[0.0, 0.5, 0.0], [0.2, 0.0, 0.3]]])
    cells = draw_cells(weights, 20_000, step=1)[0]
    share = torch.bincount(cells, minlength=6) / 20_000
    assert share.tolist() == pytest.approx(weights.flatten().tolist(), abs=0.02)
    assert not share[weights.flatten() == 0].any()


def test_what_is_drawn_depends_on_the_step_and_not_on_the_rest_of_the_batch():
    weights = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    drawn = draw_cells(weights, 50, step=7)
    assert torch.equal(draw_cells(weights[2:], 50, step=7), drawn[2:])
    assert not torch.equal(draw_cells(weights, 50, step=8), drawn)


def test_the_cells_that_are_taken_are_those_at_their_places():
    features = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    taken = take_cells(features, torch.tensor([[7, 7], [19, 0]]))
    assert torch.equal(taken[0, 1], features[0, :, 1, 2])
    assert torch.equal(taken[1, 0], features[1, :, 3, 4])


def test_shrunk_weights_sum_to_one_and_stay_where_they_are():
    weights = torch.zeros(2, 8, 12)
    weights[0, 0, :] = 1 / 12
    weights[1, 6:, 10:] = 1 / 4
    shrunk = shrink_weights(weights, torch.Size([4, 6]))
    expected = torch.zeros(2, 4, 6)
    expected[0, 0, :] = 1 / 6
    expected[1, 3, 5] = 1
    torch.testing.assert_close(shrunk, expected)
    torch.testing.assert_close(shrink_weights(weights, torch.Size([8, 12])), weights)
