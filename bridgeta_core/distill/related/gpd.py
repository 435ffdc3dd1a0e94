"""GPD, "Gap preserving distillation by building bidirectional mappings with a dynamic teacher", Guo et al. 2024 (arXiv
2410.04140), read in its released code.

A trained teacher may be too far ahead. So a dynamic teacher learns beside the student, wider and never far from it: it
starts as the same function in a wider network, and the student's weights are a part of its own. It learns from labels
and from the trained teacher, and the student from both teachers.

Published: that scheme, widths of twice the student's, branches in every convolution, the smoothed cross-entropy with
weight 3 and smoothing of 0.1. Ours: only decoder and head are widened, and both networks read the student's F; how a
wider network becomes the same function (inputs are divided where they are repeated, not outputs); the binary form of
the losses; logit distillation in the place of DKD or ReviewKD. The shared block has no branches of its own, since the
student stays a plain student: 3x3 kernels, 1x1 kernels and identities are summed in the blocks around it. Noise is
1e-3 of the weights' spread where the release has 1e-6. Not verified: the equations of the paper's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.distance import logit_divergence
from bridgeta_core.model.decoder import build_decoder
from bridgeta_core.model.head import SegmentationHead
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Segmenter, Student, Taps
from bridgeta_core.model.teacher import Teacher


class Gpd(Distiller):
    """The trained teacher's logits for both, and the dynamic teacher's for the student."""

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        own = config.gpd
        self.dynamic = DynamicTeacher(student, own.widen, own.branches, own.noise)

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute the dynamic teacher's `label/dynamic` and `kd/teacher`, and the student's `kd/Z` and `kd/dynamic`."""
        own, strength = self.config.gpd, context.strength
        z = self.dynamic(student.F, context.student if own.sharing else None)
        losses = {"label/dynamic": focal_loss(z, labels.masks, labels.known, context.gamma)}
        if own.logits > 0:
            losses["kd/teacher"] = strength * own.logits * logit_divergence(teacher.Z, z, own.tau)
            losses["kd/Z"] = strength * own.logits * logit_divergence(teacher.Z, student.Z, own.tau)
        if own.kappa > 0:
            losses["kd/dynamic"] = strength * own.kappa * smoothed_cross_entropy(z.detach(), student.Z, own.smoothing)
        return losses


class DynamicTeacher(nn.Module):
    """A student's decoder and head with `widen` times the channels in between, from the student's F to logits.

    The copies of a channel lie side by side, so that every `widen`-th is the student's own, also where decoders lay
    maps side by side. It has batch norms with running statistics of its own. `branches` is 1 for the kernels alone, 2
    with 1x1 kernels, and 3 with identities, beside every 3x3 kernel. Weights at the place of a student's are idle.
    """

    def __init__(self, student: Student, widen: int, branches: int, noise: float) -> None:
        super().__init__()
        self.wide = _Wide(student, widen)
        self.points, self.identities = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in self.wide.named_parameters():
            if weight.ndim == 4 and weight.shape[-2:] == (3, 3):
                outputs, inputs = weight.shape[:2]
                if branches > 1:
                    self.points[_to_key(name)] = nn.Parameter(torch.zeros(outputs, inputs, 1, 1))
                if branches > 2 and outputs == inputs:
                    self.identities[_to_key(name)] = nn.Parameter(torch.zeros(outputs))
        self._copy(student, noise)

    @torch.no_grad()
    def _copy(self, student: Student, noise: float) -> None:
        """Become the student's function, but for noise of `noise` times a kernel's spread outside the student's own."""
        theirs = dict(_read_parts(student))
        for name, own in self.wide.named_parameters():
            own.copy_(widen_weight(theirs[name], own.shape))
            if own.ndim == 4:
                own.add_(noise * theirs[name].std() * torch.randn_like(own))
                insert_block(own, theirs[name])
        buffers = {n: x for part in ("decoder", "head") for n, x in getattr(student, part).named_buffers(part)}
        for name, buffer in self.wide.named_buffers():
            own = buffers[name]
            buffer.copy_(own if own.shape == buffer.shape else widen_weight(own, buffer.shape))

    def forward(self, features: Tensor, student: Student | None) -> Tensor:
        """Compute logits `[B, 6, Y, X]` from F `[B, width, Y', X']`, with the weights of `student` in their places."""
        return functional_call(self.wide, self.assemble(student), (features,))

    def assemble(self, student: Student | None) -> dict[str, Tensor]:
        """Merge the branches into one kernel each, and insert the student's weights, with their graph."""
        theirs: Mapping[str, Tensor] = {} if student is None else dict(_read_parts(student))
        weights = {}
        for name, own in self.wide.named_parameters():
            key = _to_key(name)
            weight = merge_branches(own, self.points.get(key), self.identities.get(key))
            if name in theirs:
                insert_block(weight, theirs[name])
            weights[name] = weight
        return weights


class _Wide(Segmenter):
    """A decoder and a head of the student's kinds, with more channels between F and the logits."""

    def __init__(self, student: Student, widen: int) -> None:
        super().__init__()
        decoder, head = student.config.decoder, student.config.head
        stages, channels = [widen * width for width in decoder.stages], widen * decoder.channels
        self.decoder = build_decoder(replace(decoder, stages=stages, channels=channels))
        wider = replace(head, width=widen * head.width)
        self.head = SegmentationHead(self.decoder.channels, wider, student.bev_grid, student.grid)
        self._store_channels_last()

    def forward(self, features: Tensor) -> Tensor:
        return self.decode(features).Z


def _read_parts(student: Student) -> list[tuple[str, Tensor]]:
    """List the student's parameters that the dynamic teacher shares, by the names that they have there."""
    return [pair for part in ("decoder", "head") for pair in getattr(student, part).named_parameters(part)]


def _to_key(name: str) -> str:
    return name.replace(".", "_")


def _find_ratios(narrow: torch.Size, wide: torch.Size) -> list[int]:
    """Find how often the outputs, and of kernels the inputs too, are repeated.

    Transposed convolutions have both the other way round, and both equal.
    """
    return [big // small for big, small in zip(wide[:2], narrow[:2], strict=True)]


def widen_weight(weight: Tensor, shape: torch.Size) -> Tensor:
    """Widen a weight so that repeated inputs give repeated outputs of the same values.

    Outputs are repeated. Kernels `[outputs, inputs, h, w]` are repeated along the inputs too, and divided by how often.
    """
    ratios = _find_ratios(weight.shape, shape)
    for axis, ratio in enumerate(ratios):
        weight = weight.repeat_interleave(ratio, axis)
    return weight / ratios[1] if weight.ndim == 4 else weight


def insert_block(wide: Tensor, weight: Tensor) -> None:
    """Write a student's weight, divided as in `widen_weight`, to its place in a wider one.

    Times the divisor, that place gives the student's weight back (channel-branch reparameterisation).
    """
    ratios = _find_ratios(weight.shape, wide.shape)
    place = tuple(slice(None, None, ratio) for ratio in ratios)
    wide[place] = weight / ratios[1] if weight.ndim == 4 else weight


def merge_branches(kernel: Tensor, point: Tensor | None, identity: Tensor | None) -> Tensor:
    """Merge a 3x3 kernel, a 1x1 kernel and a scaled identity `[channels]` into one 3x3 kernel, by linearity."""
    middle = point
    if identity is not None:
        diagonal = torch.diag(identity)[:, :, None, None]
        middle = diagonal if middle is None else middle + diagonal
    return kernel.clone() if middle is None else kernel + functional.pad(middle, (1, 1, 1, 1))


def smoothed_cross_entropy(target: Tensor, student: Tensor, smoothing: float) -> Tensor:
    """Compute the cross-entropy of logits `[B, K, Y, X]` with another network's probabilities, drawn to 1/2 by
    `smoothing`; averaged over cells and batch, summed over classes.
    """
    with torch.autocast(student.device.type, enabled=False):
        probability = (1 - smoothing) * torch.sigmoid(target.float()) + smoothing / 2
        loss = functional.binary_cross_entropy_with_logits(student.float(), probability, reduction="none")
    return loss.mean(dim=(0, 2, 3)).sum()
