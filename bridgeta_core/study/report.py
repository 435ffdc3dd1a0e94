"""The page of a study: what was run where, with tables and a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from bridgeta_core.runs.log import LAST_SHARE
from bridgeta_core.runs.record import RunRecord
from bridgeta_core.runs.words import format_duration
from bridgeta_core.study import tables
from bridgeta_core.study.results import Results, compute_spread, subtract
from bridgeta_core.utils.errors import join_first
from bridgeta_core.utils.files import hold_folder
from bridgeta_core.utils.outputs import replace_when_done

_ARM, _REFERENCE, _TEACHER = "#1b3a57", "#8a6d3b", "#b23a48"

_LEGEND = """\
IoU in per cent; mIoU at the best of seven thresholds per class, and at 0.5. The mean is followed by the standard
deviation over n seeds. Differences are of runs with the same seed: mean ± standard error (pairs). The gap closed is the
mean difference to the baseline over that of the teacher. Step time is the median ratio to the baseline's."""

_ASSISTANT_LEGEND = """\
Slack is the right side of Young's inequality minus its left; delta is how far the assistant is from the point between
teacher and student that would make it direct distillation, relative to their distance (below 1e-3 it does nothing at
that level); rho is how far it is on the way from teacher to student. Means over the last {share:.0%} of the steps, then
over the seeds. An assistant below its student misleads it."""


_COST_LEGEND = """\
Medians over the seeds. Training is all steps, without validation and starting. With teacher and cache, the whole
training of the run's teacher is added, as if it taught this run alone, and the time that it took to build what each of
the two reads from the cache."""


def write_report(results: Results, target: Path, command: str, today: date) -> tuple[Path, Path]:
    """Write the page and the figure as `target` with the suffixes .md and .png, and return their paths."""
    page, figure = target.with_suffix(".md"), target.with_suffix(".png")
    with hold_folder(target.parent):  # so that both are of one call
        with replace_when_done(figure) as temporary:
            write_figure(results, temporary)
        with replace_when_done(page) as temporary:
            temporary.write_text(format_page(results, figure.name, command, today))
    return page, figure


def format_page(results: Results, figure: str, command: str, today: date) -> str:
    """Format the page in Markdown, with a link to the figure."""
    study = results.study
    parts = [f"<!-- Written by: {command} -->", _format_header(results, command, today), _LEGEND]
    which = "at the end of training" if study.weights == "last" else "of the epoch that validated best"
    parts.append(f"Scored are the weights {which}.{_describe_teachers(results)}")
    parts.append(f"![Differences to {study.title(study.baseline)} by arm]({figure})")
    for budget, settings in study.budgets.items():
        parts.append(f"## Labels: {budget}" + (f" (`{'`, `'.join(settings)}`)" if settings else ""))
        if not tables.list_arms(results, budget):
            parts.append("No run of this budget is finished.")
            continue
        details = (
            ("By class", tables.format_detail_table(results, budget, lambda scores: scores.classes)),
            ("By range", tables.format_detail_table(results, budget, lambda scores: scores.ranges)),
            ("By condition", tables.format_detail_table(results, budget, lambda scores: scores.conditions)),
        )
        parts.append(tables.format_main_table(results, budget))
        for title, table in details:
            if table:
                parts += [f"### {title}", f"Mean, and in brackets the paired difference to {study.baseline}.", table]
        if explained := tables.format_explanation_table(results, budget):
            parts += ["### Assistant", _ASSISTANT_LEGEND.format(share=LAST_SHARE), explained]
        costs = tables.format_cost_table(results, budget)
        parts += ["### Cost of training", _COST_LEGEND if tables.FULL in costs else "Medians over the seeds.", costs]
    parts += _list_remarks(results)
    return "\n\n".join(parts) + "\n"


def _format_header(results: Results, command: str, today: date) -> str:
    facts = {
        "date": today.isoformat(),
        "command": f"`{command}`",
        "trained on": _join_facts(results, lambda record: record.machine),
        "synthetic data": _join_facts(results, lambda record: record.data),
        "revision of the runs": _join_facts(results, lambda record: record.revision),
        "runs": f"{len(results.records)} of {len(results.runs)}",
        "training time": format_duration(sum(record.seconds for record in results.records.values())),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _describe_teachers(results: Results) -> str:
    teachers = results.study.teachers
    if not teachers:
        return ""
    named = [f"{name} (`{'`, `'.join(settings)}`)" if settings else name for name, settings in teachers.items()]
    if results.study.shared_teachers:
        said = "Teachers train on all labels in every budget, unless their settings say otherwise"
    else:
        said = "Each budget has teachers of its own, from which is hidden what is hidden from its students"
    return f" {said}: {', '.join(named)}."


def _join_facts(results: Results, fact: Callable[[RunRecord], str]) -> str:
    """Join what the runs say of themselves, the most frequent first."""
    facts = [fact(record) for record in results.records.values()]
    return "; ".join(sorted(set(facts) - {""}, key=lambda value: (-facts.count(value), value)))


def _list_remarks(results: Results) -> list[str]:
    """List how the tables differ from the study: runs that are not finished, or have other settings."""
    lines = []
    if results.missing:
        lines.append(f"- not finished: {join_first(results.missing, 8)}")
    counts = Counter(deviation for deviations in results.deviations.values() for deviation in deviations)
    lines += [f"- {number} runs were trained with {deviation}" for deviation, number in counts.items()]
    return ["## Remarks", "\n".join(lines)] if lines else []


def write_figure(results: Results, path: Path) -> None:
    """Write a PNG with a panel per budget: mean ± standard error, single seeds as dots, teachers marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    study = results.study
    arms = {
        budget: [arm for arm in tables.list_arms(results, budget) if arm != study.baseline] for budget in study.budgets
    }
    tallest = max(1, *(len(names) for names in arms.values()))
    figure = Figure(figsize=(1.5 + 4.5 * len(arms), 1.6 + 0.38 * tallest), layout="constrained")
    for axes, (budget, names) in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms.items(), strict=True):
        axes.axvline(0, color="0.6", linewidth=1)
        for row, arm in enumerate(names):
            single = _gains(results, budget, results.values(arm, budget, tables.measure_miou(results)))
            mean = compute_spread(single)
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
    """Mark each teacher by a line; one far beyond the arms would squeeze their axis, and stands at its edge."""
    far = []
    left, right = axes.get_xlim()
    for teacher in results.study.teachers:
        gap = compute_spread(_gains(results, budget, results.teacher(teacher, budget, tables.measure_miou(results))))
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
    of = results.values(results.study.baseline, budget, tables.measure_miou(results))
    return [100 * value for value in subtract(values, of).values()]
