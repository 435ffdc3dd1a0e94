"""Time and memory of BEVFusion's sparse LiDAR encoder on real or random points, beside dense 3D convolutions.

On a busy machine only the minimum of the processor time says something; give torch one thread then (OMP_NUM_THREADS=1).

The dense encoder has the same layers on a whole volume, at a smaller range where memory ends first. For instance:
`python bench/sparse.py SWEEP.pcd.bin --device cuda`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

import torch
from machine import milliseconds_on, name_device
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.experiment import LidarConfig, LiftConfig
from bridgeta_core.data.pointcloud import read_lidar
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lidar.encoder import SparseEncoder
from bridgeta_core.model.lidar.sites import Sites
from bridgeta_core.model.teacher import VoxelBranch


class DenseEncoder(nn.Module):
    """The layers of a `SparseEncoder` as dense convolutions; what a submanifold one leaves out is masked."""

    def __init__(self, sparse: SparseEncoder) -> None:
        super().__init__()
        self.sparse = sparse

    def forward(self, features: Tensor, sites: Sites) -> Tensor:
        """Encode features at `sites` into columns, as the sparse encoder does."""
        sample, x, y, z = sites.coordinates
        volume = features.new_zeros(sites.batch, features.shape[1], *sites.size)
        volume[sample, :, x, y, z] = features
        mask = torch.zeros_like(volume[:, :1])
        mask[sample, :, x, y, z] = 1

        def apply(layer: nn.Module, norm: nn.Module, volume: Tensor, active: Tensor, **options: object) -> Tensor:
            convolved = functional.conv3d(volume, layer.weight.permute(4, 3, 0, 1, 2), **options)  # type: ignore
            return active * functional.batch_norm(  # type: ignore[no-any-return]
                convolved,
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                eps=norm.eps,  # type: ignore
            )

        net = self.sparse
        volume = apply(net.input.convolution, net.input.norm, volume, mask, padding=1).relu()
        for i, blocks in enumerate(net.stages):
            for block in blocks:  # type: ignore[union-attr]
                first = apply(block.first.convolution, block.first.norm, volume, mask, padding=1).relu()
                volume = (volume + apply(block.second, block.norm, first, mask, padding=1)).relu()
            down = net.down[i] if i < len(net.down) else net.output
            options = {"stride": down.stride, "padding": down.padding}
            ones = torch.ones(1, 1, *down.kernel, device=mask.device)  # type: ignore[misc]
            mask = (functional.conv3d(mask, ones, **options) > 0).float()  # type: ignore[arg-type]
            volume = apply(down.convolution, down.norm, volume, mask, **options).relu()  # type: ignore[arg-type]
        return volume.permute(0, 1, 4, 2, 3).flatten(1, 2)


def build(half: float, device: str) -> VoxelBranch:
    """Build BEVFusion's branch for `half` metres to each side."""
    torch.manual_seed(0)
    grid = BevGrid(0.94 - half, 0.94 + half, -half, half, 0.4)
    config = LidarConfig(z_min=-3.16, z_max=4.84, width=256, encoder="voxels", mount=[0.94, 0.0, 1.84])
    return VoxelBranch(config, LiftConfig(grid=grid)).eval().to(device)


def peak(device: str) -> float:
    """Return the largest memory of the process or of the GPU so far, GiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(name: str, device: str, rounds: int, call: object) -> None:
    """Print the times of a call, and the memory that it needed above what was there."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**30
    else:
        before = peak(device)
    assert callable(call)
    call()
    grown = peak(device) - before
    times, processor = [], []
    for _ in range(rounds):
        start = time.process_time()
        times.append(milliseconds_on(device, call))
        processor.append(1e3 * (time.process_time() - start))
    print(
        f"{name:40} min {min(times):8.1f}  median {statistics.median(times):8.1f} ms  "
        f"processor {min(processor):8.1f} ms  + {grown:6.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, nargs="?", help=".pcd.bin of nuScenes; random points without it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sweeps", type=int, default=1, help="copies of the sweep, each turned a little further")
    parser.add_argument("--dense", type=float, default=12.8, help="half the range of the dense encoder, metres")
    options = parser.parse_args()
    device = options.device
    if options.sweep is not None:
        seen = torch.from_numpy(read_lidar(options.sweep))
        seen[:, 4] = 0
        seen[:, :3] = torch.stack([seen[:, 1] + 0.94, -seen[:, 0], seen[:, 2] + 1.84], dim=1)
    else:
        radius = 50 * torch.rand(34_688) ** 2
        angle = 6.2832 * torch.rand(34_688)
        flat = [radius * angle.cos(), radius * angle.sin(), 0.1 * torch.randn(34_688), 9 + 0 * angle, 0 * angle]
        seen = torch.stack(flat, dim=1)
    copies = []
    for i in range(options.sweeps):
        a = torch.tensor(0.01 * i)
        x, y = a.cos() * seen[:, 0] - a.sin() * seen[:, 1], a.sin() * seen[:, 0] + a.cos() * seen[:, 1]
        copies.append(torch.cat([x[:, None], y[:, None], seen[:, 2:]], dim=1))
    points = torch.cat(copies).to(device)
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    print(f"{name_device(device)}{threads}, torch {torch.__version__}, {len(points):,} points")
    net = build(51.2, device)
    means, sites = net.voxels([net.turn(points)])
    print(f"{len(means):,} voxels, {1 + sum(len(i) for _, i, _ in sites.neighbours.pairs) / len(sites):.1f} pairs each")

    def train(module: nn.Module, *inputs: object) -> None:
        module(*inputs).square().mean().backward()
        module.zero_grad()

    with torch.inference_mode():
        report("voxels", device, options.rounds, lambda: net.voxels([net.turn(points)]))
        report("sparse, points to columns, +-51.2 m", device, options.rounds, lambda: net([points]))
    report("sparse, with the backward pass", device, options.rounds, lambda: train(net, [points]))
    if not options.dense:
        return
    small = build(options.dense, device)
    dense = DenseEncoder(small.encoder).eval()
    means, sites = small.voxels([small.turn(points)])
    with torch.inference_mode():
        ours, theirs = small.encoder(means, sites), dense(means, sites)
        print(
            f"largest difference at +-{options.dense} m: {float((ours - theirs).abs().max() / theirs.abs().max()):.1e}"
        )

        def again(encoder: nn.Module) -> Tensor:  # without cached neighbours
            return encoder(means, Sites(sites.keys, sites.size, sites.batch))  # type: ignore[no-any-return]

        report(f"sparse, +-{options.dense} m", device, options.rounds, lambda: again(small.encoder))
        report(f"dense, +-{options.dense} m", device, max(1, options.rounds // 3), lambda: again(dense))


if __name__ == "__main__":
    main()
