"""TSCM: descriptors of regions, within a frame and across frames."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.related.tscm import Regions, assign_cells, released_loss, triplet_loss

ALONE = ("tscm.triplet=0",)


def some_regions(frames: int = 3, groups: int = 4) -> Regions:
    frame, group = (x.flatten() for x in torch.meshgrid(torch.arange(frames), torch.arange(groups), indexing="ij"))
    t, s = (functional.normalize(torch.randn(len(frame), 5, dtype=torch.float64), dim=1) for _ in range(2))
    return Regions(frame, group, t, s)


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_every_cell_is_in_the_one_group_of_its_set_of_classes():
    present = torch.rand(2, 6, 8, 8) > 0.6
    members = assign_cells(present, "vectors")
    assert members.shape == (2, 64, 8, 8)
    assert (members.sum(dim=1) == 1).all()
    code = members.int().argmax(dim=1)
    for k in range(6):
        assert torch.equal(code >> k & 1 == 1, present[:, k])
    assert torch.equal(assign_cells(present, "classes"), present)


def test_a_region_is_described_by_the_mean_of_its_cells_at_unit_length(bench):
    """Of 16 x 16 cells of 1.5 m over 24 m the labels, 20 m, cover those of rows and columns 1 to 14."""
    masks = torch.zeros_like(bench.labels.masks)
    masks[:, 2, :, 13:] = 1  # the cells ahead of 0.4 m, so those of columns 8 to 14
    bench.labels = Labels(masks, bench.labels.known)
    distiller, t, s = bench.distiller("tscm"), bench.teacher_taps(), bench.student_taps()
    regions = distiller._describe(t, s, bench.labels)
    assert regions.frame.tolist() == [0, 0, 1, 1]
    assert regions.group.tolist() == [0, 4, 0, 4]
    for projected, found in ((distiller.pca(t.D), regions.teacher), (distiller.pca(s.D), regions.student)):
        for i, columns in enumerate((slice(1, 8), slice(8, 15))):
            mean = projected[1, :, 1:15, columns].mean(dim=(1, 2))
            torch.testing.assert_close(found[2 + i], functional.normalize(mean, dim=0), atol=1e-5, rtol=1e-4)


def test_small_regions_are_left_out(bench):
    def count(cells: int) -> int:
        distiller = bench.distiller("tscm", f"tscm.cells={cells}")
        bench.losses(distiller, bench.teacher_taps(), bench.student_taps())
        return int(distiller.report["regions"])

    assert count(1) > count(20) > count(150) == 0


def test_a_student_that_agrees_is_as_far_from_the_teachers_earlier_regions_as_the_teacher(bench):
    distiller, t = bench.distiller("tscm", *ALONE, "tscm.cross=1"), bench.teacher_taps()
    bench.losses(distiller, t, bench.agreeing_taps())
    assert distiller.report["distance_cross"] == 0  # nothing is queued yet
    earlier = distiller.queue[:, 0].clone()
    later = t._replace(D=t.D + torch.rand(t.D.shape, generator=seed()))
    agreeing = later._replace(D=later.D.clone().requires_grad_())
    distiller.queue[:, 1:] = earlier[:, None]  # whatever is drawn, it is this region
    value = bench.losses(distiller, later, agreeing)["kd/regions"]
    regions = distiller._describe(later, agreeing, bench.labels)
    expected = 2 * (regions.teacher - earlier[regions.group]).square().sum(dim=1).mean()
    assert distiller.report["distance_soft"].item() == pytest.approx(0, abs=1e-6)
    assert expected > 1e-3
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_queue_keeps_the_last_regions_of_each_group_without_a_graph(bench):
    distiller, t = bench.distiller("tscm", "tscm.queue=3"), bench.teacher_taps()
    seen = []
    for step in range(3):
        s = bench.leaf_taps()
        bench.losses(distiller, t._replace(D=t.D + step), s, step=step)
        regions = distiller._describe(t._replace(D=t.D + step), s, bench.labels)
        seen += [x for x, g in zip(regions.teacher, regions.group, strict=True) if g == 0]
    assert distiller.filled[0] == len(seen) == 6
    assert not distiller.queue.requires_grad
    for i, descriptor in enumerate(seen[3:]):
        torch.testing.assert_close(distiller.queue[0, (3 + i) % 3], descriptor)
    distiller.eval()
    bench.losses(distiller, t, bench.leaf_taps())
    assert distiller.filled[0] == 6


def test_the_queue_is_in_a_checkpoint_and_draws_depend_on_the_step_alone(bench):
    distiller, t = bench.distiller("tscm"), bench.teacher_taps()
    bench.losses(distiller, t, bench.student_taps())
    bench.losses(distiller, t._replace(D=t.D + 1), bench.student_taps())
    resumed = bench.distiller("tscm", prepared=False)
    resumed.load_state_dict(distiller.state_dict())
    s = bench.student_taps()
    values = [bench.losses(x.eval(), t, s, step=7) for x in (distiller, resumed)]
    assert values[0].keys() == values[1].keys()
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])


@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_triplets_are_of_one_kind_in_two_frames_and_of_another_kind(margin):
    regions = some_regions(2, 3)  # one possible positive, and four negatives, which are all drawn
    s, values = regions.student, []
    for a, p, n in [(a, (a + 3) % 6, n) for a in range(6) for n in range(6) if n % 3 != a % 3]:
        values.append((margin + (s[a] - s[p]).square().sum() - (s[a] - s[n]).square().sum()).clamp(min=0))
    expected = torch.stack(values).mean()
    for negatives in (4, 9):
        assert triplet_loss(regions, negatives, margin, seed()).item() == pytest.approx(expected.item())


def test_without_a_partner_there_is_no_tuple():
    one_frame, one_group = some_regions(1, 4), some_regions(3, 1)
    nothing = some_regions().select(torch.zeros(12, dtype=torch.bool))
    for regions in (one_frame, one_group, nothing):
        assert triplet_loss(regions, 4, 0.1, seed()) == 0
        assert released_loss(regions, 4, 0.1, seed()) == 0


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_the_released_form_is_least_where_all_distances_vanish(margin):
    regions = some_regions()
    same = regions.teacher[regions.group]  # every region of a group has the same descriptor
    agreed = regions._replace(teacher=same, student=same)
    assert released_loss(agreed, 4, margin, seed()).item() == pytest.approx(margin**2 / 2)
    assert released_loss(regions, 4, margin, seed()).item() > margin**2 / 2
    differing = regions._replace(
        student=regions.teacher
    )  # within frames both networks agree, across frames they do not
    assert released_loss(differing, 4, margin, seed()).item() > margin**2 / 2


def test_the_released_form_adds_five_distances():
    regions = some_regions(2, 2)  # one possible positive, and two negatives of which both are drawn
    t, s = regions.teacher, regions.student
    values = []
    for a, p, n in [(a, (a + 2) % 4, n) for a in range(4) for n in range(4) if n % 2 != a % 2]:
        q = sum(
            (x - y).square().sum() for x, y in [(s[a], t[p]), (s[p], t[a]), (s[a], t[a]), (s[p], t[p]), (s[n], t[n])]
        )
        values.append((0.1 + q).clamp(min=0) ** 2 / 2)
    assert released_loss(regions, 4, 0.1, seed()).item() == pytest.approx(torch.stack(values).mean().item())


def test_triplets_are_a_label_loss(bench):
    distiller, t, s = bench.distiller("tscm"), bench.teacher_taps(), bench.student_taps()
    losses = bench.losses(distiller, t, s)
    assert set(losses) == {"kd/regions", "label/triplet"}
    assert losses["label/triplet"].item() > 0
    unknown = bench.labels.known.clone()
    unknown[0] = False  # one labelled frame is left, and no partner
    assert bench.losses(distiller, t, s, Labels(bench.labels.masks, unknown))["label/triplet"] == 0
