"""BridgeTA's inequality, gradients and routing (U1 to U9 of the specification), and the effect of its settings."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.distance import bernoulli_kl, squared_distance
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Taps

eps_values = st.floats(-4, 4).map(math.exp)


def triple(seed: int, dtype=torch.float64, n: int = 1):
    g = torch.Generator().manual_seed(seed)
    a, b, c = (torch.randn(n, 3, 4, 5, generator=g, dtype=dtype) * 10 ** torch.randn(1, generator=g) for _ in range(3))
    m = torch.rand(n, 4, 5, generator=g, dtype=dtype) ** 4
    return a, b, c, m / m.sum(dim=(1, 2), keepdim=True)


def test_u1_youngs_bound_holds_for_random_triples():
    g = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(10_000, 3, 4, generator=g).double() for _ in range(3))
    m = torch.rand(10_000, 4, generator=g).double()
    eps = torch.exp(torch.empty(10_000).uniform_(-5, 5, generator=g)).double()
    d = [(m * (x - y).square().mean(1)).sum(1) for x, y in ((a, b), (b, c), (a, c))]
    assert (d[2] <= ((1 + eps) * d[0] + (1 + 1 / eps) * d[1]) * (1 + 1e-6)).all()


@given(st.integers(0, 2**31), eps_values)
@settings(max_examples=50)
def test_u2_the_paths_equal_direct_distillation_plus_a_pull(seed, eps):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        a, b, c, m = triple(seed, dtype)
        w = 1 / (1 + eps)
        star = (1 - w) * a + w * c
        left = (1 + eps) * squared_distance(a, b, m) + (1 + 1 / eps) * squared_distance(b, c, m)
        right = squared_distance(a, c, m) + (1 + eps) ** 2 / eps * squared_distance(b, star, m)
        assert left.item() == pytest.approx(right.item(), rel=tolerance)


@given(st.integers(0, 2**31), eps_values)
@settings(max_examples=30)
def test_u3_the_students_gradient_points_to_the_assistant(seed, eps):
    a, b, c, m = triple(seed)
    c.requires_grad_()

    def gradient(value):
        return torch.autograd.grad(value, c)[0]

    path = (1 + eps) * squared_distance(a, b, m) + (1 + 1 / eps) * squared_distance(b, c, m)
    expected = 2 * (1 + 1 / eps) * (c - b) * m[:, None] / c.shape[1]
    torch.testing.assert_close(gradient(path), expected.detach())
    star = ((1 - 1 / (1 + eps)) * a + c / (1 + eps)).detach()
    at_star = (1 + eps) * squared_distance(a, star, m) + (1 + 1 / eps) * squared_distance(star, c, m)
    torch.testing.assert_close(gradient(at_star), gradient(squared_distance(a, c, m)))


@pytest.mark.parametrize("eps", [0.25, 1.0, 4.0])
def test_u4_the_untrained_assistant_equals_direct_distillation(bench, eps):
    bridge = bench.distiller("bridgeta", f"bridgeta.eps={eps}", "levels.levels=[F]")
    direct = bench.distiller("direct", "levels.levels=[F]")
    t, s = bench.teacher_taps(), bench.leaf_taps()
    w = 1 / (1 + eps)
    b = bridge.run_assistant(t, s, bench.context())
    torch.testing.assert_close(b.F, (1 - w) * t.F + w * s.F, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(bench.losses(d, t, s)["kd/F"], s.F)[0] for d in (bridge, direct)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-4)
    path = bench.losses(bridge, t, s)["kd/F"].item()
    assert bridge.report["slack_F"].item() == pytest.approx(0, abs=1e-5 * path)
    assert bridge.report["delta_F"].item() == pytest.approx(0, abs=1e-5)
    assert bridge.report["rho_F"].item() == pytest.approx(w, abs=1e-4)


def test_u5_agreement_gives_no_loss_and_no_gradient(bench):
    bridge = bench.distiller("bridgeta", "bridgeta.reading=frozen", "bridgeta.label_weight=0")
    t = bench.teacher_taps()
    s = Taps(*(x.clone().requires_grad_() for x in (t.F, t.D, t.Z)))
    losses = bench.losses(bridge, t, s)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(dict.fromkeys(losses, 0), abs=1e-6)
    sum(losses.values()).backward()
    everything = [*s, *bridge.parameters()]
    assert max(float(x.grad.abs().max()) for x in everything if x.grad is not None) < 1e-4


def test_u6_with_the_frozen_head_labels_train_only_the_assistant(bench):
    bridge = bench.distiller("bridgeta", "bridgeta.reading=frozen")
    t, s = bench.teacher_taps(), bench.student_taps()
    bench.losses(bridge, t, s)["label/assistant"].backward()
    assert all(p.grad is None for p in bench.student.parameters())
    assert any(float(p.grad.abs().sum()) > 0 for p in bridge.assistant.parameters() if p.grad is not None)


def test_u6_the_teachers_path_does_not_train_the_student(bench):
    # Without an assistant-student path (the student's taps cut off) what is left is |a - b|.
    bridge = bench.distiller("bridgeta", "bridgeta.reading=frozen", "bridgeta.label_weight=0")
    t, s = bench.teacher_taps(), Taps(*(x.detach() for x in bench.student_taps()))
    sum(bench.losses(bridge, t, s).values()).backward()
    assert all(p.grad is None for p in (*bench.student.parameters(), *bench.teacher.parameters()))
    assert float(bridge.assistant.output.weight.grad.abs().sum()) > 0


def test_u6_labels_train_the_shared_decoder_and_head_only(bench):
    bridge = bench.distiller("bridgeta")
    t, s = bench.teacher_taps(), bench.student_taps()
    bench.losses(bridge, t, s)["label/assistant"].backward()
    trained = {name.split(".")[0] for name, p in bench.student.named_parameters() if p.grad is not None}
    assert trained == {"decoder", "head"}


def test_u6_with_an_open_input_labels_train_the_camera_branch(bench):
    bridge = bench.distiller("bridgeta", "bridgeta.network.open=true", "bridgeta.reading=frozen")
    t, s = bench.teacher_taps(), bench.student_taps()
    bench.losses(bridge, t, s)["label/assistant"].backward()
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in bench.student.camera.parameters())


def test_u6_ten_steps_do_not_change_the_teacher(bench):
    bridge = bench.distiller("bridgeta", "bridgeta.reading=frozen")
    before = {name: value.clone() for name, value in bench.teacher.state_dict().items()}
    optimiser = torch.optim.AdamW([*bench.student.parameters(), *bridge.parameters()], lr=1e-3)
    start = bridge.assistant.output.weight.clone()
    for step in range(10):
        s = bench.student_taps()
        losses = bench.losses(bridge, bench.teacher_taps(), s, step=step)
        (focal_loss(s.Z, bench.labels.masks, bench.labels.known, 2.0) + sum(losses.values())).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert all(p.grad is None for p in bench.teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in bench.teacher.state_dict().items())
    assert not torch.equal(start, bridge.assistant.output.weight)


probabilities = st.floats(1e-4, 1 - 1e-4)


def kl(p, q):
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@given(probabilities, probabilities, probabilities, eps_values)
def test_u7_the_kl_paths_bound_the_brier_distance(p, q, r, eps):
    assert (p - r) ** 2 <= ((1 + eps) * kl(p, q) + (1 + 1 / eps) * kl(q, r)) / 2 + 1e-12


@given(probabilities, probabilities, probabilities, eps_values)
def test_u7_youngs_bound_holds_for_brier_and_jensen_shannon(p, q, r, eps):
    def brier(x, y):
        return (x - y) ** 2

    def js(x, y):
        return (kl(x, (x + y) / 2) + kl(y, (x + y) / 2)) / 2

    for d in (brier, js):
        assert d(p, r) <= (1 + eps) * d(p, q) + (1 + 1 / eps) * d(q, r) + 1e-12


def test_u7_kl_violates_youngs_bound():
    def logit(p):
        return torch.logit(torch.tensor(p, dtype=torch.float64))

    t, a, s = logit(0.5), logit(0.1), logit(0.001)
    direct, path = bernoulli_kl(t, s), 2 * bernoulli_kl(t, a) + 2 * bernoulli_kl(a, s)
    assert direct.item() == pytest.approx(2.76, abs=0.01)
    assert path.item() == pytest.approx(1.75, abs=0.01)


@pytest.mark.parametrize("eps", [0.5, 1.0, 3.0])
def test_u9_the_student_converges_to_its_closed_form(bench, eps):
    # The assistant's output is held at a constant offset from its starting point.
    settings = (f"bridgeta.eps={eps}", "levels.levels=[F]", "levels.cells=uniform")
    bridge = bench.distiller("bridgeta", *settings, prepared=False)  # so that features are compared as they are
    delta = torch.linspace(-1, 1, 8)
    with torch.no_grad():
        bridge.assistant.output.bias.copy_(delta)
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    t = bench.teacher_taps()
    inside = bridge.levels.cells.average.inside > 0
    c = bench.student_taps().F.detach().requires_grad_()
    optimiser = torch.optim.SGD([c], lr=0.25 * 8 * float(inside.sum()))  # half of the way a step
    for _ in range(40):
        s = Taps(c, t.D, t.Z)
        optimiser.zero_grad()
        bench.losses(bridge, t, s)["kd/F"].backward()
        optimiser.step()
    expected = t.F + (1 + 1 / eps) * delta[:, None, None]
    torch.testing.assert_close(c.detach()[:, :, inside], expected[:, :, inside], atol=1e-4, rtol=1e-4)


def test_the_midpoint_has_the_gradient_of_direct_distillation(bench):
    # Ablation A5: without a network nothing is left of the assistant.
    for level in "FDZ":
        mixture = bench.distiller("bridgeta", "bridgeta.reading=none", f"levels.levels=[{level}]", "bridgeta.eps=2")
        direct = bench.distiller("direct", f"levels.levels=[{level}]")
        t, s = bench.teacher_taps(), bench.leaf_taps()
        one, other = (
            torch.autograd.grad(bench.losses(d, t, s)[f"kd/{level}"], getattr(s, level))[0] for d in (mixture, direct)
        )
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-3)


def test_kappa_scales_the_assistants_gradient_only(bench):
    t, s = bench.teacher_taps(), bench.leaf_taps()
    gradients, values = [], []
    for kappa in (0, 0.5, 1):
        bridge = bench.distiller("bridgeta", f"bridgeta.kappa={kappa}", "levels.levels=[F]")
        with torch.no_grad():
            bridge.assistant.output.bias.fill_(0.3)  # away from the point where the assistant's gradient vanishes
        loss = bench.losses(bridge, t, s)["kd/F"]
        gradients.append(torch.autograd.grad(loss, [s.F, bridge.assistant.output.bias]))
        values.append(loss.item())
    torch.testing.assert_close(gradients[0][0], gradients[2][0])
    assert values[0] == pytest.approx(values[2], rel=1e-6)
    torch.testing.assert_close(gradients[0][1] + gradients[2][1], 2 * gradients[1][1])
    assert not torch.allclose(gradients[0][1], gradients[2][1])


def test_the_curriculum_moves_from_student_to_teacher(bench):
    young = bench.distiller("bridgeta", "bridgeta.eps_rule=curriculum").young
    assert [young.eps_at("F", p) for p in (0, 0.5, 1)] == pytest.approx([1 / 3, 1, 3])
    assert [young.share_at("F", p) for p in (0, 0.5, 1)] == pytest.approx([0.75, 0.5, 0.25])


def test_the_adaptive_eps_gives_the_tightest_bound(bench):
    young = bench.distiller("bridgeta", "bridgeta.eps_rule=adaptive").young
    ab, bc = torch.tensor(4.0), torch.tensor(9.0)
    young.measure("D", ab, bc, torch.tensor(20.0), 1.0)
    eps = young.eps_at("D", 0)
    assert eps == pytest.approx(3 / 2)
    assert (1 + eps) * 4 + (1 + 1 / eps) * 9 == pytest.approx((2 + 3) ** 2)


def test_the_warm_up_trains_a_shared_decoder_and_head(bench):
    shared, frozen = bench.distiller("bridgeta"), bench.distiller("bridgeta", "bridgeta.reading=frozen")
    reading = [*bench.student.decoder.parameters(), *bench.student.head.parameters()]
    assert [id(p) for p in shared.select_warmup_parameters(bench.student)] == [id(p) for p in reading]
    assert frozen.select_warmup_parameters(bench.student) == []


def test_calibration_scales_each_level_to_the_label_gradient(bench):
    bridge = bench.distiller("bridgeta")
    t, s = bench.teacher_taps(), bench.student_taps()
    label = focal_loss(s.Z, bench.labels.masks, bench.labels.known, 2.0)
    bridge.calibrate(label, s, bench.losses(bridge, t, s), 0.3)
    after = bench.losses(bridge, t, s)

    def norm(loss):
        return torch.autograd.grad(loss, s.F, retain_graph=True)[0].norm().item()

    for level in "FDZ":
        assert norm(after[f"kd/{level}"]) == pytest.approx(0.3 * norm(label), rel=1e-3)


def test_the_assistant_can_be_scored(bench):
    logits = bench.distiller("bridgeta").predict_assistant(bench.teacher_taps(), bench.student_taps(), bench.context())
    assert logits.shape == bench.student_taps().Z.shape
    assert (
        bench.distiller("direct").predict_assistant(bench.teacher_taps(), bench.student_taps(), bench.context()) is None
    )


def test_unlabelled_frames_do_not_enter_label_losses(bench):
    bridge = bench.distiller("bridgeta")
    t, s = bench.teacher_taps(), bench.student_taps()
    known = bench.labels.known.clone()
    known[1] = False
    changed = bench.labels.masks.clone()
    changed[1] = 1 - changed[1]
    values = [
        bench.losses(bridge, t, s, Labels(masks, known))["label/assistant"].item()
        for masks in (bench.labels.masks, changed)
    ]
    assert values[0] == values[1]
