"""How far a run is, and whether it has the settings of the study, read from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.runs import folder as runs
from bridgeta_core.runs.folder import CHECKPOINT, RECORD
from bridgeta_core.study.config import TEACHERS
from bridgeta_core.study.plan import Run
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.settings import rename_old_keys

# Settings that decide how fast a run is, and nothing about its result.
_WITHOUT_EFFECT = ("data.workers", "data.cache", "labels.cache")

# Beginnings of settings that a kind of run does not read, so that they may change while runs of other kinds are done.
_UNREAD = {
    "teacher": ("distill.", "data.unlabelled"),
    "student": ("distill.", "data.unlabelled", "teacher."),
    "distill": (),
}


class State(str, Enum):
    """How far a run is."""

    done = "done"
    interrupted = "interrupted"
    todo = "to do"


def find_state(run: Run, planned: Experiment | None = None) -> State:
    """Find how far a run is. With the `planned` experiment, a run that was started must have its settings.

    Raises BridgeTAError that names the differences if it has not.
    """
    if (run.folder / RECORD).exists():
        result = State.done
    elif (run.folder / CHECKPOINT).exists():
        result = State.interrupted
    else:
        return State.todo
    if planned is not None:
        _check_settings(run, planned)
    return result


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a run as a flat mapping, {} if they are not there.

    Not as an Experiment, which takes long to build for hundreds of runs. Raises BridgeTAError for a damaged file.
    """
    return _flatten(runs.read_settings(folder))


def flatten_settings(content: Mapping[str, Any], where: Path | None = None) -> dict[str, Any]:
    """Flatten nested settings to one mapping with keys such as `train.epochs`, and the keys of older runs renamed."""
    return _flatten(rename_old_keys(Experiment, content, where, announce=False))


def nest_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nest flat settings again: the inverse of `flatten_settings`."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        *parents, name = key.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return result


def list_deviations(written: Mapping[str, Any], planned: Experiment, kind: str) -> list[str]:
    """List how the settings of a run, as `read_settings` gives them, differ from the planned ones.

    Each as `key = this instead of that`, of the settings that a run of this kind reads; none if nothing was written.
    """
    if not written:
        return []
    have = _flatten(asdict(Experiment())) | dict(written)  # a setting that a run has not written was default
    want = _flatten(asdict(planned))
    if _is_same_teacher(str(have["distill.teacher"]), str(want["distill.teacher"])):
        have["distill.teacher"] = want["distill.teacher"]
    ignored = (*_WITHOUT_EFFECT, *_UNREAD[kind])
    keys = [key for key in {**want, **have} if not key.startswith(ignored) and have.get(key) != want.get(key)]
    return [f"{key} = {have.get(key)} instead of {want.get(key)}" for key in keys]


def _check_settings(run: Run, planned: Experiment) -> None:
    differences = list_deviations(read_settings(run.folder), planned, run.kind)
    if not differences:
        return
    raise BridgeTAError(
        f"was trained with other settings than the study has: {join_first(differences, 4)}",
        where=run.folder,
        fix="Give the study these settings, name another --out, or move the run's folder away",
        exit_code=2,
    )


def _is_same_teacher(one: str, other: str) -> bool:
    """Tell whether two paths are the same from the folder of the teachers on: a study's folder may have been moved."""
    folder = f"{os.sep}{TEACHERS}{os.sep}"
    tails = [f"{os.sep}{Path(path)}".rpartition(folder)[1:] for path in (one, other)]
    return tails[0] == tails[1] and tails[0][0] == folder


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            result |= _flatten(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
