"""A small teacher and student, a batch for both, and their taps, for every test of distillation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from imported_teacher import import_small_teacher
from small_networks import ring_of_cameras, small_student, small_teacher
from torch import Tensor

from bridgeta_core.bevfusion import teacher as imported
from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.config.experiment import (
    DecoderConfig,
    Experiment,
    HeadConfig,
    StudentConfig,
    from_mapping,
    load,
)
from bridgeta_core.data.frames import Batch
from bridgeta_core.distill.base import Context, Distiller, Example, Labels, View
from bridgeta_core.distill.levels import freeze_running_statistics
from bridgeta_core.distill.methods.registry import build_distiller
from bridgeta_core.distill.stages import compute_stages, record_fuser_input, record_stages
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

GRID = BevGrid(-10, 10, -10, 10, 0.8)  # 25 x 25 labels inside 16 x 16 features of 1.5 m
MODEL = small_student(
    lift={"grid": BevGrid(-12, 12, -12, 12, 1.5)}, decoder=DecoderConfig(width=8, stages=[8, 8], blocks=1, channels=8)
)
TEACHER = small_teacher(width=8, blocks=1)


OF_BEVFUSION = [
    "model.image.width=64",
    "model.image.height=32",
    "model.backbone.pretrained=null",
    "model.backbone.options={embed_dim: 12, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2]}",
    "model.backbone.channels=16",
    "model.lift.depth_step=5.9",
    "model.lift.channels=8",
    "model.lift.downsample=1",
]


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
    stages: tuple[Tensor, ...] = ()
    fused: Tensor | None = None

    @property
    def batch(self) -> Batch:
        """The frames as training has them."""
        inputs = self.images, self.intrinsics, self.ego_T_cam, self.labels.masks, self.labels.known
        return Batch(*inputs, tokens=[str(i) for i in range(len(self.images))], points=self.points)

    def distiller(self, method: str, *overrides: str, prepared: bool = True) -> Distiller:
        config = from_mapping(DistillConfig, {"method": method}, overrides)
        torch.manual_seed(5)
        distiller = build_distiller(config, self.student, self.teacher)
        if prepared:
            distiller.prepare([self.example(distiller)], self.teacher)
        return distiller

    def example(self, distiller: Distiller | None = None) -> Example:
        """What `prepare` gets to see of these frames, transformed too if the method does that."""
        view = None if distiller is None else distiller.view(self.batch, 0)
        seen = None if view is None else self.teacher_taps(view)
        return Example(self.teacher_taps(), self.labels, self.fused, seen)

    def teacher_taps(self, batch: Batch | None = None) -> Taps:
        batch = batch or self.batch
        with torch.no_grad(), record_fuser_input(self.teacher) as fused:
            taps = self.teacher(batch.images, self.student.plan(batch.intrinsics, batch.ego_T_cam), batch.points)
        self.fused = fused[0] if fused else None
        return taps

    def student_taps(self) -> Taps:
        with record_stages(self.student.decoder) as stages:
            taps = self.student(self.images, self.student.plan(self.intrinsics, self.ego_T_cam))
        self.stages = tuple(stages)
        return taps

    def leaf_taps(self) -> Taps:
        """The student's taps as leaves that take gradients, and its stages too."""
        taps = self.student_taps()
        self.stages = tuple(x.detach().requires_grad_() for x in self.stages)
        return Taps(*(x.detach().requires_grad_() for x in taps))

    def agreeing_taps(self) -> Taps:
        """The taps of a student that agrees with the teacher everywhere, as leaves that take gradients."""
        taps = self.teacher_taps()
        self.stages = tuple(x.detach().requires_grad_() for x in compute_stages(self.teacher, taps.F))
        return Taps(*(x.detach().clone().requires_grad_() for x in taps))

    def view(self, distiller: Distiller, step: int) -> View | None:
        """What both networks make of the frames as a method transforms them."""
        batch = distiller.view(self.batch, step)
        if batch is None:
            return None
        with freeze_running_statistics(self.student):
            student = self.student(batch.images, self.student.plan(batch.intrinsics, batch.ego_T_cam))
        fused = self.fused
        teacher, self.fused = self.teacher_taps(batch), fused
        return View(teacher, student, Labels(batch.labels, batch.known))

    def losses(
        self, distiller: Distiller, teacher: Taps, student: Taps, labels: Labels | None = None, **changes: Any
    ) -> dict[str, Tensor]:
        inside = {"stages": self.stages, "fused": self.fused, "view": self.view(distiller, changes.get("step", 10))}
        return distiller.compute_losses(teacher, student, labels or self.labels, self.context(**(inside | changes)))

    def context(self, **changes: Any) -> Context:
        values: dict[str, Any] = {"student": self.student, "teacher": self.teacher, "step": 10, "steps": 100}
        return Context(**(values | changes))


def make_bench(batch: int = 2, model: StudentConfig = MODEL) -> Bench:
    """Build networks and a batch; `model` is the student's."""
    return copy.deepcopy(_bench(batch)) if model is MODEL else _build(batch, model)


@cache
def _bench(batch: int) -> Bench:
    return _build(batch, MODEL)


def _build(batch: int, model: StudentConfig, teacher: Teacher | None = None) -> Bench:
    torch.manual_seed(3)
    student, teacher = Student(model, GRID, pretrained=False), teacher or Teacher(TEACHER, MODEL, GRID)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    k, poses = ring_of_cameras(batch, 3)
    points = [torch.rand(200, 5, generator=generator) * torch.tensor([20, 20, 2, 255, 0]) for _ in range(batch)]
    masks = torch.zeros(batch, 6, *GRID.shape, dtype=torch.uint8)
    masks[:, 0, 5:20, 3:22] = 1
    masks[:, 5, 12, 3:22] = 1
    masks[0, 3, 20:22, 5:9] = 1
    bench = Bench(
        student=student,
        teacher=teacher,
        images=torch.randint(0, 256, (batch, 3, 3, 32, 64), dtype=torch.uint8, generator=generator),
        intrinsics=k,
        ego_T_cam=poses,
        points=[p - torch.tensor([10.0, 10, 1, 0, 0]) for p in points],
        labels=Labels(masks, torch.ones(batch, 6, dtype=torch.bool)),
    )
    for _ in range(3):  # running statistics that fit, so that eval mode gives lively taps
        bench.teacher.train()
        bench.teacher_taps()
        bench.student_taps()
    bench.teacher.eval()
    bench.stages = ()
    return bench


@pytest.fixture
def bench() -> Bench:
    """Two frames."""
    return make_bench()


@pytest.fixture
def narrow_bench() -> Bench:
    """A student whose F and D have other channels than the teacher's."""
    decoder = DecoderConfig(width=12, stages=[8], blocks=1, channels=10)
    return make_bench(2, dataclasses.replace(MODEL, decoder=decoder))


@pytest.fixture
def imported_bench() -> Bench:
    """A teacher of BEVFusion's kind, imported, and a student of its cameras and channels."""
    small = load(Experiment, imported.CONFIGURATION, OF_BEVFUSION).model
    small.lift.grid, small.head = MODEL.lift.grid, HeadConfig(8)
    small.decoder = DecoderConfig(width=16, stages=[8, 8], blocks=1, channels=8)
    return _build(2, small, import_small_teacher(small, GRID))


@pytest.fixture
def bench_of() -> Callable[[int], Bench]:
    """As many frames as wanted."""
    return make_bench
