"""Weights whose best threshold is 0.5: the same order of probabilities, moved by class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import GRID

from bridgeta_core.deploy.backends.graphs import hash_student
from bridgeta_core.deploy.teacher_weights import load_teacher, save_teacher
from bridgeta_core.deploy.weights import load_student, read_info, read_int8_graphs, save_weights
from bridgeta_core.evaluation.average_precision import BINS
from bridgeta_core.evaluation.calibrate import calibrate_weights, find_thresholds
from bridgeta_core.evaluation.evaluate import evaluate_weights
from bridgeta_core.evaluation.quantise import quantise_weights
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError

VERSION = "v1.0-mini"


def spread(network):
    """Make the logits of a random network differ from cell to cell."""
    with torch.no_grad():
        network.head.classify.weight.normal_(std=30)
        network.head.classify.bias.fill_(-4)
    return network


@pytest.fixture(scope="module")
def weights(two_scenes, tmp_path_factory):
    """A random student."""
    torch.manual_seed(0)
    student = spread(Student(two_scenes().model, GRID).eval())
    path = tmp_path_factory.mktemp("unsure") / "student.safetensors"
    provenance = {"steps": 7, "validation": {"miou": 0.1, "thresholds": {"divider": 0.35}}}
    save_weights(path, student, ["CAM_FRONT", "CAM_BACK"], provenance)
    return path


@pytest.fixture(scope="module")
def calibrated(weights, small_root):
    path = weights.with_name("calibrated.safetensors")
    return path, calibrate_weights(weights, small_root, VERSION, path)


def test_the_best_iou_before_is_that_at_one_half_afterwards(weights, calibrated, small_root):
    path, result = calibrated
    moved = [t is not None for t in result.thresholds]
    assert any(moved)
    after = evaluate_weights(path, small_root, VERSION)
    for c in np.flatnonzero(moved):
        assert result.half[c] <= result.best[c]
        assert after.iou.half[c] == pytest.approx(result.best[c], abs=2e-3)  # cells at the edge of a bin may round


def test_only_the_last_bias_changes_and_by_the_logit_of_the_threshold(weights, calibrated):
    path, result = calibrated
    before, after = (load_student(p)[0].state_dict() for p in (weights, path))
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"head.classify.bias"}
    for old, new, t in zip(
        *(s["head.classify.bias"].tolist() for s in (before, after)), result.thresholds, strict=True
    ):
        assert old - new == pytest.approx(0 if t is None else np.log(t / (1 - t)), abs=1e-6)


def test_average_precision_stays(weights, calibrated, small_root):
    before, after = (evaluate_weights(p, small_root, VERSION).figures for p in (weights, calibrated[0]))
    np.testing.assert_allclose(before.values["average_precision"], after.values["average_precision"], atol=0.01)


def test_the_file_says_what_was_done(weights, calibrated, small_root):
    path, result = calibrated
    info = read_info(path)
    assert info.provenance["steps"] == 7
    assert info.provenance["validation"]["miou"] == 0.1
    about = info.provenance["calibration"]
    assert (about["root"], about["samples"]) == (small_root.name, result.samples)
    assert list(about["thresholds"].values()) == list(result.thresholds)
    before = read_info(weights).thresholds
    expected = [0.5 if t else old for t, old in zip(result.thresholds, before, strict=True)]
    assert list(info.thresholds) == expected


def test_calibrating_again_gains_nothing_more(calibrated, small_root, tmp_path):
    again = calibrate_weights(calibrated[0], small_root, VERSION, tmp_path / "again.safetensors")
    for before, t, best, half in zip(calibrated[1].thresholds, again.thresholds, again.best, again.half, strict=True):
        if before is not None and t is not None:
            assert half == pytest.approx(best, abs=0.01)


def test_a_teacher_is_calibrated_too(two_scenes, small_root, tmp_path):
    torch.manual_seed(0)
    settings = two_scenes()
    teacher = spread(Teacher(settings.teacher, settings.model, GRID))
    save_teacher(tmp_path / "teacher.safetensors", teacher, ["CAM_FRONT", "CAM_BACK"], {})
    out = tmp_path / "calibrated.safetensors"
    result = calibrate_weights(tmp_path / "teacher.safetensors", small_root, VERSION, out)
    network, info = load_teacher(out)
    moved = network.head.classify.bias - teacher.head.classify.bias
    assert [bool(x) for x in moved] == [t is not None for t in result.thresholds]
    assert info.teacher == settings.teacher


def test_int8_graphs_hold_the_old_bias_and_are_left_out(weights, small_root, tmp_path):
    int8, out = tmp_path / "int8.safetensors", tmp_path / "out.safetensors"
    quantise_weights(weights, small_root, VERSION, int8, samples=2)
    calibrate_weights(int8, small_root, VERSION, out)
    info = read_info(out)
    assert "int8" not in info.provenance
    assert read_int8_graphs(out, hash_student(load_student(out)[0])) is None


def test_the_output_is_not_the_input(weights, small_root):
    with pytest.raises(BridgeTAError, match="input"):
        calibrate_weights(weights, small_root, VERSION, weights)


def cells(*rows):
    counts = np.zeros((len(rows), BINS, 2), dtype=np.int64)
    for counted, row in zip(counts, rows, strict=True):
        for probability, label, count in row:
            counted[int(probability * BINS), label] += count
    return counts


def test_a_class_without_labels_or_without_a_better_threshold_is_left_as_it_is():
    found = find_thresholds(
        cells(
            [(0.2, 0, 90), (0.3, 1, 10)],  # separable above 0.25
            [(0.2, 0, 100)],  # no label
            [(0.2, 1, 10), (0.3, 0, 90)],  # the wrong way round: everywhere is best
        ),
        samples=1,
    )
    assert found.thresholds[1:] == (None, None)
    assert 0.2 < found.thresholds[0] <= 0.3
    assert found.best[0] == 1
    assert np.isnan(found.best[1])
    assert found.best[2] == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 1), st.integers(1, 50)), min_size=1, max_size=20))
def test_no_other_threshold_is_better(rows):
    counts = cells(rows)
    found = find_thresholds(counts, samples=1)
    positives = counts[0, :, 1].sum()
    if not positives:
        assert found.thresholds == (None,)
        return
    by_edge = [counts[0, edge:, 1].sum() / (positives + counts[0, edge:, 0].sum()) for edge in range(BINS)]
    assert found.best[0] == pytest.approx(max(by_edge))
    if found.thresholds[0] is not None:
        assert by_edge[round(found.thresholds[0] * BINS)] == pytest.approx(max(by_edge))
