"""Batch norms of a network on features that are not its own."""

from __future__ import annotations

import torch
from torch import nn

from bridgeta_core.distill.levels import freeze_running_statistics, use_running_statistics


def trained_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(2, momentum=0.5)
    norm(torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    return norm


def test_frozen_statistics_are_not_updated_but_batches_are_normalised_by_themselves():
    norm, x = trained_norm(), torch.randn(4, 2, 3, 3) + 5
    before = norm.running_mean.clone()
    with freeze_running_statistics(norm):
        y = norm(x)
    assert torch.equal(norm.running_mean, before)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    norm(x)
    assert not torch.equal(norm.running_mean, before)


def test_running_statistics_normalise_and_do_not_change():
    norm, x = trained_norm(), torch.randn(4, 2, 3, 3) + 5
    expected = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    before = norm.running_mean.clone()
    with use_running_statistics(nn.Sequential(norm)):
        torch.testing.assert_close(norm(x), expected)
    assert torch.equal(norm.running_mean, before)
    assert norm.training


def test_a_norm_in_eval_mode_stays_in_it():
    norm = trained_norm().eval()
    with use_running_statistics(norm):
        pass
    assert not norm.training
