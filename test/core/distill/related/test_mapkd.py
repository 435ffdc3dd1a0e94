"""MapKD: relations of patches, the map where there is something, and a coach with simulated LiDAR."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import small_teacher
from torch import nn
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.related.mapkd import compare_patches, compare_responses
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


def random_maps(*shape: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2)]


def relate(x: torch.Tensor, rows: list[slice], columns: list[slice], tau: float) -> torch.Tensor:
    """The relations of one map, by loops over its squares; those at the far ends may be smaller."""
    squares = [x[:, r, c] for r in rows for c in columns]
    mean = x.mean(dim=(1, 2))
    result = torch.zeros(len(squares) + 1, len(squares) + 1, dtype=x.dtype)
    size = (rows[0].stop - rows[0].start) * (columns[0].stop - columns[0].start)
    for i, one in enumerate([None, *squares]):
        for j, other in enumerate([None, *squares]):
            if one is None and other is None:
                cosine = torch.ones((), dtype=x.dtype)
            elif one is None or other is None:
                square = other if one is None else one
                cosine = (square.sum(dim=(1, 2)) @ mean) / (square.norm() * mean.norm() * size**0.5)
            else:
                h, w = (min(a, b) for a, b in zip(one.shape[1:], other.shape[1:], strict=True))
                cosine = (one[:, :h, :w] * other[:, :h, :w]).sum() / (one.norm() * other.norm())
            result[i, j] = cosine / tau
    return result.softmax(dim=1)


@pytest.mark.parametrize(("size", "ends"), [(4, [2, 4]), (5, [2, 4, 5])])
def test_relations_are_those_of_squares_and_of_the_mean(size, ends):
    t, s = random_maps(1, 3, size, size)
    parts = [slice(2 * i, end) for i, end in enumerate(ends)]
    p, q = (relate(x[0], parts, parts, 0.5) for x in (t, s))
    expected = (p * (p / q).log()).sum(dim=1).mean()
    assert compare_patches(t, s, 2, 0.5).item() == pytest.approx(expected.item(), rel=1e-6)


@given(st.integers(0, 1000), st.floats(0.1, 10))
@settings(deadline=None, max_examples=20)
def test_relations_do_not_depend_on_a_maps_size_of_values(seed, factor):
    t, s = random_maps(2, 3, 8, 8, seed=seed)
    value = compare_patches(t, s, 4, 0.1)
    assert value > 0
    assert compare_patches(t, factor * s, 4, 0.1).item() == pytest.approx(value.item(), rel=1e-6)
    assert compare_patches(t, factor * t, 4, 0.1).item() == pytest.approx(0, abs=1e-9)


def test_the_map_counts_where_there_is_something():
    """It is the cross-entropy with the teacher's probability on those cells, less the teacher's entropy."""
    t, s = random_maps(2, 3, 4, 4)
    present = torch.zeros(2, 4, 4, dtype=torch.bool)
    present[0, 0, :3] = True
    present[1, 2:, 1] = True
    p = torch.sigmoid(t)
    per_cell = functional.binary_cross_entropy_with_logits(s, p, reduction="none")
    per_cell = per_cell - functional.binary_cross_entropy_with_logits(t, p, reduction="none")
    frames = [per_cell[i].permute(1, 2, 0)[present[i]].mean(dim=0).sum() for i in range(2)]
    assert compare_responses(t, s, present).item() == pytest.approx(torch.stack(frames).mean().item(), rel=1e-6)
    assert compare_responses(t, s, torch.zeros_like(present)).item() == 0


def test_the_teacher_says_what_is_there_where_a_class_is_not_known(bench):
    distiller = bench.distiller("mapkd", "mapkd.coach=0")
    t, s = bench.teacher_taps(), bench.student_taps()
    t = t._replace(Z=t.Z - t.Z.mean(dim=(2, 3), keepdim=True))
    labels = Labels(torch.zeros_like(bench.labels.masks), torch.zeros_like(bench.labels.known))
    value = bench.losses(distiller, t, s, labels)["kd/Z"]
    expected = 0.75 * compare_responses(t.Z, s.Z, (t.Z > 0).any(dim=1))
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    known = Labels(labels.masks, torch.ones_like(labels.known))
    assert bench.losses(distiller, t, s, known)["kd/Z"].item() == 0


@pytest.mark.parametrize("kind", ["bench", "imported_bench"])
def test_with_true_lidar_the_coach_is_the_teacher(request, kind):
    bench = request.getfixturevalue(kind)
    distiller, t = bench.distiller("mapkd"), bench.teacher_taps()
    cameras = distiller.coach.cameras

    class TrueLidar(nn.Module):
        def forward(self, seen):
            assert torch.equal(seen, bench.fused[:, :cameras])
            return bench.fused[:, cameras:]

    assert distiller.coach(bench.fused, bench.teacher).F.shape == t.F.shape
    distiller.coach.simulate = TrueLidar()
    coach = distiller.coach(bench.fused, bench.teacher)
    assert all(torch.equal(one, other) for one, other in zip(coach, t, strict=True))


def test_the_coach_learns_from_teacher_and_labels_and_the_teacher_stays_as_it_is(bench):
    distiller, before = bench.distiller("mapkd"), copy.deepcopy(bench.teacher.state_dict())
    optimiser = torch.optim.Adam(distiller.parameters(), lr=0.01)
    t, s, values = bench.teacher_taps(), bench.leaf_taps(), []
    for _ in range(40):
        losses = bench.losses(distiller, t, s)
        optimiser.zero_grad()
        (losses["kd/to_coach_F"] + losses["kd/to_coach_Z"] + losses["label/coach"]).backward()
        optimiser.step()
        values.append(losses["kd/to_coach_F"].item())
    assert values[-1] < 0.7 * values[0]
    assert all(x.grad is None for x in s)
    assert all(torch.equal(value, before[name]) for name, value in bench.teacher.state_dict().items())


def test_what_the_coach_teaches_trains_the_student_alone(bench):
    distiller, s = bench.distiller("mapkd"), bench.leaf_taps()
    losses = bench.losses(distiller, bench.teacher_taps(), s)
    (losses["kd/from_coach_F"] + losses["kd/from_coach_Z"]).backward()
    assert s.F.grad.any()
    assert s.Z.grad.any()
    assert all(p.grad is None for p in distiller.coach.parameters())


def test_a_coach_needs_a_teacher_that_fuses(bench):
    config = small_teacher("lidar", width=8, blocks=1)
    teacher = Teacher(config, bench.teacher.model, bench.student.grid).eval().requires_grad_(False)
    bench.teacher = teacher
    with pytest.raises(BridgeTAError, match=r"distill\.mapkd\.coach"):
        bench.distiller("mapkd")
    distiller = bench.distiller("mapkd", "mapkd.coach=0")
    assert not distiller.needs_live_teacher
    losses = bench.losses(distiller, bench.teacher_taps(), bench.student_taps(), fused=None)
    assert set(losses) == {"kd/F", "kd/Z"}
