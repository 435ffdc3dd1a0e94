"""GPD: a wider network that is the same function, shares the student's weights, and learns beside it."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional

from bridgeta_core.config.experiment import DecoderConfig
from bridgeta_core.distill.related.gpd import (
    DynamicTeacher,
    insert_block,
    merge_branches,
    smoothed_cross_entropy,
    widen_weight,
)
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student

DECODERS = [
    DecoderConfig(width=8, stages=[8, 12], blocks=2, channels=6),
    DecoderConfig(width=8, stages=[8, 12, 16], blocks=2, channels=6, kind="plain"),
    DecoderConfig(width=8, stages=[8, 10, 12], blocks=2, channels=6, kind="resnet"),
]


def lively(model, grid: BevGrid) -> tuple[Student, torch.Tensor]:
    """A student whose batch norms have statistics and scales of their own, and an F for it."""
    torch.manual_seed(1)
    student = Student(model, grid, pretrained=False)
    features = torch.randn(2, model.decoder.width, *student.bev_grid.shape)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        for _ in range(3):
            student.decode(features)
    return student.eval(), features


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: d.kind)
@pytest.mark.parametrize("widen", [1, 2, 3])
def test_without_noise_the_wider_network_is_the_same_function(bench, decoder, widen):
    model = dataclasses.replace(bench.student.config, decoder=decoder)
    student, features = lively(model, bench.student.grid)
    dynamic = DynamicTeacher(student, widen, 3, 0.0).eval()
    expected = student.decode(features).Z
    assert expected.std() > 1e-2
    for shared in (student, None):
        assert (dynamic(features, shared) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: d.kind)
def test_the_students_weights_can_be_read_out_of_the_wider_network(bench, decoder):
    """Also after training, since they are the same parameters."""
    model = dataclasses.replace(bench.student.config, decoder=decoder)
    student, features = lively(model, bench.student.grid)
    dynamic = DynamicTeacher(student, 2, 3, 1e-3)
    optimiser = torch.optim.SGD([*student.parameters(), *dynamic.parameters()], lr=0.1)
    dynamic(features, student).square().mean().backward()
    optimiser.step()
    weights = dynamic.assemble(student)
    for part in ("decoder", "head"):
        for name, theirs in getattr(student, part).named_parameters(part):
            wide = weights[name]
            if theirs.ndim == 1:
                assert torch.equal(wide[:: len(wide) // len(theirs)], theirs)
                continue
            outputs, inputs = (big // small for big, small in zip(wide.shape[:2], theirs.shape[:2], strict=True))
            assert torch.equal(inputs * wide[::outputs, ::inputs], theirs)


def test_a_wider_layer_repeats_its_outputs_for_repeated_inputs():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(1, 3, 5, 5, generator=generator)
    wide = widen_weight(weight, torch.Size([8, 6, 3, 3]))
    expected = functional.conv2d(x, weight).repeat_interleave(2, 1)
    torch.testing.assert_close(functional.conv2d(x.repeat_interleave(2, 1), wide), expected)
    first = widen_weight(weight, torch.Size([8, 3, 3, 3]))
    assert torch.equal(first[1::2], weight)


def test_an_inserted_weight_leaves_the_rest_alone_and_takes_the_gradient_of_its_place():
    weight, wide = torch.randn(2, 3, 1, 1, requires_grad=True), torch.randn(4, 6, 1, 1)
    merged = wide.clone()
    insert_block(merged, weight)
    changed = torch.zeros(4, 6, dtype=torch.bool)
    changed[::2, ::2] = True
    assert torch.equal(merged[~changed], wide[~changed])
    factor = torch.arange(24.0).view(4, 6, 1, 1)
    (factor * merged).sum().backward()
    torch.testing.assert_close(weight.grad, factor[::2, ::2] / 2)


def test_merged_branches_compute_their_sum():
    torch.manual_seed(0)
    x, kernel, point, scale = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 3, 3), torch.randn(4, 4, 1, 1), torch.randn(4)
    apart = functional.conv2d(x, kernel, padding=1) + functional.conv2d(x, point) + scale[:, None, None] * x
    merged = merge_branches(kernel, point, scale)
    torch.testing.assert_close(functional.conv2d(x, merged, padding=1), apart, atol=1e-5, rtol=1e-5)
    alone = merge_branches(kernel, None, None)
    assert torch.equal(alone, kernel)
    assert alone is not kernel  # what is inserted into it must not change it


def test_noise_parts_the_copies_but_not_the_students_own(bench):
    plain, noisy = (DynamicTeacher(bench.student, 2, 1, noise).assemble(None) for noise in (0.0, 1e-3))
    name, theirs = next(("decoder." + n, p) for n, p in bench.student.decoder.named_parameters() if p.ndim == 4)
    difference = noisy[name] - plain[name]
    assert torch.equal(difference[::2], torch.zeros_like(theirs))  # the first layer's inputs are not repeated
    assert difference[1::2].std().item() == pytest.approx(1e-3 * theirs.std().item(), rel=0.2)


def test_as_wide_as_the_student_it_leaves_nothing_to_learn_from_it(bench):
    distiller = bench.distiller("gpd", "gpd.widen=1", "gpd.branches=1", "gpd.smoothing=0")
    for module in (bench.student, distiller):
        module.train()
    student = bench.student_taps()
    z = student.Z.detach().requires_grad_()
    losses = bench.losses(distiller, bench.teacher_taps(), student._replace(Z=z))
    (gradient,) = torch.autograd.grad(losses["kd/dynamic"], z)
    assert gradient.abs().max() < 1e-7
    assert torch.autograd.grad(losses["kd/Z"], z)[0].abs().max() > 1e-5


def test_smoothing_draws_the_target_to_one_half():
    z = torch.tensor([2.0, -1.0]).view(1, 1, 1, 2)
    best = (0.9 * torch.sigmoid(z) + 0.05).logit().requires_grad_()
    value = smoothed_cross_entropy(z, best, 0.1)
    value.backward()
    assert best.grad.abs().max() < 1e-7
    p, q = 0.9 * torch.sigmoid(z) + 0.05, torch.sigmoid(best.detach())
    assert value.item() == pytest.approx(-(p * q.log() + (1 - p) * (1 - q).log()).mean().item(), rel=1e-5)


def test_both_learn_the_weights_that_they_share(bench):
    distiller, student = bench.distiller("gpd"), bench.student_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), student)
    shared = [bench.student.decoder.stages[0][0][0].weight, bench.student.head.classify.weight]
    for name in ("label/dynamic", "kd/teacher", "kd/Z", "kd/dynamic"):
        gradients = torch.autograd.grad(losses[name], [student.F, *shared], retain_graph=True)
        assert all(g.abs().sum() > 0 for g in gradients), name


def test_the_dynamic_teacher_does_not_learn_from_the_student(bench):
    distiller, student = bench.distiller("gpd"), bench.student_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), student)
    own = list(distiller.parameters())
    for name in ("kd/Z", "kd/dynamic"):
        assert all(g is None for g in torch.autograd.grad(losses[name], own, retain_graph=True, allow_unused=True))
    for name in ("label/dynamic", "kd/teacher"):
        gradients = torch.autograd.grad(losses[name], own, retain_graph=True)
        assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_without_sharing_the_students_decoder_learns_for_itself(bench):
    distiller, student = bench.distiller("gpd", "gpd.sharing=false"), bench.student_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), student)
    parts = [*bench.student.decoder.parameters(), *bench.student.head.parameters()]
    for name in ("label/dynamic", "kd/teacher"):
        of_f, *others = torch.autograd.grad(losses[name], [student.F, *parts], retain_graph=True, allow_unused=True)
        assert of_f.abs().sum() > 0
        assert all(g is None for g in others)


def test_it_keeps_running_statistics_of_its_own(bench):
    distiller, student = bench.distiller("gpd"), bench.student_taps()
    before = copy.deepcopy(dict(distiller.dynamic.wide.named_buffers()))
    theirs = copy.deepcopy(dict(bench.student.named_buffers()))
    bench.losses(distiller, bench.teacher_taps(), student)
    after = dict(distiller.dynamic.wide.named_buffers())
    assert all(not torch.equal(before[name], x) for name, x in after.items() if "running" in name)
    assert all(torch.equal(theirs[name], x) for name, x in bench.student.named_buffers())


def test_every_block_is_trained(bench):
    """Kernels, 1x1 kernels and identities outside the student's place get a gradient, and none inside it."""
    distiller, student = bench.distiller("gpd"), bench.student_taps()
    bench.losses(distiller, bench.teacher_taps(), student)["label/dynamic"].backward()
    dynamic = distiller.dynamic
    for name, weight in dynamic.wide.named_parameters():
        outputs, inputs = [(2, 1), (2, 2)][name != "decoder.stages.0.0.0.weight"]
        if name.startswith("head.classify"):
            outputs = 1
        if weight.ndim == 4:
            assert weight.grad[::outputs, ::inputs].abs().max() == 0, name
        assert (weight.grad.abs().sum() > 0) == (name != "head.classify.bias"), name
    for branches in (dynamic.points, dynamic.identities):
        assert len(branches) > 0
        assert all(p.grad.abs().sum() > 0 for p in branches.values())
