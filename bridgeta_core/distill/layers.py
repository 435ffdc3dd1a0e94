"""All layers of a teacher from its fuser on, in groups of one size."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.distill.dense import list_stage_widths
from bridgeta_core.distill.stages import fuses, record_outputs, split_fusion
from bridgeta_core.model.decoder import Decoder, ResNetDecoder
from bridgeta_core.model.student import Taps
from bridgeta_core.model.teacher import Teacher


def list_layer_widths(teacher: Teacher) -> list[list[int]]:
    """List the channels of the layers of every group that `compute_layers` gives."""
    decoder, config = teacher.decoder, teacher.model.decoder
    *stages, ends = _list_modules(decoder)
    return [
        [config.width] * (3 if fuses(teacher) else 1),
        *([width] * len(blocks) for width, blocks in zip(list_stage_widths(teacher), stages, strict=True)),
        [config.channels] * len(ends) + [decoder.channels],
    ]


@torch.no_grad()
def compute_layers(teacher: Teacher, taps: Taps, fused: Tensor | None) -> list[list[Tensor]]:
    """Compute the layers of a teacher from its F, without a graph; the last of each group is what it hands on.

    The groups are the parts of the fuser and F, if the teacher has two sensors, else F alone; the blocks of every stage
    of the decoder; what the decoder joins to D, as large as D, and D.
    """
    with ExitStack() as stack:
        *stages, ends = [stack.enter_context(record_outputs(modules)) for modules in _list_modules(teacher.decoder)]
        teacher.decoder(torch.relu(taps.F.float()))  # of half precision where autocast was on
    size = taps.D.shape[-2:]
    enlarged = [functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in ends]
    parts: tuple[Tensor, ...] = ()
    if fuses(teacher):
        assert fused is not None, "the input of the fuser is there for a method that needs a live teacher"
        parts = split_fusion(teacher, fused)
    return [[*parts, taps.F], *stages, [*enlarged, taps.D]]


def _list_modules(decoder: Decoder) -> list[list[nn.Module]]:
    """List the blocks of every stage of a decoder, then the modules whose outputs it joins to D."""
    parts = (nn.Conv2d, nn.BatchNorm2d)  # of a block whose ReLU comes last, where blocks are not modules
    stages = [[block for block in stage.children() if not isinstance(block, parts)] for stage in decoder.stages]
    return [*stages, [decoder.fuse] if isinstance(decoder, ResNetDecoder) else list(decoder.up)]
