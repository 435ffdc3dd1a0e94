"""The lift against the two classic ways: `python bench/lift.py [--device cpu] [--repeats 7] [--threads 2]`.

Full scale: 6 cameras x 118 depth bins x 32 x 88 image cells x 80 channels into 256 x 256 cells of 0.4 m. Both classic
ways write the volume of depth times features and then sum it per BEV cell: by a cumulative sum over sorted points,
whose differences at the cells' borders are the sums (Lift-Splat, Philion & Fidler 2020), or by index_add_. They get
the points' cells and their sorted order for free; our counterpart is the plan, which is timed apart. On a GPU with
Triton our own kernel runs beside PyTorch's sparse product, and at half precision too; forward passes are replayed as
CUDA graphs where they can be, since launching takes longer than computing.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from machine import milliseconds_on, name_device, replayed
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.model import lift as lift_module
from bridgeta_core.model.lift import LiftPlan, depth_bins, lift

FEATURE_SIZE, IMAGE_SIZE = (32, 88), (256, 704)  # (height, width)


def ring() -> tuple[Tensor, Tensor]:
    """Place six cameras around a car as in nuScenes: network intrinsics [1, 6, 3, 3] and ego_T_cam [1, 6, 4, 4]."""
    fit = ImageFit.bottom((1600, 900), (704, 256), 768 / 704)
    optical = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    intrinsics, poses = [], []
    for degrees, focal in ((55, 1266), (0, 1266), (-55, 1266), (110, 1266), (180, 809), (-110, 1266)):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        pose = np.eye(4)
        pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ optical
        pose[:3, 3] = (1.0 + 0.7 * c, 0.5 * s, 1.5)
        poses.append(pose)
        intrinsics.append(fit.matrix @ np.array([[focal, 0, 800], [0, focal, 450], [0, 0, 1]]))
    return torch.from_numpy(np.stack(intrinsics))[None], torch.from_numpy(np.stack(poses))[None]


class Classic:
    """The two classic ways, with the points of the volume [N, D, h, w] inside the grid, their cells and their order."""

    def __init__(
        self,
        intrinsics: Tensor,
        ego_T_cam: Tensor,
        config: LiftConfig,
        device: str,
        feature_size: tuple[int, int] = FEATURE_SIZE,
        image_size: tuple[int, int] = IMAGE_SIZE,
    ) -> None:
        (h, w), (height, width), depths = feature_size, image_size, depth_bins(config)
        v = (torch.arange(h, dtype=torch.float64) + 0.5) * height / h - 0.5
        u = (torch.arange(w, dtype=torch.float64) + 0.5) * width / w - 0.5
        frustum = torch.stack(
            [
                u.expand(len(depths), h, w) * depths[:, None, None],
                v[:, None].expand(len(depths), h, w) * depths[:, None, None],
                depths[:, None, None].expand(len(depths), h, w),
            ],
            dim=-1,
        )
        matrices = ego_T_cam[0, :, :3, :3] @ torch.linalg.inv(intrinsics[0])
        points = torch.einsum("nij,dhwj->ndhwi", matrices, frustum) + ego_T_cam[0, :, None, None, None, :3, 3]
        grid, (rows, columns) = config.grid, config.grid.shape
        x = ((points[..., 0] - grid.x_min) / grid.resolution).floor().long()
        y = ((points[..., 1] - grid.y_min) / grid.resolution).floor().long()
        z = points[..., 2]
        inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows) & (z >= config.z_min) & (z <= config.z_max)
        self.points = inside.view(-1).nonzero().squeeze(1).to(device)
        self.cells = (y * columns + x).view(-1).to(device)[self.points]
        self.order = torch.argsort(self.cells)
        self.shape = (rows, columns)

    def volume(self, depth: Tensor, features: Tensor) -> Tensor:
        """Compute the points [P, C] of depth [1, N, D, h, w] times features [1, N, C, h, w]."""
        full = depth[0, ..., None] * features[0].permute(0, 2, 3, 1)[:, None]
        return full.reshape(-1, features.shape[2])[self.points]

    def index_add(self, depth: Tensor, features: Tensor) -> Tensor:
        """Sum the volume into the grid with index_add_."""
        volume = self.volume(depth, features)
        bev = volume.new_zeros(self.shape[0] * self.shape[1], volume.shape[1]).index_add_(0, self.cells, volume)
        return bev.view(1, *self.shape, -1).permute(0, 3, 1, 2)

    def cumulative_sum(self, depth: Tensor, features: Tensor) -> Tensor:
        """Sum the volume into the grid through a cumulative sum of the sorted points."""
        sums = _SegmentSum.apply(self.volume(depth, features)[self.order], self.cells[self.order])
        cells = torch.unique_consecutive(self.cells[self.order])
        bev = sums.new_zeros(self.shape[0] * self.shape[1], sums.shape[1]).index_put((cells,), sums)
        return bev.view(1, *self.shape, -1).permute(0, 3, 1, 2)


class _SegmentSum(torch.autograd.Function):
    """Sums [S, C] over runs of equal `cells` of sorted points [P, C]; a point's gradient is that of its run."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, cells: Tensor) -> Tensor:
        last = torch.ones(len(cells), dtype=torch.bool, device=cells.device)
        last[:-1] = cells[1:] != cells[:-1]
        ctx.save_for_backward(last)
        sums = points.cumsum(0)[last]
        return torch.cat([sums[:1], sums[1:] - sums[:-1]])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (last,) = ctx.saved_tensors
        run = last.cumsum(0) - last.long()
        return gradients[0][run], None


@contextmanager
def without_kernel() -> Iterator[None]:
    """Make the lift use PyTorch's sparse product."""
    kernel, lift_module.lift_triton = lift_module.lift_triton, None
    try:
        yield
    finally:
        lift_module.lift_triton = kernel


def list_ways(plan: LiftPlan, classic: Classic) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """List the ways by name; the first is what the others are compared with."""

    def sparse(depth: Tensor, features: Tensor) -> Tensor:
        with without_kernel():
            return lift(depth, features, plan)

    def half(depth: Tensor, features: Tensor) -> Tensor:
        return lift(depth, features.half(), plan)

    own: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"sparse product": sparse}
    if classic.cells.is_cuda and lift_module.lift_triton is not None:
        own = {"kernel": lambda d, f: lift(d, f, plan), "kernel, float16 features": half, **own}
    return {**own, "index_add_": classic.index_add, "cumulative sum": classic.cumulative_sum}


def measure_backward(
    way: Callable[[Tensor, Tensor], Tensor], depth: Tensor, features: Tensor, gradient: Tensor, device: str
) -> float:
    """Measure the backward pass of one way in milliseconds."""
    d, f = depth.clone().requires_grad_(), features.clone().requires_grad_()
    bev = way(d, f)
    context = without_kernel() if way.__name__ == "sparse" else nullcontext()
    with context:
        return milliseconds_on(device, lambda: bev.backward(gradient.to(bev.dtype)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The lift against a cumulative sum and index_add_.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each way, interleaved")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    config, device = LiftConfig(), options.device
    intrinsics, ego_T_cam = ring()

    def build() -> LiftPlan:
        return LiftPlan.build(intrinsics, ego_T_cam, FEATURE_SIZE, IMAGE_SIZE, config, device)

    plan = build()
    classic = Classic(intrinsics, ego_T_cam, config, device)
    bins, cameras = plan.bins, plan.camera_count
    # Each way gets its favourite memory layout: the lift channels last, as the network gives it.
    last = torch.randn(1, cameras, *FEATURE_SIZE, bins).softmax(-1).permute(0, 1, 4, 2, 3).to(device)
    features = torch.randn(1, cameras, *FEATURE_SIZE, config.channels).permute(0, 1, 4, 2, 3).to(device)
    planes = last.contiguous()
    ways = list_ways(plan, classic)
    classics = ("index_add_", "cumulative sum")
    depths = {name: planes if name in classics else last for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    backward: dict[str, list[float]] = {name: [] for name in ways}

    with torch.no_grad():
        reference = ways["sparse product"](last, features)
        difference = {name: float((way(depths[name], features) - reference).abs().max()) for name, way in ways.items()}
        calls: dict[str, Callable[[], object]] = {
            name: lambda way=way, name=name: way(depths[name], features) for name, way in ways.items()
        }
        # The cumulative sum waits for the GPU and cannot be recorded.
        calls |= {name: replayed(device, call) for name, call in calls.items() if name != "cumulative sum"}
        for _ in range(options.repeats):
            for name, call in calls.items():
                times[name].append(milliseconds_on(device, call))
    gradient = torch.randn_like(reference)
    for repeat in range(1 + options.repeats):
        for name, way in ways.items():
            elapsed = measure_backward(way, depths[name], features, gradient, device)
            if repeat:  # the first one starts the threads of the backward pass
                backward[name].append(elapsed)
    builds = [milliseconds_on(device, build) for _ in range(options.repeats)]

    table = Table(
        title=f"Lift of {cameras} x {bins} x {FEATURE_SIZE[0]} x {FEATURE_SIZE[1]} x {config.channels}",
        box=box.MARKDOWN,
    )
    for column in ("way", "forward ms: median", "min", "max", "slower by", "backward ms: median", "max |difference|"):
        table.add_column(column, justify="left" if column == "way" else "right")
    base = statistics.median(times[next(iter(ways))])
    for name in ways:
        t = times[name]
        median = statistics.median(t)
        table.add_row(
            name,
            *(f"{value:,.3g}" for value in (median, min(t), max(t))),
            f"{median / base:,.1f}x",
            f"{statistics.median(backward[name]):,.3g}",
            f"{difference[name]:.1e}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(
        f"\nplan: {plan.entries:,} entries, built in {statistics.median(builds):.0f} ms (min {min(builds):.0f}); "
        f"grid {plan.bev_shape[0]} x {plan.bev_shape[1]}, {options.repeats} repeats"
    )
    console.print(
        f"{name_device(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
