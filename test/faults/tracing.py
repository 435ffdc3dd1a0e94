"""The file operations of a command, as strace sees them: where it can be killed, and what can be made to fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WRITING = (
    *("write", "writev", "pwrite64", "pwritev", "ftruncate", "truncate", "fallocate", "copy_file_range", "sendfile"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "utimensat", "fsync", "fdatasync", "flock"),
)
OPENING = ("open", "openat", "creat")
READING = ("read", "pread64")
NAMING = ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "symlink")

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_NO_FILE = re.compile(r"\d<(pipe|socket|anon_inode|UNIX)")
_OPENS_TO_WRITE = re.compile(r"O_CREAT|O_WRONLY|O_RDWR|O_TRUNC")


@dataclass(frozen=True)
class Operation:
    """The `number`-th call, from 1, of the system call `name` in one thread, on a path of interest."""

    name: str
    number: int
    path: str
    writes: bool

    def __str__(self) -> str:
        return f"{self.name}#{self.number} {self.path}"


@dataclass(frozen=True)
class Injection:
    """What becomes of an operation: it fails with the error `code`, or the process is killed before it."""

    operation: Operation
    code: str = ""

    def __str__(self) -> str:
        return f"{self.code or 'SIGKILL'} at {self.operation}"

    def options(self, log: Path) -> list[str]:
        """Return the options of a strace that injects this and writes what it met to `log`."""
        name, number = self.operation.name, self.operation.number
        what = f"error={self.code}" if self.code else "signal=SIGKILL"
        return [*_options(log, [name]), "-e", f"inject={name}:{what}:when={number}"]


@cache
def explain_no_strace() -> str | None:
    """Return why operations cannot be traced here, or None when they can."""
    if shutil.which("strace") is None:
        return "there is no strace (apt install strace)"
    with tempfile.TemporaryDirectory() as folder:
        command = ["strace", *_options(Path(folder) / "log", ["openat"]), "true"]
        tried = subprocess.run(command, capture_output=True, text=True)
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else None


def trace_options(log: Path) -> list[str]:
    """Return the options of a strace that lists file operations in `log`."""
    return _options(log, [*WRITING, *OPENING, *READING])


def _options(log: Path, calls: Iterable[str]) -> list[str]:
    return ["-qq", "-y", "-s", "0", "-e", "signal=none", "-o", str(log), "-e", f"trace={','.join(calls)}"]


def read_operations(log: Path, folders: Iterable[Path]) -> list[Operation]:
    """Read the operations on what lies in the folders, those that write first found first, without repetition."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], Operation] = {}
    prefixes = [str(folder) for folder in folders]
    with open(log, errors="replace") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match is None or "resumed>" in line:
                continue
            thread, name, rest = match.groups()
            counts[thread, name] += 1
            path = _find_path(rest, prefixes)
            if path is None:
                continue
            writes = name in WRITING or _OPENS_TO_WRITE.search(rest) is not None
            key = (name, counts[thread, name])
            found.setdefault(key, Operation(*key, path, writes))
    return list(found.values())


def was_met(log: Path, injection: Injection, folders: Iterable[Path]) -> bool:
    """Tell whether an injection met an operation on what lies in the folders.

    Other threads and other runs count a little differently: it may have met a file of the interpreter instead. And each
    thread counts for itself: an error may also have met another one, in the interpreter's own files, which are nobody's
    data, or where it cannot happen, a full disk where a file is read, or a disk's error in a pipe.
    """
    if not log.is_file():
        return False
    prefixes = [str(folder) for folder in folders]
    lines = log.read_text(errors="replace").splitlines()
    # A call that a kill came before has no result.
    hits = [line for line in lines if ("(INJECTED)" in line if injection.code else line.endswith("= ?"))]
    if injection.code and any(_NO_FILE.search(line) for line in hits):
        return False
    opens = injection.operation.name in OPENING
    if opens and injection.code == "ENOSPC" and not all(_OPENS_TO_WRITE.search(line) for line in hits):
        return False
    ours = [_find_path(line, prefixes) is not None for line in hits]
    return any(ours) and (all(ours) or not injection.code)


def _find_path(call: str, prefixes: list[str]) -> str | None:
    """Find a path of interest among a call's arguments: one below the prefixes, or a relative one."""
    call = re.sub(r"AT_FDCWD<[^>]*>", "", call)
    for path in re.findall(r'"([^"]+)"', call):
        if not path.startswith("/") or path.startswith(tuple(prefixes)):
            return path
    return next((path for path in re.findall(r"\d<([^>]*)>", call) if path.startswith(tuple(prefixes))), None)


def list_codes(operation: Operation) -> tuple[str, ...]:
    """List the errors that a system call can end with on a full or a broken disk, and without rights."""
    if operation.name in READING:
        return ("EIO",)
    if operation.name in OPENING:
        return ("ENOSPC", "EIO", "EACCES", "EMFILE") if operation.writes else ("EIO", "EACCES", "EMFILE")
    if operation.name == "flock":
        return ("EIO", "ENOLCK")
    if operation.name in ("unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat", "utimensat"):
        return ("EIO", "EACCES")
    if operation.name in ("renameat2", "copy_file_range", "fallocate", "sendfile"):
        return ("ENOSPC", "EIO", "EINVAL", "ENOSYS")
    return ("ENOSPC", "EIO")
