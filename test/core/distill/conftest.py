"""A small teacher and student with real parts, and their taps, for every test of distillation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.config.experiment import (
    BackboneConfig,
    DecoderConfig,
    HeadConfig,
    ImageConfig,
    LidarConfig,
    LiftConfig,
    StudentConfig,
    TeacherConfig,
    from_mapping,
)
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.methods import build_distiller
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student, StudentOutput
from bridgeta_core.model.teacher import Teacher, TeacherOutput

GRID = BevGrid(-10, 10, -10, 10, 0.8)  # 25 x 25 labels inside 16 x 16 features of 1.5 m
OPTIONS = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
MODEL = StudentConfig(
    image=ImageConfig(width=64, height=32, margin=1.0),
    backbone=BackboneConfig(architecture="resnet", options=OPTIONS, stages=[2, 3, 4], channels=16),
    lift=LiftConfig(depth_max=13.0, channels=8, grid=BevGrid(-12, 12, -12, 12, 1.5), downsample=1),
    decoder=DecoderConfig(width=8, stages=[8, 8], blocks=1, channels=8),
    head=HeadConfig(width=8),
)
TEACHER = TeacherConfig(lidar=LidarConfig(channels=8, width=8, blocks=1))


@dataclasses.dataclass
class Bench:
    """A teacher and a student, a batch for both, and what distillation needs of it."""

    student: Student
    teacher: Teacher
    images: Tensor
    intrinsics: Tensor
    ego_T_cam: Tensor
    points: list[Tensor]
    labels: Labels

    def distiller(self, method: str, *overrides: str, prepared: bool = True) -> Distiller:
        config = from_mapping(DistillConfig, {"method": method}, overrides)
        torch.manual_seed(5)
        distiller = build_distiller(config, self.student, self.teacher)
        if prepared:
            distiller.prepare([self.teacher_taps()])
        return distiller

    def teacher_taps(self) -> TeacherOutput:
        with torch.no_grad():
            return self.teacher(self.images, self.student.plan(self.intrinsics, self.ego_T_cam), self.points)

    def student_taps(self) -> StudentOutput:
        return self.student(self.images, self.student.plan(self.intrinsics, self.ego_T_cam))

    def context(self, **changes: Any) -> Context:
        values: dict[str, Any] = {"student": self.student, "teacher": self.teacher, "step": 10, "steps": 100}
        return Context(**(values | changes))


def make_bench(batch: int = 2) -> Bench:
    return copy.deepcopy(_bench(batch))


@cache
def _bench(batch: int) -> Bench:
    torch.manual_seed(3)
    student, teacher = Student(MODEL, GRID), Teacher(TEACHER, MODEL, GRID)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    poses = []
    for yaw in (0.0, 2.1, 4.2):
        c, s = np.cos(yaw), np.sin(yaw)
        pose = np.eye(4)
        pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        pose[2, 3] = 1.5
        poses.append(pose)
    k = torch.tensor([[32.0, 0, 31.5], [0, 32.0, 15.5], [0, 0, 1]])
    points = [torch.rand(200, 5, generator=generator) * torch.tensor([20, 20, 2, 255, 0]) for _ in range(batch)]
    masks = torch.zeros(batch, 6, *GRID.shape, dtype=torch.uint8)
    masks[:, 0, 5:20, 3:22] = 1
    masks[:, 5, 12, 3:22] = 1
    masks[0, 3, 20:22, 5:9] = 1
    bench = Bench(
        student=student,
        teacher=teacher,
        images=torch.randint(0, 256, (batch, 3, 3, 32, 64), dtype=torch.uint8, generator=generator),
        intrinsics=k.expand(batch, 3, 3, 3),
        ego_T_cam=torch.from_numpy(np.stack(poses)).float().expand(batch, -1, -1, -1),
        points=[p - torch.tensor([10.0, 10, 1, 0, 0]) for p in points],
        labels=Labels(masks, torch.ones(batch, 6, dtype=torch.bool)),
    )
    for _ in range(3):  # running statistics that fit, so that eval mode gives lively taps
        bench.teacher.train()
        bench.teacher_taps()
        bench.student_taps()
    bench.teacher.eval()
    return bench


@pytest.fixture
def bench() -> Bench:
    """Two frames."""
    return make_bench()


@pytest.fixture
def bench_of() -> Callable[[int], Bench]:
    """As many frames as wanted."""
    return make_bench
