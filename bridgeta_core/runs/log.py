"""The scalars that a run logged: logs/version_N/metrics.csv, of all N, since every resumption begins another file."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgeta_core.utils.files import replace_when_done

Row = dict[str, str]

LAST_SHARE = 0.1
"""The end of training, over which noisy scalars are averaged: this share of the steps."""

VALIDATED = ("val/miou", "val/assistant_miou")
"""Columns of the validation, of which the last value counts."""

_REPORTED = re.compile(r"(?:.*/)?(?:slack|delta|rho)_[FDZ]")


def read_log(folder: Path) -> list[Row]:
    """The rows of a run's log by step. What a resumed run did again replaces what was done before; [] without a log."""
    rows: list[Row] = []
    for path in _files(folder):
        with path.open(newline="") as file:
            more = [row for row in csv.DictReader(file) if row.get("step")]
        if more:
            first = min(float(row["step"]) for row in more)
            rows = [row for row in rows if float(row["step"]) < first] + more
    return rows


def ends(rows: Sequence[Row]) -> dict[str, float]:
    """The scalars that explain a distillation at the end of training, without the `group/` of those of training."""
    result = {}
    for column in _columns(rows):
        if column in VALIDATED:
            result[column] = float(rows[_last(rows, column)][column])
        else:
            values = [float(rows[i][column]) for i in _end_of(rows, column)]
            result[column.rpartition("/")[2]] = float(np.mean(values))
    return result


def write_thinned(rows: Sequence[Row], folder: Path, keep: int = 50) -> None:
    """Write a log that has the same `ends`: of the columns that they need, all rows of the end, about `keep` before."""
    columns = _columns(rows)
    kept = set(range(0, len(rows), max(1, len(rows) // keep)))
    for column in columns:
        kept |= {_last(rows, column), *_end_of(rows, column)}
    target = folder / "logs" / "version_0" / "metrics.csv"
    with replace_when_done(target) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", *columns], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[i] for i in sorted(kept) if any(rows[i].get(column) for column in columns))


def epochs_done(folder: Path) -> int:
    """How many epochs of a run are finished, as far as its log tells by now."""
    files = _files(folder)
    if not files:
        return 0
    with files[-1].open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/miou") and row.get("epoch")]
    return int(float(rows[-1]["epoch"])) + 1 if rows else 0


def _files(folder: Path) -> list[Path]:
    found = (folder / "logs").glob("version_*/metrics.csv")
    return sorted(found, key=lambda path: int(path.parent.name.removeprefix("version_")))


def _columns(rows: Sequence[Row]) -> list[str]:
    """Those that are read here and hold something, in the order of the log."""
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value)
    return [name for name in names if name in VALIDATED or _REPORTED.fullmatch(name)]


def _last(rows: Sequence[Row], column: str) -> int:
    return max(i for i, row in enumerate(rows) if row.get(column))


def _end_of(rows: Sequence[Row], column: str) -> list[int]:
    """The rows of a column at the end of training; its last one if training ended without it.

    Training ends with the last row that is read at all: others are not in a thinned log.
    """
    last = max(_last(rows, name) for name in _columns(rows))
    end = (1 - LAST_SHARE) * float(rows[last]["step"])
    return [i for i, row in enumerate(rows) if row.get(column) and float(row["step"]) > end] or [_last(rows, column)]
