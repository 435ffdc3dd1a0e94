"""The worst samples are those with the lowest mean IoU, and their picture shows them in that order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import ImageConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.evaluation import worst as module
from bridgeta_core.evaluation.evaluate import evaluate
from bridgeta_core.evaluation.worst import WorstSamples
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid

THRESHOLDS = (0.5, 0.4, 0.45, 0.35, 0.6, 0.5)


def compute_miou(probabilities, labels, known):
    """Cell by cell, for one sample."""
    values = []
    for c in range(6):
        predicted, there = probabilities[c] >= np.float32(THRESHOLDS[c]), labels[c] > 0
        if known[c] and there.any():
            values.append((predicted & there).sum() / (predicted | there).sum())
    return np.mean(values) if values else None


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_the_samples_kept_are_those_with_the_lowest_iou(seed, count, most):
    rng, worst, expected = np.random.default_rng(seed), WorstSamples(THRESHOLDS, most), {}
    for position in range(count):
        probabilities = rng.random((6, 4, 5), dtype=np.float32)
        labels = (rng.random((6, 4, 5)) < rng.choice([0, 0.3])).astype(np.uint8)
        known = rng.random(6) < 0.8
        worst.add(position, probabilities, labels, known)
        miou = compute_miou(probabilities, labels, known)
        if miou is not None:
            expected[position] = miou
    ranked = sorted(expected, key=lambda position: (expected[position], position))
    assert [sample.position for sample in worst.samples] == ranked[:most]
    assert [sample.miou for sample in worst.samples] == pytest.approx([expected[p] for p in ranked[:most]])


@pytest.fixture
def frames(small_root):
    grid = BevGrid(-10.0, 10.0, -10.0, 10.0, 0.5)
    return FrameDataset(NuScenesDataset(small_root, "v1.0-mini"), "all", ("CAM_FRONT",), ImageConfig(48, 32), grid)


def test_an_evaluation_draws_its_worst_samples_in_order(frames, monkeypatch):
    captions = []
    plain = module.add_caption
    monkeypatch.setattr(module, "add_caption", lambda picture, text: captions.append(text) or plain(picture, text))
    calls = iter(range(4))

    def predict(batch):
        """Be right in all samples but the third, and nearly in the second."""
        found = batch.labels.float()
        for row in found:
            match next(calls):
                case 1:
                    row[:, :4] = 0
                case 2:
                    row[:] = 0
        return found

    worst = WorstSamples(THRESHOLDS, 2)
    report = evaluate(predict, frames, "labels", workers=0, batch_size=2, worst=worst)
    assert [sample.position for sample in worst.samples] == [2, 1]
    named = [text for text in captions if text.startswith("mean IoU")]
    assert [text.rsplit(" ", 1)[1] for text in named] == [frames.sample(i).token for i in (2, 1)]
    assert named[0].startswith("mean IoU 0.0 %")
    assert report.worst is not None
    assert report.worst.shape[2] == 3


def test_without_labels_there_is_no_picture(frames):
    learned = [False] * len(CLASS_NAMES)
    worst = WorstSamples(THRESHOLDS)
    report = evaluate(lambda b: b.labels.float(), frames, "labels", workers=0, learned=learned, worst=worst)
    assert report.worst is None
