"""The branch of voxels: where its features lie, and what it makes of few, odd and no points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bridgeta_core.config.experiment import LidarConfig, LiftConfig, SparseConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import bev_grid
from bridgeta_core.model.teacher import VoxelBranch
from bridgeta_core.utils.errors import BridgeTAError

LIFT = LiftConfig(grid=BevGrid(-12, 16, -8, 12, 1.0))  # neither square nor symmetric; F has cells of 2 m
SPARSE: dict[str, Any] = {"voxel": 0.25, "channels": [8, 8, 8, 8], "blocks": 1, "output": 8}


def branch(sparse: dict[str, Any] | None = None, **lidar: Any) -> VoxelBranch:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"encoder": "voxels", "width": 16, "mount": [2.0, 2.0, 1.0], "z_min": -4, "z_max": 4}
    config = LidarConfig(sparse=SparseConfig(**(SPARSE | (sparse or {}))), **(settings | lidar))
    net = VoxelBranch(config, LIFT).eval()
    for name, parameter in net.named_parameters():
        if name.endswith("norm.bias"):
            torch.nn.init.constant_(parameter, 0.1)  # so that points show
    return net


def cloud(seed: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, size = torch.tensor([-12, -8, -2, 0, 0.0]), torch.tensor([28, 20, 3, 255, 0.45])
    return low + size * torch.rand(count, 5, generator=generator)


@pytest.mark.parametrize(("x", "y"), [(9.2, 4.6), (15.5, -7.5), (-11.5, 11.5), (-9.2, -4.6)])
def test_points_show_in_their_own_cells(x: float, y: float) -> None:
    net = branch()
    assert net.grid == bev_grid(LIFT)
    features = net([torch.tensor([[x, y, 0.1, 80, 0]])])
    assert features.shape == (1, 16, *net.grid.shape)
    column, row = net.grid.to_cells(np.array([x, y])).astype(int)
    seen = (features[0] != 0).any(0).nonzero()
    assert [row, column] in seen.tolist()
    assert (seen - torch.tensor([row, column])).abs().max() <= 1  # a strided kernel reaches one cell further


def test_samples_do_not_mix() -> None:
    net, clouds = branch(), [cloud(1, 30), torch.zeros(0, 5), cloud(2, 70)]
    together = net(clouds)
    assert not together[1].any()
    for alone, features in zip(clouds, together, strict=True):
        torch.testing.assert_close(net([alone])[0], features)


def test_training_reaches_every_parameter() -> None:
    net = branch().train()
    points = [cloud(0, 3000) * torch.tensor([0.1, 0.1, 1, 1, 1]), cloud(1, 50)]
    net(points).square().mean().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("points", [cloud(0, 0), cloud(0, 1), cloud(0, 1) * np.nan, cloud(0, 9) + 1e6])
def test_few_and_odd_points_give_finite_features(points: Tensor, training: bool) -> None:
    features = branch().train(training)([points])
    assert torch.isfinite(features).all()
    assert bool(features.any()) == (len(points) == 1 and bool(points.isfinite().all()))


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(BridgeTAError, match=r"should be \[n, 5\] per sample"):
        branch()([torch.zeros(7, 4)])


@pytest.mark.parametrize(
    ("sparse", "lidar", "message"),
    [
        ({"voxel": 0.2}, {}, r"sparse\.voxel = 0\.2 m times the stride 8 .* is not the 2 m"),
        ({"height": 0.3}, {}, "not a whole number of voxels of 0.3 m"),
        ({"output": 16}, {}, r"teacher\.lidar\.width = 16 must be 32"),
        ({}, {"z_max": -3.0}, r"5 voxels along z are too few for the 4 stages"),
        ({"channels": []}, {}, r"sparse\.channels must not be empty"),
        ({}, {"mount": None}, r"teacher\.lidar\.mount must give x, y and z"),
    ],
)
def test_settings_that_do_not_fit_are_named(sparse: dict[str, Any], lidar: dict[str, Any], message: str) -> None:
    with pytest.raises(BridgeTAError, match=message) as caught:
        branch(sparse, **lidar)
    assert caught.value.exit_code == 2


@pytest.mark.cuda
def test_a_gpu_gives_the_features_and_gradients_of_the_cpu() -> None:
    net, points = branch().train(), [cloud(0, 500), cloud(1, 900)]
    results = []
    for device in ("cpu", "cuda"):
        net.to(device).zero_grad()
        features = net([p.to(device) for p in points])
        features.square().mean().backward()
        results.append(
            [features.detach().cpu(), *(p.grad.cpu().clone() for p in net.parameters() if p.grad is not None)]
        )
    for here, there in zip(*results, strict=True):
        assert (here - there).norm() <= 1e-3 * here.norm() + 1e-6
