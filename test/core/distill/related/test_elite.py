"""ELiTe: classifiers at the stages of both networks, and a teacher that is tuned without being touched."""

from __future__ import annotations

import copy

import pytest
import torch
from small_networks import small_teacher
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.related.elite import Elite, LowRank, occupancy_loss
from bridgeta_core.distill.stages import compute_stages
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


def train(bench, distiller: Elite, steps: int) -> list[dict[str, float]]:
    """Train what the method owns on the label terms alone, and return the losses of every step."""
    optimiser = torch.optim.Adam(distiller.parameters(), lr=0.01)
    t, s, values = bench.teacher_taps(), bench.leaf_taps(), []
    for _ in range(steps):
        losses = bench.losses(distiller, t, s)
        optimiser.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("label/")).backward()
        optimiser.step()
        values.append({name: value.item() for name, value in (losses | distiller.report).items()})
    return values


@pytest.mark.parametrize("kind", ["bench", "imported_bench"])
def test_before_training_the_tuned_teacher_is_the_teacher_to_the_bit(request, kind):
    bench = request.getfixturevalue(kind)
    distiller, t = bench.distiller("elite"), bench.teacher_taps()
    tuned, stages = distiller.run_teacher(bench.fused, bench.teacher)
    assert all(torch.equal(one, other) for one, other in zip(tuned, t, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(stages, compute_stages(bench.teacher, t.F), strict=True))
    assert tuned.Z.requires_grad


def test_tuning_makes_the_teacher_better_on_labels_and_leaves_it_as_it_was(bench):
    distiller, before = bench.distiller("elite", "elite.teacher=0"), copy.deepcopy(bench.teacher.state_dict())
    values = train(bench, distiller, 30)
    assert values[0]["label/teacher"] == pytest.approx(values[0]["teacher_before"], rel=1e-6)
    assert values[-1]["label/teacher"] < values[-1]["teacher_before"] - 0.005  # of 0.93
    assert values[-1]["teacher_before"] == values[0]["teacher_before"]
    assert all(torch.equal(value, before[name]) for name, value in bench.teacher.state_dict().items())


def test_what_is_added_has_the_rank(bench):
    added = LowRank(bench.teacher.decoder, 2)
    for up in added.up:
        torch.nn.init.normal_(up)
    weights = dict(bench.teacher.decoder.named_parameters())
    for name, weight in added.add_to(bench.teacher.decoder).items():
        assert torch.linalg.matrix_rank((weight - weights[name]).flatten(1), tol=1e-4) == min(2, len(weight))


def test_comparing_trains_the_student_and_neither_classifiers_of_the_teacher_nor_its_tuning(bench):
    distiller, s = bench.distiller("elite", "elite.logits=1"), bench.leaf_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), s)
    (losses["kd/stages"] + losses["kd/Z"]).backward()
    for module in (distiller.of_teacher, distiller.tuning):
        assert all(p.grad is None for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in distiller.of_student.parameters())
    assert all(x.grad.abs().sum() > 0 for x in (*s, *bench.stages))


def test_labels_train_each_networks_own_side(bench):
    distiller, s = bench.distiller("elite"), bench.leaf_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), s)
    (losses["label/teacher"] + losses["label/teacher_stages"]).backward(retain_graph=True)
    assert all(p.grad.abs().sum() > 0 for p in [*distiller.of_teacher.parameters(), *distiller.tuning["decoder"].up])
    assert all(p.grad is None for p in distiller.of_student.parameters())
    assert all(x.grad is None for x in (*s, *bench.stages))
    losses["label/student_stages"].backward()
    assert all(p.grad.abs().sum() > 0 for p in distiller.of_student.parameters())
    assert s.F.grad.abs().sum() > 0


def test_classifiers_that_give_the_same_logits_agree(bench):
    distiller = bench.distiller("elite")
    distiller.of_student.load_state_dict(distiller.of_teacher.state_dict())
    t = bench.teacher_taps()
    assert bench.losses(distiller, t, bench.agreeing_taps())["kd/stages"].item() == pytest.approx(0, abs=1e-6)
    assert bench.losses(distiller, t, bench.student_taps())["kd/stages"].item() > 1e-4


def test_without_tuning_the_taps_are_enough(bench):
    distiller = bench.distiller("elite", "elite.rank=0")
    assert not distiller.needs_live_teacher
    assert bench.distiller("elite").needs_live_teacher
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), fused=None)
    assert set(losses) == {"kd/stages", "label/teacher_stages", "label/student_stages"}


@pytest.mark.parametrize(("stages", "count"), [("[F]", 1), ("[F, D]", 2), ("[D, inner, F]", 4)])
def test_the_stages_can_be_chosen(bench, stages, count):
    distiller = bench.distiller("elite", f"elite.stages={stages}")
    assert len(distiller.of_student) == len(distiller.of_teacher) == count
    with pytest.raises(BridgeTAError, match=r"distill\.elite\.stages is empty"):
        bench.distiller("elite", "elite.stages=[]")


def test_a_coarse_stage_speaks_for_all_cells_of_its_patch(bench):
    distiller, s = bench.distiller("elite", "elite.stages=[inner]"), bench.student_taps()
    coarse = distiller._classify(distiller.of_student, s, bench.stages)[1]
    patches = coarse.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert torch.equal(patches, patches[..., :1].expand_as(patches))
    assert coarse.std() > 0


def test_a_teacher_of_lidar_alone_is_tuned_in_its_decoder(bench):
    torch.manual_seed(0)
    config = small_teacher("lidar", width=8, blocks=1)
    config.fuser = False
    bench.teacher = Teacher(config, bench.teacher.model, bench.student.grid).eval().requires_grad_(False)
    distiller = bench.distiller("elite", "elite.teacher=0")
    assert not list(distiller.tuning["fuser"].parameters())
    values = train(bench, distiller, 10)
    assert values[-1]["label/teacher"] < values[-1]["teacher_before"]


def test_the_label_loss_is_cross_entropy_and_dice():
    """One map of two cells, 0.25 and 0.75 of the weight: by hand."""
    p, y, w = torch.tensor([0.2, 0.9]), torch.tensor([0.0, 0.5]), torch.tensor([0.25, 0.75])
    entropy = -(w * (y * p.log() + (1 - y) * (1 - p).log())).sum()
    dice = 1 - 2 * 0.75 * 0.9 * 0.5 / (0.25 * 0.04 + 0.75 * (0.81 + 0.25))
    value = occupancy_loss(p.logit().view(1, 1, 1, 2), y.view(1, 1, 1, 2), torch.tensor([[True]]), w.view(1, 2))
    assert value.item() == pytest.approx(entropy.item() + dice, rel=1e-5)


def test_unknown_maps_do_not_count_and_absent_classes_have_no_dice():
    generator = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(3, 1, 2, 2, generator=generator), torch.full((2, 2), 0.25)
    shares = torch.rand(3, 1, 2, 2, generator=generator)
    shares[1] = 0
    known = torch.tensor([[True], [True], [False]])
    value = occupancy_loss(logits, shares, known, weights)
    assert value.item() == pytest.approx(occupancy_loss(logits[:2], shares[:2], known[:2], weights).item(), rel=1e-6)
    entropy = functional.binary_cross_entropy_with_logits(logits[:2], shares[:2])
    alone = occupancy_loss(logits[:1], shares[:1], known[:1], weights)
    dice = alone - functional.binary_cross_entropy_with_logits(logits[:1], shares[:1])
    assert value.item() == pytest.approx((entropy + dice / 2).item(), rel=1e-5)  # of two known maps one has the class
    assert occupancy_loss(logits, shares, torch.zeros_like(known), weights).item() == 0


def test_frames_without_labels_do_not_tune_the_teacher(bench):
    distiller = bench.distiller("elite")
    labels = Labels(bench.labels.masks, torch.zeros_like(bench.labels.known))
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), labels)
    sum(losses.values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in distiller.tuning.parameters())
