"""Numbers as people read them, and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bridgeta_core.study.statistics import Spread

NOTHING = "-"


def points(value: float, digits: int = 2) -> str:
    """A share of 1 in per cent."""
    return NOTHING if math.isnan(value) else f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """A difference of shares in percentage points, with its sign."""
    if math.isnan(value):
        return NOTHING
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def mean_and_deviation(value: Spread | None) -> str:
    """A mean ± standard deviation, in per cent."""
    return NOTHING if value is None else f"{points(value.mean)} ± {points(value.deviation)}"


def difference(value: Spread | None) -> str:
    """A mean difference ± standard error in percentage points, and of how many pairs."""
    return NOTHING if value is None else f"{signed(value.mean)} ± {points(value.standard_error)} ({value.n})"


def share(value: float) -> str:
    """A share of 1 in whole per cent."""
    return NOTHING if math.isnan(value) else f"{100 * value:.0f} %"


def factor(value: float) -> str:
    """A ratio."""
    return NOTHING if math.isnan(value) else f"{value:.2f}x"


def memory(megabytes: float) -> str:
    """Memory in MB or GB."""
    if math.isnan(megabytes):
        return NOTHING
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def count(value: float) -> str:
    """A count in thousands or millions."""
    if math.isnan(value):
        return NOTHING
    if value < 1e4:
        return f"{value:.0f}"
    return f"{value / 1e3:.0f} k" if value < 999_500 else f"{value / 1e6:.2f} M"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds, or seconds."""
    if math.isnan(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def significant(value: float) -> str:
    """Three significant digits."""
    return NOTHING if math.isnan(value) else f"{value:.3g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns but the first are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
