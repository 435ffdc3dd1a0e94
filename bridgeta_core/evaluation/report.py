"""The report of an evaluation, and the comparison of two: as values for JSON, as tables, as a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from bridgeta_core.evaluation.average_precision import BINS, compute_curves
from bridgeta_core.evaluation.bootstrap import LEVEL, RESAMPLES
from bridgeta_core.evaluation.figures import HALF, IOU, PRECISION, Figures
from bridgeta_core.evaluation.metric import RANGE_LABELS, THRESHOLDS, IoU, format_percent, format_threshold, round_share
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.images import Image
from bridgeta_core.utils.arrays import Floats


@dataclass(frozen=True, eq=False)
class EvalReport:
    """The IoU of one predictor on one dataset.

    `figures` are those of all cells, None for a predictor that was not run; `seen` those of the cells that the vehicle
    sees, and `fused` those of predictions fused along each scene, None where they were not asked for. `without_lidar`
    samples of `seen` have no LiDAR, which would tell what is hidden. `worst` is a picture of the samples with the
    lowest IoU, if it was asked for.
    """

    subject: str
    root: Path
    scenes: str
    labels: str
    samples: int
    seconds: float
    iou: IoU
    figures: Figures | None = None
    seen: Figures | None = None
    fused: Figures | None = None
    without_lidar: int = 0
    worst: Image | None = None

    @property
    def share_seen(self) -> float:
        """The share of the scored cells that the vehicle sees; NaN where that was not asked for."""
        if self.figures is None or self.seen is None:
            return math.nan
        return float(self.seen.counts.sum() / self.figures.counts.sum())

    def to_mapping(self) -> dict[str, Any]:
        """Return the report as plain values for JSON; null where nothing is scored."""
        content = {
            "subject": self.subject,
            "root": str(self.root),
            "scenes": self.scenes,
            "labels": self.labels,
            "samples": self.samples,
            "seconds": round(self.seconds, 2),
            "thresholds": list(THRESHOLDS),
            **(self.figures or self.iou).to_mapping(),
        }
        if self.figures is not None:
            content["bootstrap"] = {"scenes": self.figures.scenes, "resamples": RESAMPLES, "level": LEVEL}
        if self.seen is not None:
            share = round_share(self.share_seen)
            content["seen"] = self.seen.to_mapping() | {"share": share, "samples_without_lidar": self.without_lidar}
        if self.fused is not None:
            content["fused"] = self.fused.to_mapping()
        return content

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

    def build_interval_table(self) -> Table | None:
        """Build a table of IoU and average precision in per cent with their intervals; None without figures."""
        if self.figures is None:
            return None
        notes = [_describe_scenes(self.figures)]
        if self.seen is not None:
            notes.append(f"The vehicle sees {format_percent(self.share_seen)} % of the cells")
        if self.without_lidar:
            notes.append(f"Without LiDAR in {self.without_lidar} samples: nothing counts as hidden there")
        table = Table(title=f"With 95 % intervals, {self.subject}", caption="\n".join(notes))
        table.add_column("class")
        shown = {
            "best IoU": (self.figures, IOU),
            "average precision": (self.figures, PRECISION),
            "IoU, seen cells": (self.seen, IOU),
            "IoU, fused": (self.fused, IOU),
        }
        columns = []
        for title, (figures, kind) in shown.items():
            if figures is None:
                continue
            table.add_column(title, justify="right")
            pairs = zip(figures.values[kind], figures.intervals(kind), strict=True)
            columns.append([f"{format_percent(value)} {_format_interval(interval)}" for value, interval in pairs])
        for c, (name, *row) in enumerate(zip((*CLASS_NAMES, "mean"), *columns, strict=True)):
            table.add_row(name, *row, end_section=c == len(CLASS_NAMES) - 1)
        return table

    def draw_curves(self, path: Path) -> None:
        """Write a PNG with two curves per class: precision over recall, and IoU over the threshold."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        if self.figures is None:
            raise ValueError("a predictor that was not run has no curves")
        precision, recall, iou = compute_curves(self.figures.histograms.sum(axis=0))
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for c, cls in enumerate(CLASSES):
            colour = tuple(value / 255 for value in cls.colour)
            average = format_percent(self.figures.values[PRECISION][c])
            left.plot(recall[c], precision[c], color=colour)
            right.plot(np.arange(BINS) / BINS, 100 * iou[c], color=colour, label=f"{cls.name}, AP {average} %")
        left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
        right.set(xlabel="threshold", ylabel="IoU, %", xlim=(0, 1), ylim=(0, 100))
        right.axvspan(THRESHOLDS[0], THRESHOLDS[-1], color="0.93", zorder=0)
        right.legend(frameon=False, fontsize=8, loc="upper right")
        right.set_title("grey: the protocol's thresholds", fontsize=9)
        figure.suptitle(f"{self.subject}, {self.samples} samples")
        FigureCanvasAgg(figure).print_figure(path, format="png", dpi=150)

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


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a predictor is above another on the same scenes, in figures that are paired by scene."""

    report: EvalReport
    other: EvalReport
    figures: Figures
    other_figures: Figures

    @classmethod
    def of(cls, report: EvalReport, other: EvalReport) -> Comparison:
        """Compare two reports of predictors that were run on one dataset."""
        if report.figures is None or other.figures is None:
            raise ValueError("a predictor that was not run cannot be compared")
        return cls(report, other, report.figures, other.figures)

    def to_mapping(self) -> dict[str, Any]:
        """Return the other's report and the difference as plain values for JSON."""
        return {"against": self.other.to_mapping(), "difference": self.figures.subtract(self.other_figures)}

    def build_table(self) -> Table:
        """Build a table of the best IoU of both and of the difference in points, with the differences of the means."""
        a, b = self.figures, self.other_figures
        caption = f"Differences in points, paired by scene. {_describe_scenes(a)}"
        table = Table(title=f"IoU in %, {self.report.subject} against {self.other.subject}", caption=caption)
        for column in ("class", "first", "second", "difference"):
            table.add_column(column, justify="left" if column == "class" else "right")

        def add(name: str, kind: str, c: int, end_section: bool = False) -> None:
            first, second, interval = a.values[kind][c], b.values[kind][c], a.intervals(kind, b)[c]
            difference = "-" if math.isnan(first - second) else f"{100 * (first - second):+.1f}"
            shown = f"{difference} {_format_interval(interval, '+')}"
            table.add_row(name, format_percent(first), format_percent(second), shown, end_section=end_section)

        for c, name in enumerate(CLASS_NAMES):
            add(name, IOU, c, end_section=c == len(CLASS_NAMES) - 1)
        for name, kind in {"mean": IOU, "mean at 0.5": HALF, "mean average precision": PRECISION}.items():
            add(name, kind, -1)
        return table


def _describe_scenes(figures: Figures) -> str:
    if figures.scenes < 2:
        return "One scene: no intervals"
    return f"Intervals by a bootstrap over {figures.scenes} scenes"


def _format_interval(interval: Floats, sign: str = "") -> str:
    """Format an interval in per cent, or in points with their signs; a dash where there is none."""
    if np.isnan(interval).any():
        return "(-)"
    low, high = (f"{100 * value:{sign}.1f}" for value in interval)
    return f"({low} to {high})"
