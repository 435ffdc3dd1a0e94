"""Score weights, or any predictor, on a dataset, and the best constant prediction to compare with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from torch import Tensor

from bridgeta_core.config.experiment import ImageConfig, LabelConfig
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.frames import Batch, FrameDataset, collate
from bridgeta_core.data.loader import make_loader
from bridgeta_core.evaluation.metric import (
    RANGE_LABELS,
    RANGES,
    THRESHOLDS,
    IoU,
    MapIoU,
    describe_unscored,
    format_percent,
    format_threshold,
    intersection_over_union,
)
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError, describe_lost_loader

if TYPE_CHECKING:
    from bridgeta_core.deploy.runtime import Runtime


@dataclass(frozen=True, eq=False)
class EvalReport:
    """The IoU of one predictor on one dataset."""

    subject: str
    root: Path
    scenes: str
    labels: str
    samples: int
    seconds: float
    iou: IoU

    def to_mapping(self) -> dict[str, Any]:
        """Return the report as plain values for JSON; null where nothing is scored."""
        return {
            "subject": self.subject,
            "root": str(self.root),
            "scenes": self.scenes,
            "labels": self.labels,
            "samples": self.samples,
            "seconds": round(self.seconds, 2),
            "thresholds": list(THRESHOLDS),
            **self.iou.to_mapping(),
        }

    def build_table(self, title: str | None = None) -> Table:
        """Build a table of the IoU in per cent with a row per class."""
        iou = self.iou
        data = f"{self.samples} samples of {self.root} ({self.scenes})"
        end = ("<= or >=: at the end of the thresholds, a better one may lie beyond",) if iou.at_end.any() else ()
        caption = "\n".join((data, f"{self.labels} labels", *iou.notes, *end))
        table = Table(title=title or f"IoU in %, {self.subject}", caption=caption)
        for column in ("class", "best", "threshold", "at 0.5", *RANGE_LABELS):
            table.add_column(column, justify="left" if column == "class" else "right")
        for c, name in enumerate(CLASS_NAMES):
            threshold = format_threshold(iou.threshold[c], bool(iou.at_end[c]))
            ranges = [format_percent(value) for value in iou.by_range[c]]
            table.add_row(name, format_percent(iou.best[c]), threshold, format_percent(iou.half[c]), *ranges)
        means = [format_percent(value) for value in iou.miou_by_range]
        table.add_section()
        table.add_row("mean", format_percent(iou.miou), "", format_percent(iou.miou_half), *means)
        return table

    def draw(self, path: Path) -> None:
        """Write a PNG with a group of bars per class: over all cells, and by range."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.add_subplot()
        columns = np.concatenate([self.iou.best[:, None], self.iou.by_range], axis=1) * 100
        shades = ("#1b3a57", "#3f7cac", "#8fb8d6", "#c9dcea")
        width = 0.8 / columns.shape[1]
        for k, (values, label) in enumerate(zip(columns.T, ("all cells", *RANGE_LABELS), strict=True)):
            x = np.arange(len(CLASSES)) + (k - (columns.shape[1] - 1) / 2) * width
            axes.bar(x, np.nan_to_num(values), width, label=label, color=shades[k % len(shades)])
            if k == 0:
                for place, value in zip(x, values, strict=True):
                    text = "not scored" if math.isnan(value) else f"{value:.0f}"
                    axes.annotate(text, (place, np.nan_to_num(value)), ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(CLASSES)), CLASS_NAMES)
        axes.set_ylabel("IoU, %")
        axes.set_ylim(0, 100)
        axes.set_title(f"{self.subject}: mIoU {format_percent(self.iou.miou)} % over {self.samples} samples")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=4)
        FigureCanvasAgg(figure).print_figure(path, format="png", dpi=150)


def evaluate(
    predict: Callable[[Batch], Tensor],
    dataset: FrameDataset,
    subject: str,
    *,
    scenes: str = "all",
    batch_size: int = 4,
    workers: int = 2,
) -> EvalReport:
    """Score `predict`, which returns probabilities `[B, 6, Y, X]` for a batch, over a dataset, with a progress bar.

    Raises BridgeTAError when a loader process dies.
    """
    metric = MapIoU(dataset.grid)
    loader = make_loader(dataset, workers, batch_size=batch_size, collate_fn=collate)
    start = time.monotonic()
    try:
        for batch in track(loader, description=f"Evaluating {subject}"):
            metric.update(predict(batch), batch.labels, batch.known)
    except RuntimeError as error:
        if (reason := describe_lost_loader(error)) is None:
            raise
        fix = "If memory ran short, close other programs and start again"
        raise BridgeTAError(f"lost a loader process ({reason})", where=dataset.dataset.root, fix=fix) from error
    seconds = time.monotonic() - start
    labels = dataset.label_config.mode
    return EvalReport(subject, dataset.dataset.root, scenes, labels, len(dataset), seconds, metric.result())


def evaluate_weights(
    weights: str | Path,
    root: str | Path,
    version: str,
    scenes: str = "all",
    *,
    labels: LabelConfig | None = None,
    source: str = "nuscenes",
    device: str = "auto",
    backend: str = "torch",
    precision: str = "float32",
    workers: int = 2,
) -> EvalReport:
    """Score a student's weights on a dataset, on the grid and with the cameras that it was trained for.

    `device`, `backend` and `precision` are those of `Runtime`, so that what a vehicle runs can be scored. Raises
    BridgeTAError when the weights or the data are missing or broken, or do not fit each other, and as `Runtime` does.
    """
    from bridgeta_core.deploy.runtime import Runtime
    from bridgeta_core.deploy.weights import find_weights

    path = find_weights(weights)
    runtime = Runtime(path, device, precision, backend)
    info = runtime.info
    dataset = FrameDataset(
        open_dataset(source, root, version), scenes, info.cameras, info.model.image, info.grid, labels=labels
    )
    subject = (
        path.stem if (backend, precision) == ("torch", "float32") else f"{path.stem} ({runtime.backend}, {precision})"
    )
    return evaluate(predict_with(runtime), dataset, subject, scenes=scenes, workers=workers)


def predict_with(runtime: Runtime) -> Callable[[Batch], Tensor]:
    """Return the function from a batch of samples to probabilities `[B, 6, Y, X]` by a runtime."""

    def predict(batch: Batch) -> Tensor:
        samples = zip(batch.images, batch.intrinsics, batch.ego_T_cam, strict=True)
        results = [
            runtime.predict(images.permute(0, 2, 3, 1), runtime.plan_cameras(intrinsics, poses))
            for images, intrinsics, poses in samples
        ]
        return torch.stack(results)

    return predict


def evaluate_constant(
    train_root: str | Path,
    train_version: str,
    root: str | Path,
    version: str,
    scenes: str = "all",
    *,
    train_scenes: str = "all",
    grid: BevGrid | None = None,
    labels: LabelConfig | None = None,
    source: str = "nuscenes",
) -> EvalReport:
    """Score the best prediction that sees no image: the mean training mask, thresholded per class.

    The threshold of each class is the best of all on the evaluated data itself, which favours this baseline; `half` is
    at a mean of 0.5.
    """
    grid = grid or BevGrid()
    start = time.monotonic()
    train, data = (
        FrameDataset(open_dataset(source, r, v), s, (), ImageConfig(), grid, labels=labels)
        for r, v, s in ((train_root, train_version, train_scenes), (root, version, scenes))
    )
    seen, frames = _count_labels(train, "Mean training mask")
    prior = np.divide(seen, frames[:, None, None], out=np.zeros(seen.shape), where=frames[:, None, None] > 0)
    positives, frames = _count_labels(data, "Labels")
    result = _compute_constant_iou(prior, positives, frames, grid)
    subject = "best constant prediction"
    mode, seconds = data.label_config.mode, time.monotonic() - start
    return EvalReport(subject, data.dataset.root, scenes, mode, len(data), seconds, result)


def _count_labels(dataset: FrameDataset, description: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the samples whose label is 1 per cell, `[6, Y, X]`, and those that know the class, `[6]`."""
    positives = np.zeros((len(CLASSES), *dataset.grid.shape), dtype=np.int64)
    frames = np.zeros(len(CLASSES), dtype=np.int64)
    for position in track(range(len(dataset)), description=description):
        masks, known = dataset.read_labels(position)
        positives[known] += masks[known]
        frames += known
    return positives, frames


def _compute_constant_iou(prior: Floats, positives: NDArray[np.int64], frames: NDArray[np.int64], grid: BevGrid) -> IoU:
    """Compute the IoU of `prior >= t` `[6, Y, X]` with labels: `positives` out of `frames` `[6]` samples per cell."""
    classes = len(CLASSES)
    best, threshold, half = (np.full(classes, np.nan) for _ in range(3))
    by_range, half_by_range = (np.full((classes, len(RANGES)), np.nan) for _ in range(2))
    distance = grid.ranges()

    def score(c: int, chosen: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
        true = positives[c][chosen & where].sum()
        false = frames[c] * (chosen & where).sum() - true
        return float(intersection_over_union(true, false, positives[c][where].sum()))

    everywhere = np.ones(grid.shape, dtype=bool)
    for c in range(classes):
        total = positives[c].sum()
        if not total:
            continue
        # Every threshold at once: cells in falling order of the prior, cut at the last of each run of equal values.
        order = np.argsort(-prior[c], axis=None, kind="stable")
        values = prior[c].flat[order]
        true = positives[c].flat[order].cumsum()
        false = frames[c] * np.arange(1, len(order) + 1) - true
        iou = intersection_over_union(true, false, total)
        iou[:-1][values[:-1] == values[1:]] = -1
        best[c], threshold[c] = iou.max(), values[iou.argmax()]
        half[c] = score(c, prior[c] >= 0.5, everywhere)
        for r, (near, far) in enumerate(RANGES):
            ring = (distance >= near) & (distance < far)
            by_range[c, r] = score(c, prior[c] >= threshold[c], ring)
            half_by_range[c, r] = score(c, prior[c] >= 0.5, ring)
    notes = describe_unscored(frames > 0, positives.any(axis=(1, 2)))
    return IoU(best, threshold, half, by_range, half_by_range, np.zeros(classes, dtype=bool), notes)
