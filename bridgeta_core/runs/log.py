"""The scalars that a run logged, in logs/version_N/metrics.csv: every resumption begins another file."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgeta_core.runs.folder import list_logs
from bridgeta_core.utils.outputs import replace_when_done

logger = logging.getLogger(__name__)

Row = dict[str, str]

LAST_SHARE = 0.1
"""The end of training, over which noisy scalars are averaged: this share of the steps."""

VALIDATED = ("val/miou", "val/assistant_miou")
"""Columns of the validation, of which the last value counts."""

_REPORTED = re.compile(r"(?:.*/)?(?:slack|delta|rho)_[FDZ]")
_LOSSES = re.compile(r"train/loss|train/label|val/loss|train/(?:kd|label)/.*")


def read_log(folder: Path, *, warn: bool = False) -> list[Row]:
    """Read the rows of a run's log in the order of their steps; [] without a log.

    A resumed run repeats the steps since its checkpoint: from the first step of a later file on, the rows of earlier
    files do not count. Rows that are not whole, as after a power failure, are left out; `warn` of them.
    """
    rows: list[Row] = []
    for path in list_logs(folder):
        later, lost = _read_rows(path)
        if warn and lost:
            logger.warning("%s is damaged: %d of its rows are left out", path, lost)
        if later:
            first = min(int(row["step"]) for row in later)
            rows = [row for row in rows if int(row["step"]) < first] + later
    return rows


def count_epochs(folder: Path) -> int:
    """Count the finished epochs of a run, as far as its log says by now."""
    done = [row for row in read_log(folder) if row.get("val/miou") and row.get("epoch", "").isdecimal()]
    return int(done[-1]["epoch"]) + 1 if done else 0


def summarise_end(rows: Sequence[Row]) -> dict[str, float]:
    """Summarise the scalars that explain a distillation at the end of training.

    The last value of a validated column; the mean over the last steps of the others, by their name without `train/`.
    """
    result = {}
    for column in _columns(rows):
        if column in VALIDATED:
            result[column] = float(rows[_last(rows, column)][column])
        else:
            values = [float(rows[i][column]) for i in _rows_at_end(rows, column)]
            result[column.rpartition("/")[2]] = float(np.mean(values))
    return result


def draw_curves(folder: Path, target: Path) -> None:
    """Write a PNG of a run: the loss and its terms over the steps, and the mIoU of the validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_log(folder, warn=True)
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value))
    losses = [name for name in names if _LOSSES.fullmatch(name)]
    scores = [name for name in names if name in VALIDATED]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, columns, scale, label in ((left, losses, 1, "loss"), (right, scores, 100, "mIoU, %")):
        for name in columns:
            points = [(int(row["step"]), scale * float(row[name])) for row in rows if row.get(name)]
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 50 else "")
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        if columns:
            axes.legend(frameon=False, fontsize=8)
    with replace_when_done(target) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=120)


def _read_rows(path: Path) -> tuple[list[Row], int]:
    """Read the rows of a file that belong to a step, and count those that are not whole.

    Not with the csv module, for which one damaged line can be the end: a row here is a line of numbers with commas.
    """
    head, *lines = path.read_text(errors="replace").splitlines(keepends=True) or [""]
    names, rows = head.rstrip("\r\n").split(","), list[Row]()
    for line in lines:
        values = line.rstrip("\r\n").split(",")
        if line.endswith("\n") and len(values) == len(names) and all(map(_is_number, values)):
            rows.append(dict(zip(names, values, strict=True)))
    return [row for row in rows if row.get("step", "").isdecimal()], len(lines) - len(rows)


def _is_number(text: str) -> bool:
    """Tell whether a value can be one of a log: a number, or nothing."""
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _columns(rows: Sequence[Row]) -> list[str]:
    """List the columns that explain a distillation and hold something, in the order of the log."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value)
    return [name for name in names if name in VALIDATED or _REPORTED.fullmatch(name)]


def _last(rows: Sequence[Row], column: str) -> int:
    return max(i for i, row in enumerate(rows) if row.get(column))


def _rows_at_end(rows: Sequence[Row], column: str) -> list[int]:
    """Find the rows of a column at the end of training; its last row if training ended without it.

    Training ends with the last row of any column that explains a distillation, since the logs of collected studies
    hold no others.
    """
    last = max(_last(rows, name) for name in _columns(rows))
    end = (1 - LAST_SHARE) * float(rows[last]["step"])
    return [i for i, row in enumerate(rows) if row.get(column) and float(row["step"]) > end] or [_last(rows, column)]
