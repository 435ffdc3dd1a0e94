"""A study from its settings to its page: what the command `bridgeta study` does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich.console import Console

from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.equal_time import settle
from bridgeta_core.study.execution import LOG, Command, Execution, Failure, train_command
from bridgeta_core.study.plan import Run, plan
from bridgeta_core.study.report import write_report
from bridgeta_core.study.results import Results
from bridgeta_core.study.state import State, state
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import hold_lock


def carry_out(
    study: StudyConfig, out: Path, jobs: int, console: Console, command: Command = train_command
) -> list[Failure]:
    """Run what is to do, `jobs` at a time, and return what failed.

    Before anything is started, the settings of what is in the folder are held against the plan, and the data are looked
    for. Raises BridgeTAError when settings differ, when data are not there, when another study works in the folder, and
    when the study is interrupted.
    """
    if jobs < 1:
        raise BridgeTAError(f"--jobs {jobs} must be at least 1", exit_code=2)
    busy, fix = "another study works here", "Wait until it and its last run have ended, or stop them"
    with hold_lock(out / ".lock", wait=False, busy=busy, fix=fix) as lock:
        runs = plan(study, out)
        waiting = [run for run in runs if state(run, settle(study, run, runs)) is not State.done]
        _check_roots(waiting)
        try:
            return Execution(study, runs, console, jobs=jobs, lock=lock, command=command).carry_out()
        except KeyboardInterrupt as error:
            raise BridgeTAError("was interrupted", where=out, fix="The same command goes on") from error


def _check_roots(runs: Sequence[Run]) -> None:
    """One message for what every run would fail at."""
    for run in runs:
        for key in ("train_root", "val_root"):
            root = Path(getattr(run.experiment.data, key))
            if not root.is_dir():
                raise BridgeTAError(
                    f"data.{key} of {run.name} is not a folder",
                    where=root,
                    fix="Give a nuScenes-format root",
                    exit_code=2,
                )


def render(study: StudyConfig, out: Path, target: Path, command: str) -> tuple[Path, Path]:
    """Write the page and the figure of what is finished. Raises BridgeTAError if nothing is."""
    results = Results(study, out)
    if not results.records:
        raise BridgeTAError(
            "has no finished run of this study", where=out, fix="Let the study run, or name its --out", exit_code=2
        )
    return write_report(results, target, command, date.today())


def rendering_command(configuration: str, overrides: Sequence[str], out: Path, table: Path | None) -> str:
    """The command that makes the page again from the logs."""
    where = [] if table is None else ["--table", str(table)]
    return shlex.join(["bridgeta", "study", configuration, *overrides, "--out", str(out), "--render-only", *where])


def told(failures: Sequence[Failure]) -> str:
    """What failed, with the ends of the logs."""
    parts = []
    for failure in failures:
        log = f" ({failure.run.folder / LOG})" if failure.tail else ""
        parts.append("\n  ".join([f"{failure.run.name}: {failure.reason}{log}", *failure.tail.splitlines()]))
    return "\n".join(parts)
