"""BEVFusion's metric: IoU per map class over a whole dataset, at the best of seven thresholds, and by range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.arrays import Flags, Floats, Ints
from bridgeta_core.utils.errors import BridgeTAError

THRESHOLDS = (0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65)
RANGES = ((0.0, 20.0), (20.0, 35.0), (35.0, 50.0))  # metres
RANGE_LABELS = tuple(f"{near:.0f}-{far:.0f} m" for near, far in RANGES)


@dataclass(frozen=True, eq=False)
class IoU:
    """Intersection over union per class, shares of 1, NaN where there is nothing to score.

    `best[c]` is the largest over the thresholds and `threshold[c]` the one that gives it; `half[c]` is at 0.5;
    `by_range[c, r]` is at `threshold[c]` and `half_by_range[c, r]` at 0.5, for the cells whose centres are in RANGES[r]
    metres from the ego origin. `best` and `half` count all cells, the corners beyond 50 m too, as the protocol does.
    `at_end[c]` marks a threshold at an end of THRESHOLDS, beyond which a better one may lie. `notes` name the classes
    that are left out of the means.
    """

    best: Floats
    threshold: Floats
    half: Floats
    by_range: Floats
    half_by_range: Floats
    at_end: Flags
    notes: tuple[str, ...]

    @property
    def miou(self) -> float:
        """The mean of `best` over the classes that are scored."""
        return average_scored(self.best)

    @property
    def miou_half(self) -> float:
        """The mean of `half` over the classes that are scored."""
        return average_scored(self.half)

    @property
    def miou_by_range(self) -> Floats:
        """The means of `by_range` over the classes that are scored, `[ranges]`."""
        return np.array([average_scored(column) for column in self.by_range.T])

    def to_mapping(self, half_by_range: bool = False) -> dict[str, Any]:
        """Return plain values for JSON, with 6 digits; null where nothing is scored.

        With `half_by_range` also the IoU at 0.5 by range and, in `ranges`, the means by range.
        """
        classes: dict[str, Any] = {}
        for c, name in enumerate(CLASS_NAMES):
            classes[name] = {
                "iou": round_share(self.best[c]),
                "threshold": round_share(self.threshold[c]),
                "threshold_at_end": bool(self.at_end[c]),
                "iou_at_0.5": round_share(self.half[c]),
                "iou_by_range": dict(zip(RANGE_LABELS, map(round_share, self.by_range[c]), strict=True)),
            }
            if half_by_range:
                values = map(round_share, self.half_by_range[c])
                classes[name]["iou_by_range_at_0.5"] = dict(zip(RANGE_LABELS, values, strict=True))
        content: dict[str, Any] = {
            "miou": round_share(self.miou),
            "miou_at_0.5": round_share(self.miou_half),
            "classes": classes,
            "notes": list(self.notes),
        }
        if half_by_range:
            content["ranges"] = {
                label: {
                    "miou": round_share(self.miou_by_range[r]),
                    "miou_at_0.5": round_share(average_scored(self.half_by_range[:, r])),
                }
                for r, label in enumerate(RANGE_LABELS)
            }
        return content

    def to_columns(self) -> dict[str, dict[str, float | None]]:
        """Return per class the IoU at 0.5 (`half`), the `best`, its `threshold`, and by range; None if not scored."""
        columns = {"half": self.half, "best": self.best, "threshold": self.threshold}
        columns |= dict(zip(RANGE_LABELS, self.by_range.T, strict=True))
        return {
            name: {key: None if math.isnan(values[c]) else float(values[c]) for key, values in columns.items()}
            for c, name in enumerate(CLASS_NAMES)
        }


class MapIoU:
    """Count cells over a dataset, then compute their IoU.

    `counts` is int64 `[6, ranges + 1, thresholds + 1, 2]`: cells by class, range (the last: beyond all), number of
    thresholds that the probability reaches, and label. Counts of several processes may simply be added.
    """

    def __init__(self, grid: BevGrid) -> None:
        edges = np.array([far for _, far in RANGES])
        self._range = torch.from_numpy(np.searchsorted(edges, grid.ranges(), side="right"))
        self._shape = (len(CLASSES), len(RANGES) + 1, len(THRESHOLDS) + 1, 2)
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.counts = torch.zeros(self._shape, dtype=torch.int64)

    def update(self, probabilities: Tensor, labels: Tensor, known: Tensor) -> None:
        """Add a batch: probabilities `[B, 6, Y, X]` in [0, 1], labels of 0 and 1 alike, and known `[B, 6]`.

        A class unknown to a sample's map is not counted there; `known` may also be by cell, `[B, 6, Y, X]`. Raises
        BridgeTAError for values that are not finite.
        """
        if not torch.isfinite(probabilities).all():
            raise BridgeTAError("the prediction holds values that are not finite", fix="Train at a lower learning rate")
        device = probabilities.device
        classes, ranges, levels, _ = self._shape
        level = torch.bucketize(probabilities.float().contiguous(), torch.tensor(THRESHOLDS, device=device), right=True)
        place = torch.arange(classes, device=device)[:, None, None] * ranges + self._range.to(device)
        key = (place * levels + level) * 2 + labels.to(device, torch.int64)
        counted = key[known.to(device, torch.bool)].flatten()
        counts = torch.bincount(counted, minlength=math.prod(self._shape))
        self.counts += counts.reshape(self._shape).to(self.counts.device)

    def result(self) -> IoU:
        """Compute the IoU of all that was added."""
        return compute_iou(self.counts.cpu().numpy())


def compute_iou(counts: Ints) -> IoU:
    """Compute the IoU from `counts` as `MapIoU` has them."""
    by_range = np.concatenate([counts.sum(axis=1, keepdims=True), counts[:, : len(RANGES)]], axis=1)
    iou, positives = compute_threshold_iou(by_range)
    whole = iou[:, 0]
    choice = np.where(np.isnan(whole), -1, whole).argmax(axis=1)
    rows = np.arange(len(CLASSES))
    scored = positives[:, 0] > 0
    return IoU(
        best=whole[rows, choice],
        threshold=np.where(scored, np.array(THRESHOLDS)[choice], np.nan),
        half=whole[:, THRESHOLDS.index(0.5)],
        by_range=iou[rows, 1:, choice],
        half_by_range=iou[:, 1:, THRESHOLDS.index(0.5)],
        at_end=scored & (whole[rows, choice] < 1) & np.isin(choice, (0, len(THRESHOLDS) - 1)),
        notes=describe_unscored(counts.sum(axis=(1, 2, 3)) > 0, scored),
    )


def compute_threshold_iou(counts: NDArray[Any]) -> tuple[Floats, NDArray[Any]]:
    """Compute the IoU at every threshold, `[..., thresholds]`, and the number of cells whose label is 1, `[...]`.

    `counts` `[..., thresholds + 1, 2]` are cells by number of thresholds reached, and label.
    """
    # Cells that reach threshold t are those on levels above t: sums from the far end.
    reached = counts[..., ::-1, :].cumsum(axis=-2)[..., ::-1, :][..., 1:, :]
    positives = counts[..., 1].sum(axis=-1)
    return intersection_over_union(reached[..., 1], reached[..., 0], positives[..., None]), positives


def intersection_over_union(true: Any, false: Any, positives: Any) -> Floats:
    """Compute TP / (TP + FP + FN): `true` and `false` are the cells predicted 1, by label; NaN where no label is 1."""
    positives = np.asarray(positives, dtype=np.float64)
    return np.asarray(true / np.where(positives > 0, positives + false, np.nan), dtype=np.float64)


def describe_unscored(known: NDArray[np.bool_], present: NDArray[np.bool_]) -> tuple[str, ...]:
    """Describe which classes the means leave out: those that are not `known`, or not `present` in any label."""
    unknown = [name for name, k in zip(CLASS_NAMES, known, strict=True) if not k]
    absent = [name for name, k, p in zip(CLASS_NAMES, known, present, strict=True) if k and not p]
    notes = []
    if unknown:
        notes.append(f"not scored, unknown to these maps or weights: {', '.join(unknown)}")
    if absent:
        notes.append(f"not scored, nowhere in these labels: {', '.join(absent)}")
    return tuple(notes)


def format_percent(value: float | None) -> str:
    """Format a share of 1 in per cent, a dash where nothing is scored."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def format_threshold(value: float, at_end: bool) -> str:
    """Format the best threshold; one at an end of the grid as "<=0.35", since a better one may lie beyond."""
    if math.isnan(value):
        return "-"
    return f"{'' if not at_end else '<=' if value == THRESHOLDS[0] else '>='}{value:.2f}"


def round_share(value: float | np.floating[Any]) -> float | None:
    """Round a share for JSON, which has no NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def average_scored(values: Floats) -> float:
    """Average the values that are not NaN."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else math.nan
