"""KD360-VoxelBEV: similarities of cells, and where channels fire."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.related.kd360 import compare_affinities, weigh_by_uncertainty


@pytest.mark.parametrize(("size", "window"), [((4, 4), 2), ((5, 3), 2), ((4, 6), 8)])
def test_similarities_are_compared_for_every_pair_of_cells_of_a_window(size, window):
    t, s = torch.randn(2, 2, 3, *size, dtype=torch.float64)
    differences = []
    for frame in range(2):
        x, y = (functional.normalize(v[frame], dim=0) for v in (t, s))
        for i in range(size[0] * size[1]):
            for j in range(size[0] * size[1]):
                a, b = divmod(i, size[1]), divmod(j, size[1])
                if [k // window for k in a] == [k // window for k in b]:
                    cosines = [(v[:, a[0], a[1]] * v[:, b[0], b[1]]).sum() for v in (x, y)]
                    differences.append((cosines[0] - cosines[1]).abs().item())
    assert compare_affinities(t, s, window).item() == pytest.approx(sum(differences) / len(differences))


def test_how_strong_a_cell_of_the_student_is_does_not_matter():
    t, s = torch.randn(2, 2, 8, 16, 16, dtype=torch.float64)
    scale = torch.rand(2, 1, 16, 16, dtype=torch.float64) * 10 + 0.1
    assert compare_affinities(t, scale * s, 4).item() == pytest.approx(compare_affinities(t, s, 4).item())
    assert compare_affinities(t, scale * t, 4).item() == pytest.approx(0, abs=1e-12)


def test_the_similarities_teach_the_student(bench):
    distiller, s = bench.distiller("kd360"), bench.leaf_taps()
    bench.losses(distiller, bench.teacher_taps(), s)["kd/affinity"].backward()
    assert s.F.grad.abs().sum() > 0


@given(st.floats(1e-3, 1e3))
def test_a_learned_weight_is_best_at_the_logarithm_of_its_term(value):
    v = torch.tensor(value, dtype=torch.float64)
    s = v.log().requires_grad_()
    weigh_by_uncertainty(v, s).backward()
    assert s.grad.item() == pytest.approx(0, abs=1e-9)
    best = weigh_by_uncertainty(v, s).item()
    assert best == pytest.approx(0.5 + math.log(value) / 2)
    assert all(weigh_by_uncertainty(v, s + shift).item() > best for shift in (-0.1, 0.1))


def test_learned_weights_start_at_a_half_and_train_without_decay(bench):
    distiller, t, s = bench.distiller("kd360", "kd360.learned=true"), bench.teacher_taps(), bench.student_taps()
    losses = bench.losses(distiller, t, s)
    for name in ("affinity", "inner", "output"):
        assert losses[f"kd/{name}"].item() == pytest.approx(distiller.report[f"distance_{name}"].item() / 2)
    sum(losses.values()).backward()
    assert (distiller.uncertainty.grad != 0).all()
    assert [g["weight_decay"] for g in distiller.parameter_groups()] == [0]
    assert not bench.distiller("kd360").parameter_groups()


def test_the_released_run_is_channel_wise_distillation_of_the_output(bench):
    t, s = bench.teacher_taps(), bench.student_taps()
    released = bench.losses(bench.distiller("kd360", "kd360.affinity=0", "kd360.inner=0"), t, s)
    channelwise = bench.losses(bench.distiller("channelwise", "channelwise.tau=3"), t, s)
    assert list(released) == ["kd/output"]
    assert released["kd/output"].item() == pytest.approx(channelwise["kd/Z"].item())


def test_only_the_last_stage_is_trained_by_its_term_and_only_on_the_label_grid(bench):
    distiller, s = bench.distiller("kd360"), bench.leaf_taps()
    bench.losses(distiller, bench.teacher_taps(), s)["kd/inner"].backward()
    assert bench.stages[0].grad is None
    gradient = bench.stages[-1].grad.abs().sum(dim=(0, 1))  # 8 x 8 cells of 3 m over 24 m; labels cover 20 m
    assert gradient.shape == (8, 8)
    assert (gradient[1:-1, 1:-1] > 0).all()
    assert gradient.sum() == pytest.approx(gradient[1:-1, 1:-1].sum().item())


def test_the_last_stage_of_another_decoder_is_adapted(narrow_bench):
    """The student's one stage lies on the cells of F, the teacher's second on those of half the size."""
    bench, distiller = narrow_bench, narrow_bench.distiller("kd360")
    s = bench.leaf_taps()
    value = bench.losses(distiller, bench.teacher_taps(), s)["kd/inner"]
    value.backward()
    assert value.item() > 0
    assert bench.stages[-1].grad.abs().sum() > 0


def test_a_class_that_no_one_sees_teaches_nothing(bench):
    distiller, t, s = bench.distiller("kd360"), bench.teacher_taps(), bench.leaf_taps()
    z = t.Z.clone()
    z[:, 4] = -9 + torch.rand_like(z[:, 4])
    bench.losses(distiller, t._replace(Z=z), s, Labels(bench.labels.masks, bench.labels.known))["kd/output"].backward()
    assert s.Z.grad[:, 4].abs().max() == 0
    assert s.Z.grad[:, 0].abs().max() > 0
