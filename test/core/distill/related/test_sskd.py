"""SSKD: a world that turns about the vehicle, and which region came from where."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bridgeta_core.distill.base import Labels, View
from bridgeta_core.distill.related import sskd
from bridgeta_core.distill.related.sskd import draw_turns, select_rows, turn_batch, turn_map
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError


@pytest.fixture
def unturned(monkeypatch):
    """A turn of 0 in every step, which is never drawn."""
    monkeypatch.setattr(sskd, "draw_turns", lambda step: 0)


def test_points_and_labels_turn_together(bench):
    """A mark on the ground, ahead and to the right, and a point in the middle of its cell."""
    grid, (x, y) = bench.student.grid, (6.4, -2.4)
    for turns, (there_x, there_y) in enumerate([(x, y), (-y, x), (-x, -y), (y, -x), (x, y)]):
        row, column = int((y - grid.y_min) / grid.resolution), int((x - grid.x_min) / grid.resolution)
        masks = torch.zeros_like(bench.labels.masks)
        masks[:, 2, row, column] = 1
        points = [torch.tensor([[x, y, 1.0, 7.0, 0.5]])] * len(masks)
        turned = turn_batch(dataclasses.replace(bench.batch, labels=masks, points=points), turns)
        torch.testing.assert_close(turned.points[0], torch.tensor([[there_x, there_y, 1.0, 7.0, 0.5]]))
        row, column = int((there_y - grid.y_min) / grid.resolution), int((there_x - grid.x_min) / grid.resolution)
        assert turned.labels[0].nonzero().tolist() == [[2, row, column]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_what_cameras_see_turns_with_the_labels(bench, turns):
    batch, camera = bench.batch, bench.student.camera.eval()
    turned = turn_batch(batch, turns)
    assert torch.equal(turned.images, batch.images)
    seen, there = (camera(b.images, bench.student.plan(b.intrinsics, b.ego_T_cam)) for b in (batch, turned))
    expected = turn_map(seen, turns)
    same = torch.isclose(there, expected, atol=1e-5).all(dim=1)
    assert same.float().mean() > 0.97  # but for what lies on the border of two cells
    assert not torch.isclose(there, seen, atol=1e-5).all(dim=1).float().mean() > 0.9


@given(st.integers(1, 3), st.integers(1, 9))
def test_four_turns_restore_the_map_of_regions(turns, regions):
    own = torch.arange(regions**2).view(regions, regions)
    once = turn_map(own, turns)
    again = own
    for _ in range(4):
        again = turn_map(again, turns)
    assert torch.equal(again, own)
    assert sorted(once.flatten().tolist()) == own.flatten().tolist()


def test_the_turn_depends_on_the_step_alone_and_is_never_none():
    drawn = [draw_turns(step) for step in range(200)]
    torch.rand(3)
    assert [draw_turns(step) for step in range(200)] == drawn
    assert set(drawn) == {1, 2, 3}
    assert min(drawn.count(turns) for turns in (1, 2, 3)) > 40


def test_without_a_turn_every_region_is_its_own_source(bench, unturned):
    """All networks in eval mode see the same, so the cosines with themselves are 1, and both logit terms agree."""
    bench.student.eval()
    distiller = bench.distiller("sskd", "sskd.drop=0")
    t, s = bench.teacher_taps(), bench.student_taps()
    view = bench.view(distiller, 10)
    for head, of_frames, of_view in (
        (distiller.teacher_head, t, view.teacher),
        (distiller.student_head, s, view.student),
    ):
        similarities = distiller._compare(head, of_frames, of_view)
        torch.testing.assert_close(similarities.diagonal(), torch.ones(len(similarities)))
        assert torch.equal(distiller._find_sources(2, 10), torch.arange(len(similarities)))
    losses = bench.losses(distiller, t, s)
    assert losses["kd/transformed"].item() == pytest.approx(losses["kd/Z"].item(), rel=1e-5)
    assert distiller.report["regions_found"] == 1


def test_the_source_of_a_region_is_where_the_same_things_are(bench):
    """With features that turn as the world does, the right column of every row is the most alike."""
    distiller = bench.distiller("sskd", prepared=False)
    step = next(step for step in range(9) if draw_turns(step) == 1)
    t = bench.teacher_taps()
    torch.manual_seed(0)
    t = t._replace(F=torch.randn_like(t.F))
    similarities = distiller._compare(torch.nn.Identity(), t, t._replace(F=turn_map(t.F, 1)))
    sources = distiller._find_sources(2, step)
    torch.testing.assert_close(similarities.gather(1, sources[:, None]).flatten(), torch.ones(len(sources)))
    assert torch.equal(similarities.argmax(dim=1), sources)


def test_a_student_that_agrees_in_both_views_has_nothing_to_learn(bench):
    distiller = bench.distiller("sskd")
    distiller.student_head.load_state_dict(distiller.teacher_head.state_dict())
    view = bench.view(distiller, 10)
    student = bench.agreeing_taps()
    turned = type(student)(*(x.clone().requires_grad_() for x in view.teacher))
    losses = bench.losses(distiller, bench.teacher_taps(), student, view=View(view.teacher, turned, view.labels))
    assert set(losses) == {"kd/Z", "kd/transformed", "kd/similarity"}
    sum(losses.values()).backward()
    assert [x.item() for x in losses.values()] == pytest.approx([0, 0, 0], abs=1e-5)
    assert max(float(x.grad.abs().max()) for x in (*student, *turned) if x.grad is not None) < 1e-5


def test_both_views_of_the_student_are_trained(bench):
    distiller = bench.distiller("sskd")
    view, student = bench.view(distiller, 10), bench.leaf_taps()
    turned = type(student)(*(x.detach().requires_grad_() for x in view.student))
    changed = View(view.teacher, turned, view.labels)
    losses = bench.losses(distiller, bench.teacher_taps(), student, view=changed)
    gradients = torch.autograd.grad(losses["kd/similarity"], [student.F, turned.F], retain_graph=True)
    assert all(g.abs().sum() > 0 for g in gradients)
    assert torch.autograd.grad(losses["kd/transformed"], turned.Z)[0].abs().sum() > 0


def test_the_teachers_head_learns_to_find_regions_and_is_frozen(bench):
    found = []
    for epochs in (1, 60):
        distiller = bench.distiller("sskd", f"sskd.fit_epochs={epochs}", "sskd.fit_rate=0.01", "sskd.regions=4")
        assert not any(p.requires_grad for p in distiller.teacher_head.parameters())
        assert all(p.requires_grad for p in distiller.student_head.parameters())
        example = bench.example(distiller)
        similarities = distiller._compare(distiller.teacher_head, example.taps, example.view)
        found.append(functional.cross_entropy(similarities, distiller._find_sources(2, 0)).item())
    assert found[1] < 0.9 * found[0]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_every_row_whose_source_is_found_is_kept_and_the_best_of_the_others(seed, keep):
    generator = torch.Generator().manual_seed(seed)
    similarities = torch.rand(12, 8, generator=generator)
    sources = torch.randint(8, (12,), generator=generator)
    kept, share = select_rows(similarities, sources, keep)
    order = [
        sorted(row, reverse=True).index(row[source])
        for row, source in zip(similarities.tolist(), sources.tolist(), strict=True)
    ]
    found = {i for i, rank in enumerate(order) if rank == 0}
    assert found <= set(kept.tolist())
    assert share.item() == pytest.approx(len(found) / 12)
    assert len(kept) == max(1, len(found) + int(keep * (12 - len(found))))
    left = [order[i] for i in range(12) if i not in kept]
    assert not left or max(order[i] for i in kept.tolist()) <= min(left)


def test_the_cells_where_the_teacher_is_worst_are_dropped(bench):
    """Whatever the teacher says there, nothing changes."""
    distiller = bench.distiller("sskd", "sskd.drop=0.1", "sskd.logits=0", "sskd.similarity=0")
    view = bench.view(distiller, 10)
    sign = 2 * view.labels.masks.float() - 1
    z = sign * (1 + torch.rand(view.teacher.Z.shape, generator=torch.Generator().manual_seed(1)))
    wrong = torch.zeros_like(z, dtype=torch.bool)
    wrong[:, :, ::5, ::5] = True  # 4 % of the cells
    values = []
    for strength in (3.0, 9.0):
        teacher = view.teacher._replace(Z=torch.where(wrong, -strength * sign, z))
        changed = View(teacher, view.student, view.labels)
        values.append(bench.losses(distiller, bench.teacher_taps(), bench.leaf_taps(), view=changed))
    assert values[0]["kd/transformed"].item() == pytest.approx(values[1]["kd/transformed"].item(), rel=1e-6)


def test_no_cell_is_dropped_where_no_class_is_known(bench):
    student = bench.leaf_taps()
    values = []
    for drop in (0.0, 0.5):
        distiller = bench.distiller("sskd", f"sskd.drop={drop}")
        view = bench.view(distiller, 10)
        view = view._replace(labels=Labels(view.labels.masks, torch.zeros_like(view.labels.known)))
        values.append(bench.losses(distiller, bench.teacher_taps(), student, view=view)["kd/transformed"].item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_without_turned_frames_the_teacher_may_come_from_a_cache(bench):
    logits = bench.distiller("sskd", "sskd.transformed=0", "sskd.similarity=0")
    assert not logits.needs_live_teacher
    assert logits.view(bench.batch, 3) is None
    assert bench.distiller("sskd", "sskd.transformed=0").needs_live_teacher


def test_a_grid_that_does_not_turn_onto_itself_is_refused(bench):
    bench.student = Student(bench.student.config, BevGrid(-10, 10, -6, 6, 0.8), pretrained=False)
    with pytest.raises(BridgeTAError, match="grid is no square") as caught:
        bench.distiller("sskd", prepared=False)
    assert caught.value.exit_code == 2


def test_a_turned_pass_leaves_the_running_statistics_alone(bench):
    distiller = bench.distiller("sskd")
    before = {name: x.clone() for name, x in bench.student.named_buffers() if "running" in name}
    bench.view(distiller, 10)
    assert all(torch.equal(before[name], x) for name, x in bench.student.named_buffers() if "running" in name)
    bench.student_taps()
    assert any(not torch.equal(before[name], x) for name, x in bench.student.named_buffers() if "running" in name)
