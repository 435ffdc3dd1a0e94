"""Heads beside the networks: logits on the label grid, in the right place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bridgeta_core.distill.base import Example, Labels
from bridgeta_core.distill.dense import DenseHead, fit_head, list_stage_widths


def test_before_training_every_class_has_the_prior_of_the_networks_heads(bench):
    head = DenseHead(nn.Identity(), 4, bench.student)
    nn.init.zeros_(head.classify.weight)
    logits = head(torch.rand(2, 4, *bench.student.bev_grid.shape))
    assert logits.shape == (2, 6, *bench.student.grid.shape)
    assert torch.sigmoid(logits).mean().item() == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("shrink", [1, 2, 4])
def test_a_corner_of_the_features_is_the_same_corner_of_the_labels(bench, shrink):
    rows, columns = bench.student.bev_grid.shape
    features = torch.zeros(1, 1, rows // shrink, columns // shrink)
    features[0, 0, : rows // shrink // 2, columns // shrink // 2 :] = 1  # right of the vehicle and ahead of it
    head = DenseHead(nn.Identity(), 1, bench.student)
    nn.init.ones_(head.classify.weight)
    logits = head(features)[0, 0] - head(torch.zeros_like(features))[0, 0]
    y, x = bench.student.grid.shape
    quarters = logits[: y // 2 - 2, : x // 2 - 2], logits[: y // 2 - 2, x // 2 + 3 :]
    below = logits[y // 2 + 3 :, : x // 2 - 2], logits[y // 2 + 3 :, x // 2 + 3 :]
    assert quarters[1].mean() > 0.9
    assert max(part.mean() for part in (quarters[0], *below)) < 0.1


def test_the_widths_are_those_of_the_stages(bench):
    for network in (bench.student, bench.teacher):
        assert list_stage_widths(network) == [8, 8]
    bench.student_taps()
    assert [stage.shape[1] for stage in bench.stages] == list_stage_widths(bench.student)


def test_a_fitted_head_reads_what_the_labels_say_and_is_frozen(bench):
    """Features that show the labels themselves are read almost without an error; another input gives another head."""
    size = bench.student.bev_grid.shape
    shown = torch.nn.functional.interpolate(bench.labels.masks.float(), size=size, mode="area")
    taps = bench.teacher_taps()._replace(F=shown)
    head = DenseHead(nn.BatchNorm2d(6), 6, bench.student)
    fit_head(head, [Example(taps, bench.labels)], lambda example: example.taps.F, epochs=200, rate=0.1)
    right = (head(shown) > 0) == (bench.labels.masks > 0)
    assert right.float().mean() > 0.95
    assert not head.training
    assert not [p for p in head.parameters() if p.requires_grad]


def test_frames_without_labels_fit_no_weight(bench):
    head = DenseHead(nn.Identity(), 8, bench.student)
    before = head.classify.weight.clone()
    unknown = Labels(bench.labels.masks, torch.zeros_like(bench.labels.known))
    example = Example(bench.teacher_taps(), unknown)
    fit_head(head, [example], lambda example: example.taps.F, epochs=1, rate=1e-9)
    torch.testing.assert_close(head.classify.weight, before)
