"""BEVFusion's LiDAR-only and fusion networks, imported, give what the original code gives.

The golden data come from the original modules with weights of `seeded`, in float64: its compiled operators (voxels,
pairs of sparse convolutions, pooling of the lift) replaced by loops that follow their sources, mmcv's layers by
PyTorch's. They hold some values of each tensor at the places of `seeded.chosen`. The published sizes but for the range,
12.8 m instead of 51.2 m.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import seeded
import torch
from imported_teacher import draw_weight, import_small_teacher, make_checkpoint
from numpy.typing import NDArray
from released import read_golden, read_json
from seeded_clouds import HALF, clouds, small_cameras, small_images
from torch import Tensor

from bridgeta_core.bevfusion import teacher as imported
from bridgeta_core.bevfusion.importing import import_checkpoint
from bridgeta_core.config.experiment import (
    Experiment,
    StudentConfig,
    TeacherConfig,
    load,
)
from bridgeta_core.deploy.teacher_weights import load_teacher, save_teacher
from bridgeta_core.deploy.weights import load_student
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import lift
from bridgeta_core.model.teacher import Teacher, VoxelBranch
from bridgeta_core.training.train import train_distill

X, Z = 0.94, 1.84
GRID = BevGrid(X - 12.5, X + 12.5, -12.5, 12.5, 0.5)


def configure(sensors: str) -> tuple[TeacherConfig, StudentConfig]:
    """The published network on a smaller range, and with fewer and smaller images."""
    model = load(Experiment, imported.CONFIGURATION).model
    model.lift.grid = BevGrid(X - HALF, X + HALF, -HALF, HALF, 0.4)
    model.image.width, model.image.height = 192, 64
    model.backbone.options["depths"] = [1, 1, 1, 1]
    return imported.configure(model, sensors)


def build(sensors: str, golden: dict[str, NDArray[Any]]) -> Teacher:
    """The network with the golden weights."""
    net = Teacher(*configure(sensors), GRID, pretrained=False)
    imported.load_tensors(net, imported.take_tensors(make_checkpoint(read_json(golden, "names"), net), net))
    return net.eval()


def in_ego(cloud: NDArray[np.float32]) -> Tensor:
    """Points of the LiDAR's frame (x to the right, y ahead) in the ego frame (x ahead, y to the left)."""
    x, y, z, *rest = torch.from_numpy(cloud).double().unbind(1)
    return torch.stack([y + X, -x, z + Z, *rest], dim=1)


def check(golden: dict[str, NDArray[Any]], **tensors: Tensor) -> None:
    """Compare tensors with the original's, to 1e-4 of their largest value."""
    for name, tensor in tensors.items():
        places = seeded.chosen(name, tensor.numel(), 8000 if name == "probabilities" else 1500)
        found = tensor.contiguous().view(-1)[torch.from_numpy(places)].numpy()
        assert np.abs(found - golden[name]).max() <= 1e-4 * np.abs(golden[name]).max(), name


@torch.no_grad()
def test_the_lidar_network_gives_the_originals_numbers() -> None:
    golden = read_golden("lidar_only")
    net, points = build("lidar", golden), [in_ego(cloud) for cloud in clouds()]
    assert isinstance(net.lidar, VoxelBranch)
    means, sites = net.lidar.voxels([net.lidar.turn(cloud) for cloud in points])
    assert len(means) == golden["voxels"]
    places = torch.stack(sites.coordinates, dim=1)[torch.from_numpy(seeded.chosen("coordinates", len(means), 400))]
    assert np.array_equal(places, golden["coordinates"])
    features = net.lidar(points)
    taps = net(None, None, points[:1])
    torch.testing.assert_close(taps.F, features[:1])
    # The original's rows begin at the left of the vehicle, ours at its right.
    check(golden, means=means, F=features.flip(2), D=taps.D.flip(2), probabilities=torch.sigmoid(taps.Z).flip(2))


@torch.no_grad()
def test_the_fusion_network_gives_the_originals_numbers() -> None:
    golden = read_golden("fusion")
    net = build("fusion", golden)
    assert net.camera is not None
    images, (k, pose) = torch.from_numpy(small_images()).permute(0, 3, 1, 2)[None], small_cameras()
    plan = net.camera.plan(torch.from_numpy(k)[None], torch.from_numpy(pose)[None])
    depth, features = net.camera.encode(images, plan.ground)
    depth.view(-1)[torch.from_numpy(golden["near"]).long()] = 0  # in float32 either side of a cell's border is right
    camera = net.camera_end(net.camera.downsample(lift(depth, features, plan)))
    fused = net.fuser(torch.cat([camera, net.lidar([in_ego(clouds()[0])])], dim=1))
    taps = net.decode(fused)
    check(golden, camera=camera.flip(2), F=fused.flip(2), D=taps.D.flip(2), probabilities=torch.sigmoid(taps.Z).flip(2))


SMALL = [
    "model.image.width=96",
    "model.image.height=64",
    "model.backbone.pretrained=null",
    "model.backbone.options={embed_dim: 12, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2]}",
    "model.backbone.channels=16",
    "model.lift.depth_step=5.9",
    "model.lift.channels=8",
    "model.lift.grid.resolution=3.2",
    "model.decoder={kind: resnet, width: 8, stages: [8, 16, 16], channels: 24}",
    "model.head.width=8",
    "grid.resolution=2.0",
    "distill.bridgeta.network.channels=8",
    "distill.statistics_frames=2",
    "distill.warmup_steps=2",
    "distill.ramp_steps=2",
    "distill.calibrate_steps=2",
    "data.batch_size=1",
    "data.workers=0",
    "data.steps_per_epoch=10",
    "data.cameras=[CAM_FRONT,CAM_BACK]",
    "train.epochs=1",
    "train.precision=32-true",
]


def test_the_command_imports_the_lidar_network(tmp_path: Path) -> None:
    names = read_json(read_golden("lidar_only"), "names")
    path = tmp_path / "lidar-only-seg.pth"
    torch.save({"meta": {}, "state_dict": dict(make_checkpoint(names, None).tensors)}, path)
    assert import_checkpoint(path, tmp_path / "teacher.safetensors", "teacher") == "LiDAR-only network"
    teacher, info = load_teacher(tmp_path / "teacher.safetensors")
    assert (info.teacher.sensors, info.grid.x_min, teacher.bev_grid.shape) == ("lidar", -49.06, (128, 128))
    name = "decoder.backbone.blocks.0.0.weight"
    assert torch.equal(teacher.state_dict()["decoder.stages.0.0.weight"].flip(2), draw_weight(name, names[name]))


def test_the_camera_network_is_distilled_from_an_imported_fusion_network(small_root: Path, tmp_path: Path) -> None:
    """Ten steps with networks of the published kinds, of small sizes; their F and D have other channels."""
    roots = [f"data.train_root={small_root}", f"data.val_root={small_root}", "data.version=v1.0-mini"]
    whole = ["data.train_scenes=all", "data.val_scenes=all"]
    experiment = load(Experiment, imported.CONFIGURATION, [*SMALL, *roots, *whole])
    teacher = import_small_teacher(experiment.model, experiment.grid)
    experiment.distill.teacher = str(tmp_path / "teacher.safetensors")
    save_teacher(tmp_path / "teacher.safetensors", teacher, experiment.data.cameras, {})
    train_distill(experiment, tmp_path / "run")
    student, info = load_student(tmp_path / "run" / "student.safetensors")
    assert student.decoder.channels == 24
    assert info.provenance["steps"] == 10
    with (tmp_path / "run/logs/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/kd/F"]]
    assert np.isfinite([float(rows[-1][f"train/kd/{level}"]) for level in ("F", "D", "Z")]).all()
