"""Processes that write the parts of a root, each in one town as long as there is work in it."""

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
from bridgeta_core.utils.machine import shield_from_interrupts
from bridgeta_synth.dataset.checkpoint import PartialRoot
from bridgeta_synth.dataset.part import Part, PartWriter
from bridgeta_synth.settings import SynthSettings


class Backlog:
    """The parts still to be given out, so that whoever has a town at hand goes on with it."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._waiting: dict[int, list[Part]] = {}
        for part in parts:
            self._waiting.setdefault(part.city, []).append(part)

    def take(self, city: int | None, others: Sequence[int]) -> Part | None:
        """The next part for a worker that was last in `city`, None if it is new; None when nothing is left.

        `others` are the cities in which the other workers are. A worker leaves its city when nothing is left to do in
        it, for the one with the most to do per worker.
        """
        if city not in self._waiting:
            if not self._waiting:
                return None
            there = Counter(others)
            city = max(self._waiting, key=lambda c: (len(self._waiting[c]) / (1 + there[c]), -c))
        parts = self._waiting[city]
        part = parts.pop(0)
        if not parts:
            del self._waiting[city]
        return part


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    part: Part | None = field(default=None)


class Workers:
    """Processes that write parts into an opened folder with some threads each."""

    def __init__(self, folder: PartialRoot, settings: SynthSettings, processes: int, threads: int) -> None:
        self.folder, self.settings, self.processes, self.threads = folder, settings, processes, threads

    def write(self, parts: Sequence[Part], advance: Callable[[], None]) -> None:
        """Write and save parts; `advance` is called for every file.

        Raises as `PartWriter.write` does, and BridgeTAError that names the part when a process dies.
        """
        backlog = Backlog(parts)
        workers: list[_Worker] = []
        try:
            with shield_from_interrupts():
                for _ in range(self.processes):
                    workers.append(self._start())
            for worker in workers:
                _give(worker, backlog, workers)
            while busy := {w.pipe: w for w in workers if w.part is not None}:
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
        arguments = (theirs, self.folder.out, self.settings, self.threads)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that reading ends when the process does
        return _Worker(process, ours)

    def _receive(self, worker: _Worker, backlog: Backlog, workers: list[_Worker], advance: Callable[[], None]) -> None:
        assert worker.part is not None
        try:
            what, details = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise BridgeTAError(
                f"{worker.part.name}: the process that wrote it died ({how})",
                where=self.folder.folder,
                fix="If memory ran short use fewer --jobs; repeat the command to go on",
            ) from None
        if what == "file":
            advance()
        elif what == "part":
            _give(worker, backlog, workers)
        elif what == "refusal":
            raise BridgeTAError(**details)
        else:
            raise RuntimeError(details)


def _give(worker: _Worker, backlog: Backlog, workers: list[_Worker]) -> None:
    """Hand a worker its next part, if there is one."""
    city = worker.part.city if worker.part else None
    others = [w.part.city for w in workers if w.part and w is not worker]
    worker.part = backlog.take(city, others)
    if worker.part is not None:
        with suppress(BrokenPipeError):  # reading from the pipe will tell that the process is gone
            worker.pipe.send(worker.part)


def _work(pipe: Connection, out: Path, settings: SynthSettings, threads: int) -> None:
    """What a process does: write the parts that come through the pipe until that is closed."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    writer = PartWriter(PartialRoot(out), settings, "cpu", threads)
    lock = threading.Lock()

    def advance() -> None:
        with lock:
            pipe.send(("file", None))

    # The other end is closed when the process that started this one is gone, whatever became of it.
    with suppress(EOFError, BrokenPipeError):
        while True:
            part = pipe.recv()
            answer: tuple[str, Any] = ("part", None)
            try:
                writer.write([part], advance)
            except BridgeTAError as error:
                where = None if error.where is None else str(error.where)
                details = {"what": error.what, "where": where, "fix": error.fix, "exit_code": error.exit_code}
                answer = ("refusal", details)
            except RuntimeError:
                answer = ("failure", traceback.format_exc())
            pipe.send(answer)
