"""The LiDAR branch: on the same cells as the cameras' features, whatever its strides."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.config.experiment import LidarConfig, LiftConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lidar import LidarBranch
from bridgeta_core.model.lift import bev_grid
from bridgeta_core.utils.errors import BridgeTAError

STRIDES = [(downsample, subdivide) for downsample in (1, 2, 4) for subdivide in (1, 2, 4)]


def branch(downsample: int, subdivide: int, **changes: int) -> LidarBranch:
    torch.manual_seed(0)
    lift = LiftConfig(grid=BevGrid(-12, 12, -8, 8, 0.5), downsample=downsample)
    sizes = {"channels": 8, "width": 12} | changes
    return LidarBranch(LidarConfig(subdivide=subdivide, **sizes), lift).eval()  # type: ignore[arg-type]


def lattice(net: LidarBranch, x: float, y: float) -> torch.Tensor:
    """One point in the middle of every pillar of the cell of F that holds (x, y)."""
    fine, coarse = net.pillars.grid.resolution, net.grid.resolution
    column, row = net.grid.to_cells(torch.tensor([x, y]).numpy()).astype(int)
    steps = (torch.arange(round(coarse / fine)) + 0.5) * fine
    places = torch.cartesian_prod(net.grid.x_min + column * coarse + steps, net.grid.y_min + row * coarse + steps)
    return torch.cat([places, torch.tensor([0.0, 60.0, 0.0]).expand(len(places), -1)], dim=1)


@pytest.mark.parametrize(("downsample", "subdivide"), STRIDES)
def test_features_lie_on_the_grid_of_f(downsample: int, subdivide: int) -> None:
    net = branch(downsample, subdivide)
    assert net.grid == bev_grid(LiftConfig(grid=BevGrid(-12, 12, -8, 8, 0.5), downsample=downsample))
    assert net.pillars.grid.shape == (32 * subdivide, 48 * subdivide)
    features = net([torch.zeros(0, 5), torch.rand(40, 5)])
    assert features.shape == (2, 12, 32 // downsample, 48 // downsample)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize(("downsample", "subdivide"), STRIDES)
def test_nothing_moves_against_the_metric_grid(downsample: int, subdivide: int) -> None:
    """With all kernels flat, what fills one cell of F spreads evenly around that very cell."""
    net = branch(downsample, subdivide, blocks=0)  # so that the spread ends before the grid does
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.01 if parameter.ndim == 4 else 1.0)
    for module in net.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.zeros_(module.bias)
    with torch.no_grad():
        energy = net([lattice(net, 2.1, -1.3)])[0, 0].double()
    assert energy.max() > 0
    x, y = (torch.from_numpy(c) for c in net.grid.centres())
    column, row = net.grid.to_cells(torch.tensor([2.1, -1.3]).numpy()).astype(int)
    assert float((energy.sum(0) * x).sum() / energy.sum()) == pytest.approx(float(x[column]), abs=1e-4)
    assert float((energy.sum(1) * y).sum() / energy.sum()) == pytest.approx(float(y[row]), abs=1e-4)


@pytest.mark.parametrize("blocks", [0, 3])
def test_every_parameter_gets_a_gradient(blocks: int) -> None:
    net = branch(2, 2, blocks=blocks).train()
    points = [torch.rand(300, 5) * torch.tensor([10, 6, 2, 255, 0.5]) for _ in range(2)]
    net(points).square().mean().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_an_empty_range_of_heights_is_named() -> None:
    with pytest.raises(BridgeTAError, match=r"teacher\.lidar\.z_min must be below z_max") as caught:
        LidarBranch(LidarConfig(z_min=1.0, z_max=1.0), LiftConfig())
    assert caught.value.exit_code == 2
