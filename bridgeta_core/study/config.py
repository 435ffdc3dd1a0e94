"""Settings of a study: which arms are trained on which label budgets with which seeds, and compared with what.

Arms are ordered, and their names are the names of folders; `config/studies/tiny.yaml` is an example.
"""
# ruff: noqa: RUF009  (setting() makes a dataclass field, as in bridgeta_core/config/experiment.py)

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.settings import from_mapping, setting, to_mapping

STUDY_FOLDER = config.CONFIG_FOLDER / "studies"

TEACHERS = "teachers"
"""The folder of the teachers among those of the arms."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass
class ArmConfig:
    """One way of training the student."""

    title: str = setting("", "its name in the tables; the arm's name if empty")
    kind: str = setting(
        "student", "student: trained by its labels alone; distill: by a teacher too", among=("student", "distill")
    )
    overrides: list[str] = setting([], "key=value settings of its runs")
    budgets: list[str] = setting([], "the label budgets that it takes part in; all if empty")
    seeds: int = setting(0, "only the first so many of the study's seeds; 0 is all", ge=0)
    longer: float = setting(1.0, "times as many epochs as the settings say", ge=0.01)
    like: str = setting(
        "", "train as long as this arm in wall-clock time; for arms that cost as much per step as the baseline"
    )
    like_counts: str = setting(
        "training",
        "what counts as the time of the arm in like: training, its own steps; or everything, the whole training of its "
        "teacher too, and what building the cache took that the two read",
        among=("training", "everything"),
    )
    teacher: str = setting("", "the one of the study's teachers that teaches; the first if empty")
    reference: bool = setting(False, "a reference point, in the tables below the arms")


@dataclass
class StudyConfig:
    """A table of runs."""

    base: str = setting("tiny", "shipped configuration or YAML file that every run starts from")
    overrides: list[str] = setting([], "key=value settings of all runs, before those of budgets and arms")
    seeds: list[int] = setting([0], "seeds of the arms' runs", ge=0, le=config.LARGEST_SEED)
    budgets: dict[str, list[str]] = setting({}, "label budgets: name and key=value settings, such as full: []")
    teachers: dict[str, list[str]] = setting({}, "teachers: name and key=value settings, after those of their budget")
    shared_teachers: bool = setting(
        False,
        "each teacher is trained once, without the settings of a budget, and serves all budgets; otherwise it is "
        "trained for every budget, so that what is hidden from a student is hidden from its teacher",
    )
    teacher_seeds: list[int] = setting(
        [0],
        "seeds of each teacher; dealt out to the arms' seeds in turn, so that all arms of a seed have one teacher",
        ge=0,
        le=config.LARGEST_SEED,
    )
    arms: dict[str, ArmConfig] = setting({}, "the arms by name")
    baseline: str = setting("A0", "arm that differences, costs and the share of the gap refer to")
    control: str = setting("", "arm that a second column of differences refers to; none if empty")
    weights: str = setting(
        "last",
        "weights that the tables score: those at the end of training, or those of the epoch that validated best",
        among=("last", "best"),
    )

    def title(self, arm: str) -> str:
        """Return the name of an arm in the tables."""
        return self.arms[arm].title or arm

    def budgets_of(self, arm: str) -> list[str]:
        """Return the budgets of an arm, in the study's order."""
        chosen = self.arms[arm].budgets
        return [budget for budget in self.budgets if not chosen or budget in chosen]

    def seeds_of(self, arm: str) -> list[int]:
        """Return the seeds of an arm."""
        return self.seeds[: self.arms[arm].seeds or None]

    def teacher_of(self, arm: str) -> str:
        """Return the teacher of an arm; the first one for an arm without a teacher."""
        return self.arms[arm].teacher or next(iter(self.teachers), "")

    def teacher_budget(self, budget: str) -> str:
        """Return the budget that a teacher of this budget is trained on; empty where all budgets share it."""
        return "" if self.shared_teachers else budget

    def teacher_seed(self, seed: int) -> int:
        """Return the seed of the teacher that teaches a seed of the arms."""
        return self.teacher_seeds[self.seeds.index(seed) % len(self.teacher_seeds)]


def load_study(name: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study from YAML or by its shipped name, and check it.

    Overrides are settings of the study (`seeds=[0,1]`) or of an experiment (`data.train_root=...`); the latter are
    added to the settings of all runs. Raises BridgeTAError (exit code 2) that names the key and says what to do.
    """
    sections = {f.name for f in fields(Experiment)}
    of_runs = [text for text in overrides if text.split("=")[0].split(".")[0] in sections]
    own = [text for text in overrides if text not in of_runs]
    study = config.load(StudyConfig, name, own, STUDY_FOLDER)
    study.overrides += of_runs
    for arm, settings in study.arms.items():
        # Loading checks the ranges of nested settings, but not of settings in a mapping.
        try:
            from_mapping(ArmConfig, to_mapping(settings))
        except BridgeTAError as error:
            raise _error(f"arms.{arm}.{error.what}", error.fix or "See the settings of the other arms") from error
    _check_names(study)
    _check_arms(study)
    _check_likes(study)
    return study


def _check_names(study: StudyConfig) -> None:
    for key, names in (("budgets", study.budgets), ("teachers", study.teachers), ("arms", study.arms)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise _error(
                    f"{key}.{name}: the name is also that of a folder",
                    "Use letters, digits and . _ + - only, and put the rest into the arm's title",
                )
            if name == TEACHERS:
                raise _error(f"{key}.{TEACHERS}: the folder of that name is that of all teachers", "Give another name")
    for key, seeds in (("seeds", study.seeds), ("teacher_seeds", study.teacher_seeds)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise _error(f"{key} = {seeds} must name at least one seed, and each once", f"For instance {key}=[0,1,2]")
    for key, content in (("arms", study.arms), ("budgets", study.budgets)):
        if not content:
            raise _error(f"{key} is empty", f"Name at least one of the {key}")


def _check_arms(study: StudyConfig) -> None:
    _check_arm_exists(study, "baseline", study.baseline)
    if study.control:
        _check_arm_exists(study, "control", study.control)
    for name, arm in study.arms.items():
        if unknown := [budget for budget in arm.budgets if budget not in study.budgets]:
            raise _error(
                f"arms.{name}.budgets = {arm.budgets} names {unknown[0]}, which is not among budgets",
                f"Use some of {', '.join(study.budgets)}",
            )
        if arm.teacher and arm.teacher not in study.teachers:
            raise _error(
                f"arms.{name}.teacher = {arm.teacher} is not among teachers",
                f"Use one of {', '.join(study.teachers)}" if study.teachers else "Add it to teachers",
            )
        if arm.kind == "distill" and not study.teachers:
            raise _error(f"arms.{name}.kind = distill needs a teacher", "Add one to teachers, such as fusion: []")


def _check_likes(study: StudyConfig) -> None:
    for name, arm in study.arms.items():
        if not arm.like:
            if arm.like_counts != "training":
                raise _error(f"arms.{name}.like_counts says nothing without like", f"Give arms.{name}.like too")
            continue
        key = f"arms.{name}.like"
        _check_arm_exists(study, key, arm.like)
        seen = [name]
        while following := study.arms[seen[-1]].like:
            _check_arm_exists(study, f"arms.{seen[-1]}.like", following)
            if following in seen:
                circle = " like ".join([*seen, following])
                raise _error(f"{key}: {circle} goes in a circle", "Take one of these likes away")
            seen.append(following)
        if name == study.baseline:
            raise _error(f"{key}: the baseline cannot be as long as another arm", "Make an arm of its own of it")
        if arm.kind != study.arms[study.baseline].kind:
            raise _error(
                f"{key}: an arm of kind {arm.kind} does not cost as much per step as the baseline",
                f"Only arms of kind {study.arms[study.baseline].kind} can be as long as another arm",
            )
        for other in (arm.like, study.baseline):
            if missing := [b for b in study.budgets_of(name) if b not in study.budgets_of(other)]:
                raise _error(
                    f"{key}: {other} has no runs of the budget {missing[0]} to measure",
                    f"Add the budget to arms.{other}.budgets, or take it out of arms.{name}.budgets",
                )


def _check_arm_exists(study: StudyConfig, key: str, arm: str) -> None:
    if arm not in study.arms:
        raise _error(f"{key} = {arm} is not among arms", f"Use one of {', '.join(study.arms)}")


def _error(what: str, fix: str) -> BridgeTAError:
    return BridgeTAError(what, where="study", fix=fix, exit_code=2)
