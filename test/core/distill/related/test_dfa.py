"""DFA: mixtures of the teacher's layers, searched at first, then frozen."""

from __future__ import annotations

import pytest
import torch
from small_networks import small_student, small_teacher

from bridgeta_core.distill.layers import compute_layers
from bridgeta_core.distill.related import dfa
from bridgeta_core.distill.related.dfa import Group, draw_group, keep_fixed
from bridgeta_core.model.teacher import Teacher

SEARCH = ("warmup_steps=0", "dfa.search=0.5")  # steps 0 to 49 of 100


def train(bench, distiller, steps, **changes):
    """Train the mixtures and networks on the taps of the bench."""
    betas = distiller.parameter_groups()[0]["params"]
    special = {id(p) for p in betas}
    others = [p for p in (*bench.student.parameters(), *distiller.parameters()) if id(p) not in special]
    optimiser = torch.optim.AdamW([{"params": others}, {"params": betas, "lr": 0.05}], lr=1e-3)
    t = bench.teacher_taps()
    for step in steps:
        losses = bench.losses(distiller, t, bench.student_taps(), step=step, **changes)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()


def alphas(distiller):
    return [group.alpha.clone() for group in distiller.groups]


@pytest.mark.parametrize("mixing", ["searched", "uniform", "last", "random"])
def test_the_weights_of_a_group_sum_to_one(bench, mixing):
    distiller = bench.distiller("dfa", *SEARCH, f"dfa.mixing={mixing}")
    if mixing == "searched":
        train(bench, distiller, range(8))
        assert any((alpha - 1 / len(alpha)).abs().max() > 0.01 for alpha in alphas(distiller))
    for alpha in alphas(distiller):
        assert alpha.sum().item() == pytest.approx(1, abs=1e-6)
        assert (alpha >= 0).all()


def test_all_weight_on_the_last_layer_gives_feature_hints(bench):
    t, s = bench.teacher_taps(), bench.student_taps()
    mixed = bench.losses(bench.distiller("dfa", "dfa.mixing=last"), t, s)
    hints = bench.losses(bench.distiller("fitnet", "fitnet.levels=[F]", "fitnet.cells=balanced"), t, s)
    assert mixed["kd/F"].item() == pytest.approx(hints["kd/F"].item(), rel=1e-5)


def test_a_mixture_is_the_weighted_mean_of_normalised_layers(bench):
    distiller = bench.distiller("dfa")
    layers = compute_layers(bench.teacher, bench.teacher_taps(), bench.fused)[0]
    alpha = torch.tensor([0.2, 0.5, 0.3])
    mixed = distiller.groups[0].mix(layers, alpha)
    expected = 0
    for a, layer in zip(alpha, layers, strict=True):
        std, mean = torch.std_mean(layer, dim=(0, 2, 3), correction=0, keepdim=True)
        std = std.clamp(min=0.05 * std.median())
        expected = expected + a * (layer - mean) / std
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=1e-4)


def test_wider_layers_of_a_group_are_projected_onto_their_principal_components(bench):
    distiller = bench.distiller("dfa")
    *joined, d = compute_layers(bench.teacher, bench.teacher_taps(), bench.fused)[-1]
    group = distiller.groups[-1]
    projected = group.mix([*joined, d], torch.tensor([0.0, 0.0, 1.0]))
    assert projected.shape[1] == joined[0].shape[1] < d.shape[1]
    covariance = torch.cov(projected.transpose(0, 1).flatten(1))
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-3 * covariance.max()


def test_the_bridge_trains_the_weights_and_the_label_loss_does_not(bench, monkeypatch):
    for index in range(4):
        monkeypatch.setattr(dfa, "draw_group", lambda step, count, index=index: index)
        distiller = bench.distiller("dfa", *SEARCH)
        beta = distiller.groups[index].beta
        with torch.no_grad():
            beta.add_(torch.linspace(0, 1, len(beta)))
        student = bench.student_taps()
        losses = bench.losses(distiller, bench.teacher_taps(), student, step=11)
        (gradient,) = torch.autograd.grad(losses["label/bridge"], beta, retain_graph=True)
        assert (gradient.abs().sum() > 0) == (len(beta) > 1)
        label_loss = student.Z.square().mean()
        assert torch.autograd.grad(label_loss, beta, allow_unused=True) == (None,)


def test_networks_and_weights_take_turns(bench):
    distiller = bench.distiller("dfa", *SEARCH)
    betas = distiller.parameter_groups()[0]["params"]
    networks = [
        *bench.student.parameters(),
        *(p for g in distiller.groups for p in (*g.bring.parameters(), *g.feed.parameters())),
    ]
    moved = {}
    for step in (10, 11):
        losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), step=step)
        assert "label/bridge" in losses
        gradients = [
            torch.autograd.grad(sum(losses.values()), x, retain_graph=True, allow_unused=True)
            if any(v.requires_grad for v in losses.values())
            else [None]
            for x in (betas, networks)
        ]
        moved[step] = [any(g is not None and g.abs().sum() > 0 for g in of_part) for of_part in gradients]
    assert moved == {10: [False, True], 11: [True, False]}
    assert all(p.requires_grad for p in (*betas, *networks))


def test_mixtures_carry_no_graph_into_the_teacher(bench):
    bench.teacher.requires_grad_(True)
    distiller = bench.distiller("dfa", *SEARCH)
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), step=11)
    sum(losses.values()).backward()
    assert all(p.grad is None for p in bench.teacher.parameters())


def test_the_search_finds_the_layer_that_the_student_can_reach(bench):
    """Without the bridge the weight moves to the layer that the student's features already are."""
    distiller = bench.distiller("dfa", *SEARCH, "dfa.bridge=0")
    t = bench.teacher_taps()
    layers = compute_layers(bench.teacher, t, bench.fused)[0]
    group = distiller.groups[0]
    reached = group.layers[-1].inverse(group.layers[0](layers[0])).requires_grad_()  # looks like the cameras' part
    s = bench.leaf_taps()._replace(F=reached)
    losses = bench.losses(distiller, t, s, step=11)
    losses["kd/F"].backward()
    assert group.beta.grad.argmin() == 0
    assert group.beta.grad[0] < 0


def test_after_the_search_the_weights_are_frozen_bit_for_bit(bench):
    distiller = bench.distiller("dfa", *SEARCH)
    train(bench, distiller, range(40, 50))
    found = alphas(distiller)
    assert any((alpha - 1 / len(alpha)).abs().max() > 0 for alpha in found)
    train(bench, distiller, range(50, 60))
    assert all(torch.equal(a, b) for a, b in zip(found, alphas(distiller), strict=True))
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), step=99)
    assert "label/bridge" not in losses
    assert all(torch.equal(a, b) for a, b in zip(found, alphas(distiller), strict=True))


def test_a_resumed_run_goes_on_with_the_frozen_weights(bench):
    distiller = bench.distiller("dfa", *SEARCH)
    train(bench, distiller, range(44, 50))
    again = bench.distiller("dfa", *SEARCH, prepared=False)
    again.load_state_dict(distiller.state_dict())
    t, s = bench.teacher_taps(), bench.student_taps()
    one, other = (bench.losses(d, t, s, step=70) for d in (distiller, again))
    assert {name: x.item() for name, x in one.items()} == {name: x.item() for name, x in other.items()}


def test_in_a_warm_up_nothing_is_searched(bench):
    distiller = bench.distiller("dfa", "warmup_steps=20", "dfa.search=0.5")
    train(bench, distiller, range(12), warming_up=True)
    assert all(torch.equal(alpha, torch.full_like(alpha, 1 / len(alpha))) for alpha in alphas(distiller))
    train(bench, distiller, range(20, 24))
    assert any((alpha - 1 / len(alpha)).abs().max() > 0 for alpha in alphas(distiller))
    assert "label/bridge" in bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), step=59)
    assert "label/bridge" not in bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), step=60)


def test_the_group_depends_on_the_step_alone():
    drawn = [draw_group(step, 4) for step in range(200)]
    assert set(drawn) == {0, 1, 2, 3}
    assert drawn == [draw_group(step, 4) for step in range(200)]
    assert {draw_group(step, 4) for step in range(1, 200, 2)} == {0, 1, 2, 3}  # in both turns


def test_the_weights_have_a_rate_of_their_own(bench):
    (group,) = bench.distiller("dfa", "dfa.rate=0.2").parameter_groups()
    assert (group["lr"], len(group["params"])) == (0.2, 4)
    assert bench.distiller("dfa", "dfa.mixing=uniform").parameter_groups() == []


def test_calibration_gives_every_group_the_same_gradient_at_f_and_happens_in_the_networks_turn(bench):
    for calibrate_steps in (4, 5):
        settings = ("warmup_steps=3", f"calibrate_steps={calibrate_steps}", "dfa.search=0.5", "dfa.weight=0.5")
        distiller, step = bench.distiller("dfa", *settings), 3 + calibrate_steps
        t, s = bench.teacher_taps(), bench.student_taps()
        label_loss = s.Z.square().mean()
        distiller.calibrate(label_loss, s, bench.losses(distiller, t, s, step=step), 0.1)
        (expected,) = torch.autograd.grad(label_loss, s.F, retain_graph=True)
        losses = bench.losses(distiller, t, s, step=step)
        for name in distiller.names:
            (gradient,) = torch.autograd.grad(losses[f"kd/{name}"], s.F, retain_graph=True)
            assert gradient.norm().item() == pytest.approx(0.05 * expected.norm().item(), rel=1e-3)


def test_without_a_search_nothing_is_there_for_it(bench):
    distiller = bench.distiller("dfa", "dfa.mixing=uniform")
    assert {name.split(".")[2] for name, _ in distiller.named_parameters()} == {"bring"}


def test_a_teacher_of_lidar_alone_needs_no_live_pass(bench):
    assert bench.distiller("dfa").needs_live_teacher
    model = small_student(lift={"grid": bench.student.config.lift.grid}, decoder=bench.student.config.decoder)
    bench.teacher = Teacher(small_teacher("lidar"), model, bench.student.grid, pretrained=False).eval()
    bench.teacher.requires_grad_(False)
    distiller = bench.distiller("dfa", *SEARCH)
    assert not distiller.needs_live_teacher
    assert len(distiller.groups[0].alpha) == 1
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), fused=None)
    assert all(torch.isfinite(x) for x in losses.values())


def test_the_students_batch_norms_neither_move_nor_forget_their_mode_behind_a_mixture(bench):
    distiller = bench.distiller("dfa", *SEARCH)
    taps = bench.student_taps()
    before = {name: x.clone() for name, x in bench.student.named_buffers()}
    for step in range(8):
        bench.losses(distiller, bench.teacher_taps(), taps, step=step)
    assert all(torch.equal(before[name], x) for name, x in bench.student.named_buffers())
    assert all(module.training for module in bench.student.modules())


def test_gradients_pass_through_what_is_kept_fixed():
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    layer.bias.requires_grad_(False)
    with keep_fixed(layer):
        y = layer(x).sum()
    y.backward()
    assert x.grad.abs().sum() > 0
    assert layer.weight.grad is None
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_a_group_of_one_layer_has_all_its_weight_there():
    assert Group([4], 6, "searched", 0).alpha.tolist() == [1.0]
