"""Runs that train as long as another arm in wall-clock time: how many steps that is, measured once and saved."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.runs.record import read_record
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.plan import Run
from bridgeta_core.study.state import State, find_state
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import replace_when_done

LENGTH = "like.json"


def resolve_length(study: StudyConfig, run: Run, runs: Sequence[Run]) -> Experiment | None:
    """Return the experiment of a run with its final length, None while nothing is finished to measure it by.

    The factor is measured once per arm and budget, so that all seeds train equally long, and is saved in the folder of
    each run: a study that is continued, here or elsewhere, does not measure again.
    """
    if not run.like:
        return run.experiment
    siblings = [r for r in runs if (r.arm, r.budget, r.kind) == (run.arm, run.budget, run.kind)]
    for folder in (run.folder, *(r.folder for r in siblings)):
        if (folder / LENGTH).exists():
            try:
                measured = json.loads((folder / LENGTH).read_text())
                return lengthen(run.experiment, float(measured["factor"]))
            except (ValueError, KeyError, TypeError) as error:
                raise BridgeTAError(
                    "does not say the factor", where=folder / LENGTH, fix="Remove it to have it measured again"
                ) from error
    measured = _measure(study, run, runs)
    return lengthen(run.experiment, measured["factor"]) if measured else None


def save_length(study: StudyConfig, run: Run, runs: Sequence[Run]) -> None:
    """Save in a run's folder what its length rests on, unless that is there."""
    target = run.folder / LENGTH
    if not run.like or target.exists():
        return
    siblings = (r.folder / LENGTH for r in runs if (r.arm, r.budget) == (run.arm, run.budget))
    earlier = next((path for path in siblings if path.exists()), None)
    content = json.loads(earlier.read_text()) if earlier else _measure(study, run, runs)
    with replace_when_done(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def lengthen(experiment: Experiment, factor: float) -> Experiment:
    """Return a copy of the experiment with `factor` times its steps, rounded up in its favour.

    Where an epoch is a number of steps, it gets that many more, so that the number of validations stays; elsewhere
    there are more epochs.
    """
    result = copy.deepcopy(experiment)
    if result.data.steps_per_epoch:
        result.data.steps_per_epoch = max(1, math.ceil(result.data.steps_per_epoch * factor - 1e-9))
    else:
        result.train.epochs = max(1, math.ceil(result.train.epochs * factor - 1e-9))
    return result


def _measure(study: StudyConfig, run: Run, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Measure an arm's median training time relative to the baseline's; None while either has no finished run.

    The run itself costs what the baseline costs per step: only such arms may have a `like`.
    """
    seconds = {}
    for arm in (run.like, study.baseline):
        records = {
            r.name: read_record(r.folder)
            for r in runs
            if (r.arm, r.budget) == (arm, run.budget) and r.kind != "teacher" and find_state(r) is State.done
        }
        times = {name: record.steps * record.seconds_per_step for name, record in records.items()}
        seconds[arm] = {name: round(time, 3) for name, time in times.items() if time > 0}
        if not seconds[arm]:
            return None
    factor = median(seconds[run.like].values()) / median(seconds[study.baseline].values())
    return {"like": run.like, "factor": round(factor, 4), "training_seconds": seconds}
