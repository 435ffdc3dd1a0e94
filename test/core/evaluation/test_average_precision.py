from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bridgeta_core.evaluation.average_precision import (
    BINS,
    ProbabilityHistogram,
    compute_average_precision,
    compute_curves,
)
from bridgeta_core.geometry.classes import CLASSES


def count(probabilities, labels, known=None):
    histogram = ProbabilityHistogram()
    known = torch.ones(len(labels), len(CLASSES), dtype=torch.bool) if known is None else known
    histogram.update(probabilities, labels, known)
    return histogram.counts.numpy()


def test_equals_scikit_learn_for_probabilities_of_the_bins():
    metrics = pytest.importorskip("sklearn.metrics")
    random = torch.Generator().manual_seed(0)
    probabilities = torch.randint(0, BINS, (2, len(CLASSES), 12, 9), generator=random) / BINS
    labels = (torch.rand(probabilities.shape, generator=random) < probabilities).to(torch.uint8)
    known = torch.tensor([[True] * 6, [True, False] * 3])
    precision = compute_average_precision(count(probabilities, labels, known))
    for c in range(len(CLASSES)):
        samples = known[:, c]
        truth, scores = labels[samples, c].flatten().numpy(), probabilities[samples, c].flatten().numpy()
        assert precision[c] == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-12)


def test_a_constant_has_the_share_of_the_positives():
    labels = torch.zeros(1, len(CLASSES), 4, 5)
    labels[..., 0] = 1
    np.testing.assert_allclose(compute_average_precision(count(torch.full(labels.shape, 0.3), labels)), 1 / 5)


def test_a_perfect_order_scores_one_at_any_level():
    labels = torch.zeros(1, len(CLASSES), 4, 5)
    labels[..., 0] = 1
    for true, false in ((1.0, 0.0), (0.02, 0.01)):
        probabilities = torch.where(labels > 0, true, false)
        np.testing.assert_array_equal(compute_average_precision(count(probabilities, labels)), 1)


def test_a_class_without_positives_is_not_scored():
    empty = torch.zeros(1, len(CLASSES), 4, 5)
    assert all(math.isnan(value) for value in compute_average_precision(count(empty + 0.5, empty)))


def test_curves_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(3)
    levels = random.integers(0, BINS, 500)
    labels = (random.random(500) < levels / BINS).astype(int)
    counts = np.zeros((BINS, 2), dtype=int)
    np.add.at(counts, (levels, labels), 1)
    precision, recall, iou = compute_curves(counts)
    expected = metrics.precision_recall_curve(labels, levels / BINS)
    places = (expected[2] * BINS).astype(int)
    np.testing.assert_allclose(precision[places], expected[0][:-1], rtol=1e-12)
    np.testing.assert_allclose(recall[places], expected[1][:-1], rtol=1e-12)
    for place in (0, 100, 200):
        np.testing.assert_allclose(iou[place], metrics.jaccard_score(labels, levels >= place), rtol=1e-12)


def test_a_class_without_labels_has_no_curves():
    counts = np.zeros((BINS, 2), dtype=int)
    counts[3, 0] = 5
    _, recall, iou = compute_curves(counts)
    assert np.isnan(recall).all()
    assert np.isnan(iou).all()
