from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bridgeta_core.evaluation.average_precision import BINS, ProbabilityHistogram, compute_average_precision
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
