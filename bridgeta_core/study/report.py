"""The page of a study: what was run where, and its tables and figure, from run.json and the logs alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from bridgeta_core.runs.log import LAST_SHARE
from bridgeta_core.runs.record import Record
from bridgeta_core.study import tables, text
from bridgeta_core.study.figure import write_figure
from bridgeta_core.study.results import Results
from bridgeta_core.utils.errors import join_first
from bridgeta_core.utils.files import replace_when_done

_READING = """\
IoU in per cent; mIoU at the best of seven thresholds per class, and at 0.5. The mean is followed by the standard
deviation over n seeds. Differences are of runs with the same seed: mean ± standard error (pairs). The gap closed is the
mean difference to the baseline over that of the teacher. Step time is the median ratio to the baseline's."""

_SCALARS = """\
Slack is the right side of Young's inequality minus its left; delta is how far the assistant is from the point between
teacher and student that would make it direct distillation, relative to their distance (below 1e-3 it does nothing at
that level); rho is how far it is on the way from teacher to student. Means over the last {share:.0%} of the steps, then
over the seeds. An assistant below its student misleads it."""


def write_report(results: Results, target: Path, command: str, today: date) -> tuple[Path, Path]:
    """Write the page and the figure as `target` with the suffixes .md and .png, and return their paths."""
    page, figure = target.with_suffix(".md"), target.with_suffix(".png")
    with replace_when_done(figure) as temporary:
        write_figure(results, temporary)
    with replace_when_done(page) as temporary:
        temporary.write_text(markdown(results, figure.name, command, today))
    return page, figure


def markdown(results: Results, figure: str, command: str, today: date) -> str:
    """The page, with a link to the figure."""
    study = results.study
    parts = [f"<!-- Written by: {command} -->", _header(results, command, today), _READING]
    which = "at the end of training" if study.weights == "last" else "of the epoch that validated best"
    parts.append(f"Scored are the weights {which}.{_on_teachers(results)}")
    parts.append(f"![Differences to {study.title(study.baseline)} by arm]({figure})")
    for budget, settings in study.budgets.items():
        parts.append(f"## Labels: {budget}" + (f" (`{'`, `'.join(settings)}`)" if settings else ""))
        if not tables.rows_of(results, budget):
            parts.append("No run of this budget is finished.")
            continue
        details = (
            ("By class", tables.detail_table(results, budget, lambda scores: scores.classes)),
            ("By range", tables.detail_table(results, budget, lambda scores: scores.ranges)),
            ("By condition", tables.detail_table(results, budget, lambda scores: scores.conditions)),
        )
        parts.append(tables.main_table(results, budget))
        for title, table in details:
            if table:
                parts += [f"### {title}", f"Mean, and in brackets the paired difference to {study.baseline}.", table]
        if explained := tables.explanation_table(results, budget):
            parts += ["### Assistant", _SCALARS.format(share=LAST_SHARE), explained]
        parts += ["### Cost of training", "Medians over the seeds.", tables.cost_table(results, budget)]
    parts += _remarks(results)
    return "\n\n".join(parts) + "\n"


def _header(results: Results, command: str, today: date) -> str:
    facts = {
        "date": today.isoformat(),
        "command": f"`{command}`",
        "trained on": _all(results, lambda record: record.machine),
        "synthetic data": _all(results, lambda record: record.data),
        "revision of the runs": _all(results, lambda record: record.revision),
        "runs": f"{len(results.records)} of {len(results.runs)}",
        "training time": text.duration(sum(record.seconds for record in results.records.values())),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _on_teachers(results: Results) -> str:
    teachers = results.study.teachers
    if not teachers:
        return ""
    named = [f"{name} (`{'`, `'.join(settings)}`)" if settings else name for name, settings in teachers.items()]
    return f" Teachers train on all labels in every budget, unless their settings say otherwise: {', '.join(named)}."


def _all(results: Results, fact: Callable[[Record], str]) -> str:
    """What the runs say of themselves, the most frequent first."""
    found = [fact(record) for record in results.records.values()]
    return "; ".join(sorted(set(found) - {""}, key=lambda value: (-found.count(value), value)))


def _remarks(results: Results) -> list[str]:
    """What keeps the tables from being what the study says, for a reader to know."""
    lines = []
    if results.missing:
        lines.append(f"- not finished: {join_first(results.missing, 8)}")
    by_key: dict[str, int] = {}
    for found in results.deviations.values():
        for deviation in found:
            by_key[deviation] = by_key.get(deviation, 0) + 1
    lines += [f"- {number} runs were trained with {deviation}" for deviation, number in by_key.items()]
    return ["## Remarks", "\n".join(lines)] if lines else []
