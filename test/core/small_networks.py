"""Student and teacher of a few thousand weights with all real parts, and inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.config.experiment import (
    BackboneConfig,
    DecoderConfig,
    HeadConfig,
    ImageConfig,
    LidarConfig,
    LiftConfig,
    StudentConfig,
    TeacherConfig,
)
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.model.student import Student

GRID = BevGrid(-10, 10, -6, 6, 0.5)  # 24 x 40 labels inside the 32 x 48 cells of the lift
OPTIONS = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}


def small_student(
    image: dict[str, Any] | None = None, lift: dict[str, Any] | None = None, decoder: DecoderConfig | None = None
) -> StudentConfig:
    """Settings of a student for images of 64 x 32, with some settings of image and lift replaced."""
    images = {"width": 64, "height": 32, "margin": 1.0}
    lifts = {"depth_max": 13.0, "channels": 8, "grid": BevGrid(-12, 12, -8, 8, 0.5), "downsample": 1}
    return StudentConfig(
        image=ImageConfig(**(images | (image or {}))),
        backbone=BackboneConfig(architecture="resnet", options=dict(OPTIONS), channels=16),
        lift=LiftConfig(**(lifts | (lift or {}))),
        decoder=decoder or DecoderConfig(width=12, stages=[8, 16], blocks=2, channels=8),
        head=HeadConfig(width=8),
    )


def bevfusion_student() -> StudentConfig:
    """Settings of such a student with all that BEVFusion's camera-only network has otherwise."""
    places = {"depth_place": "near", "pixel_place": "spread", "edge": "widen"}
    config = small_student(
        {"margin": 1.25},
        {"downsample": 2, "kernel": 3, **places},
        DecoderConfig(width=12, stages=[8, 10, 16], blocks=2, channels=8, kind="resnet"),
    )
    config.backbone.pyramid = "concatenation"
    return config


def small_teacher(sensors: str = "fusion", **lidar: Any) -> TeacherConfig:
    """Settings of the LiDAR branch of a teacher beside such a student."""
    return TeacherConfig(sensors, LidarConfig(**({"channels": 8, "width": 10} | lidar)))


def ring_of_cameras(batch: int, cameras: int, width: int = 64, height: int = 32) -> tuple[Tensor, Tensor]:
    """Intrinsics [B, N, 3, 3] and ego_T_cam [B, N, 4, 4] of cameras that look evenly around, 1.5 m above the ground."""
    poses = []
    for yaw in np.arange(cameras) * 2 * np.pi / cameras:
        c, s = np.cos(yaw), np.sin(yaw)
        pose = np.eye(4)
        pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        pose[2, 3] = 1.5
        poses.append(pose)
    k = torch.tensor([[width / 2, 0, (width - 1) / 2], [0, width / 2, (height - 1) / 2], [0, 0, 1]])
    return k.repeat(batch, cameras, 1, 1), torch.from_numpy(np.stack(poses)).float().repeat(batch, 1, 1, 1)


def random_images(batch: int, cameras: int, width: int = 64, height: int = 32) -> Tensor:
    """Bytes [B, N, 3, H, W], the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, cameras, 3, height, width), dtype=torch.uint8, generator=generator)


def trained_student(config: StudentConfig | None = None) -> Student:
    """A small student whose batch norms have seen data, so that folding them changes something."""
    torch.manual_seed(0)
    config = config or small_student({"margin": 1.25}, {"downsample": 2, "ground_prior": True})
    student = Student(config, GRID).train()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = 1.0  # statistics of the last batch
    runtime_rig = rig(2)
    fits = [ImageFit.bottom((c.width, c.height), (64, 32), 1.25) for c in runtime_rig.cameras]
    k = torch.tensor(np.stack([f.matrix @ c.intrinsics for f, c in zip(fits, runtime_rig.cameras, strict=True)]))
    pose = torch.tensor(np.stack([c.ego_T_cam for c in runtime_rig.cameras]))
    for _ in range(3):
        student(torch.randint(0, 256, (1, 2, 3, 32, 64), dtype=torch.uint8), student.plan(k[None], pose[None]))
    return student.eval()


def rig(cameras: int, height: float = 1.5) -> Rig:
    result = []
    for i in range(cameras):
        c, s = np.cos(2 * np.pi * i / cameras), np.sin(2 * np.pi * i / cameras)
        pose = np.eye(4)
        pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        pose[2, 3] = height
        intrinsics = np.array([[500.0 + i, 0, 400], [0, 500.0 + i, 225], [0, 0, 1]])
        result.append(Camera(f"camera_{i}", 800, 450 + 50 * i, intrinsics, pose))
    return Rig(tuple(result))


def pictures(cameras: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (cameras, 32, 64, 3), dtype=np.uint8)
