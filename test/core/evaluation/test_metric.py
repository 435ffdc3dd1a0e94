from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.evaluation.metric import RANGES, THRESHOLDS, MapIoU, format_threshold
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-52, 52, -40, 52, 4.0)
SHAPE = (len(CLASSES), *GRID.shape)


def scored(probabilities, masks, known=None):
    metric = MapIoU(GRID)
    known = torch.ones(len(masks), len(CLASSES), dtype=torch.bool) if known is None else known
    metric.update(probabilities, masks, known)
    return metric.result()


def random_batch(seed, samples=2):
    random = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(samples, *SHAPE, generator=random)
    masks = (torch.rand(samples, *SHAPE, generator=random) < 0.4).to(torch.uint8)
    known = torch.rand(samples, len(CLASSES), generator=random) < 0.7
    return probabilities, masks, known


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_equals_counting_every_cell(seed):
    probabilities, masks, known = random_batch(seed)
    iou = scored(probabilities, masks, known)
    p, m, distance = probabilities.numpy(), masks.numpy().astype(bool), GRID.ranges()
    for c in range(len(CLASSES)):
        samples = known[:, c].numpy()
        truth = m[samples, c]
        by_threshold = []
        for t in THRESHOLDS:
            predicted = p[samples, c] >= np.float32(t)
            union = (predicted | truth).sum()
            by_threshold.append((predicted & truth).sum() / union if truth.any() else math.nan)
        if not truth.any():
            assert math.isnan(iou.best[c])
            assert math.isnan(iou.threshold[c])
            continue
        assert iou.best[c] == pytest.approx(max(by_threshold))
        assert iou.half[c] == pytest.approx(by_threshold[3])
        assert iou.threshold[c] == THRESHOLDS[int(np.argmax(by_threshold))]
        predicted = p[samples, c] >= np.float32(iou.threshold[c])
        for r, (near, far) in enumerate(RANGES):
            ring = (distance >= near) & (distance < far)
            expected = (predicted & truth)[:, ring].sum() / (predicted | truth)[:, ring].sum()
            assert iou.by_range[c, r] == pytest.approx(expected)


def test_batches_and_processes_add_up():
    whole, parts, other = MapIoU(GRID), MapIoU(GRID), MapIoU(GRID)
    probabilities, masks, known = random_batch(1, samples=6)
    whole.update(probabilities, masks, known)
    parts.update(probabilities[:4], masks[:4], known[:4])
    other.update(probabilities[4:], masks[4:], known[4:])
    parts.counts = parts.counts + other.counts
    np.testing.assert_array_equal(parts.result().best, whole.result().best)
    whole.reset()
    assert not whole.counts.any()


@pytest.mark.parametrize(
    ("true", "false", "shown"), [(0.36, 0.2, "<=0.35"), (0.52, 0.42, "0.45"), (0.9, 0.62, ">=0.65")]
)
def test_a_best_threshold_at_an_end_is_marked(true, false, shown):
    masks = torch.zeros(1, *SHAPE)
    masks[:, :, :8] = 1
    probabilities = torch.where(masks > 0, true, false)
    probabilities[:, :, 7] = 0.0  # missed at any threshold, so that a better IoU is possible
    iou = scored(probabilities, masks)
    assert [format_threshold(t, end) for t, end in zip(iou.threshold, iou.at_end, strict=True)] == [shown] * 6
    marks = [values["threshold_at_end"] for values in iou.to_mapping()["classes"].values()]
    assert marks == [shown[0] in "<>"] * 6


def test_no_threshold_betters_a_perfect_prediction():
    masks = random_batch(3)[1]
    assert not scored(masks.float(), masks).at_end.any()


def test_a_perfect_prediction_scores_one_and_its_opposite_zero():
    _, masks, known = random_batch(2)
    known[:] = True
    assert scored(masks.float(), masks, known).miou == 1
    assert scored(1 - masks.float(), masks, known).miou == 0


def test_a_probability_at_a_threshold_reaches_it():
    masks = torch.ones(1, *SHAPE, dtype=torch.uint8)
    assert scored(torch.full((1, *SHAPE), 0.5), masks).half.tolist() == [1.0] * 6
    assert scored(torch.full((1, *SHAPE), 0.4999), masks).half.tolist() == [0.0] * 6


def test_unknown_and_absent_classes_are_named_not_scored():
    probabilities = torch.full((1, *SHAPE), 0.9)
    masks = torch.ones(1, *SHAPE, dtype=torch.uint8)
    masks[:, 1] = 0
    known = torch.tensor([[True, True, False, True, True, True]])
    iou = scored(probabilities, masks, known)
    assert np.isnan(iou.best).tolist() == [False, True, True, False, False, False]
    assert iou.miou == 1
    assert iou.notes == (
        "not scored, unknown to these maps or weights: walkway",
        "not scored, nowhere in these labels: ped_crossing",
    )


def test_a_class_unknown_in_one_city_is_scored_in_the_other():
    masks = torch.ones(2, *SHAPE, dtype=torch.uint8)
    probabilities = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    known = torch.tensor([[False] * 6, [True] * 6])
    assert scored(probabilities, masks, known).miou == 1


def test_corners_count_in_the_whole_but_in_no_range():
    masks = torch.from_numpy(GRID.ranges() > 50)[None, None].expand(1, *SHAPE).to(torch.uint8)
    iou = scored(masks.float(), masks)
    assert iou.miou == 1
    assert np.isnan(iou.by_range).all()


def test_nothing_seen_gives_no_score():
    iou = MapIoU(GRID).result()
    assert math.isnan(iou.miou)
    assert math.isnan(iou.miou_half)


def test_values_that_are_not_finite_are_an_error():
    probabilities, masks, known = random_batch(0)
    probabilities[0, 0, 0, 0] = math.nan
    with pytest.raises(BridgeTAError, match="not finite"):
        scored(probabilities, masks, known)
