"""Heads beside the networks: logits on the label grid, in the right place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bridgeta_core.distill.dense import DenseHead, list_stage_widths


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
