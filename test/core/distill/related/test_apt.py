"""APT and URFM: attention around shared centres, a guard against collapse, and prompts in a frozen teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from bridgeta_core.config.related import AptConfig
from bridgeta_core.distill.related.apt import Apt, UnifiedFields, compare_attention
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-12, 12, -12, 12, 1.5)


def small_fields(**settings: int) -> UnifiedFields:
    torch.manual_seed(0)
    fields = UnifiedFields(5, AptConfig(**({"centres": 3, "cells": 16, "width": 8} | settings)), GRID)
    torch.nn.init.normal_(fields.bias)
    return fields


def test_every_centre_spreads_its_attention_over_the_cells():
    attention, local = small_fields()(torch.randn(2, 5, 16, 16))
    assert attention.shape == (2, 9, 256)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 9))
    assert local.shape == (2, 9, 8)


def test_attention_is_that_of_the_formula():
    """Against loops over centres and cells."""
    fields, x = small_fields(centres=2, cells=4), torch.randn(1, 5, 16, 16)
    torch.nn.init.zeros_(fields.mix.out_proj.weight)  # no attention among centres
    attention, local = fields(x)
    cells = functional.avg_pool2d(x, 4)[0].flatten(1).T
    for i, centre in enumerate(fields.centres):
        asked = [fields.query(centre) + fields.bias[fields.bucket[i, j]] for j in range(16)]
        energy = torch.stack([q @ fields.key(cell) for q, cell in zip(asked, cells, strict=True)]) / 8**0.5
        torch.testing.assert_close(attention[0, i], energy.softmax(dim=0))
        torch.testing.assert_close(local[0, i], energy.softmax(dim=0) @ fields.value(cells))


def test_the_bias_knows_distance_range_and_azimuth_in_metres():
    """A bias for the nearest cells alone: every centre attends to where it lies, right of the vehicle or left of it."""
    fields = small_fields(centres=4)
    torch.nn.init.zeros_(fields.bias)
    torch.nn.init.zeros_(fields.query.weight)
    with torch.no_grad():
        fields.bias[:64] = 50.0  # the first two of 8 distances, up to 1.9 m here, at all 4 ranges and 8 azimuths
        fields.key.weight.copy_(torch.eye(8, 5))
    attention, _ = fields(torch.ones(1, 5, 16, 16))
    x, y = (torch.tensor(axis).float() for axis in GRID.centres())
    share = attention[0].view(4, 4, 16, 16)
    for row, at_y in enumerate((-9, -3, 3, 9)):
        for column, at_x in enumerate((-9, -3, 3, 9)):
            assert (share[row, column].sum(dim=1) @ y).item() == pytest.approx(at_y, abs=0.75)
            assert (share[row, column].sum(dim=0) @ x).item() == pytest.approx(at_x, abs=0.75)


def test_buckets_tell_cells_of_equal_distance_by_where_they_lie_around_the_vehicle():
    fields = small_fields(centres=3)  # the middle one is at the vehicle
    around = fields.bucket[4].view(16, 16)
    corners = [around[i, j].item() for i in (0, 15) for j in (0, 15)]
    assert len(set(corners)) == 4
    assert around[7, 7] // 32 == 1  # of 8 distances, up to 0.5 m, 1.9 m, ...
    assert around[0, 0] // 32 > 3
    assert fields.bucket.max() < 8 * 4 * 8


def test_attention_differs_in_units_of_the_teachers():
    t = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
    assert compare_attention(torch.full((1, 1, 4), 0.25), t).item() == pytest.approx(4 * 0.25**2 / 0.5)
    assert compare_attention(torch.tensor([[[0.0, 0.0, 0.5, 0.5]]]), t).item() == pytest.approx(2)
    assert compare_attention(t, t).item() == 0


@pytest.mark.parametrize("kind", ["bench", "imported_bench"])
def test_without_training_the_prompted_teacher_is_the_teacher_to_the_bit(request, kind):
    bench = request.getfixturevalue(kind)
    distiller, t = bench.distiller("apt"), bench.teacher_taps()
    prompted = bench.teacher.decode(distiller.add_prompts(t.F))
    assert all(torch.equal(one, other) for one, other in zip(prompted, t, strict=True))


def gradients(distiller: Apt, loss: torch.Tensor) -> set[str]:
    """Return the parts of the method that a loss trains."""
    distiller.zero_grad()
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in distiller.named_parameters() if p.grad is not None and p.grad.any()}


def test_every_term_trains_what_it_should(bench):
    distiller, s = bench.distiller("apt", "apt.logits=1"), bench.leaf_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), s)
    for name in ("label/teacher", "kd/prompts"):
        assert gradients(distiller, losses[name]) == {"prompt", "gain"}
    assert gradients(distiller, losses["label/probe"]) == {"fields", "probe"}
    assert s.F.grad is None
    for name in ("kd/attention", "kd/fields"):
        s.F.grad = None
        assert gradients(distiller, losses[name]) == set()
        assert s.F.grad.any()
    assert gradients(distiller, losses["kd/Z"]) == set()
    assert s.Z.grad.any()


def test_after_a_step_the_prompts_have_moved_and_the_teacher_has_not(bench):
    distiller, before = bench.distiller("apt"), copy.deepcopy(bench.teacher.state_dict())
    t = bench.teacher_taps()
    optimiser = torch.optim.Adam(distiller.parameters(), lr=0.05)
    values = []
    for _ in range(30):
        losses = bench.losses(distiller, t, bench.leaf_taps())
        optimiser.zero_grad()
        losses["label/teacher"].backward()
        optimiser.step()
        values.append(losses["label/teacher"].item())
    assert values[-1] < values[0] - 0.001
    assert distiller.prompt.any()
    assert all(torch.equal(value, before[name]) for name, value in bench.teacher.state_dict().items())


def test_what_is_compared_does_not_collapse(bench):
    """200 steps of all terms, with a student that learns: the teacher's features do not shrink to half."""
    distiller, t = bench.distiller("apt"), bench.teacher_taps()
    noise = torch.randn(t.F.shape, generator=torch.Generator().manual_seed(0))
    own = (distiller.scale(t.F) + noise).requires_grad_()  # of a student that is near already
    optimiser = torch.optim.Adam([*distiller.parameters(), own], lr=0.003)

    def spread():
        return distiller.fields(distiller.scale(t.F))[1].std(dim=(0, 1)).norm().item()

    start, s, values = spread(), bench.leaf_taps(), []
    for step in range(200):
        losses = bench.losses(distiller, t, s._replace(F=distiller.scale.inverse(own)), step=step)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        values.append(losses["kd/fields"].item())
    assert spread() > start / 2
    assert values[-1] < values[0]


def test_without_prompts_the_teacher_stays_as_it_is(bench):
    distiller = bench.distiller("apt", "apt.prompts=0")
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps())
    assert set(losses) == {"label/probe", "kd/attention", "kd/fields"}


def test_the_width_must_suit_the_attention_among_centres(bench):
    with pytest.raises(BridgeTAError, match=r"apt\.width = 6 must be a multiple of 4"):
        bench.distiller("apt", "apt.width=6")
