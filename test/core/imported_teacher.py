"""BEVFusion's fusion network in small, imported from a checkpoint whose weights follow from their names."""

from __future__ import annotations

from pathlib import Path

import torch
from seeded_clouds import sparse_weight
from torch import Tensor

from bridgeta_core.bevfusion import teacher as imported
from bridgeta_core.bevfusion.checkpoint import Checkpoint
from bridgeta_core.config.experiment import DecoderConfig, HeadConfig, SparseConfig, StudentConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import bev_grid, cell_pixels
from bridgeta_core.model.teacher import Teacher


def import_small_teacher(student: StudentConfig, grid: BevGrid) -> Teacher:
    """Import a fusion network with the cameras of `student`, whose F and D have 16 channels each."""
    config, model = imported.configure(student, "fusion")
    config.lidar.sparse = SparseConfig(
        voxel=bev_grid(student.lift).resolution / 8, channels=[8, 8, 8, 8], blocks=1, output=8
    )
    config.lidar.width, config.lidar.sweeps = 16, 1
    model.decoder = DecoderConfig(kind="plain", width=16, stages=[8, 8], blocks=1, channels=8)
    model.head = HeadConfig(8)
    teacher = Teacher(config, model, grid, pretrained=False)
    names = {entry.source: list(entry.shape) for entry in imported.list_teacher_entries(teacher)}
    imported.load_tensors(teacher, imported.take_tensors(make_checkpoint(names, teacher), teacher))
    return teacher


def make_checkpoint(names: dict[str, list[int]], net: Teacher | None) -> Checkpoint:
    """Make a checkpoint with weights that follow from their names, and with what upstream computes from the sizes."""
    tensors = {}
    for name, shape in names.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(12_345)
        elif not name.endswith(("relative_position_index", "frustum", ".dx", ".bx", ".nx")):
            tensors[name] = draw_weight(name, shape)
    if net is not None and net.camera is not None:
        camera = net.camera
        u, v = cell_pixels(camera.feature_size, (camera.image.height, camera.image.width), "spread")
        d, v, u = torch.meshgrid(camera.bins.double(), v, u, indexing="ij")
        tensors["encoders.camera.vtransform.frustum"] = torch.stack([u, v, d], dim=-1).float()
        rows, columns = camera.lift.grid.shape
        cell = camera.lift.grid.resolution
        tensors["encoders.camera.vtransform.dx"] = torch.tensor([cell, cell, 20])
        tensors["encoders.camera.vtransform.bx"] = torch.tensor([cell / 2 * (1 - rows), cell / 2 * (1 - columns), 0])
    return Checkpoint(Path("golden.pth"), tensors, "")


def draw_weight(name: str, shape: list[int]) -> Tensor:
    """Draw a tensor by its name."""
    return torch.from_numpy(sparse_weight(name, shape))
