"""WCoRD: optimal transport between cells, and a critic of bounded slope that tells pairs apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from bridgeta_core.distill.base import Labels
from bridgeta_core.distill.related.wcord import plan_transport


def unit_vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def cost_of(a, b):
    return 1 - a @ b.transpose(-1, -2)


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 40))
@settings(deadline=None, max_examples=20)
def test_every_point_gives_and_takes_its_weight(seed, n, m):
    plan = plan_transport(cost_of(unit_vectors(1, n, 6, seed=seed), unit_vectors(1, m, 6, seed=seed + 1)), 0.1, 300)
    assert (plan.sum(dim=2) - 1 / n).abs().max() < 1e-3
    assert (plan.sum(dim=1) - 1 / m).abs().max() < 1e-3


def test_with_little_blur_the_cost_is_that_of_the_best_assignment():
    cost = cost_of(unit_vectors(3, 5, 4), unit_vectors(3, 5, 4, seed=1))
    value = (plan_transport(cost, 0.005, 500) * cost).sum(dim=(1, 2))
    orders = list(itertools.permutations(range(5)))
    best = [min(sum(one[i, j].item() for i, j in enumerate(order)) for order in orders) / 5 for one in cost]
    assert value.tolist() == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize(("entropy", "expected"), [(0.5, 0.72), (0.1, 0.010), (0.05, 5e-5)])
def test_equal_points_cost_what_the_blur_leaves(entropy, expected):
    """The figures of kd_methods M9: 32 random unit vectors of 16 dimensions. The exact cost would be 0."""
    values = []
    for seed in range(20):
        points = unit_vectors(1, 32, 16, seed=seed)
        cost = cost_of(points, points)
        values.append((plan_transport(cost, entropy, 200) * cost).sum().item())
    assert expected / 3 < np.median(values) < 3 * expected


def test_the_order_of_one_sides_cells_does_not_matter_without_a_price_of_distance(bench):
    distiller = bench.distiller("wcord", "wcord.contrast=0")
    pairs = distiller._embed_cells(bench.teacher_taps(), bench.student_taps(), bench.labels, 3)
    order = torch.randperm(pairs.teacher.shape[1], generator=torch.Generator().manual_seed(0))

    def transport(teacher, distance):
        cost = cost_of(teacher, pairs.teacher) + distance
        return (plan_transport(cost.detach(), 0.05, 50) * cost).sum(dim=(1, 2))

    mixed = pairs.teacher[:, order]
    torch.testing.assert_close(transport(mixed, 0), transport(pairs.teacher, 0), rtol=1e-4, atol=1e-6)
    assert (transport(mixed, pairs.distance) > transport(pairs.teacher, pairs.distance) + 1e-3).all()


def test_a_price_of_distance_makes_transport_dearer(bench):
    t, s = bench.teacher_taps(), bench.student_taps()
    free, priced = (bench.distiller("wcord", f"wcord.distance={price}") for price in (0, 0.1))
    values = [bench.losses(x, t, s)["kd/transport"].item() for x in (free, priced)]
    assert values[0] < values[1] < values[0] + 0.05 * 0.1 * 2 * 2.4**2  # the square of the grid's diagonal


def test_the_drawn_cells_are_the_same_places_in_both_networks(bench):
    """Features that are the places themselves: embeddings of teacher and student come from the same cells."""
    distiller = bench.distiller("wcord", prepared=False)
    distiller.embed = torch.nn.Identity()
    x, y = bench.student.bev_grid.centres()
    shown = torch.stack(torch.meshgrid(torch.tensor(x), torch.tensor(y), indexing="xy")).float()
    features = torch.cat([shown, torch.ones(6, *shown.shape[1:])])[None].repeat(2, 1, 1, 1)
    t, s = (taps._replace(F=features) for taps in (bench.teacher_taps(), bench.student_taps()))
    pairs = distiller._embed_cells(t, s, bench.labels, 3)
    torch.testing.assert_close(pairs.teacher, pairs.student)
    places = pairs.teacher[..., :2] / pairs.teacher[..., 2:3]  # metres
    torch.testing.assert_close(pairs.distance, torch.cdist(places, places).square() / 100, rtol=1e-3, atol=1e-4)


def test_different_inputs_are_far_away_and_have_other_classes(bench):
    distiller = bench.distiller("wcord")
    masks = torch.zeros_like(bench.labels.masks)
    masks[:, 0, :, 13:] = 1  # ahead of the vehicle
    labels = Labels(masks, torch.ones_like(bench.labels.known))
    pairs = distiller._embed_cells(bench.teacher_taps(), bench.student_taps(), labels, 3)
    assert pairs.different.any()
    assert pairs.distance[pairs.different].min() > 1
    ahead = distiller._embed_cells(bench.teacher_taps(), bench.student_taps(), Labels(masks, labels.known), 3)
    assert torch.equal(ahead.different, pairs.different)
    everywhere = Labels(torch.ones_like(masks), labels.known)
    assert not distiller._embed_cells(bench.teacher_taps(), bench.student_taps(), everywhere, 3).different.any()


def test_the_contrast_is_the_mean_over_all_pairs(bench):
    """Against loops over every pair, with the cells of three earlier batches in the place of their mean."""
    distiller = bench.distiller("wcord", "wcord.queue=2", "wcord.cells=12")
    taps, s = bench.teacher_taps(), bench.student_taps()
    earlier = []
    for step in range(3):
        distiller._contrast(distiller._embed_cells(taps, s, bench.labels, step))
        earlier.append(distiller._embed_cells(taps, s, bench.labels, step).teacher.flatten(0, 1))
    distiller.eval()
    pairs = distiller._embed_cells(taps, s, bench.labels, 7)
    v = distiller.critic.weight
    losses = []
    for t, s, different in zip(pairs.teacher, pairs.student, pairs.different, strict=True):
        same = sum(t[i] @ v @ s[i] for i in range(12)) / 12
        # A frame of this batch has as many cells as one of the queue; two frames a batch, so each counts half.
        other = [(0.5, old @ v @ s[j]) for old in torch.cat(earlier[1:]) for j in range(12)]
        other += [(1.0, t[i] @ v @ s[j]) for i in range(12) for j in range(12) if different[i, j]]
        losses.append(2 - same + sum(w * g for w, g in other) / sum(w for w, _ in other))
    assert distiller._contrast(pairs).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_the_critics_slope_stays_bounded_and_it_learns_to_tell_pairs(bench):
    distiller = bench.distiller("wcord", "wcord.transport=0", "wcord.cells=64")
    optimiser = torch.optim.Adam(distiller.parameters(), lr=0.01)
    taps, s, values = bench.teacher_taps(), bench.student_taps(), []
    s = s._replace(F=taps.F)  # a student that knows all that the teacher does
    for step in range(60):
        value = bench.losses(distiller, taps, s, step=step)["kd/contrast"]
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.2
    assert min(values) > 0
    for _ in range(20):
        distiller.critic(torch.zeros(1, 8))
    assert torch.linalg.matrix_norm(distiller.critic.weight, 2) < 1.001


def test_the_components_are_those_of_the_normalised_features(bench):
    distiller = bench.distiller("wcord", "wcord.size=3")
    f = bench.teacher_taps().F.double().transpose(0, 1).flatten(1).numpy()
    centred = (f - f.mean(axis=1, keepdims=True)) / np.maximum(f.std(axis=1), 0.05 * np.median(f.std(axis=1)))[:, None]
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    ours = distiller.pca.components.double().numpy()
    assert np.abs(np.sum(ours * left[:, :3].T, axis=1)) == pytest.approx(1, abs=1e-3)  # up to the sign
    assert ours @ ours.T == pytest.approx(np.eye(3), abs=1e-5)


def test_a_resumed_run_has_the_queue_and_draws_the_same_cells(bench):
    distiller, taps, s = bench.distiller("wcord"), bench.teacher_taps(), bench.student_taps()
    for step in range(3):
        bench.losses(distiller, taps, s, step=step)
    resumed = bench.distiller("wcord", prepared=False)
    resumed.load_state_dict(distiller.state_dict())
    one, other = (bench.losses(x, taps, s, step=3) for x in (distiller, resumed))
    assert {name: value.item() for name, value in one.items()} == {name: value.item() for name, value in other.items()}


def test_logit_distillation_can_be_added(bench):
    distiller = bench.distiller("wcord", "wcord.logits=0.5", "logits.tau=3")
    logits = bench.distiller("logits", "logits.tau=3")
    t, s = bench.teacher_taps(), bench.student_taps()
    expected = 0.5 * bench.losses(logits, t, s)["kd/Z"]
    assert bench.losses(distiller, t, s)["kd/Z"].item() == pytest.approx(expected.item(), rel=1e-5)
