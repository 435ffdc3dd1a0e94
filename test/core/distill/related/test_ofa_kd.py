"""OFA-KD: enhanced cross-entropy with the teacher, at the output and at branches inside the student."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.related.ofa_kd import enhanced_cross_entropy

logits = st.floats(-8, 8)
exponents = st.floats(1, 3)


@given(logits, logits, st.booleans())
def test_without_enhancement_it_is_the_cross_entropy_with_the_teachers_probability(z_t, z_s, present):
    t, s = torch.tensor([z_t], dtype=torch.float64), torch.tensor([z_s], dtype=torch.float64)
    value = enhanced_cross_entropy(t, s, torch.tensor([present]), torch.ones(1))
    expected = functional.binary_cross_entropy_with_logits(s, torch.sigmoid(t))
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


@given(logits, st.booleans(), exponents)
def test_its_minimum_is_where_the_formula_says_and_not_short_of_the_teacher(z_t, present, g):
    q = torch.sigmoid(torch.tensor(z_t if present else -z_t, dtype=torch.float64)).item()
    gain, against = (1 + q) ** g - 1, (1 - q) ** g
    best = gain / (gain + against)
    s = torch.tensor([best], dtype=torch.float64).logit() * (1 if present else -1)
    s.requires_grad_()
    t = torch.tensor([z_t], dtype=torch.float64)
    value = enhanced_cross_entropy(t, s, torch.tensor([present]), torch.tensor([g], dtype=torch.float64))
    value.backward()
    assert s.grad.abs().item() < 1e-6
    assert best >= q - 1e-9


@pytest.mark.parametrize(("q", "g", "best"), [(0.5, 1.2, 0.59), (0.5, 1.5, 0.70), (0.1, 1.2, 0.12), (0.1, 1.5, 0.15)])
def test_a_teacher_that_is_wrong_is_hardly_enhanced(q, g, best):
    """The figures of kd_methods M7."""
    t = torch.tensor([q], dtype=torch.float64).logit()
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    values = enhanced_cross_entropy(t, grid.logit(), torch.tensor([True]), torch.tensor([g], dtype=torch.float64))
    assert grid[values.argmin()].item() == pytest.approx(best, abs=0.006)


def test_a_student_that_agrees_is_left_alone_without_enhancement_and_led_to_the_label_with_it(bench):
    def gradient(*settings):
        student = bench.agreeing_taps()
        distiller = bench.distiller("ofa_kd", "ofa_kd.branches=0", *settings)
        bench.losses(distiller, bench.teacher_taps(), student)["kd/Z"].backward()
        return student.Z.grad

    assert gradient("ofa_kd.present=1").abs().max() < 1e-7
    enhanced, present = gradient("ofa_kd.present=1.5"), bench.labels.masks > 0
    assert (enhanced[present] < 0).all()
    assert enhanced[~present].abs().max() < 1e-7


def test_nothing_is_enhanced_where_a_class_is_not_known(bench):
    distiller = bench.distiller("ofa_kd", "ofa_kd.present=2", "ofa_kd.branches=0")
    labels = Labels(bench.labels.masks, torch.zeros_like(bench.labels.known))
    t, s = bench.teacher_taps(), bench.student_taps()
    expected = functional.binary_cross_entropy_with_logits(s.Z, torch.sigmoid(t.Z), reduction="none")
    value = bench.losses(distiller, t, s, labels)["kd/Z"]
    assert value.item() == pytest.approx(expected.mean(dim=(0, 2, 3)).sum().item(), rel=1e-5)


def test_every_branch_trains_what_it_sees(bench):
    distiller, student = bench.distiller("ofa_kd"), bench.leaf_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), student)
    for i, seen in enumerate([student.F, *bench.stages]):
        (gradient,) = torch.autograd.grad(losses[f"kd/branch_{i}"], seen, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert len(losses) == 2 + len(bench.stages)
