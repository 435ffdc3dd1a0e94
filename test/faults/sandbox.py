"""A place where a command may do what it likes: its inputs, its own folders, and how it is run there."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import Command

PROGRAM = (sys.executable, "-c", "from bridgeta_ros.cli import main; main()")
MARK = "BRIDGETA_TRY"  # an environment variable that tells whose a process is
LONGEST = 240.0  # seconds; a command that takes longer hangs
GRACE = 30.0  # seconds that processes have to end after their command; one that starts first loads its libraries


@dataclass
class Outcome:
    """How a command ended: its exit code, negative for a signal; what it printed; and what it left running.

    `memory` is what it took beyond the interpreter and its modules, in bytes, and `seconds` its processor time.
    """

    code: int
    output: str
    errors: str
    memory: float
    seconds: float
    survivors: list[str] = field(default_factory=list)

    @property
    def message(self) -> list[str]:
        """The lines by which it says why it failed."""
        return [line for line in self.errors.splitlines() if line.startswith("bridgeta: ")]


@dataclass
class Running:
    """A command that was started: its process, the files that it prints into, and the strace that watches it."""

    process: int
    files: tuple[Path, Path]
    strace: subprocess.Popen[bytes] | None


class Sandbox:
    """The folders of one try, below `path`: `out`, `cache`, `tmp` and `home`; the inputs are those of many tries.

    Commands run in children that are forked from this process, which has imported what they need: that saves seconds
    for each. So this process must have no other threads.
    """

    def __init__(self, path: Path, inputs: Path) -> None:
        self.path, self.inputs = path, inputs
        self.out, self.cache, self.tmp, self.home = (path / name for name in ("out", "cache", "tmp", "home"))
        for folder in (self.out, self.cache, self.tmp, self.home):
            folder.mkdir(parents=True)
        self.mark = f"{path.name}-{os.getpid()}-{time.monotonic_ns()}"
        self._started = 0
        self._sessions: set[int] = set()

    @property
    def places(self) -> list[Path]:
        """Where a command reads and writes."""
        return [self.out, self.cache, self.tmp, self.home, self.inputs]

    @property
    def folders(self) -> dict[str, Path]:
        """What the names in a command's arguments stand for: outputs relative to where it runs, equal in every try."""
        return {"inputs": self.inputs, "out": Path("out"), "cache": Path("cache")}

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a command's process."""
        own = {
            "BRIDGETA_CACHE": str(self.cache),
            "TMPDIR": str(self.tmp),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "MPLCONFIGDIR": str(self.inputs / "matplotlib"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            MARK: self.mark,
        }
        return {**os.environ, **own}

    def run(
        self,
        command: Command,
        more: Sequence[str] = (),
        **options: Any,
    ) -> Outcome:
        """Run a command to its end, and wait for what it started; arguments are those of `start`."""
        outcome = self.wait(self.start(command, more, **options))
        outcome.survivors += self.settle()
        return outcome

    def start(
        self,
        command: Command,
        more: Sequence[str] = (),
        strace: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        prepare: Callable[[], None] | None = None,
    ) -> Running:
        """Start a command in a session of its own, where signals of the campaign's terminal do not reach it.

        It is watched by `strace` with these options. `wrapper` is a command line that runs it, in a new interpreter;
        `prepare` is called in its process before it begins.
        """
        self._started += 1
        files = (self.path / f"stdout{self._started}.log", self.path / f"stderr{self._started}.log")
        arguments = command.build(self.folders, tuple(more))
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            for number, path in enumerate(files, start=1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            os.read(ready, 1)
            self._become(arguments, wrapper, prepare)
        os.close(ready)
        self._sessions.add(child)
        tracer = None
        if strace:
            tracer = subprocess.Popen(["strace", "-f", "-p", str(child), *strace], stderr=subprocess.DEVNULL)
            while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text() and tracer.poll() is None:
                time.sleep(0.002)
        os.close(go)
        return Running(child, files, tracer)

    def wait(self, running: Running, longest: float = LONGEST) -> Outcome:
        """Wait for a command alone; one that hangs is killed with all that belongs to the sandbox."""
        own, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + longest
        hung: list[str] = []
        while True:
            done, status, usage = os.wait4(running.process, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end and not hung:
                hung = [f"the command itself, after {longest:.0f} s"]
                os.kill(running.process, signal.SIGKILL)
                self.kill_survivors()
            time.sleep(0.01)
        if running.strace is not None:
            running.strace.wait()  # it ends with the last process that it watches
        output, errors = (path.read_text(errors="replace") if path.exists() else "" for path in running.files)
        for path in running.files:
            path.unlink(missing_ok=True)
        seconds = usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
        return Outcome(code, output, errors, max(0, usage.ru_maxrss - own) * 1024.0, seconds, hung)

    def settle(self) -> list[str]:
        """Give the sandbox's processes time to end; kill and list those that do not."""
        end = time.monotonic() + GRACE
        while (survivors := self.find_survivors()) and time.monotonic() < end:
            time.sleep(0.02)
        self.kill_survivors()
        return survivors

    def find_survivors(self) -> list[str]:
        """List the processes that belong to this sandbox, with their numbers first: of its sessions, or marked."""
        mark = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):  # it ended meanwhile, or is another user's
                state, _, _, session = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:4]
                ours = int(session) in self._sessions or mark in (entry / "environ").read_bytes().split(b"\0")
                if ours and state not in b"ZX":  # nobody may have waited for it yet
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{entry.name} {words[:100]}")
        return found

    def kill_survivors(self) -> None:
        for line in self.find_survivors():
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _become(
        self,
        arguments: list[str],
        wrapper: Sequence[str],
        prepare: Callable[[], None] | None,
    ) -> None:
        """Turn this forked process into a `bridgeta` with some arguments; it does not return."""
        code = 1
        try:
            os.setsid()
            os.chdir(self.path)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ.update(self.environment)
            if wrapper:
                os.execvpe(wrapper[0], [*wrapper, *PROGRAM, *arguments], self.environment)
            sys.argv = ["bridgeta", *arguments]
            sys.modules["__main__"] = types.ModuleType("__main__")  # so that processes it starts do not import ours
            if prepare is not None:
                prepare()
            from bridgeta_ros.cli import main

            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(code)
