"""Feature hints (R2), by what their formula says."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.model.student import Taps


def test_the_adapter_starts_as_the_identity(bench):
    t, s = bench.teacher_taps(), bench.leaf_taps()
    values = [
        bench.losses(bench.distiller("fitnet", f"fitnet.adapter={x}"), t, s)["kd/F"].item() for x in ("true", "false")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_the_adapter_is_trained(bench):
    distiller = bench.distiller("fitnet")
    assert sum(p.numel() for p in distiller.parameters()) == 8 * 8 + 8
    t, s = bench.teacher_taps(), bench.leaf_taps()
    bench.losses(distiller, t, s)["kd/F"].backward()
    assert float(distiller.adapters["F"].weight.grad.abs().sum()) > 0


def test_the_scale_of_a_channel_does_not_matter(bench):
    t, s = bench.teacher_taps(), bench.leaf_taps()
    factor = torch.logspace(-1, 1, 8)[:, None, None]
    values = []
    for f in (torch.ones(8, 1, 1), factor):
        distiller = bench.distiller("fitnet", "fitnet.adapter=false", prepared=False)
        scaled = t._replace(F=t.F * f)
        distiller.prepare([bench.example()._replace(taps=scaled)], bench.teacher)
        student = Taps(s.F * f, s.D, s.Z)
        values.append(bench.losses(distiller, scaled, student)["kd/F"].item())
    # Not exactly: the floor under a channel's spread is relative to the median channel's.
    assert values[0] == pytest.approx(values[1], rel=0.2)
