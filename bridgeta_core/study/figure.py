"""The picture of a study: paired differences to the baseline, with every seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridgeta_core.study.results import Measure, Results
from bridgeta_core.study.statistics import differences, spread
from bridgeta_core.study.tables import rows_of

_ARM, _REFERENCE, _TEACHER = "#1b3a57", "#8a6d3b", "#b23a48"


def write_figure(results: Results, path: Path) -> None:
    """Write a PNG with a panel per budget: mean ± standard error, single seeds as dots, teachers marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    study = results.study
    arms = {budget: [arm for arm in rows_of(results, budget) if arm != study.baseline] for budget in study.budgets}
    tallest = max(1, *(len(names) for names in arms.values()))
    figure = Figure(figsize=(1.5 + 4.5 * len(arms), 1.6 + 0.38 * tallest), layout="constrained")
    for axes, (budget, names) in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms.items(), strict=True):
        axes.axvline(0, color="0.6", linewidth=1)
        for row, arm in enumerate(names):
            single = _gains(results, budget, results.values(arm, budget, _miou(results)))
            mean = spread(single)
            if mean is None:
                continue
            colour = _REFERENCE if study.arms[arm].reference else _ARM
            axes.plot(single, [row] * len(single), ".", color=colour, alpha=0.35, markersize=5)
            error = mean.standard_error if mean.n > 1 else None
            axes.errorbar(mean.mean, row, xerr=error, fmt="D", color=colour, markersize=5, capsize=3)
        _mark_teachers(axes, results, budget)
        axes.set_yticks(range(len(names)), [study.title(arm) for arm in names])
        axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
        axes.set_title(f"budget {budget}", fontsize=10, loc="left")
        axes.set_xlabel(f"mIoU minus {study.title(study.baseline)}, points")
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_figure(path, format="png", dpi=150)


def _mark_teachers(axes: Any, results: Results, budget: str) -> None:
    """A line where the arms' axis reaches it; a teacher further away would squeeze them, and is told at the edge."""
    far = []
    left, right = axes.get_xlim()
    for teacher in results.study.teachers:
        gap = spread(_gains(results, budget, results.teacher(teacher, _miou(results))))
        if gap is None:
            continue
        if left < gap.mean < right + (right - left) / 2:
            axes.axvline(gap.mean, color=_TEACHER, linestyle="--", linewidth=1)
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            look: dict[str, Any] = {"color": _TEACHER, "fontsize": 8, "ha": "right", "va": "top", "rotation": 90}
            axes.annotate(teacher, (gap.mean, 1.0), xytext=(-2, -2), **place, **look)
        else:
            far.append(f"teacher {teacher}: {gap.mean:+.1f}")
    if far:
        axes.set_title("\n".join(far), fontsize=8, loc="right", color=_TEACHER)


def _gains(results: Results, budget: str, values: Mapping[int, float]) -> list[float]:
    of = results.values(results.study.baseline, budget, _miou(results))
    return [100 * value for value in differences(values, of).values()]


def _miou(results: Results) -> Measure:
    return lambda record: results.scores(record).miou
