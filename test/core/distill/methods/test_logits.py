"""Logit distillation (R1), by what its formula says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional


def test_at_tau_1_it_is_cross_entropy_minus_entropy(bench):
    distiller = bench.distiller("logits", "logits.tau=1")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    p = torch.sigmoid(t.Z.double())
    cross = functional.binary_cross_entropy_with_logits(s.Z.double(), p, reduction="none")
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    expected = (cross - entropy).mean(dim=(0, 2, 3)).sum()
    assert bench.losses(distiller, t, s)["kd/Z"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_the_gradient_is_the_difference_of_probabilities(bench, tau):
    distiller = bench.distiller("logits", f"logits.tau={tau}")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    bench.losses(distiller, t, s)["kd/Z"].backward()
    cells = s.Z.shape[0] * s.Z.shape[2] * s.Z.shape[3]
    expected = tau * (torch.sigmoid(s.Z / tau) - torch.sigmoid(t.Z / tau)) / cells
    torch.testing.assert_close(s.Z.grad, expected.detach(), atol=1e-9, rtol=1e-3)


def test_classes_do_not_compete(bench):
    distiller = bench.distiller("logits")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    changed = t.Z.clone()
    changed[:, 0] += 3
    gradients = [torch.autograd.grad(bench.losses(distiller, x, s)["kd/Z"], s.Z)[0] for x in (t, t._replace(Z=changed))]
    assert not torch.equal(gradients[0][:, 0], gradients[1][:, 0])
    assert torch.equal(gradients[0][:, 1:], gradients[1][:, 1:])


def test_correct_only_leaves_out_cells_where_the_teacher_errs(bench):
    distiller = bench.distiller("logits", "logits.correct_only=true")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    right = (t.Z > 0) == (bench.labels.masks > 0)
    bench.losses(distiller, t, s)["kd/Z"].backward()
    assert float(s.Z.grad[~right].abs().max()) == 0
    assert float(s.Z.grad[right].abs().max()) > 0
