"""BEV-feature distillation (R4), by what its formula says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.methods.bevfeature import to_sampling_coordinates
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.student import Taps


def test_scaled_features_keep_their_relations(bench):
    distiller = bench.distiller("bevfeature", prepared=False)
    t = bench.teacher_taps()
    losses = bench.losses(distiller, t, Taps(2 * t.F, t.D, t.Z))
    assert losses["kd/relation"].item() == pytest.approx(0, abs=1e-5)
    assert losses["kd/feature"].item() > 0.01
    assert losses["kd/response"].item() == 0


def test_the_points_depend_on_the_step_alone(bench):
    distiller = bench.distiller("bevfeature")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    values = [bench.losses(distiller, t, s, step=step)["kd/feature"].item() for step in (1, 2, 1)]
    assert values[0] == values[2] != values[1]


def test_points_are_placed_metrically():
    label, feature = BevGrid(-10, 10, -10, 10, 0.8), BevGrid(-12, 12, -12, 12, 1.5)
    cells = torch.tensor([[0, 24], [12, 3], [20, 20]])
    # A feature map that holds x in one channel and y in the other, sampled there, gives the cells' own centres.
    x, y = (torch.from_numpy(v).float() for v in feature.centres())
    ramp = torch.stack([x.expand(16, 16), y[:, None].expand(16, 16)])[None]
    sampled = functional.grid_sample(
        ramp, to_sampling_coordinates(cells, label, feature)[None, None], align_corners=False
    )
    lx, ly = (torch.from_numpy(v).float() for v in label.centres())
    expected = torch.stack([lx[cells[:, 1]], ly[cells[:, 0]]])
    torch.testing.assert_close(sampled[0, :, 0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(GridResampler(feature, label)(ramp)[0][:, cells[:, 0], cells[:, 1]], expected)


def test_a_class_without_cells_is_skipped(bench):
    distiller = bench.distiller("bevfeature")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    nothing = Labels(torch.zeros_like(bench.labels.masks), bench.labels.known)
    losses = bench.losses(distiller, t, s, nothing)
    assert {name: value.item() for name, value in losses.items()} == dict.fromkeys(losses, 0.0)
