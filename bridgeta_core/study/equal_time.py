"""Runs that train as long as another arm in wall-clock time: how many steps that is, measured once and saved."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.runs.record import RunRecord, read_record
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
                counted = measured["like"], measured.get("counts", "training")
                if counted != (run.like, study.arms[run.arm].like_counts):
                    raise ValueError(f"it is of {counted[0]}, {counted[1]}")
                return lengthen(run.experiment, float(measured["factor"]))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise BridgeTAError(
                    f"does not say the factor ({error})",
                    where=folder / LENGTH,
                    fix="Remove it to have it measured again",
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
    """Measure how many times as long as the baseline a run is to train; None while nothing is finished to tell.

    The run itself costs what the baseline costs per step, and reads the same from the cache: only such arms may have a
    `like`. Where everything counts, its steps have the time that the cache leaves.
    """
    counts = study.arms[run.arm].like_counts
    of_budget = [r for r in runs if r.budget == run.budget and r.kind != "teacher"]
    like, baseline = ([r for r in of_budget if r.arm == arm] for arm in (run.like, study.baseline))
    names = {name for r in (*like, *baseline) for name in (r.name, r.teacher)}
    records = {r.name: read_record(r.folder) for r in runs if r.name in names and find_state(r) is State.done}

    def measure(of: Sequence[Run], seconds: Callable[[Run], float]) -> dict[str, float]:
        found = {r.name: seconds(r) for r in of if r.name in records}
        return {name: round(value, 3) for name, value in found.items() if not math.isnan(value)}

    training, spent = measure(baseline, lambda r: records[r.name].training_seconds), 0.0
    if counts == "everything":
        wanted = measure(like, lambda r: compute_full_seconds(r, records))
        spent = _median(measure(baseline, lambda r: records[r.name].cache_seconds))
    else:
        wanted = measure(like, lambda r: records[r.name].training_seconds)
    left, unit = _median(wanted) - spent, _median(training)
    if math.isnan(left) or not unit > 0:
        return None
    seconds = {run.like: wanted, study.baseline: training}
    return {"like": run.like, "counts": counts, "factor": round(left / unit, 4), "seconds": seconds}


def _median(seconds: Mapping[str, float]) -> float:
    return median(seconds.values()) if seconds else math.nan


def compute_full_seconds(run: Run, records: Mapping[str, RunRecord]) -> float:
    """Compute the seconds of a run and of its teacher, all of them, with the cache that each reads; NaN if unknown."""
    names = [name for name in (run.name, run.teacher) if name]
    return sum(records[name].total_seconds for name in names) if records.keys() >= set(names) else math.nan
