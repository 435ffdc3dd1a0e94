"""Pillars: which points count, where they land, and what a pillar makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lidar.pillars import Pillars
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-4, 8, -3, 5, 0.5)  # 16 rows, 24 columns
Z = (-5.0, 3.0)
FAR_OUT = [
    (8.0, 0, 0, 9, 0),
    (-4.01, 0, 0, 9, 0),
    (0, 5.0, 0, 9, 0),
    (0, -3.01, 0, 9, 0),
    (1e9, -1e9, 0, 9, 0),
    (0, 0, 3.01, 9, 0),
    (0, 0, -5.01, 9, 0),
    (float("nan"), 0, 0, 9, 0),
    (0, float("inf"), 0, 9, 0),
    (0, 0, float("nan"), 9, 0),
    (0, 0, 0, float("inf"), 0),
    (0, 0, 0, 9, float("nan")),
]


def pillars(channels: int = 16) -> Pillars:
    """Weights and statistics as after some training; all features of a pillar with points are positive."""
    torch.manual_seed(0)
    net = Pillars(GRID, channels, *Z).eval()
    torch.nn.init.uniform_(net.norm.running_mean, -0.1, 0.1)
    torch.nn.init.uniform_(net.norm.running_var, 0.5, 2.0)
    torch.nn.init.uniform_(net.norm.weight, -1.5, 1.5)
    torch.nn.init.constant_(net.norm.bias, 20.0)
    return net


def cloud(seed: int, count: int) -> Tensor:
    """Points inside the grid whose coordinates are multiples of 1/64 m, so that moving them by cells is exact."""
    rng = np.random.default_rng(seed)
    low, high = (-4, -3, Z[0]), (8, 5, Z[1])
    xyz = np.floor(rng.uniform(low, high, (count, 3)) * 64) / 64
    rest = np.stack([rng.integers(0, 256, count), rng.integers(0, 10, count) * 0.05], axis=1)
    return torch.from_numpy(np.concatenate([xyz, rest], axis=1)).float()


def by_loops(net: Pillars, points: Tensor) -> Tensor:
    """The definition, pillar by pillar, of a network in eval mode, in float64."""
    norm, weight = net.norm, net.linear.weight.double()
    result = torch.zeros(net.channels, *GRID.shape, dtype=torch.float64)
    members: dict[tuple[int, int], list[Tensor]] = {}
    for point in points.double():
        column, row = (int(np.floor(v)) for v in GRID.to_cells(point[:2].numpy()))
        members.setdefault((row, column), []).append(point)
    for (row, column), inside in members.items():
        stacked = torch.stack(inside)
        centre = torch.tensor([GRID.x_min + (column + 0.5) * 0.5, GRID.y_min + (row + 0.5) * 0.5])
        place = torch.cat([(stacked[:, :2] - centre) / 0.5, (stacked[:, 2:3] + 1) / 4], dim=1)
        rest = stacked[:, 3:] / torch.tensor([255.0, 0.5])
        value = torch.cat([place, place - place.mean(0), rest], dim=1) @ weight.T
        value = (value - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        result[:, row, column] = value.clamp(min=0).max(0).values
    return result


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60))
def test_pillars_equal_their_definition(seed: int, count: int) -> None:
    net, points = pillars(), cloud(seed, count)
    points[: count // 2] = points[: count // 2] * 0.1  # so that some pillars hold many points
    with torch.no_grad():
        torch.testing.assert_close(net([points])[0].double(), by_loops(net, points), rtol=1e-4, atol=1e-4)


@given(x=st.floats(-4, 7.99), y=st.floats(-3, 4.99), z=st.floats(*Z))
def test_a_point_fills_its_own_cell_only(x: float, y: float, z: float) -> None:
    point = torch.tensor([[x, y, z, 100.0, 0.1]])
    place = GRID.to_cells(point[0, :2].numpy())
    assume(np.abs(place - np.round(place)).min() > 1e-5)  # in float32 either side of a border is right
    features = pillars()([point])[0]
    filled = (features != 0).all(0)
    assert torch.equal(filled, (features != 0).any(0))
    column, row = np.floor(place).astype(int)
    assert filled.nonzero().tolist() == [[row, column]]


@given(seed=st.integers(0, 2**32 - 1), training=st.booleans())
def test_the_order_of_points_does_not_matter(seed: int, training: bool) -> None:
    points = cloud(seed, 200) * torch.tensor([0.3, 0.3, 1, 1, 1])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(200))
    torch.testing.assert_close(pillars().train(training)([points[order]]), pillars().train(training)([points]))


@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(-8, 8), rows=st.integers(-6, 6))
def test_shifting_points_by_cells_shifts_the_features(seed: int, columns: int, rows: int) -> None:
    points = cloud(seed, 100)
    middle = (points[:, 0] >= 0) & (points[:, 0] < 4) & (points[:, 1] >= 0) & (points[:, 1] < 2)
    points, net = points[middle], pillars()
    moved = points + torch.tensor([columns * 0.5, rows * 0.5, 0, 0, 0])
    torch.testing.assert_close(net([moved]), net([points]).roll((rows, columns), (2, 3)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("point", FAR_OUT)
def test_points_off_the_grid_change_nothing(point: tuple[float, ...], training: bool) -> None:
    points = cloud(1, 50)
    more = torch.cat([points[:20], torch.tensor([point]), points[20:]])
    plain, other = pillars().train(training), pillars().train(training)
    assert torch.equal(other([more]), plain([points]))
    assert torch.equal(other.norm.running_mean, plain.norm.running_mean)


def test_a_point_at_the_far_edge_stays_in_its_row() -> None:
    """In float32 such a place may round to the edge itself, which belongs to no cell."""
    edge = np.nextafter(np.float32(51.2), np.float32(0))
    net = Pillars(BevGrid(-51.2, 51.2, -51.2, 51.2, 0.4), 8, *Z).eval()
    torch.nn.init.constant_(net.norm.bias, 20.0)
    filled = (net([torch.tensor([[edge, 0.1, 0, 0, 0]])])[0] != 0).any(0).nonzero()
    assert filled.tolist() in ([], [[128, 255]])


def test_samples_do_not_mix() -> None:
    net, clouds = pillars(), [cloud(1, 30), torch.zeros(0, 5), cloud(2, 70)]
    together = net(clouds)
    assert together.shape == (3, 16, *GRID.shape)
    for alone, features in zip(clouds, together, strict=True):
        torch.testing.assert_close(net([alone])[0], features)


@pytest.mark.parametrize("points", [[], [(0, 0, 0, 10, 0)], FAR_OUT], ids=["none", "one", "none that counts"])
def test_training_works_with_fewer_than_two_points(points: list) -> None:
    net = pillars().train()
    before = net.norm.running_var.clone()
    features = net([torch.tensor(points, dtype=torch.float32).reshape(-1, 5)])
    assert torch.isfinite(features).all()
    features.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in net.parameters())
    assert torch.equal(net.norm.running_var, before)


def test_every_weight_gets_a_gradient() -> None:
    net = pillars().train()
    net([cloud(0, 300), cloud(1, 5)]).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad.abs() > 0).all(), name


def test_under_autocast_pillars_compute_in_float32() -> None:
    net, points = pillars(), cloud(3, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net([points]), net([points]).float())
        features = net([points])
    assert torch.equal(features, net([points]))


def test_the_result_lies_channels_last_in_memory() -> None:
    assert pillars()([cloud(0, 9), cloud(1, 9)]).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(7, 4), (5,), (1, 7, 5)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BridgeTAError, match=r"should be \[n, 5\] per sample"):
        pillars()([torch.zeros(shape)])
