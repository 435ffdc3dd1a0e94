from __future__ import annotations

import numpy as np
import pytest
import torch

from bridgeta_core.evaluation.bootstrap import draw_scenes
from bridgeta_core.evaluation.figures import HALF, IOU, PRECISION, SceneCounts
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid

GRID = BevGrid(-12, 12, -12, 12, 4.0)
SHAPE = (len(CLASSES), *GRID.shape)
KNOWN = torch.ones(1, len(CLASSES), dtype=torch.bool)


def random_scenes(seed, scenes=5):
    random = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(scenes, *SHAPE, generator=random)
    return probabilities, (torch.rand(scenes, *SHAPE, generator=random) < probabilities).to(torch.uint8)


def count(probabilities, labels):
    counts = SceneCounts(GRID)
    for scene, (p, m) in enumerate(zip(probabilities, labels, strict=True)):
        counts.update(str(scene), p[None], m[None], KNOWN)
    return counts.result()


def test_scenes_add_up_to_the_metric_of_all():
    probabilities, labels = random_scenes(0)
    figures, metric = count(probabilities, labels), MapIoU(GRID)
    metric.update(probabilities, labels, KNOWN.expand(5, -1))
    np.testing.assert_array_equal(figures.iou.best, metric.result().best)
    np.testing.assert_array_equal(figures.iou.by_range, metric.result().by_range)
    assert figures.scenes == 5


def test_a_resample_scores_as_a_dataset_of_its_scenes():
    probabilities, labels = random_scenes(1)
    resampled = count(probabilities, labels).resampled
    for i in range(0, 1000, 199):
        drawn = np.repeat(np.arange(5), draw_scenes(5)[i].astype(int))
        expected = count(probabilities[drawn], labels[drawn]).values
        for kind in (IOU, HALF, PRECISION):
            np.testing.assert_allclose(resampled[kind][i], expected[kind], rtol=1e-12)


def test_a_difference_is_paired_by_scene():
    probabilities, labels = random_scenes(2)
    figures, other = count(probabilities, labels), count(probabilities * 0.9, labels)
    assert (figures.intervals(IOU, figures) == 0).all()
    values = figures.resampled[HALF][:, -1] - other.resampled[HALF][:, -1]
    np.testing.assert_allclose(figures.intervals(HALF, other)[-1], np.quantile(values, (0.025, 0.975)))
    assert figures.subtract(other)["miou_at_0.5"] == pytest.approx(
        figures.iou.miou_half - other.iou.miou_half, abs=1e-6
    )


def test_a_mean_leaves_out_resamples_that_lack_a_class():
    probabilities, labels = random_scenes(3)
    labels[1:, 0] = 0  # the first class is in the first scene alone
    labels[:, 1] = 0  # the second nowhere
    means = count(probabilities, labels).resampled[IOU][:, -1]
    np.testing.assert_array_equal(np.isnan(means), draw_scenes(5)[:, 0] == 0)


def test_no_class_at_all_has_no_interval():
    probabilities, labels = random_scenes(4)
    figures = count(probabilities, labels * 0)
    assert np.isnan(figures.intervals(IOU)).all()
    assert figures.to_mapping()["miou_interval"] is None
