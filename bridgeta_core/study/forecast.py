"""How far the runs of a study are, and how long the rest of each takes, told from those that are finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.runs.log import count_epochs
from bridgeta_core.runs.record import RunRecord
from bridgeta_core.runs.words import format_duration
from bridgeta_core.study.equal_time import resolve_length
from bridgeta_core.study.plan import Run, name_run
from bridgeta_core.study.results import Results
from bridgeta_core.study.state import State, find_state


@dataclass(frozen=True)
class Outlook:
    """A run of a study: its state, and the `seconds` that it still needs, NaN if no finished run tells.

    `guess` says what they are guessed from, where no finished run of the same arm and budget tells.
    """

    run: Run
    state: State
    seconds: float
    guess: str = ""


def look_ahead(results: Results) -> list[Outlook]:
    """Look at every run of a study, in the order of the plan.

    Raises BridgeTAError when a run has other settings than the study.
    """
    found = []
    for run in results.runs:
        planned = resolve_length(results.study, run, results.runs)
        state = find_state(run, planned)
        if state is State.done:
            found.append(Outlook(run, state, 0.0))
            continue
        seconds, guess = _expect(results, run, planned)
        if state is State.interrupted and planned is not None:
            seconds *= 1 - min(1.0, count_epochs(run.folder) / planned.train.epochs)
        found.append(Outlook(run, state, seconds, guess))
    return found


def describe_rest(outlooks: Sequence[Outlook], jobs: int) -> str:
    """Describe in a line how long the runs take that are left, `jobs` at a time; empty if none is left."""
    known = [o for o in outlooks if o.state is not State.done and not math.isnan(o.seconds)]
    unknown = sum(math.isnan(o.seconds) for o in outlooks)
    parts = []
    if known:
        guessed = sum(o.seconds for o in known if o.guess)
        parts.append(f"about {format_duration(sum(o.seconds for o in known) / jobs)} to go with {jobs} at a time")
        parts[0] += f", {format_duration(guessed / jobs)} of that a guess" if guessed else ""
    if unknown:
        parts.append(f"{unknown} runs without a finished one of their kind are not counted")
    return "; ".join(parts)


def _expect(results: Results, run: Run, planned: Experiment | None) -> tuple[float, str]:
    """Expect how many seconds a whole run takes, and say what that is guessed from."""
    if run.name in results.records:
        return results.records[run.name].seconds, ""
    if planned is None:
        return _expect_like(results, run), f"as long as {run.like}, once that is measured"
    levels: list[tuple[str, Callable[[Run], bool]]] = [
        ("", lambda r: (r.arm, r.budget) == (run.arm, run.budget)),
        ("a guess from other budgets", lambda r: r.arm == run.arm),
        ("a guess from other arms", lambda r: True),
    ]
    for guess, is_similar in levels:
        similar = [r for r in results.runs if r.kind == run.kind and r.name in results.records and is_similar(r)]
        if similar:
            return median(_scale(results, r, planned) for r in similar), guess
    return math.nan, ""


def _expect_like(results: Results, run: Run) -> float:
    """Expect how many seconds the run takes that `run` is to be as long as."""
    runs = {r.name: r for r in results.runs}
    like = runs[name_run(run.like, run.budget, results.study.seeds[0])]
    counted = [like]
    if results.study.arms[run.arm].like_counts == "everything" and like.teacher:
        counted.append(runs[like.teacher])
    return sum(_expect(results, r, resolve_length(results.study, r, results.runs))[0] for r in counted)


def _scale(results: Results, run: Run, planned: Experiment) -> float:
    """Scale the seconds of a finished run, validation included, to the steps that are planned."""
    record: RunRecord = results.records[run.name]
    data, train = planned.data, planned.train
    if data.steps_per_epoch and record.steps:
        steps = train.epochs * math.ceil(data.steps_per_epoch / train.accumulate)
        return record.seconds * steps / record.steps
    finished = resolve_length(results.study, run, results.runs) or run.experiment
    return record.seconds * train.epochs / finished.train.epochs
