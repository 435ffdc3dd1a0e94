"""The scale by which features are compared."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.distill.normalise import TeacherScale, build_identity, fit_scales


def test_the_scale_gives_zero_mean_and_unit_spread(bench):
    t = bench.teacher_taps()
    distiller = bench.distiller("fitnet")
    x = distiller.normalisers["F"](t.F)
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    assert float(x.std(dim=(0, 2, 3), correction=0).max()) == pytest.approx(1, abs=1e-3)


def test_a_channel_that_hardly_varies_is_not_blown_up():
    scale = TeacherScale(3)
    scale.set(torch.zeros(3), torch.tensor([1.0, 2.0, 1e-6]))
    assert scale.scale.flatten().tolist() == pytest.approx([1, 2, 0.05])
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(scale.inverse(scale(x)), x)


def test_dead_channels_do_not_lower_the_floor():
    scale = TeacherScale(5)
    scale.set(torch.zeros(5), torch.tensor([0.0, 0.0, 0.0, 2.0, 1e-3]))
    assert scale.scale.flatten().tolist() == pytest.approx([5e-5, 5e-5, 5e-5, 2, 1e-3])
    scale.set(torch.zeros(5), torch.zeros(5))
    assert scale.scale.flatten().tolist() == [1, 1, 1, 1, 1]


def test_features_of_any_name_have_a_scale_over_all_batches():
    scale, batches = TeacherScale(2), [torch.randn(1, 2, 3, 3) * 5 + 2 for _ in range(3)]
    fit_scales({"inner": [scale]}, ({"inner": x} for x in batches))
    cells = torch.cat(batches).transpose(0, 1).flatten(1)
    torch.testing.assert_close(scale.mean.flatten(), cells.mean(dim=1))
    torch.testing.assert_close(scale.scale.flatten(), cells.std(dim=1, correction=0))


def test_a_layer_that_starts_as_the_identity_copies_the_channels_of_both_sides():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(build_identity(3, 3)(x), x)
    assert torch.equal(build_identity(3, 2)(x), x[:, :2])
    wide = build_identity(3, 5)(x)
    assert torch.equal(wide[:, :3], x)
    assert not wide[:, 3:].any()
