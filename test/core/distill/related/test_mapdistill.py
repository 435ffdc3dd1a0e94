"""MapDistill: relations between sensors, features, and the map."""

from __future__ import annotations

import pytest
import torch
from small_networks import small_teacher
from torch import nn

from bridgeta_core.distill.related.mapdistill import attend, compare_maps, compare_relations, measure_slopes
from bridgeta_core.distill.stages import split_fusion
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


def test_every_row_of_attention_sums_to_1():
    one, other = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    attention = attend(one, other).exp()
    assert attention.shape == (2, 5, 7)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 5))
    scores = (one[1, 3] * other[1]).sum(dim=1) / 8**0.5
    torch.testing.assert_close(attention[1, 3], scores.exp() / scores.exp().sum())


@pytest.mark.parametrize("patch", [4, 3])
def test_equal_relations_cost_nothing_and_others_something(patch):
    maps, others = torch.randn(2, 2, 6, 8, 8, dtype=torch.float64), torch.randn(2, 2, 6, 8, 8, dtype=torch.float64)
    assert compare_relations(maps, maps, patch).item() == pytest.approx(0, abs=1e-12)
    assert compare_relations(maps, others, patch).item() > 0.01
    assert compare_relations(maps, maps.flip(0), patch).item() > 0.01  # cameras are no LiDAR


def test_relations_are_divergences_of_the_rows_in_both_directions():
    t, s = torch.randn(2, 1, 4, 2, 2, dtype=torch.float64), torch.randn(2, 1, 4, 2, 2, dtype=torch.float64)

    def attention(one, other):
        tokens = [x[0].flatten(1).T for x in (one, other)]
        a, b = ((x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for x in tokens)
        return torch.softmax(a @ b.T / 2, dim=1)

    expected = 0
    for i, j in ((0, 1), (1, 0)):
        p, q = attention(t[i], t[j]), attention(s[i], s[j])
        expected = expected + (p * (p / q).log()).sum() / 4
    assert compare_relations(t, s, 1).item() == pytest.approx(expected.item())


def test_a_student_whose_views_are_the_teachers_sensors_has_the_relations(bench, monkeypatch):
    distiller, t, s = bench.distiller("mapdistill"), bench.teacher_taps(), bench.student_taps()
    assert bench.losses(distiller, t, s)["kd/relation"].item() > 1e-3
    for view, share in zip(distiller.views, split_fusion(bench.teacher, bench.fused), strict=True):
        monkeypatch.setattr(view, "forward", lambda _, share=share: share)
    assert bench.losses(distiller, t, s)["kd/relation"].item() == pytest.approx(0, abs=1e-6)


def test_the_relations_train_the_student_and_its_views(bench):
    distiller, s = bench.distiller("mapdistill"), bench.leaf_taps()
    bench.losses(distiller, bench.teacher_taps(), s)["kd/relation"].backward()
    assert s.F.grad.abs().sum() > 0
    assert all(view.weight.grad.abs().sum() > 0 for view in distiller.views)


def test_a_map_that_agrees_costs_nothing():
    z = (3 * torch.randn(2, 6, 7, 7)).requires_grad_()
    value = compare_maps(z.detach(), z, 0.5)
    value.backward()
    assert value.item() == 0
    assert z.grad.abs().max() == 0


def test_the_maps_cross_entropy_weighs_by_the_squared_difference():
    t, s = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    p, q = torch.sigmoid(t), torch.sigmoid(s)
    cells = (p - q) ** 2 * -(p * q.log() + (1 - p) * (1 - q).log())
    assert compare_maps(t, s, 0).item() == pytest.approx(cells.sum().item() / 40)
    slopes = (measure_slopes(p) - measure_slopes(q)).abs().sum().item() / 40
    assert compare_maps(t, s, 2.0).item() == pytest.approx(cells.sum().item() / 40 + 2 * slopes)


@pytest.mark.parametrize("turned", [False, True])
def test_a_straight_step_has_a_slope_of_1_on_both_its_sides_and_a_flat_map_none(turned):
    p = torch.zeros(1, 1, 6, 8)
    p[..., 4:] = 1
    expected = torch.zeros(6, 8)
    expected[:, 3:5] = 1
    slopes = measure_slopes(p.transpose(2, 3) if turned else p)[0, 0]
    torch.testing.assert_close(slopes.T if turned else slopes, expected, atol=2e-3, rtol=0)


def test_the_default_compares_relations_features_and_maps(bench):
    distiller = bench.distiller("mapdistill")
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps())
    assert set(losses) == {"kd/relation", "kd/F", "kd/D", "kd/head"}
    assert distiller.needs_live_teacher


def test_without_relations_the_taps_are_enough(bench):
    distiller = bench.distiller("mapdistill", "mapdistill.relation=0")
    assert not distiller.needs_live_teacher
    assert not list(distiller.parameters())
    assert "kd/relation" not in bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), fused=None)


def test_a_teacher_of_lidar_alone_is_refused_where_relations_count(bench):
    bench.teacher = Teacher(small_teacher("lidar", width=8, blocks=1), bench.student.config, bench.student.grid)
    with pytest.raises(BridgeTAError, match=r"mapdistill\.relation.*does not fuse") as error:
        bench.distiller("mapdistill", prepared=False)
    assert error.value.exit_code == 2
    assert isinstance(bench.distiller("mapdistill", "mapdistill.relation=0", prepared=False), nn.Module)
