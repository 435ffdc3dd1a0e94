"""The runs of a study, in an order that serves a study that is stopped early: teachers first, then seed by seed."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment
from bridgeta_core.study.config import TEACHERS, StudyConfig
from bridgeta_core.utils.errors import BridgeTAError

TEACHER_WEIGHTS = "teacher.safetensors"
"""The weights in a teacher's folder."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: `folder` is where it works, `needs` are the names of the runs that come before it.

    `arm` is the teacher's name and `budget` is empty for a teacher. The `experiment` of a run that trains as long as
    the arm `like` is not final: `equal_time.settle` changes its length once the runs that it needs are done.
    """

    kind: str
    arm: str
    budget: str
    seed: int
    folder: Path
    experiment: Experiment
    needs: tuple[str, ...] = ()
    like: str = ""

    @property
    def name(self) -> str:
        """Arm, budget and seed; the path of `folder` in the study's folder."""
        if self.kind == "teacher":
            return teacher_name(self.arm, self.seed)
        return run_name(self.arm, self.budget, self.seed)


def run_name(arm: str, budget: str, seed: int) -> str:
    """The name of an arm's run, and its path in the study's folder."""
    return f"{arm}/{budget}/seed{seed}"


def teacher_name(teacher: str, seed: int) -> str:
    """The name of a teacher's run, and its path in the study's folder."""
    return f"{TEACHERS}/{teacher}/seed{seed}"


def order(study: StudyConfig) -> list[str]:
    """The arms as they are run: as the study lists them, but those that are as long as another one after it."""
    left, result = list(study.arms), list[str]()
    while left:
        ready = next(a for a in left if not study.arms[a].like or {study.arms[a].like, study.baseline} <= set(result))
        left.remove(ready)
        result.append(ready)
    return result


def plan(study: StudyConfig, out: Path) -> list[Run]:
    """Every run of the study in the folder `out`, those it needs before it.

    Raises BridgeTAError that names the arm, budget or teacher whose settings are wrong.
    """
    make = _Experiments(study)
    runs = [
        Run("teacher", teacher, "", seed, out / teacher_name(teacher, seed), make.teacher(teacher, seed))
        for seed in study.teacher_seeds
        for teacher in study.teachers
    ]
    for seed in study.seeds:
        for budget in study.budgets:
            for arm in order(study):
                if seed in study.seeds_of(arm) and budget in study.budgets_of(arm):
                    runs.append(_run(study, make.arm(arm, budget, seed), arm, budget, seed, out))
    return runs


def _run(study: StudyConfig, experiment: Experiment, arm: str, budget: str, seed: int, out: Path) -> Run:
    settings, needs = study.arms[arm], list[str]()
    if settings.kind == "distill":
        teacher = teacher_name(study.teacher_of(arm), study.teacher_seed(seed))
        needs.append(teacher)
        experiment.distill.teacher = str(out / teacher / TEACHER_WEIGHTS)
    if settings.like:
        needs += [run_name(other, budget, study.seeds[0]) for other in (settings.like, study.baseline)]
    folder = out / run_name(arm, budget, seed)
    return Run(settings.kind, arm, budget, seed, folder, experiment, tuple(needs), settings.like)


@cache
def _load(base: str, overrides: tuple[str, ...]) -> Experiment:
    """Checking settings takes long for hundreds of runs, of which most differ in the seed alone. Not to be changed."""
    return config.load(Experiment, base, overrides)


class _Experiments:
    """Makes the experiments of a study."""

    def __init__(self, study: StudyConfig) -> None:
        self._study = study

    def teacher(self, teacher: str, seed: int) -> Experiment:
        return self._with_seed(f"teachers.{teacher}", self._study.teachers[teacher], seed)

    def arm(self, arm: str, budget: str, seed: int) -> Experiment:
        settings = self._study.arms[arm]
        overrides = [*self._study.budgets[budget], *settings.overrides]
        experiment = self._with_seed(f"arms.{arm} with budgets.{budget}", overrides, seed)
        experiment.train.epochs = math.ceil(experiment.train.epochs * settings.longer - 1e-9)
        return experiment

    def _with_seed(self, key: str, overrides: list[str], seed: int) -> Experiment:
        try:
            experiment = copy.deepcopy(_load(self._study.base, (*self._study.overrides, *overrides)))
        except BridgeTAError as error:
            raise BridgeTAError(f"{key}: {error}", where="study", fix="Mend the settings", exit_code=2) from error
        experiment.train.seed = seed
        return experiment
