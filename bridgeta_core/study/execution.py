"""Carry out a plan: a process per run, several at a time; a failed run does not stop the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.runs.log import count_epochs
from bridgeta_core.study.config import StudyConfig
from bridgeta_core.study.equal_time import resolve_length, save_length
from bridgeta_core.study.plan import Run
from bridgeta_core.study.state import State, find_state
from bridgeta_core.utils.errors import BridgeTAError

LOG = "log.txt"
PATIENCE = 60.0
"""Seconds that a process gets to end by itself once it is asked to."""

_POLL = 0.1
_TAIL = 15

# The entry point without its script, which need not be on the PATH. The arguments after it are a user's.
_BRIDGETA = (sys.executable, "-c", "from bridgeta_core.cli.commands import app; app()")

Command = Callable[[str, Path, Path, bool], list[str]]


def build_train_command(kind: str, settings: Path, folder: Path, resume: bool) -> list[str]:
    """Build the command that trains a run with the settings of a YAML file in a folder."""
    return [*_BRIDGETA, "train", kind, str(settings), "--out", str(folder), *(["--resume"] if resume else [])]


@dataclass(frozen=True)
class Failure:
    """A run that failed: `tail` are the last lines of its log, none for a run that was never started."""

    run: Run
    reason: str
    tail: str = ""


@dataclass(frozen=True, eq=False)
class _Process:
    run: Run
    experiment: Experiment
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    line: TaskID


class Execution:
    """The running processes of a study. They inherit the descriptor `lock`, and hold it while they live."""

    def __init__(
        self,
        study: StudyConfig,
        runs: Sequence[Run],
        console: Console,
        *,
        jobs: int = 1,
        lock: int | None = None,
        command: Command = build_train_command,
    ) -> None:
        self._study, self._runs, self._jobs, self._lock, self._command = study, runs, jobs, lock, command
        self._console = console
        self._running: list[_Process] = []
        self._failures: dict[str, Failure] = {}
        self._threads = max(1, len(os.sched_getaffinity(0)) // jobs)

    def run(self) -> list[Failure]:
        """Run what is not done and return the failures. The order is that of the plan, as far as needed runs are done.

        On Ctrl-C, ask the processes to end and let KeyboardInterrupt pass.
        """
        waiting = [run for run in self._runs if find_state(run) is not State.done]
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[epoch]}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as progress:
            try:
                while waiting or self._running:
                    self._start_ready(waiting, progress)
                    time.sleep(_POLL)
                    for item in list(self._running):
                        self._watch(item, progress)
            finally:
                self._stop_all()
        return list(self._failures.values())

    def _start_ready(self, waiting: list[Run], progress: Progress) -> None:
        done = {run.name for run in self._runs if find_state(run) is State.done}
        for run in list(waiting):
            if failed := [name for name in run.needs if name in self._failures]:
                self._failures[run.name] = Failure(run, f"not started: it needs {failed[0]}")
                waiting.remove(run)
            elif len(self._running) < self._jobs and done.issuperset(run.needs):
                waiting.remove(run)
                try:
                    self._start(run, progress)
                except (BridgeTAError, OSError) as error:
                    self._failures[run.name] = Failure(run, f"not started: {error}")

    def _start(self, run: Run, progress: Progress) -> None:
        experiment = resolve_length(self._study, run, self._runs)
        if experiment is None:
            what = f"the runs of {run.like} and {self._study.baseline} do not say how long they took"
            raise BridgeTAError(what, fix="Train them anew, and build their cache anew where everything counts")
        folder = RunFolder(run.folder, run.kind)
        with folder.hold():
            resume = find_state(run, experiment) is State.interrupted
            save_length(self._study, run, self._runs)
            # A resumed run's too: the study may have moved, and other settings that may differ by now have no effect.
            folder.save_settings(experiment)
        log = (run.folder / LOG).open("ab")
        process = subprocess.Popen(
            self._command(run.kind, folder.settings, run.folder, resume),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            # A group of its own: Ctrl-C at the terminal reaches the study alone, which passes it on once.
            start_new_session=True,
            pass_fds=() if self._lock is None else (self._lock,),
        )
        line = progress.add_task(run.name, total=experiment.train.epochs, epoch="starting")
        self._running.append(_Process(run, experiment, process, log, line))

    def _watch(self, item: _Process, progress: Progress) -> None:
        run, code = item.run, item.process.poll()
        if code is None:
            epochs = count_epochs(run.folder)
            progress.update(item.line, completed=epochs, epoch=f"epoch {epochs}/{item.experiment.train.epochs}")
            return
        self._running.remove(item)
        item.log.close()
        progress.remove_task(item.line)
        if code == 0 and find_state(run) is State.done:
            progress.console.print(f"{run.name}: done", highlight=False)
            return
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        reason = ended if code else "ended without a run.json"
        self._failures[run.name] = Failure(run, reason, _tail(run.folder / LOG))
        progress.console.print(f"{run.name}: {reason}; the others continue", highlight=False)

    def _stop_all(self) -> None:
        for item in self._running:
            # The commands handle SIGTERM like Ctrl-C. SIGINT they would ignore when a script runs the study in the
            # background.
            item.process.terminate()
        deadline = time.monotonic() + PATIENCE
        try:
            for item in self._running:
                with suppress(subprocess.TimeoutExpired):
                    item.process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # a second Ctrl-C waits no longer
            for item in self._running:
                if item.process.poll() is None:
                    os.killpg(item.process.pid, signal.SIGKILL)  # its loader processes too
                    item.process.wait()
                item.log.close()
            self._running.clear()


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL:])
