"""What a run tells who watches it: what it is when it starts, a line for every epoch, and its scores at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.evaluation.metric import RANGE_LABELS, format_percent, format_threshold
from bridgeta_core.utils.machine import has_bfloat16


def describe_start(
    experiment: Experiment,
    kind: str,
    *,
    device: str,
    processes: int,
    frames: Mapping[str, str],
    parameters: Mapping[str, int],
    batches: int,
    teacher: str | None = None,
) -> str:
    """Describe in lines what is about to be trained, on what, and for how long.

    `frames` are descriptions of training and validation frames by name, `parameters` counts by network, `batches` those
    of an epoch, and `teacher` says where its features come from.
    """
    data, train = experiment.data, experiment.train
    where = f"{device}, {train.precision}" + (f", {processes} processes" if processes > 1 else "")
    networks = ", ".join(f"{name} {_format_count(number)}" for name, number in parameters.items())
    lines = {"device": where, "parameters": networks, **frames}
    if device == "cpu" and train.precision == "32-true" and has_bfloat16():
        lines["device"] += "; this processor has bfloat16: train.precision=bf16-mixed is faster"
    if teacher is not None:
        lines["teacher"] = teacher
    lines["epochs"] = f"{train.epochs} of {batches} batches of {data.batch_size * processes} frames"
    width = max(map(len, lines))
    return "\n".join([f"Training {kind}", *(f"  {name:{width}}  {text}" for name, text in lines.items())])


def describe_epoch(
    epoch: int, epochs: int, metrics: Mapping[str, float], best: Mapping[str, Any] | None, seconds: float, left: float
) -> str:
    """Describe in one line how epoch number `epoch`, from 0, ended, and how many seconds are left.

    `metrics` are those that were logged, and `best` are the scores of the best epoch.
    """
    parts = [f"{name} {metrics[key]:.4g}" for name, key in _LOSSES.items() if key in metrics]
    if "val/miou" in metrics:
        record = "" if best is None else f" (best {format_percent(best['miou'])} % in epoch {best['epoch'] + 1})"
        parts.append(f"mIoU {format_percent(metrics['val/miou'])} %{record}")
    parts.append(format_duration(seconds))
    if epoch + 1 < epochs:
        parts.append(f"about {format_duration(left)} to go")
    return f"epoch {epoch + 1} of {epochs}: {', '.join(parts)}"


_LOSSES = {"loss": "train/loss", "validation loss": "val/loss"}


def build_scores_table(scores: Mapping[str, Any]) -> Table:
    """Build a table of the IoU of an epoch by class and range, from `MapTask.scores`, in per cent."""
    table = Table(
        title=f"IoU in %, validation after epoch {scores['epoch'] + 1}",
        caption="\n".join([f"{scores['samples']} samples", *scores["notes"]]),
    )
    for column in ("class", "best", "threshold", "at 0.5", *RANGE_LABELS):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in scores["classes"].items():
        threshold = math.nan if row["threshold"] is None else row["threshold"]
        figures = [row["iou_at_0.5"], *(row["iou_by_range"][label] for label in RANGE_LABELS)]
        shown = format_threshold(threshold, row["threshold_at_end"])
        table.add_row(name, format_percent(row["iou"]), shown, *map(format_percent, figures))
    means = [scores["miou_at_0.5"], *(scores["ranges"][label]["miou"] for label in RANGE_LABELS)]
    table.add_section()
    table.add_row("mean", format_percent(scores["miou"]), "", *map(format_percent, means))
    return table


def format_duration(seconds: float) -> str:
    """Format hours and minutes, or minutes and seconds, or seconds."""
    if math.isnan(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _format_count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number:,}"
