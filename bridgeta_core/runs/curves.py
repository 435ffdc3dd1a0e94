"""A picture of a run: losses over the steps, and the validation."""

from __future__ import annotations

import csv
from pathlib import Path

from bridgeta_core.utils.files import replace_when_done

Series = dict[str, dict[int, float]]


def read_logs(logs: Path) -> Series:
    """Every logged scalar by step; where a resumed run did steps again, its own values count."""
    series: Series = {}
    for path in sorted(logs.glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.rpartition("_")[2])):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if text and name not in ("epoch", "step"):
                        series.setdefault(name, {})[int(row["step"])] = float(text)
    return series


def draw_curves(logs: Path, target: Path) -> None:
    """Write a PNG: the loss and its terms, and the mIoU of the validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = read_logs(logs)
    losses = [n for n in series if n in ("train/loss", "train/label", "val/loss") or n.startswith(_TERMS)]
    scores = [n for n in series if n in ("val/miou", "val/assistant_miou")]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, names, scale, label in ((left, losses, 1, "loss"), (right, scores, 100, "mIoU, %")):
        for name in names:
            steps = sorted(series[name])
            values = [scale * series[name][s] for s in steps]
            axes.plot(steps, values, label=name, marker="." if len(steps) < 50 else "")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        if names:
            axes.legend(frameon=False, fontsize=8)
    with replace_when_done(target) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=120)


_TERMS = ("train/kd/", "train/label/")
