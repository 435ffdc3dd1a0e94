"""Plan the runs of a study so that one stopped early is of use: teachers first, then seed by seed."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.study.config import TEACHERS, StudyConfig
from bridgeta_core.utils.errors import BridgeTAError


@dataclass(frozen=True, eq=False)
class Run:
    """One training run in its `folder`, after the runs named in `needs`. `teacher` is the one whose weights teach it.

    For a teacher `arm` is its name, and `budget` is empty where all budgets share it. The `experiment` of a run that
    trains as long as the arm `like` is not final: `equal_time.resolve_length` changes its length once the runs that it
    needs are done.
    """

    kind: str
    arm: str
    budget: str
    seed: int
    folder: Path
    experiment: Experiment
    needs: tuple[str, ...] = ()
    like: str = ""
    teacher: str = ""

    @property
    def name(self) -> str:
        """Arm, budget and seed; the path of `folder` in the study's folder."""
        if self.kind == "teacher":
            return name_teacher_run(self.arm, self.budget, self.seed)
        return name_run(self.arm, self.budget, self.seed)


def name_run(arm: str, budget: str, seed: int) -> str:
    """Name an arm's run; the name is also its path in the study's folder."""
    return f"{arm}/{budget}/seed{seed}"


def name_teacher_run(teacher: str, budget: str, seed: int) -> str:
    """Name a teacher's run; the name is also its path in the study's folder. A shared teacher has an empty budget."""
    return "/".join(part for part in (TEACHERS, teacher, budget, f"seed{seed}") if part)


def order_arms(study: StudyConfig) -> list[str]:
    """Order the arms as they are run: as the study lists them, but an arm as long as another one after that one."""
    left, result = list(study.arms), list[str]()
    while left:
        ready = next(a for a in left if not study.arms[a].like or {study.arms[a].like, study.baseline} <= set(result))
        left.remove(ready)
        result.append(ready)
    return result


def plan(study: StudyConfig, out: Path) -> list[Run]:
    """Plan every run of the study in the folder `out`, each after the runs that it needs.

    Raises BridgeTAError that names the arm, budget or teacher whose settings are wrong.
    """
    experiments = _Experiments(study)
    runs = []
    for seed in study.teacher_seeds:
        for budget in dict.fromkeys(map(study.teacher_budget, study.budgets)):
            for teacher in study.teachers:
                folder = out / name_teacher_run(teacher, budget, seed)
                runs.append(
                    Run("teacher", teacher, budget, seed, folder, experiments.load_teacher(teacher, budget, seed))
                )
    for seed in study.seeds:
        for budget in study.budgets:
            for arm in order_arms(study):
                if seed in study.seeds_of(arm) and budget in study.budgets_of(arm):
                    runs.append(_make_run(study, experiments.load_arm(arm, budget, seed), arm, budget, seed, out))
    return runs


def _make_run(study: StudyConfig, experiment: Experiment, arm: str, budget: str, seed: int, out: Path) -> Run:
    settings, needs, teacher = study.arms[arm], list[str](), ""
    if settings.kind == "distill":
        teacher = name_teacher_run(study.teacher_of(arm), study.teacher_budget(budget), study.teacher_seed(seed))
        needs.append(teacher)
        experiment.distill.teacher = str(RunFolder(out / teacher, "teacher").weights)
    if settings.like:
        needs += [name_run(other, budget, study.seeds[0]) for other in (settings.like, study.baseline)]
    folder = out / name_run(arm, budget, seed)
    return Run(settings.kind, arm, budget, seed, folder, experiment, tuple(needs), settings.like, teacher)


@cache
def _load(base: str, overrides: tuple[str, ...]) -> Experiment:
    """Load an experiment, once for all runs that differ in the seed alone: checking is slow. Copy it to change it."""
    return config.load(Experiment, base, overrides)


class _Experiments:
    """The experiments of a study."""

    def __init__(self, study: StudyConfig) -> None:
        self._study = study

    def load_teacher(self, teacher: str, budget: str, seed: int) -> Experiment:
        key, overrides = f"teachers.{teacher}", self._study.teachers[teacher]
        if budget:
            key, overrides = f"{key} with budgets.{budget}", [*self._study.budgets[budget], *overrides]
        return self._load_with_seed(key, overrides, seed)

    def load_arm(self, arm: str, budget: str, seed: int) -> Experiment:
        settings = self._study.arms[arm]
        overrides = [*self._study.budgets[budget], *settings.overrides]
        experiment = self._load_with_seed(f"arms.{arm} with budgets.{budget}", overrides, seed)
        experiment.train.epochs = math.ceil(experiment.train.epochs * settings.longer - 1e-9)
        return experiment

    def _load_with_seed(self, key: str, overrides: list[str], seed: int) -> Experiment:
        try:
            experiment = copy.deepcopy(_load(self._study.base, (*self._study.overrides, *overrides)))
        except BridgeTAError as error:
            raise BridgeTAError(f"{key}: {error}", where="study", fix="Mend the settings", exit_code=2) from error
        experiment.train.seed = seed
        return experiment
