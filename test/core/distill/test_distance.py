"""Distances of logits."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.distill.distance import bernoulli_kl, brier, jensen_shannon, logit_divergence


def test_distances_vanish_on_agreement_and_are_always_finite():
    z = torch.linspace(-60, 60, 25).view(1, 1, 5, 5).requires_grad_()
    m = torch.full((1, 5, 5), 1 / 25)
    for distance in (brier, jensen_shannon):
        assert distance(z, z.detach(), m, 2.0).item() == pytest.approx(0, abs=1e-6)
        value = distance(z, -z.detach(), m, 2.0)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(z.grad).all()
    assert torch.isfinite(bernoulli_kl(z, -z)).all()


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_logit_distillation_averages_cells_and_sums_classes(tau):
    t, s = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    p, q = torch.sigmoid(t / tau), torch.sigmoid(s / tau)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    expected = tau**2 * divergence.sum() / (2 * 4 * 5)
    assert logit_divergence(t, s, tau).item() == pytest.approx(expected.item(), rel=1e-5)
