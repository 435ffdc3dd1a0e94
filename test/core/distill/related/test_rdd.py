"""RDD: labels where the teacher says that they are easy, then where one network alone finds them hard."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.distance import bernoulli_kl
from bridgeta_core.distill.related.rdd import find_hard, weigh_by_agreement
from bridgeta_core.model.losses import focal_loss

EASY, HARD = "rdd.easy=1", ("rdd.easy=0", "rdd.turn=once")


def label_terms(bench, distiller, teacher, student, **changes):
    """The label loss of the loop and the method's."""
    plain = focal_loss(student.Z, bench.labels.masks, bench.labels.known, 2.0)
    return plain + bench.losses(distiller, teacher, student, **changes)["label/difficulty"]


def test_a_teacher_that_agrees_with_its_auxiliary_head_leaves_the_plain_label_loss(bench, monkeypatch):
    distiller, t, s = bench.distiller("rdd", EASY), bench.teacher_taps(), bench.leaf_taps()
    monkeypatch.setattr(distiller.auxiliary, "forward", lambda _: t.Z)
    assert abs(bench.losses(distiller, t, s)["label/difficulty"].item()) < 1e-6
    assert distiller.report["mean_weight"].item() == pytest.approx(1, abs=1e-6)


def test_easy_cells_weigh_by_the_divergence_of_the_teachers_two_heads(bench):
    distiller, t, s = bench.distiller("rdd", EASY), bench.teacher_taps(), bench.leaf_taps()
    p, q = (torch.sigmoid(z.double()) for z in (distiller.auxiliary(torch.relu(t.F)), t.Z))
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    y = bench.labels.masks.double()
    wrong = torch.sigmoid(s.Z.double() * (1 - 2 * y))
    cells = wrong**2 * functional.binary_cross_entropy_with_logits(s.Z.double(), y, reduction="none")
    expected = (torch.exp(-divergence) * cells).mean(dim=(0, 2, 3)).sum()
    assert label_terms(bench, distiller, t, s).item() == pytest.approx(expected.item(), rel=1e-4)
    assert distiller.report["mean_weight"].item() == pytest.approx(torch.exp(-divergence).mean().item(), rel=1e-4)


def test_rescaled_weights_have_a_mean_of_1(bench):
    t, s = bench.teacher_taps(), bench.leaf_taps()
    values = {}
    for rescale in ("false", "true"):
        distiller = bench.distiller("rdd", EASY, f"rdd.rescale={rescale}")
        values[rescale] = label_terms(bench, distiller, t, s)
    assert values["true"].item() == pytest.approx((values["false"] / distiller.report["mean_weight"]).item(), rel=1e-5)


def test_weights_are_the_divergences_exponentials_and_at_most_1():
    a, b = torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(weigh_by_agreement(a, b), torch.exp(-bernoulli_kl(a, b)))
    assert weigh_by_agreement(a, b).max() <= 1
    assert torch.equal(weigh_by_agreement(a, a), torch.ones_like(a))


def test_a_cell_is_hard_whose_label_gets_at_most_the_threshold():
    z = torch.tensor([[-2.0, 0.5, 2.0, 3.0]]).repeat(6, 1)[None, :, None]  # probabilities .12, .62, .88, .95
    masks = torch.zeros(1, 6, 1, 4, dtype=torch.uint8)
    masks[:, 0] = 1
    hard = find_hard(z, Labels(masks, torch.ones(1, 6, dtype=torch.bool)), 0.7, 0.0)[0, :, 0]
    assert hard[0].tolist() == [True, True, False, False]
    assert all(row.tolist() == [False, True, True, True] for row in hard[1:])


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_at_least_a_share_of_the_cells_of_every_known_class_is_hard(share):
    z = torch.rand(2, 6, 10, 10) * 3 + 4  # all sure
    known = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    hard = find_hard(z, Labels(torch.ones(2, 6, 10, 10), known), 0.7, share)
    counts = hard.sum(dim=(0, 2, 3)) / (100 * known.sum(dim=0))
    assert counts.tolist() == pytest.approx([share] * 6, abs=0.01)
    assert not hard[~known].any()
    for k in range(3):
        assert z[:, k][hard[:, k]].max() <= z[:, k][~hard[:, k]].min()


def test_networks_that_agree_leave_no_cell_that_is_hard_for_one_alone(bench):
    distiller, t, s = bench.distiller("rdd", *HARD), bench.teacher_taps(), bench.agreeing_taps()
    loss = label_terms(bench, distiller, t, s)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert s.Z.grad.abs().max() < 1e-8
    assert distiller.report["hard_cells"] == 0


@pytest.mark.parametrize(
    ("places", "counted"), [("one", [1, 2]), ("either", [0, 1, 2]), ("both", [0]), ("student", [0, 1])]
)
def test_the_hard_cells_of_a_class_are_averaged(bench, places, counted):
    """Four columns of a map without classes: hard for both, for the student, for the teacher, for none."""
    bench.labels.masks[:] = 0
    distiller, t, s = (
        bench.distiller("rdd", *HARD, f"rdd.places={places}", "rdd.hardest=0"),
        *[bench.teacher_taps()] * 2,
    )
    z_s, z_t = torch.full_like(t.Z, -5.0), torch.full_like(t.Z, -5.0)
    z_s[..., :2], z_t[..., 0], z_t[..., 2] = 1.0, 1.0, 1.0
    loss = label_terms(bench, distiller, t._replace(Z=z_t), s._replace(Z=z_s))
    p = torch.sigmoid(z_s[0, 0, 0, :3])
    values = -(p**2) * torch.log1p(-p)
    assert loss.item() == pytest.approx(6 * values[counted].mean().item(), rel=1e-4)


def test_the_places_carry_no_gradient(bench):
    distiller, t = bench.distiller("rdd"), bench.teacher_taps()
    t = t._replace(F=t.F.clone().requires_grad_(), Z=t.Z.clone().requires_grad_())
    s = bench.leaf_taps()
    bench.losses(distiller, t, s, step=50)["label/difficulty"].backward()
    assert t.F.grad is None
    assert t.Z.grad is None
    assert s.Z.grad.abs().sum() > 0


def test_hard_cells_take_over_from_easy_ones_linearly_or_at_once(bench):
    t, s = bench.teacher_taps(), bench.leaf_taps()
    easy, hard = (label_terms(bench, bench.distiller("rdd", *x), t, s).item() for x in ((EASY,), HARD))

    def shares(*settings):
        distiller = bench.distiller("rdd", "rdd.easy=0.2", *settings)
        values = [label_terms(bench, distiller, t, s, step=step).item() for step in (0, 19, 20, 60, 100)]
        return [(value - hard) / (easy - hard) for value in values]

    assert shares() == pytest.approx([1, 1, 1, 0.5, 0], abs=1e-3)
    assert shares("rdd.turn=once") == pytest.approx([1, 1, 0, 0, 0], abs=1e-3)


def test_the_auxiliary_head_learns_the_labels_and_is_then_a_frozen_part_of_the_teacher(bench):
    def error(distiller):
        logits = distiller.auxiliary(torch.relu(bench.teacher_taps().F))
        return focal_loss(logits, bench.labels.masks, bench.labels.known, 2.0).item()

    fitted = bench.distiller("rdd", "rdd.fit_epochs=60", "rdd.fit_rate=0.01")
    assert error(fitted) < 0.5 * error(bench.distiller("rdd", prepared=False))
    fitted.train()
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    bench.losses(fitted, bench.teacher_taps(), bench.student_taps())
    assert all(torch.equal(before[name], value) for name, value in fitted.state_dict().items())
    assert not [p for p in fitted.parameters() if p.requires_grad]


def test_without_logit_distillation_only_labels_teach(bench):
    distiller, t, s = bench.distiller("rdd", "rdd.logits=0"), bench.teacher_taps(), bench.student_taps()
    losses = bench.losses(distiller, t, s)
    assert list(losses) == ["label/difficulty"]
    losses["label/difficulty"].backward()
    assert sum(float(p.grad.abs().sum()) for p in bench.student.camera.parameters() if p.grad is not None) > 0
