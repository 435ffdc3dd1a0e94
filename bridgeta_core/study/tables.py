"""The tables of a study's results, each for one label budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from bridgeta_core.runs.record import Record, Scores
from bridgeta_core.study import text
from bridgeta_core.study.results import Measure, Results
from bridgeta_core.study.statistics import Spread, differences, gap_closed, median_ratio, spread

BySeed = Mapping[int, float]

EXPLAINED = ("slack", "delta", "rho")
_ASSISTANT, _STUDENT = "val/assistant_miou", "val/miou"


def rows_of(results: Results, budget: str) -> list[str]:
    """The arms that have a finished run of a budget: the arms, then the reference points."""
    study = results.study
    arms = [arm for arm in study.arms if budget in study.budgets_of(arm) and results.values(arm, budget, _steps)]
    return sorted(arms, key=lambda arm: study.arms[arm].reference)


def main_table(results: Results, budget: str) -> str:
    """MIoU, differences, the share of the gap, and costs."""
    study = results.study
    miou, half = _miou(results), _half(results)
    held_against = [arm for arm in (study.baseline, study.control) if arm]
    columns = ["arm", "n", "mIoU"]
    columns += [f"minus {arm}" for arm in held_against]
    columns += ["gap closed", "mIoU at 0.5", *(f"minus {arm} at 0.5" for arm in held_against)]
    columns += ["step time", "peak memory", "train-only parameters"]
    rows = []
    for arm in rows_of(results, budget):
        best, at_half = results.values(arm, budget, miou), results.values(arm, budget, half)
        closed = gap_closed(
            best, results.values(study.baseline, budget, miou), results.teacher(study.teacher_of(arm), miou)
        )
        rows.append(
            [
                _name(results, arm),
                str(len(best)),
                text.mean_and_deviation(spread(best.values())),
                *(_minus(results, arm, other, budget, miou) for other in held_against),
                text.NOTHING if arm == study.baseline else text.share(closed),
                text.mean_and_deviation(spread(at_half.values())),
                *(_minus(results, arm, other, budget, half) for other in held_against),
                *_costs(results, arm, budget),
            ]
        )
    for teacher in study.teachers:
        own = results.teacher_runs(teacher, miou)
        if own:
            best = results.teacher(teacher, miou)
            at_half = results.teacher(teacher, half)
            against = [
                [text.difference(_paired(values, results.values(arm, budget, measure))) for arm in held_against]
                for values, measure in ((best, miou), (at_half, half))
            ]
            rows.append(
                [
                    f"teacher: {teacher}",
                    str(len(own)),
                    text.mean_and_deviation(spread(own.values())),
                    *against[0],
                    text.NOTHING,
                    text.mean_and_deviation(spread(results.teacher_runs(teacher, half).values())),
                    *against[1],
                    *[text.NOTHING] * 3,
                ]
            )
    return text.table(columns, rows)


def detail_table(results: Results, budget: str, what: Callable[[Scores], Mapping[str, float]]) -> str:
    """The mean of each class, range or condition, and in brackets its mean paired difference to the baseline."""
    study = results.study
    known = [what(results.scores(record)) for record in results.records.values()]
    keys = list(dict.fromkeys(key for scores in known for key in scores))
    measures = [_detail(results, what, key) for key in keys]
    rows = []
    for arm in rows_of(results, budget):
        row = [_name(results, arm)]
        for measure in measures:
            values = results.values(arm, budget, measure)
            gain = _paired(values, results.values(study.baseline, budget, measure))
            cell = _mean(values)
            row.append(cell if gain is None or arm == study.baseline else f"{cell} ({text.signed(gain.mean, 1)})")
        rows.append(row)
    for teacher in study.teachers:
        cells = [_mean(results.teacher_runs(teacher, measure)) for measure in measures]
        if set(cells) != {text.NOTHING}:
            rows.append([f"teacher: {teacher}", *cells])
    return text.table(["arm", *keys], rows) if keys else ""


def explanation_table(results: Results, budget: str) -> str:
    """Slack, delta, rho and the assistant's mIoU at the end of training; empty if no arm logs them."""
    arms = rows_of(results, budget)
    logged = {name for arm in arms for name in _ends(results, arm, budget)}
    keys = [f"{scalar}_{level}" for scalar in EXPLAINED for level in "FDZ" if f"{scalar}_{level}" in logged]
    has_assistant = _ASSISTANT in logged
    rows = []
    for arm in arms:
        ends = _ends(results, arm, budget)
        if not ends.keys() & {*keys, _ASSISTANT}:
            continue
        row = [_name(results, arm), *(text.significant(ends.get(key, math.nan)) for key in keys)]
        if has_assistant:
            row += [text.points(ends.get(key, math.nan), 1) for key in (_ASSISTANT, _STUDENT)]
        rows.append(row)
    columns = ["arm", *keys, *(["assistant's mIoU", "student's mIoU"] if has_assistant else [])]
    return text.table(columns, rows) if rows else ""


def cost_table(results: Results, budget: str) -> str:
    """What training costs: medians over the seeds."""
    study = results.study
    measures: list[tuple[str, Measure, Callable[[float], str]]] = [
        ("steps", _steps, lambda value: f"{value:,.0f}"),
        ("s/step", lambda record: record.seconds_per_step, text.significant),
        ("a run", lambda record: record.seconds, text.duration),
        ("peak memory", lambda record: record.peak_memory, text.memory),
        ("parameters", lambda record: record.parameters, text.count),
        ("train-only parameters", lambda record: record.train_only, text.count),
        ("frames with labels", lambda record: record.labelled, text.count),
        ("without", lambda record: record.unlabelled, text.count),
    ]
    sources: dict[str, Callable[[Measure], BySeed]] = {
        _name(results, arm): partial(results.values, arm, budget) for arm in rows_of(results, budget)
    }
    sources |= {f"teacher: {teacher}": partial(results.teacher_runs, teacher) for teacher in study.teachers}
    rows = [
        [name, *(show(_median(values(measure))) for _, measure, show in measures)]
        for name, values in sources.items()
        if values(_steps)
    ]
    return text.table(["arm", *(name for name, _, _ in measures)], rows)


def _costs(results: Results, arm: str, budget: str) -> Sequence[str]:
    def pace(record: Record) -> float:
        return record.seconds_per_step

    relative = median_ratio(results.values(arm, budget, pace), results.values(results.study.baseline, budget, pace))
    peak = _median(results.values(arm, budget, lambda record: record.peak_memory))
    extra = _median(results.values(arm, budget, lambda record: record.train_only))
    return text.factor(relative), text.memory(peak), text.count(extra)


def _minus(results: Results, arm: str, other: str, budget: str, measure: Measure) -> str:
    if arm == other:
        return text.NOTHING
    return text.difference(_paired(results.values(arm, budget, measure), results.values(other, budget, measure)))


def _ends(results: Results, arm: str, budget: str) -> dict[str, float]:
    """The mean over the seeds of every scalar."""
    names = {name for record in results.records.values() for name in record.ends}
    means = {name: spread(results.values(arm, budget, _end(name)).values()) for name in names}
    return {name: mean.mean for name, mean in means.items() if mean}


def _end(name: str) -> Measure:
    return lambda record: record.ends.get(name, math.nan)


def _detail(results: Results, what: Callable[[Scores], Mapping[str, float]], key: str) -> Measure:
    return lambda record: what(results.scores(record)).get(key, math.nan)


def _mean(values: BySeed) -> str:
    mean = spread(values.values())
    return text.NOTHING if mean is None else text.points(mean.mean, 1)


def _paired(values: BySeed, of: BySeed) -> Spread | None:
    return spread(differences(values, of).values())


def _median(values: BySeed) -> float:
    known = [value for value in values.values() if not math.isnan(value)]
    return median(known) if known else math.nan


def _miou(results: Results) -> Measure:
    return lambda record: results.scores(record).miou


def _half(results: Results) -> Measure:
    return lambda record: results.scores(record).miou_half


def _steps(record: Record) -> float:
    return record.steps


def _name(results: Results, arm: str) -> str:
    study = results.study
    return f"{study.title(arm)} (reference)" if study.arms[arm].reference else study.title(arm)
