"""Frames and batches with the teacher's taps, so that neither LiDAR points nor the teacher are needed.

The taps of a frame are those of the frame as it is, whatever is changed in training. Where the world is mirrored they
are mirrored exactly: the student learns what the teacher says of the unmirrored frame, seen in a mirror. That is a
sound target, but not the same as the teacher's taps of the mirrored frame, since the convolutions of a trained teacher
tell left from right. Recoloured, shifted or singly mirrored images leave the world where it is, and with it the taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from bridgeta_core.data.frames import Batch, Frame, collate
from bridgeta_core.model.student import Taps


@dataclass
class FrameWithTaps(Frame):
    """A frame with float16 taps: F `[width, Y', X']`, D `[C_D, Y', X']` and Z `[6, Y, X]`."""

    taps: Taps = field(kw_only=True)


@dataclass
class BatchWithTaps(Batch):
    """A batch of `FrameWithTaps`: its taps stacked, still float16."""

    taps: Taps = field(kw_only=True)

    def _map(self, function: Any) -> BatchWithTaps:
        batch = super()._map(function)
        assert isinstance(batch, BatchWithTaps)
        return replace(batch, taps=Taps(*(function(tap) for tap in self.taps)))


def mirror_taps(taps: Taps, mirrors: tuple[bool, bool]) -> Taps:
    """Mirror the taps of a frame, `[C, Y, X]` on symmetric grids, in x and in y where `mirrors` says so."""
    axes = [axis for axis, mirrored in zip((-1, -2), mirrors, strict=True) if mirrored]
    return Taps(*(tap.flip(axes) for tap in taps)) if axes else taps


def collate_with_taps(frames: Sequence[Frame]) -> Batch:
    """Collate frames of either kind; the batch has taps if all frames have them."""
    batch = collate(frames)
    taps = [frame.taps for frame in frames if isinstance(frame, FrameWithTaps)]
    if len(taps) < len(frames):
        return batch
    stacked = Taps(*(torch.stack(level) for level in zip(*taps, strict=True)))
    return BatchWithTaps(**{f.name: getattr(batch, f.name) for f in fields(batch)}, taps=stacked)
