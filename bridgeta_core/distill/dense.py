"""Heads that are trained beside the networks: from features inside of one to class logits on the label grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.distill.base import Example
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student

_PRIOR = 0.1  # probability of every class before training, as in the networks' own heads
_GAMMA = 2.0  # of the focal loss, as in the networks' training by default


class DenseHead(nn.Module):
    """Features `[B, C, y, x]` that cover the feature grid in cells of any size to logits `[B, 6, Y, X]`.

    `body` leads from C to `channels`, and a 1x1 convolution from there to the classes.
    """

    def __init__(self, body: nn.Module, channels: int, student: Student) -> None:
        super().__init__()
        self.body, self.classify = body, build_classifier(channels)
        self.size = student.bev_grid.shape
        self.resample = GridResampler(student.bev_grid, student.grid)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the logits."""
        logits = self.classify(self.body(features))
        if logits.shape[-2:] != self.size:
            logits = functional.interpolate(logits, size=self.size, mode="bilinear", align_corners=False)
        return self.resample(logits)


def build_classifier(channels: int) -> nn.Conv2d:
    """Build a 1x1 convolution to the classes' logits that starts from the prior."""
    classify = nn.Conv2d(channels, len(CLASSES), 1)
    assert classify.bias is not None
    nn.init.constant_(classify.bias, math.log(_PRIOR / (1 - _PRIOR)))
    return classify


def list_stage_widths(network: nn.Module) -> list[int]:
    """List the channels of what each stage of a student's or teacher's decoder gives."""
    config = network.config if isinstance(network, Student) else network.model
    return [int(width) for width in config.decoder.stages]  # type: ignore[union-attr]


def fit_head(
    head: DenseHead, examples: Iterable[Example], read: Callable[[Example], Tensor], epochs: int, rate: float
) -> None:
    """Fit a head to the labels of training frames by the focal loss and AdamW, and freeze it.

    `read` takes the head's input from an example. Frames without labels change nothing but the statistics of batch
    norms.
    """
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate)
    head.train()
    for _ in range(epochs):
        for example in examples:
            logits = head(read(example))
            focal_loss(logits, example.labels.masks, example.labels.known, _GAMMA).backward()
            optimiser.step()
            optimiser.zero_grad()
    head.eval().requires_grad_(False)
