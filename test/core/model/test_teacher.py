"""The teacher: taps like the student's, with cameras or without, and one metric frame for all that it sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import GRID, random_images, ring_of_cameras, small_student, small_teacher
from torch import Tensor

from bridgeta_core.config.experiment import (
    LidarConfig,
    LiftConfig,
    StudentConfig,
)
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import LiftPlan, bev_grid, depth_bins, lift
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import LidarBranch, Teacher
from bridgeta_core.utils.errors import BridgeTAError

SENSORS = ("fusion", "lidar")


def small(downsample: int = 2) -> StudentConfig:
    return small_student(lift={"depth_step": 1.0, "downsample": downsample})


def teacher(sensors: str = "fusion", downsample: int = 2) -> Teacher:
    torch.manual_seed(0)
    return Teacher(small_teacher(sensors), small(downsample), GRID)


def plan_of(net: Teacher, batch: int) -> LiftPlan | None:
    return net.camera.plan(*ring_of_cameras(batch, 2)) if net.camera else None


def inputs(batch: int) -> tuple[Tensor, list[Tensor]]:
    """Images and points."""
    generator = torch.Generator().manual_seed(1)
    low, size = torch.tensor([-11, -7, -2, 0, 0.0]), torch.tensor([22, 14, 3, 255, 0.45])
    return random_images(batch, 2), [
        low + size * torch.rand(100 + 50 * i, 5, generator=generator) for i in range(batch)
    ]


@pytest.mark.parametrize("sensors", SENSORS)
@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_the_taps_have_the_students_shapes(sensors: str, downsample: int) -> None:
    images, points = inputs(2)
    net, student = teacher(sensors, downsample).eval(), Student(small(downsample), GRID).eval()
    ours, theirs = net(images, plan_of(net, 2), points), student(images, student.plan(*ring_of_cameras(2, 2)))
    assert [tap.shape for tap in ours] == [tap.shape for tap in theirs]
    assert net.bev_grid == student.bev_grid


def test_the_fuser_uses_both_sensors() -> None:
    net, (images, points) = teacher().eval(), inputs(1)
    taps = net(images, plan_of(net, 1), points)
    sensors = net.camera(images, plan_of(net, 1)), net.lidar(points)
    assert torch.equal(net.fuser(torch.cat(sensors, dim=1)), taps.F)
    assert (taps.F < 0).any()
    blind = net(torch.zeros_like(images), plan_of(net, 1), points)
    deaf = net(images, plan_of(net, 1), [torch.zeros(0, 5)])
    assert not torch.equal(blind.F, taps.F)
    assert not torch.equal(deaf.F, taps.F)


def test_decode_continues_from_any_f() -> None:
    net, (images, points) = teacher().eval(), inputs(1)
    taps = net(images, plan_of(net, 1), points)
    again = net.decode(taps.F)
    assert torch.equal(again.D, taps.D)
    assert torch.equal(again.Z, taps.Z)
    assert torch.equal(net.head(net.decoder(taps.F.relu())), taps.Z)


def test_student_and_teacher_can_exchange_weights() -> None:
    net, student = teacher(), Student(small(), GRID)
    net.decoder.load_state_dict(student.decoder.state_dict())
    net.head.load_state_dict(student.head.state_dict())
    net.camera.load_state_dict(student.camera.state_dict())


def test_without_cameras_images_are_ignored() -> None:
    net, (images, points) = teacher("lidar").eval(), inputs(2)
    assert net.camera is None
    assert {name.split(".")[0] for name in net.state_dict()} == {"lidar", "fuser", "decoder", "head"}
    assert torch.equal(net(None, None, points).Z, net(images, plan_of(net, 2), points).Z)


@pytest.mark.parametrize("sensors", SENSORS)
def test_the_label_loss_reaches_every_parameter(sensors: str) -> None:
    net, (images, points) = teacher(sensors).train(), inputs(2)
    net(images, plan_of(net, 2), points).Z.square().mean().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("sensors", SENSORS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [0, 1])
def test_a_frame_with_few_points_gives_finite_taps(sensors: str, training: bool, count: int) -> None:
    net, (images, points) = teacher(sensors).train(training), inputs(1)
    taps = net(images, plan_of(net, 1), [points[0][:count]])
    assert all(torch.isfinite(tap).all() for tap in taps)


def test_the_students_plan_serves_the_teacher() -> None:
    net, student, (images, points) = teacher().eval(), Student(small(), GRID), inputs(1)
    ours, theirs = plan_of(net, 1), student.plan(*ring_of_cameras(1, 2))
    assert torch.equal(net(images, theirs, points).Z, net(images, ours, points).Z)


def test_weights_lie_channels_last() -> None:
    weights = [p for p in teacher().parameters() if p.ndim == 4 and p.shape[2] > 1 and p.shape[1] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_pretrained_weights_from_a_folder_are_needed_once(tmp_path: Path) -> None:
    teacher().camera.encoder.backbone.save_pretrained(tmp_path)
    model = small()
    model.backbone.options, model.backbone.pretrained = {}, str(tmp_path)
    net = Teacher(small_teacher(), model, GRID)
    Teacher(net.config, net.model, net.grid, pretrained=False).load_state_dict(net.state_dict())
    assert model.backbone.options == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": None}, r"needs LiDAR points.*lidar=teacher\.lidar"),
        ({"images": None}, r"needs images and their plan.*sensors=lidar"),
        ({"plan": None}, "needs images and their plan"),
        ({"points": [torch.zeros(3, 5)]}, "images of 2 samples came with points of 1"),
    ],
)
def test_a_missing_input_is_named(change: dict[str, Any], message: str) -> None:
    net, (images, points) = teacher(), inputs(2)
    given = {"images": images, "plan": plan_of(net, 2), "points": points} | change
    with pytest.raises(BridgeTAError, match=message):
        net(**given)


@pytest.mark.parametrize(("x", "y"), [(9.2, 4.6), (9.2, -4.6), (-9.2, 4.6), (-9.2, -4.6), (3.3, -5.4)])
def test_points_labels_and_cameras_agree_on_the_cell(
    tmp_path: Path, map_sheet: Callable[[], Any], x: float, y: float
) -> None:
    """On a grid that is neither square nor symmetric, so that swapped or mirrored axes show."""
    grid = BevGrid(-12, 16, -8, 10, 0.5)
    model = small(downsample=1)
    model.lift.grid = grid
    branch = Teacher(small_teacher("lidar", blocks=0), model, grid).eval().lidar
    difference = branch([torch.tensor([[x, y, 0, 80, 0]])]) - branch([torch.zeros(0, 5)])
    seen_by_lidar = np.argwhere((difference[0] != 0).any(0).numpy()).mean(0)  # the middle of the receptive field

    sheet = map_sheet()
    sheet.polygon("walkway", [(x - 1, y - 1), (x + 1, y - 1), (x + 1, y + 1), (x - 1, y + 1)])
    for layer in ("drivable_area", "ped_crossing", "stop_line", "carpark_area"):
        sheet.polygon(layer, [(300, 300), (301, 300), (301, 301)])
    for layer in ("road_divider", "lane_divider"):
        sheet.line(layer, [(300, 300), (310, 300)])
    sheet.write(tmp_path, "boston-seaport")
    mask = MapRaster.load(tmp_path, "boston-seaport").rasterise(np.eye(4), grid)[2]
    labelled = np.argwhere(mask).mean(0)

    # A level camera in the origin that looks straight at the place, and an image of one cell.
    model.lift.depth_step, model.lift.depth_max, distance, heading = 0.2, 13.0, np.hypot(x, y), np.arctan2(y, x)
    c, s = np.cos(heading), np.sin(heading)
    pose = torch.tensor([[s, 0, c, 0], [-c, 0, s, 0], [0, -1, 0, 0], [0, 0, 0, 1]])[None, None]
    plan = LiftPlan.build(torch.eye(3)[None, None], pose, (1, 1), (1, 1), model.lift)
    depth = torch.zeros(1, 1, plan.bins, 1, 1)
    depth[0, 0, (depth_bins(model.lift) - distance).abs().argmin()] = 1
    (seen_by_camera,) = np.argwhere(lift(depth, torch.ones(1, 1, 1, 1, 1), plan)[0, 0].numpy())

    assert bev_grid(model.lift) == grid
    column, row = grid.to_cells(np.array([x, y])).astype(int)
    np.testing.assert_allclose(seen_by_lidar, (row, column), atol=1e-9)
    np.testing.assert_allclose(seen_by_camera, (row, column), atol=1)  # bins are 0.2 m deep
    np.testing.assert_allclose(labelled, (row, column), atol=1)  # the devkit's rounding


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
def test_strides_do_not_shift_the_features(downsample: int, subdivide: int) -> None:
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


def test_an_empty_range_of_heights_is_an_error() -> None:
    with pytest.raises(BridgeTAError, match=r"teacher\.lidar\.z_min must be below z_max") as caught:
        LidarBranch(LidarConfig(z_min=1.0, z_max=1.0), LiftConfig())
    assert caught.value.exit_code == 2


@pytest.mark.cuda
@pytest.mark.parametrize("sensors", SENSORS)
def test_a_gpu_gives_the_taps_and_gradients_of_the_cpu(sensors: str) -> None:
    images, points = inputs(2)
    net = teacher(sensors)
    gradients = []
    for device in ("cpu", "cuda"):
        net.to(device).zero_grad()
        plan = plan_of(net, 2)
        # PyTorch 2.11 for CUDA crashes in oneDNN's backward pass of this camera branch on several CPU threads.
        with torch.backends.mkldnn.flags(enabled=False):
            taps = net(images.to(device), plan, [cloud.to(device) for cloud in points])
            taps.Z.square().mean().backward()
        gradients.append([p.grad.cpu().clone() for p in net.parameters() if p.grad is not None])
    for here, there in zip(*gradients, strict=True):
        assert (here - there).norm() <= 2e-2 * here.norm() + 1e-6
