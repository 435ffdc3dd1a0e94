"""Frames and batches that bring the teacher's taps along, so that neither points nor the teacher need to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bridgeta_core.data.frames import Batch, Frame, collate
from bridgeta_core.model.teacher import TeacherOutput


@dataclass
class TappedFrame(Frame):
    """A frame with float16 taps: `F` `[width, Y', X']`, `D` `[C_D, Y', X']` and `Z` `[6, Y, X]`."""

    F: Tensor | None = None
    D: Tensor | None = None
    Z: Tensor | None = None


@dataclass
class TappedBatch(Batch):
    """A batch of `TappedFrame`: its taps stacked, still float16."""

    F: Tensor | None = None
    D: Tensor | None = None
    Z: Tensor | None = None

    def taps(self) -> TeacherOutput | None:
        """The teacher's output in float32, None where there is none. What it fused is not kept: `camera` and `lidar`
        are None.
        """
        if self.F is None or self.D is None or self.Z is None:
            return None
        return TeacherOutput(self.F.float(), self.D.float(), self.Z.float())


def collate_tapped(frames: Sequence[Frame]) -> Batch:
    """`collate` for frames of either kind; taps are stacked if all frames have them."""
    batch = collate(frames)
    tapped = [frame for frame in frames if isinstance(frame, TappedFrame)]
    if len(tapped) < len(frames):
        return batch
    values: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch)}
    values |= {name: torch.stack([getattr(frame, name) for frame in tapped]) for name in ("F", "D", "Z")}
    return TappedBatch(**values)
