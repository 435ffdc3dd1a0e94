"""Processes that write the tasks of a root, each in one town as long as there is work in it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

import cv2
import torch

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import end_with_parent, shield_from_interrupts
from bridgeta_synth.dataset.checkpoint import Checkpoint
from bridgeta_synth.dataset.tasks import Task, TaskWriter
from bridgeta_synth.settings import SynthSettings


class Backlog:
    """The tasks still to be assigned. A worker that has built a town stays in it."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waiting: dict[int, list[Task]] = {}
        for task in tasks:
            self._waiting.setdefault(task.city, []).append(task)

    def take(self, city: int | None, others: Sequence[int]) -> Task | None:
        """Take the next task for a worker that was last in `city`, None if it is new; None when nothing is left.

        `others` are the cities of the other workers. A worker leaves its city when no work is left there, for the one
        with the most work per worker.
        """
        if city not in self._waiting:
            if not self._waiting:
                return None
            there = Counter(others)
            city = max(self._waiting, key=lambda c: (len(self._waiting[c]) / (1 + there[c]), -c))
        tasks = self._waiting[city]
        task = tasks.pop(0)
        if not tasks:
            del self._waiting[city]
        return task


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: Task | None = field(default=None)


class Workers:
    """Processes that carry out tasks in an open checkpoint with some threads each."""

    def __init__(self, checkpoint: Checkpoint, settings: SynthSettings, processes: int, threads: int) -> None:
        self.checkpoint, self.settings, self.processes, self.threads = checkpoint, settings, processes, threads

    def write(self, tasks: Sequence[Task], advance: Callable[[], None]) -> None:
        """Carry out and save tasks; `advance` is called for every file.

        Raises as `TaskWriter.write` does, and BridgeTAError that names the task when a process dies.
        """
        backlog = Backlog(tasks)
        workers: list[_Worker] = []
        try:
            with shield_from_interrupts():
                for _ in range(self.processes):
                    workers.append(self._start())
            for worker in workers:
                _assign(worker, backlog, workers)
            while busy := {w.pipe: w for w in workers if w.task is not None}:
                for pipe in wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    self._receive(busy[pipe], backlog, workers, advance)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.process.join()
                worker.pipe.close()

    def _start(self) -> _Worker:
        context: SpawnContext = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self.checkpoint.out, self.settings, self.threads)
        process = context.Process(target=_run_worker, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that reading ends when the process ends
        return _Worker(process, ours)

    def _receive(self, worker: _Worker, backlog: Backlog, workers: list[_Worker], advance: Callable[[], None]) -> None:
        assert worker.task is not None
        try:
            what, details = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise BridgeTAError(
                f"{worker.task.name}: the process that wrote it died ({how})",
                where=self.checkpoint.folder,
                fix="If memory ran short use fewer --jobs; repeat the command to go on",
            ) from None
        if what == "file":
            advance()
        elif what == "done":
            _assign(worker, backlog, workers)
        elif what == "refusal":
            raise BridgeTAError(**details)
        else:
            raise RuntimeError(details)


def _assign(worker: _Worker, backlog: Backlog, workers: list[_Worker]) -> None:
    """Hand a worker its next task, if there is one."""
    city = worker.task.city if worker.task else None
    others = [w.task.city for w in workers if w.task and w is not worker]
    worker.task = backlog.take(city, others)
    if worker.task is not None:
        with suppress(BrokenPipeError):  # reading from the pipe will show that the process is gone
            worker.pipe.send(worker.task)


def _run_worker(pipe: Connection, out: Path, settings: SynthSettings, threads: int) -> None:
    """Run a worker process: write the tasks that arrive through the pipe until it is closed."""
    end_with_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    writer = TaskWriter(Checkpoint(out), settings, "cpu", threads)
    lock = threading.Lock()

    def advance() -> None:
        with lock:
            pipe.send(("file", None))

    # The other end is closed when the process that started this one is gone, for whatever reason.
    with suppress(EOFError, BrokenPipeError):
        while True:
            task = pipe.recv()
            answer: tuple[str, Any] = ("done", None)
            try:
                writer.write([task], advance)
            except BridgeTAError as error:
                where = None if error.where is None else str(error.where)
                details = {"what": error.what, "where": where, "fix": error.fix, "exit_code": error.exit_code}
                answer = ("refusal", details)
            except RuntimeError:
                answer = ("failure", traceback.format_exc())
            pipe.send(answer)
