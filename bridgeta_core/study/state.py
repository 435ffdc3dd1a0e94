"""How far a run is, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from bridgeta_core.config.experiment import Experiment, to_mapping
from bridgeta_core.study.plan import Run
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.settings import rename_old_keys

SETTINGS, RECORD, CHECKPOINT = "experiment.yaml", "run.json", "checkpoints/last.ckpt"

# Settings that decide how fast a run is, and nothing about what comes out.
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


def state(run: Run, planned: Experiment | None = None) -> State:
    """How far a run is. With the `planned` experiment what was trained must have had its settings.

    Raises BridgeTAError that names the differences if it had not.
    """
    found = State.todo
    if (run.folder / RECORD).exists():
        found = State.done
    elif (run.folder / CHECKPOINT).exists():
        found = State.interrupted
    if found is not State.todo and planned is not None:
        _check_settings(run, planned)
    return found


def deviations(folder: Path, planned: Experiment, kind: str) -> list[str]:
    """The settings that a run of this kind reads and that differ from the planned ones in its folder, as
    `key = this instead of that`.
    """
    path = folder / SETTINGS
    if not path.exists():
        return []
    # Not as an Experiment, which takes long to build for hundreds of runs; what an older run does not name was default.
    written = yaml.safe_load(path.read_text())
    written = rename_old_keys(Experiment, written, path, announce=False) if isinstance(written, dict) else {}
    have = _flat(to_mapping(Experiment())) | _flat(written)
    want = _flat(to_mapping(planned))
    if _same_teacher(str(have["distill.teacher"]), str(want["distill.teacher"])):
        have["distill.teacher"] = want["distill.teacher"]
    ignored = (*_WITHOUT_EFFECT, *_UNREAD[kind])
    keys = [key for key in {**want, **have} if not key.startswith(ignored) and have.get(key) != want.get(key)]
    return [f"{key} = {have.get(key)} instead of {want.get(key)}" for key in keys]


def _check_settings(run: Run, planned: Experiment) -> None:
    found = deviations(run.folder, planned, run.kind)
    if not found:
        return
    raise BridgeTAError(
        f"was trained with other settings than the study has: {join_first(found, 4)}",
        where=run.folder,
        fix="Give the study these settings, name another --out, or move the run's folder away",
        exit_code=2,
    )


def _same_teacher(one: str, other: str) -> bool:
    """Whether two paths end in teachers/NAME/seedK/FILE alike: a study's folder may have been moved."""
    return Path(one).parts[-4:] == Path(other).parts[-4:]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
