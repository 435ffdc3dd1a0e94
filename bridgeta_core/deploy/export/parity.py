"""How near an exported network is to the original: the largest difference of a probability, and the IoU of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from bridgeta_core.evaluation.metric import IoU, MapIoU, format_percent
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError

Infer = Callable[[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float32]]
"""Images `[N, h, w, 3]`, intrinsics `[N, 3, 3]` and ego_T_cam `[N, 4, 4]` to probabilities `[6, Y, X]`."""


class Frame(Protocol):
    """A set of images with its labels, as `data.frames.Frame` has them."""

    images: Tensor
    intrinsics: Tensor
    ego_T_cam: Tensor
    labels: Tensor
    known: Tensor


def to_arrays(frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Return what `Infer` takes of a frame."""
    images = np.ascontiguousarray(frame.images.permute(0, 2, 3, 1).numpy())
    return images, frame.intrinsics.double().numpy(), frame.ego_T_cam.double().numpy()


@dataclass(frozen=True, eq=False)
class Parity:
    """The comparison on `frames` sets of images of `data`; the IoU counted is the best of the protocol's
    seven thresholds.

    `difference` is the largest between two probabilities, and `changed` the share of decisions at 0.5 that differ.
    """

    data: str
    frames: int
    difference: float
    changed: float
    original: IoU
    exported: IoU

    @property
    def has_labels(self) -> bool:
        """Whether any class could be scored."""
        return not np.isnan(self.original.best).all()

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON; null where a class is in no label."""
        return {
            "data": self.data,
            "sets_of_images": self.frames,
            "largest_difference_of_a_probability": self.difference,
            "share_of_changed_decisions": self.changed,
            "iou": {
                name: {"threshold": _round(threshold), "original": _round(before), "exported": _round(after)}
                for name, threshold, before, after in zip(
                    CLASS_NAMES, self.original.threshold, self.original.best, self.exported.best, strict=True
                )
            },
        }

    def describe(self) -> str:
        """Describe in one sentence how near the grids are."""
        largest, changed = f"{self.difference:.1e}", f"{100 * self.changed:.3g}"
        return (
            f"On {self.frames} sets of images of {self.data} no probability differs by more than {largest}, "
            f"and {changed} % of the decisions at 0.5 change"
        )

    def build_table(self) -> Table:
        """Build a table of the IoU in per cent, and of its change in points, with a row per class."""
        table = Table(title="IoU in %, and how it changes")
        table.add_column("class")
        for column in ("original", "exported", "change in points"):
            table.add_column(column, justify="right")
        for name, before, after in zip(CLASS_NAMES, self.original.best, self.exported.best, strict=True):
            change = "-" if math.isnan(before) else f"{100 * (after - before):+.3f}"
            table.add_row(name, format_percent(before), format_percent(after), change)
        return table


def measure_parity(original: Infer, exported: Infer, frames: Iterable[Frame], grid: BevGrid, data: str) -> Parity:
    """Compare two ways to compute a network on one frame or more. Raises BridgeTAError for results that are none."""
    before, after = MapIoU(grid), MapIoU(grid)
    difference, changed, cells, count = 0.0, 0, 0, 0
    for frame in frames:
        inputs = to_arrays(frame)
        expected, found = original(*inputs), exported(*inputs)
        if found.shape != expected.shape or not np.isfinite(found).all():
            what = f"the exported graphs give {list(found.shape)} numbers, or some that are not finite"
            raise BridgeTAError(f"{what}, not {list(expected.shape)}")
        difference = max(difference, float(np.abs(found - expected).max()))
        changed += int(((found >= 0.5) != (expected >= 0.5)).sum())
        cells, count = cells + found.size, count + 1
        for metric, probabilities in ((before, expected), (after, found)):
            metric.update(torch.from_numpy(probabilities)[None], frame.labels[None], frame.known[None])
    return Parity(data, count, difference, changed / cells, before.result(), after.result())


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
