"""What is stated about the shipped weights, from the file that ships."""

from __future__ import annotations

import pytest

from bridgeta_core.deploy.scores import BASELINE, STUDENT, ShippedScores
from bridgeta_core.deploy.weights import SHIPPED, read_info


def test_the_scored_weights_ship_and_one_of_them_was_distilled():
    assert {STUDENT, BASELINE} <= SHIPPED.keys()
    origins = {name: read_info(name).provenance for name in (STUDENT, BASELINE)}
    assert "distill" in origins[STUDENT]
    assert "distill" not in origins[BASELINE]


def test_only_the_teacher_sets_their_training_apart():
    student, baseline = (read_info(name) for name in (STUDENT, BASELINE))
    assert student.model == baseline.model
    assert student.grid == baseline.grid
    for key in ("steps", "train_samples", "synthetic_data", "train"):
        assert student.provenance[key] == baseline.provenance[key]


def test_the_gain_is_described_on_unseen_towns():
    scores = ShippedScores.load()
    assert 0 < scores.baseline < 1
    assert 0 < scores.student < 1
    gain = 100 * (scores.student - scores.baseline)
    assert f"{gain:+.1f} points" in scores.describe_gain()
    assert "not seen" in scores.describe_gain()


@pytest.mark.parametrize(("student", "baseline", "gain"), [(0.3, 0.25, "+5.0"), (0.25, 0.3, "-5.0")])
def test_a_loss_is_described_as_a_loss(student, baseline, gain):
    assert f"gain of {gain} points" in ShippedScores(student, baseline, 200, "towns").describe_gain()
