"""What lies between the taps: the stages of a decoder, and what a teacher's fuser takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.distill.dense import list_stage_widths
from bridgeta_core.model.decoder import Decoder
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError


@contextmanager
def record_outputs(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what each module gives, in the order in which they run, while the block runs."""
    outputs: list[Tensor] = []

    def collect(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)

    handles = [module.register_forward_hook(collect) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def record_stages(decoder: Decoder) -> AbstractContextManager[list[Tensor]]:
    """Collect what each stage of a decoder gives, `[B, width, y, x]`, the finest first, while the block runs."""
    return record_outputs(decoder.stages)


@contextmanager
def replace_stage(decoder: Decoder, index: int, features: Tensor) -> Iterator[None]:
    """Let a decoder take `features` for what its stage `index` gives, while the block runs."""
    handle = decoder.stages[index].register_forward_hook(lambda *_: features)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def record_fuser_input(teacher: Teacher) -> Iterator[list[Tensor]]:
    """Collect what the teacher's fuser takes while the block runs: the channels of its cameras, then its LiDAR's,
    `[B, C, Y', X']`.
    """
    inputs: list[Tensor] = []

    def collect(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0])

    handle = teacher.fuser.register_forward_pre_hook(collect)
    try:
        yield inputs
    finally:
        handle.remove()


@torch.no_grad()
def compute_stages(teacher: Teacher, features: Tensor) -> tuple[Tensor, ...]:
    """Compute the stages of the teacher's decoder from its F, which a cache may hold, without a graph."""
    with record_stages(teacher.decoder) as stages:
        teacher.decoder(torch.relu(features.float()))  # of half precision, if autocast was on where they come from
    return tuple(stages)


def fuses(teacher: Teacher) -> bool:
    """Return whether a teacher fuses cameras with LiDAR."""
    return teacher.camera is not None and teacher.config.fuser


def check_fuses(teacher: Teacher, setting: str) -> None:
    """Raise BridgeTAError (exit code 2) where a teacher does not fuse cameras with LiDAR, as `setting` needs."""
    if not fuses(teacher):
        raise BridgeTAError(
            f"{setting} compares with the teacher's cameras and LiDAR apart, and this teacher does not fuse them",
            fix=f"Set {setting}=0, or use a teacher that was trained with teacher.sensors=fusion",
            exit_code=2,
        )


@torch.no_grad()
def split_fusion(teacher: Teacher, fused: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the shares of cameras and LiDAR in what the fuser's convolution gives, from its input `[B, C, Y', X']`.

    Both are `[B, width, Y', X']`, in the space of F: the convolution has no bias, so it is the sum of one over the
    cameras' channels and one over the LiDAR's, and the fuser's batch norm of the sum is F.
    """
    convolution, cameras = teacher.fuser[0], teacher.model.lift.channels  # type: ignore[index]
    assert isinstance(convolution, nn.Conv2d)
    shares = (slice(None, cameras), slice(cameras, None))
    with torch.autocast(fused.device.type, enabled=False):
        of_cameras, of_lidar = (
            functional.conv2d(fused[:, x].float(), convolution.weight[:, x].float(), padding=1) for x in shares
        )
    return of_cameras, of_lidar


class StageAdapter(nn.Module):
    """Brings a stage of the student's decoder to the channels and cells of a stage of the teacher's.

    A 1x1 convolution where the channels differ, and bilinear interpolation where the cells do; else nothing.
    """

    def __init__(self, student: Student, teacher: Teacher, own: int, wanted: int) -> None:
        super().__init__()
        inputs, outputs = list_stage_widths(student)[own], list_stage_widths(teacher)[wanted]
        self.layer = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, stage: Tensor, size: torch.Size) -> Tensor:
        """Adapt a stage `[B, C, y, x]` to `size`, the teacher's rows and columns."""
        adapted = self.layer(stage)
        if adapted.shape[-2:] != size:
            adapted = functional.interpolate(adapted, size=size, mode="bilinear", align_corners=False)
        return adapted
