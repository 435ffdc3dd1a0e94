"""Channel-wise distillation (R3), by what its formula says."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.distill.base import Labels
from bridgeta_core.model.student import Taps


def test_a_constant_added_to_a_channel_changes_nothing(bench):
    distiller = bench.distiller("channelwise", "channelwise.levels=[F, Z]")
    t = bench.teacher_taps()
    s = Taps(t.F + torch.randn(1, 8, 1, 1), t.D, t.Z + torch.randn(1, 6, 1, 1))
    losses = bench.losses(distiller, t, s)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(dict.fromkeys(losses, 0), abs=1e-4)


def test_classes_that_nobody_sees_do_not_count(bench):
    distiller = bench.distiller("channelwise")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    unseen = t._replace(Z=t.Z - 20)
    nothing = Labels(torch.zeros_like(bench.labels.masks), bench.labels.known)
    assert bench.losses(distiller, unseen, s, nothing)["kd/Z"].item() == 0
    bench.losses(distiller, unseen, s)["kd/Z"].backward()
    taught = s.Z.grad.abs().sum(dim=(2, 3)) > 0
    assert torch.equal(taught, (bench.labels.masks > 0).flatten(2).any(dim=2))
