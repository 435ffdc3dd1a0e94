"""The tables of a study's results, each for one label budget, and the numbers in them as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from bridgeta_core.runs.record import RunRecord, RunScores
from bridgeta_core.runs.words import format_duration
from bridgeta_core.study.results import (
    BySeed,
    Measure,
    Results,
    Spread,
    compute_gap_closed,
    compute_median_ratio,
    compute_spread,
    subtract,
)

NOTHING = "-"
FULL = "with teacher and cache"
EXPLAINED = ("slack", "delta", "rho")
_ASSISTANT, _STUDENT = "val/assistant_miou", "val/miou"


def list_arms(results: Results, budget: str) -> list[str]:
    """List the arms that have a finished run of a budget: the arms, then the reference points."""
    study = results.study
    arms = [arm for arm in study.arms if budget in study.budgets_of(arm) and results.values(arm, budget, _steps)]
    return sorted(arms, key=lambda arm: study.arms[arm].reference)


def format_main_table(results: Results, budget: str) -> str:
    """Format mIoU, differences, the share of the gap, and costs."""
    study = results.study
    miou, half = measure_miou(results), _measure_half(results)
    others = [arm for arm in (study.baseline, study.control) if arm]
    columns = ["arm", "n", "mIoU"]
    columns += [f"minus {arm}" for arm in others]
    columns += ["gap closed", "mIoU at 0.5", *(f"minus {arm} at 0.5" for arm in others)]
    columns += ["step time", "peak memory", "train-only parameters"]
    rows = []
    for arm in list_arms(results, budget):
        best, at_half = results.values(arm, budget, miou), results.values(arm, budget, half)
        closed = compute_gap_closed(
            best, results.values(study.baseline, budget, miou), results.teacher(study.teacher_of(arm), budget, miou)
        )
        rows.append(
            [
                _name(results, arm),
                str(len(best)),
                format_spread(compute_spread(best.values())),
                *(_minus(results, arm, other, budget, miou) for other in others),
                NOTHING if arm == study.baseline else format_share(closed),
                format_spread(compute_spread(at_half.values())),
                *(_minus(results, arm, other, budget, half) for other in others),
                *_costs(results, arm, budget),
            ]
        )
    for teacher in study.teachers:
        own = results.teacher_runs(teacher, budget, miou)
        if own:
            best = results.teacher(teacher, budget, miou)
            at_half = results.teacher(teacher, budget, half)
            against = [
                [format_difference(_paired(values, results.values(arm, budget, measure))) for arm in others]
                for values, measure in ((best, miou), (at_half, half))
            ]
            rows.append(
                [
                    f"teacher: {teacher}",
                    str(len(own)),
                    format_spread(compute_spread(own.values())),
                    *against[0],
                    NOTHING,
                    format_spread(compute_spread(results.teacher_runs(teacher, budget, half).values())),
                    *against[1],
                    *[NOTHING] * 3,
                ]
            )
    return format_table(columns, rows)


def format_detail_table(results: Results, budget: str, what: Callable[[RunScores], Mapping[str, float]]) -> str:
    """Format the mean of each class, range or condition, and in brackets its mean paired difference to the baseline."""
    study = results.study
    known = [what(results.scores(record)) for record in results.records.values()]
    keys = list(dict.fromkeys(key for scores in known for key in scores))
    measures = [_measure_detail(results, what, key) for key in keys]
    rows = []
    for arm in list_arms(results, budget):
        row = [_name(results, arm)]
        for measure in measures:
            values = results.values(arm, budget, measure)
            gain = _paired(values, results.values(study.baseline, budget, measure))
            cell = _mean(values)
            row.append(cell if gain is None or arm == study.baseline else f"{cell} ({format_signed(gain.mean, 1)})")
        rows.append(row)
    for teacher in study.teachers:
        cells = [_mean(results.teacher_runs(teacher, budget, measure)) for measure in measures]
        if set(cells) != {NOTHING}:
            rows.append([f"teacher: {teacher}", *cells])
    return format_table(["arm", *keys], rows) if keys else ""


def format_explanation_table(results: Results, budget: str) -> str:
    """Format slack, delta, rho and the assistant's mIoU at the end of training; empty if no arm logs them."""
    arms = list_arms(results, budget)
    logged = {name for arm in arms for name in _ends(results, arm, budget)}
    keys = [f"{scalar}_{level}" for scalar in EXPLAINED for level in "FDZ" if f"{scalar}_{level}" in logged]
    has_assistant = _ASSISTANT in logged
    rows = []
    for arm in arms:
        ends = _ends(results, arm, budget)
        if not ends.keys() & {*keys, _ASSISTANT}:
            continue
        row = [_name(results, arm), *(format_significant(ends.get(key, math.nan)) for key in keys)]
        if has_assistant:
            row += [format_points(ends.get(key, math.nan), 1) for key in (_ASSISTANT, _STUDENT)]
        rows.append(row)
    columns = ["arm", *keys, *(["assistant's mIoU", "student's mIoU"] if has_assistant else [])]
    return format_table(columns, rows) if rows else ""


def format_cost_table(results: Results, budget: str) -> str:
    """Format what training costs: medians over the seeds.

    The columns of training alone and in `FULL` are there once a run has recorded the time of its cache.
    """
    study = results.study
    measures: list[tuple[str, Measure, Callable[[float], str]]] = [
        ("steps", _steps, lambda value: f"{value:,.0f}"),
        ("s/step", _pace, format_significant),
        ("a run", lambda record: record.seconds, format_duration),
        ("peak memory", lambda record: record.peak_memory, format_memory),
        ("parameters", lambda record: record.parameters, format_count),
        ("train-only parameters", lambda record: record.train_only, format_count),
        ("frames with labels", lambda record: record.labelled, format_count),
        ("without", lambda record: record.unlabelled, format_count),
    ]
    sources: dict[str, Callable[[Measure], BySeed]] = {
        _name(results, arm): partial(results.values, arm, budget) for arm in list_arms(results, budget)
    }
    sources |= {f"teacher: {teacher}": partial(results.teacher_runs, teacher, budget) for teacher in study.teachers}
    full = {_name(results, arm): results.full_seconds(arm, budget) for arm in list_arms(results, budget)}
    full |= {f"teacher: {name}": results.teacher_runs(name, budget, _total) for name in study.teachers}
    known = any(not math.isnan(_median(values)) for values in full.values())
    rows = []
    for name, values in sources.items():
        if not values(_steps):
            continue
        row = [name, *(show(_median(values(measure))) for _, measure, show in measures)]
        if known:
            row += [format_duration(_median(seconds)) for seconds in (values(_training), full[name])]
        rows.append(row)
    return format_table(["arm", *(name for name, _, _ in measures), *(["training", FULL] if known else [])], rows)


def measure_miou(results: Results) -> Measure:
    """Return the measure of the mIoU with the weights that the study scores."""
    return lambda record: results.scores(record).miou


def _measure_half(results: Results) -> Measure:
    return lambda record: results.scores(record).miou_half


def _measure_detail(results: Results, what: Callable[[RunScores], Mapping[str, float]], key: str) -> Measure:
    return lambda record: what(results.scores(record)).get(key, math.nan)


def _measure_end(name: str) -> Measure:
    return lambda record: record.ends.get(name, math.nan)


def _steps(record: RunRecord) -> float:
    return record.steps


def _pace(record: RunRecord) -> float:
    return record.seconds_per_step


def _training(record: RunRecord) -> float:
    return record.training_seconds


def _total(record: RunRecord) -> float:
    return record.total_seconds


def _costs(results: Results, arm: str, budget: str) -> Sequence[str]:
    relative = compute_median_ratio(
        results.values(arm, budget, _pace), results.values(results.study.baseline, budget, _pace)
    )
    peak = _median(results.values(arm, budget, lambda record: record.peak_memory))
    extra = _median(results.values(arm, budget, lambda record: record.train_only))
    return format_factor(relative), format_memory(peak), format_count(extra)


def _minus(results: Results, arm: str, other: str, budget: str, measure: Measure) -> str:
    if arm == other:
        return NOTHING
    return format_difference(_paired(results.values(arm, budget, measure), results.values(other, budget, measure)))


def _ends(results: Results, arm: str, budget: str) -> dict[str, float]:
    """Average every scalar over the seeds."""
    names = {name for record in results.records.values() for name in record.ends}
    means = {name: compute_spread(results.values(arm, budget, _measure_end(name)).values()) for name in names}
    return {name: mean.mean for name, mean in means.items() if mean}


def _mean(values: BySeed) -> str:
    mean = compute_spread(values.values())
    return NOTHING if mean is None else format_points(mean.mean, 1)


def _paired(values: BySeed, of: BySeed) -> Spread | None:
    return compute_spread(subtract(values, of).values())


def _median(values: BySeed) -> float:
    known = [value for value in values.values() if not math.isnan(value)]
    return median(known) if known else math.nan


def _name(results: Results, arm: str) -> str:
    study = results.study
    return f"{study.title(arm)} (reference)" if study.arms[arm].reference else study.title(arm)


def format_points(value: float, digits: int = 2) -> str:
    """Format a share of 1 in per cent."""
    return NOTHING if math.isnan(value) else f"{100 * value:.{digits}f}"


def format_signed(value: float, digits: int = 2) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    if math.isnan(value):
        return NOTHING
    text = f"{100 * value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def format_spread(value: Spread | None) -> str:
    """Format a mean ± standard deviation, in per cent."""
    return NOTHING if value is None else f"{format_points(value.mean)} ± {format_points(value.deviation)}"


def format_difference(value: Spread | None) -> str:
    """Format a mean difference ± standard error in percentage points, and the number of pairs."""
    if value is None:
        return NOTHING
    return f"{format_signed(value.mean)} ± {format_points(value.standard_error)} ({value.n})"


def format_share(value: float) -> str:
    """Format a share of 1 in whole per cent."""
    return NOTHING if math.isnan(value) else f"{100 * value:.0f} %"


def format_factor(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.2f}x"


def format_memory(megabytes: float) -> str:
    """Format memory in MB or GB."""
    if math.isnan(megabytes):
        return NOTHING
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def format_count(value: float) -> str:
    """Format a count, a large one in thousands or millions."""
    if math.isnan(value):
        return NOTHING
    if value < 1e4:
        return f"{value:.0f}"
    return f"{value / 1e3:.0f} k" if value < 999_500 else f"{value / 1e6:.2f} M"


def format_significant(value: float) -> str:
    """Format three significant digits."""
    return NOTHING if math.isnan(value) else f"{value:.3g}"


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table whose columns but the first are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
