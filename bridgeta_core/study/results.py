"""The finished runs of a study by arm, budget and seed; their statistics; and one file that keeps them all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.runs.record import RunRecord, RunScores, read_record
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.equal_time import compute_full_seconds
from bridgeta_core.study.plan import Run, name_teacher_run, plan
from bridgeta_core.study.state import State, find_state, flatten_settings, list_deviations, nest_settings, read_settings
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import replace_when_done

Measure = Callable[[RunRecord], float]
BySeed = Mapping[int, float]

FORMAT = "bridgeta-study/1"

_PLACES = ("data.train_root ", "data.unlabelled_root ", "data.val_root ")


@dataclass(frozen=True)
class FinishedRun:
    """What the tables need of a run: its record, and its flat settings, {} where they are not known."""

    record: RunRecord
    settings: Mapping[str, Any]


class Results:
    """The finished runs of a study in `out`: the folder of the runs, or a file that `collect` wrote.

    Runs that are in `out` but not in the study do not count. Raises BridgeTAError for a damaged file or record.
    """

    def __init__(self, study: StudyConfig, out: Path) -> None:
        self.study = study
        self.runs: Sequence[Run] = plan(study, out)
        finished = _load_collected(out) if out.is_file() else _read_finished(self.runs)
        self.records = {run.name: finished[run.name].record for run in self.runs if run.name in finished}
        self.missing = [run.name for run in self.runs if run.name not in self.records]
        self.deviations: dict[str, list[str]] = {}
        for run in self.runs:
            if run.name not in finished or run.like:  # the length of a run as long as another arm is no setting
                continue
            if different := _list_deviations(run, finished[run.name].settings):
                self.deviations[run.name] = different

    def scores(self, record: RunRecord) -> RunScores:
        """Return the scores of the weights that the study chooses."""
        return record.scores[self.study.weights]

    def values(self, arm: str, budget: str, measure: Measure) -> dict[int, float]:
        """Measure an arm's runs, by seed."""
        runs = [run for run in self.runs if run.kind != "teacher" and (run.arm, run.budget) == (arm, budget)]
        return {run.seed: measure(self.records[run.name]) for run in runs if run.name in self.records}

    def full_seconds(self, arm: str, budget: str) -> dict[int, float]:
        """Compute the time of an arm's runs with that of their teachers and of the cache, by seed; NaN if unknown."""
        runs = [run for run in self.runs if run.kind != "teacher" and (run.arm, run.budget) == (arm, budget)]
        return {run.seed: compute_full_seconds(run, self.records) for run in runs if run.name in self.records}

    def teacher(self, teacher: str, budget: str, measure: Measure) -> dict[int, float]:
        """Measure a teacher of a budget, by the seed of the arms that it belongs to."""
        own = self.teacher_runs(teacher, budget, measure)
        seeds = {seed: self.study.teacher_seed(seed) for seed in self.study.seeds}
        return {seed: own[of] for seed, of in seeds.items() if of in own}

    def teacher_runs(self, teacher: str, budget: str, measure: Measure) -> dict[int, float]:
        """Measure the runs of a teacher of a budget, by their own seed."""
        budget = self.study.teacher_budget(budget)
        names = {seed: name_teacher_run(teacher, budget, seed) for seed in self.study.teacher_seeds}
        return {seed: measure(self.records[name]) for seed, name in names.items() if name in self.records}


def collect(study: StudyConfig, out: Path, target: Path) -> int:
    """Write what the tables need of every finished run to the file `target`, and return the number of runs.

    Settings that all runs share are written once. Raises BridgeTAError when nothing is finished, or when `target` is a
    folder.
    """
    if target.is_dir():
        fix = "Name a file, such as results.json"
        raise BridgeTAError("is a folder", where=target, fix=fix, exit_code=2)
    finished = _read_finished(plan(study, out))
    if not finished:
        raise BridgeTAError("has no finished run to collect", where=out, fix="Let the study run first", exit_code=2)
    every = [run.settings for run in finished.values()]
    shared = {key: value for key, value in every[0].items() if all(key in s and s[key] == value for s in every)}
    runs = {
        name: {
            "settings": {key: value for key, value in run.settings.items() if key not in shared},
            "record": run.record.to_mapping(),
        }
        for name, run in finished.items()
    }
    lines = [f"{json.dumps(name)}: {json.dumps(run)}" for name, run in runs.items()]
    with replace_when_done(target) as temporary:
        head = f'"format": {json.dumps(FORMAT)},\n"settings": {json.dumps(shared)}'
        temporary.write_text("{\n" + head + ',\n"runs": {\n' + ",\n".join(lines) + "\n}\n}\n")
    return len(finished)


def _load_collected(path: Path) -> dict[str, FinishedRun]:
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} instead of {FORMAT}")
        result = {}
        for name, run in content["runs"].items():
            settings = flatten_settings(nest_settings({**content["settings"], **run["settings"]}), path)
            result[name] = FinishedRun(RunRecord.from_mapping(run["record"]), settings)
        return result
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BridgeTAError(
            f"holds no collected runs ({type(error).__name__}: {error})",
            where=path,
            fix="Name the folder of the runs, or a file that --collect wrote",
            exit_code=2,
        ) from error


def _read_finished(runs: Sequence[Run]) -> dict[str, FinishedRun]:
    done = [run for run in runs if find_state(run) is State.done]
    return {run.name: FinishedRun(read_record(run.folder), read_settings(run.folder)) for run in done}


def _list_deviations(run: Run, settings: Mapping[str, Any]) -> list[str]:
    """Leave out where the data lay, which does not matter to the reader of a table."""
    different = list_deviations(settings, run.experiment, run.kind)
    return [text for text in different if not text.startswith(_PLACES)]


@dataclass(frozen=True)
class Spread:
    """The mean of `n` values and their standard deviation (of a sample, with n - 1), NaN for a single value."""

    mean: float
    deviation: float
    n: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, NaN for a single value."""
        return self.deviation / math.sqrt(self.n)


def compute_spread(values: Iterable[float]) -> Spread | None:
    """Compute mean and spread of the values that are numbers; None if there are none."""
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if not len(known):
        return None
    return Spread(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known))


def subtract(values: BySeed, of: BySeed) -> dict[int, float]:
    """Subtract `of` from `values` seed by seed, for the seeds that both have."""
    both = {seed: value - of[seed] for seed, value in values.items() if seed in of}
    return {seed: value for seed, value in both.items() if not math.isnan(value)}


def compute_gap_closed(values: BySeed, baseline: BySeed, teacher: BySeed) -> float:
    """Compute the share of the gap between baseline and teacher that is closed: mean difference over mean gap.

    Both are of the same seeds. `teacher` holds, by seed of the arms, the teacher that belongs to the seed. NaN where no
    seed has all three, and where the teacher is not better than the baseline: there is no gap to close then.
    """
    gains, gaps = subtract(values, baseline), subtract(teacher, baseline)
    seeds = gains.keys() & gaps.keys()
    gap = sum(gaps[seed] for seed in seeds)
    return sum(gains[seed] for seed in seeds) / gap if gap > 0 else math.nan


def compute_median_ratio(values: BySeed, of: BySeed) -> float:
    """Compute the median of `values` over `of` seed by seed, for the seeds that both have; NaN if there are none."""
    ratios = [value / of[seed] for seed, value in values.items() if of.get(seed, 0) > 0 and not math.isnan(value)]
    return float(np.median(ratios)) if ratios else math.nan
