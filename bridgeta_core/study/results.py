"""The finished runs of a study, by arm, budget and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from bridgeta_core.runs.record import Record, Scores, read_record
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.plan import Run, plan, teacher_name
from bridgeta_core.study.state import State, deviations, state

Measure = Callable[[Record], float]


class Results:
    """What is finished of a study's runs in a folder; runs of the folder that the study does not plan are left out."""

    def __init__(self, study: StudyConfig, out: Path) -> None:
        self.study = study
        self.runs: Sequence[Run] = plan(study, out)
        done = [run for run in self.runs if state(run) is State.done]
        self.records = {run.name: read_record(run.folder) for run in done}
        self.missing = [run.name for run in self.runs if run.name not in self.records]
        # The length of a run that trains as long as another arm is no setting of the study.
        self.deviations = {run.name: found for run in done if not run.like and (found := _deviations(run))}

    def scores(self, record: Record) -> Scores:
        """Of the weights that the study chooses."""
        return record.scores[self.study.weights]

    def values(self, arm: str, budget: str, measure: Measure) -> dict[int, float]:
        """A measure of an arm's runs by seed."""
        runs = [run for run in self.runs if run.kind != "teacher" and (run.arm, run.budget) == (arm, budget)]
        return {run.seed: measure(self.records[run.name]) for run in runs if run.name in self.records}

    def teacher(self, teacher: str, measure: Measure) -> dict[int, float]:
        """A measure of a teacher by the seed of the arms that it belongs to."""
        names = {seed: teacher_name(teacher, self.study.teacher_seed(seed)) for seed in self.study.seeds}
        return {seed: measure(self.records[name]) for seed, name in names.items() if name in self.records}

    def teacher_runs(self, teacher: str, measure: Measure) -> dict[int, float]:
        """A measure of a teacher's runs by their own seed."""
        names = {seed: teacher_name(teacher, seed) for seed in self.study.teacher_seeds}
        return {seed: measure(self.records[name]) for seed, name in names.items() if name in self.records}

    def seconds(self, run: Run) -> float:
        """How long a run takes, from the most similar finished ones: NaN where not even one of its kind is."""
        same: list[Callable[[Run], bool]] = [
            lambda r: (r.kind, r.arm, r.budget) == (run.kind, run.arm, run.budget),
            lambda r: (r.kind, r.arm) == (run.kind, run.arm),
            lambda r: r.kind == run.kind,
        ]
        for similar in same:
            found = sorted(self.records[r.name].seconds for r in self.runs if r.name in self.records and similar(r))
            if found:
                return found[len(found) // 2]
        return math.nan


def _deviations(run: Run) -> list[str]:
    """Where the data lay does not matter to the reader of a table."""
    found = deviations(run.folder, run.experiment, run.kind)
    return [text for text in found if not text.startswith(("data.train_root ", "data.val_root "))]
