"""A study from its settings to its page: the steps of the command `bridgeta study`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bridgeta_core.runs.words import format_duration
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.equal_time import resolve_length
from bridgeta_core.study.execution import LOG, Command, Execution, Failure, build_train_command
from bridgeta_core.study.forecast import describe_rest, look_ahead
from bridgeta_core.study.plan import Run, plan
from bridgeta_core.study.report import write_report
from bridgeta_core.study.results import Results
from bridgeta_core.study.state import State, find_state
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import hold_lock


def run_study(
    study: StudyConfig, out: Path, jobs: int, console: Console, command: Command = build_train_command
) -> list[Failure]:
    """Run what is not done, `jobs` at a time, and return what failed.

    Before anything starts, compare the settings of the runs in the folder with the plan, and look for the data.
    Raises BridgeTAError when settings differ, data are missing, another study works in the folder, or the study is
    interrupted.
    """
    if jobs < 1:
        raise BridgeTAError(f"--jobs {jobs} must be at least 1", exit_code=2)
    busy, fix = "another study works here", "Wait until it and its last run have ended, or stop them"
    with hold_lock(out / ".lock", wait=False, busy=busy, fix=fix) as lock:
        runs = plan(study, out)
        waiting = [run for run in runs if find_state(run, resolve_length(study, run, runs)) is not State.done]
        _check_roots(waiting)
        try:
            return Execution(study, runs, console, jobs=jobs, lock=lock, command=command).run()
        except KeyboardInterrupt as error:
            raise BridgeTAError("was interrupted", where=out, fix="The same command continues") from error


def _check_roots(runs: Sequence[Run]) -> None:
    """Report missing data once, instead of once for every run."""
    for run in runs:
        data = run.experiment.data
        roots = {"train_root": data.train_roots, "unlabelled_root": data.unlabelled_roots, "val_root": data.val_roots}
        for key, named in roots.items():
            if missing := [root for root in named if not Path(root).is_dir()]:
                raise BridgeTAError(
                    f"data.{key} of {run.name} is not a folder",
                    where=missing[0],
                    fix="Give a nuScenes-format root",
                    exit_code=2,
                )


def build_overview(study: StudyConfig, out: Path, jobs: int) -> Table:
    """Build a table of every run in the order of the plan: its state, the time it took or still takes, and guesses.

    Raises BridgeTAError when a run has other settings than the study.
    """
    results = Results(study, out)
    outlooks = look_ahead(results)
    done = sum(outlook.state is State.done for outlook in outlooks)
    caption = "; ".join(filter(None, (f"{done} of {len(outlooks)} done", describe_rest(outlooks, jobs))))
    table = Table(title=f"Runs in {out}", caption=caption)
    for column in ("run", "state", "time", ""):
        table.add_column(column, justify="right" if column == "time" else "left")
    for outlook in outlooks:
        if outlook.state is State.done:
            time = format_duration(results.records[outlook.run.name].seconds)
        else:
            time = "?" if math.isnan(outlook.seconds) else f"about {format_duration(outlook.seconds)}"
        table.add_row(outlook.run.name, outlook.state.value, time, outlook.guess)
    return table


def describe_work(study: StudyConfig, out: Path, jobs: int) -> tuple[int, str]:
    """Count the runs that are not done, and describe in one line how many they are and how long they take.

    Raises BridgeTAError when a run has other settings than the study.
    """
    outlooks = look_ahead(Results(study, out))
    left = sum(outlook.state is not State.done for outlook in outlooks)
    return left, "; ".join(filter(None, (f"{left} of {len(outlooks)} runs to do", describe_rest(outlooks, jobs))))


def render_study(study: StudyConfig, out: Path, target: Path, command: str) -> tuple[Path, Path]:
    """Write the page and the figure of the finished runs, which are in the folder or collected file `out`.

    Raises BridgeTAError if nothing is finished.
    """
    results = Results(study, out)
    if not results.records:
        raise BridgeTAError(
            "has no finished run of this study", where=out, fix="Let the study run, or name its --out", exit_code=2
        )
    return write_report(results, target, command, date.today())


def format_render_command(configuration: str, overrides: Sequence[str], out: Path, table: Path | None) -> str:
    """Format the command that writes the page again from the finished runs."""
    where = [] if table is None else ["--table", str(table)]
    return shlex.join(["bridgeta", "study", configuration, *overrides, "--out", str(out), "--render-only", *where])


def describe_failures(failures: Sequence[Failure]) -> str:
    """Describe what failed, with the ends of the logs."""
    parts = []
    for failure in failures:
        log = f" ({failure.run.folder / LOG})" if failure.tail else ""
        parts.append("\n  ".join([f"{failure.run.name}: {failure.reason}{log}", *failure.tail.splitlines()]))
    return "\n".join(parts)
