"""The reference methods R1 to R4, each by what its formula says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.bevfeature import metric_places
from bridgeta_core.distill.channelwise import spatial_divergence
from bridgeta_core.distill.distance import bernoulli_kl, brier, jensen_shannon
from bridgeta_core.distill.normalise import TeacherScale
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.student import StudentOutput


def taps(bench):
    return bench.teacher_taps(), StudentOutput(*(x.detach().requires_grad_() for x in bench.student_taps()))


def test_r1_at_temperature_one_is_cross_entropy_less_the_teachers_entropy(bench):
    distiller = bench.distiller("logits", "logits.tau=1")
    t, s = taps(bench)
    p = torch.sigmoid(t.Z.double())
    cross = functional.binary_cross_entropy_with_logits(s.Z.double(), p, reduction="none")
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    expected = (cross - entropy).mean(dim=(0, 2, 3)).sum()
    assert distiller.losses(t, s, bench.labels, bench.context())["kd/Z"].item() == pytest.approx(
        expected.item(), rel=1e-4
    )


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_r1_its_gradient_is_tau_times_the_difference_of_probabilities(bench, tau):
    distiller = bench.distiller("logits", f"logits.tau={tau}")
    t, s = taps(bench)
    distiller.losses(t, s, bench.labels, bench.context())["kd/Z"].backward()
    cells = s.Z.shape[0] * s.Z.shape[2] * s.Z.shape[3]
    expected = tau * (torch.sigmoid(s.Z / tau) - torch.sigmoid(t.Z / tau)) / cells
    torch.testing.assert_close(s.Z.grad, expected.detach(), atol=1e-9, rtol=1e-3)


def test_r1_classes_do_not_compete(bench):
    distiller = bench.distiller("logits")
    t, s = taps(bench)
    changed = t.Z.clone()
    changed[:, 0] += 3
    gradients = [
        torch.autograd.grad(distiller.losses(x, s, bench.labels, bench.context())["kd/Z"], s.Z)[0]
        for x in (t, t._replace(Z=changed))
    ]
    assert not torch.equal(gradients[0][:, 0], gradients[1][:, 0])
    assert torch.equal(gradients[0][:, 1:], gradients[1][:, 1:])


def test_r1_cells_where_the_teacher_errs_are_left_out_if_it_is_asked_for(bench):
    distiller = bench.distiller("logits", "logits.correct_only=true")
    t, s = taps(bench)
    right = (t.Z > 0) == (bench.labels.masks > 0)
    distiller.losses(t, s, bench.labels, bench.context())["kd/Z"].backward()
    assert float(s.Z.grad[~right].abs().max()) == 0
    assert float(s.Z.grad[right].abs().max()) > 0


def test_r2_the_adapter_starts_as_the_identity(bench):
    t, s = taps(bench)
    values = [
        bench.distiller("fitnet", f"fitnet.adapter={x}").losses(t, s, bench.labels, bench.context())["kd/F"].item()
        for x in ("true", "false")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_r2_the_adapter_is_trained_and_left_behind(bench):
    distiller = bench.distiller("fitnet")
    assert sum(p.numel() for m in distiller.train_modules() for p in m.parameters()) == 8 * 8 + 8
    t, s = taps(bench)
    distiller.losses(t, s, bench.labels, bench.context())["kd/F"].backward()
    assert float(distiller.adapters["F"].weight.grad.abs().sum()) > 0


def test_r2_the_scale_of_a_teachers_channel_does_not_matter(bench):
    t, s = taps(bench)
    factor = torch.logspace(-1, 1, 8)[:, None, None]
    values = []
    for f in (torch.ones(8, 1, 1), factor):
        distiller = bench.distiller("fitnet", "fitnet.adapter=false", prepared=False)
        scaled = t._replace(F=t.F * f)
        distiller.prepare([scaled])
        student = StudentOutput(s.F * f, s.D, s.Z)
        values.append(distiller.losses(scaled, student, bench.labels, bench.context())["kd/F"].item())
    # Not exactly: the floor under a channel's spread is relative to the median channel's.
    assert values[0] == pytest.approx(values[1], rel=0.2)


def test_r3_a_constant_added_to_a_channel_changes_nothing(bench):
    distiller = bench.distiller("channelwise", "channelwise.levels=[F, Z]")
    t = bench.teacher_taps()
    s = StudentOutput(t.F + torch.randn(1, 8, 1, 1), t.D, t.Z + torch.randn(1, 6, 1, 1))
    losses = distiller.losses(t, s, bench.labels, bench.context())
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(dict.fromkeys(losses, 0), abs=1e-4)


def test_r3_is_never_negative():
    t, s = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert (spatial_divergence(t, s, torch.ones(6, 6)) >= 0).all()


def test_r3_cells_beyond_the_labels_do_not_count():
    t, s = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(6, 6)
    inside[1:5, 1:5] = 1
    changed = s.clone()
    changed[:, :, 0] += 7 * torch.randn(6)
    assert torch.equal(spatial_divergence(t, s, inside), spatial_divergence(t, changed, inside))


def test_r3_classes_that_nobody_sees_do_not_count(bench):
    distiller = bench.distiller("channelwise")
    t, s = taps(bench)
    unseen = t._replace(Z=t.Z - 20)
    nothing = Labels(torch.zeros_like(bench.labels.masks), bench.labels.known)
    assert distiller.losses(unseen, s, nothing, bench.context())["kd/Z"].item() == 0
    distiller.losses(unseen, s, bench.labels, bench.context())["kd/Z"].backward()
    taught = s.Z.grad.abs().sum(dim=(2, 3)) > 0
    assert torch.equal(taught, (bench.labels.masks > 0).flatten(2).any(dim=2))


def test_r4_a_scaled_student_keeps_the_relations_but_not_the_features(bench):
    distiller = bench.distiller("bevfeature", prepared=False)
    t = bench.teacher_taps()
    losses = distiller.losses(t, StudentOutput(2 * t.F, t.D, t.Z), bench.labels, bench.context())
    assert losses["kd/relation"].item() == pytest.approx(0, abs=1e-5)
    assert losses["kd/feature"].item() > 0.01
    assert losses["kd/response"].item() == 0


def test_r4_the_points_depend_on_the_step_alone(bench):
    distiller = bench.distiller("bevfeature")
    t, s = taps(bench)
    values = [distiller.losses(t, s, bench.labels, bench.context(step=step))["kd/feature"].item() for step in (1, 2, 1)]
    assert values[0] == values[2] != values[1]


def test_r4_points_are_placed_metrically():
    label, feature = BevGrid(-10, 10, -10, 10, 0.8), BevGrid(-12, 12, -12, 12, 1.5)
    cells = torch.tensor([[0, 24], [12, 3], [20, 20]])
    # A feature map that holds x in one channel and y in the other, sampled there, gives the cells' own centres.
    x, y = (torch.from_numpy(v).float() for v in feature.centres())
    ramp = torch.stack([x.expand(16, 16), y[:, None].expand(16, 16)])[None]
    sampled = functional.grid_sample(ramp, metric_places(cells, label, feature)[None, None], align_corners=False)
    lx, ly = (torch.from_numpy(v).float() for v in label.centres())
    expected = torch.stack([lx[cells[:, 1]], ly[cells[:, 0]]])
    torch.testing.assert_close(sampled[0, :, 0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(GridResampler(feature, label)(ramp)[0][:, cells[:, 0], cells[:, 1]], expected)


def test_r4_a_class_without_pixels_is_skipped(bench):
    distiller = bench.distiller("bevfeature")
    t, s = taps(bench)
    nothing = Labels(torch.zeros_like(bench.labels.masks), bench.labels.known)
    losses = distiller.losses(t, s, nothing, bench.context())
    assert {name: value.item() for name, value in losses.items()} == dict.fromkeys(losses, 0.0)


def test_the_teachers_scale_gives_its_features_mean_zero_and_spread_one(bench):
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


def test_distances_of_logits_vanish_where_they_agree_and_are_finite_everywhere():
    z = torch.linspace(-60, 60, 25).view(1, 1, 5, 5).requires_grad_()
    m = torch.full((1, 5, 5), 1 / 25)
    for distance in (brier, jensen_shannon):
        assert distance(z, z.detach(), m, 2.0).item() == pytest.approx(0, abs=1e-6)
        value = distance(z, -z.detach(), m, 2.0)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(z.grad).all()
    assert torch.isfinite(bernoulli_kl(z, -z)).all()
