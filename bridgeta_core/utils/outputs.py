"""How an output takes its name: whole or not at all, in one step, and never in the place of something else.

An output is written to a temporary sibling whose name tells its writer, and moved when it is complete. What a killed
process leaves behind is found by that name at the next output into the same folder, and removed or put back.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import logging
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import explain_unwritable, flush

logger = logging.getLogger(__name__)

_NO_REPLACE, _EXCHANGE = 1, 2  # flags of renameat2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_LONGEST_NAME = 150  # bytes of an output's name that its temporary siblings repeat; names end at 255
_numbers = count()


def check_output(target: Path, *, folder: bool = False, inputs: Iterable[Path] = (), sign: str = "") -> Path:
    """Return the path that an output will take, with links followed.

    Call it before long work. Raises BridgeTAError (exit code 2) when the output would replace a folder by a file or the
    other way round, a device, a mount point, or one of the `inputs` or a folder that holds one; and a folder of
    something else, which has files and none of the name `sign`, as all outputs of this kind have.
    """
    path = Path(os.path.realpath(target))
    try:
        mode: int | None = path.stat().st_mode
    except OSError:  # it does not exist yet; what else is wrong with it shows when it is written
        mode = None
    problem = None
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        problem = "is a device or a pipe, which an output would replace"
    elif mode is not None and stat.S_ISDIR(mode) != folder:
        problem = "is a file, and the output is a folder" if folder else "is a folder, and the output is a file"
    elif mode is not None and os.path.ismount(path):
        problem = "is a mount point, which cannot be replaced as a whole"
    elif sign and mode is not None and not (path / sign).exists() and any(path.iterdir()):
        problem = f"holds something else (there is no {sign}), which an output would replace"
    for source in inputs:
        real = Path(os.path.realpath(source))
        if path == real or path in real.parents:
            problem = f"holds the input {source}, which the output would replace"
    if problem:
        raise BridgeTAError(problem, where=target, fix="Name another output", exit_code=2)
    return path


@contextmanager
def replace_when_done(
    target: Path,
    *,
    overwrite: bool = True,
    durable: bool = False,
    folder: bool = False,
    inputs: Iterable[Path] = (),
    sign: str = "",
) -> Iterator[Path]:
    """Yield a temporary sibling of `target`, and move it to `target` once the block ends without an error.

    The caller creates a file at the yielded path, or a folder with `folder`. On any exception, Ctrl-C included, what
    was written is removed and an earlier `target` stays untouched. A `durable` file survives a power failure. Raises
    BridgeTAError as `check_output`, when the target exists at the beginning or at the end and `overwrite` is off, when
    its parent cannot be written, or when the disk is full.
    """
    where, target = Path(target), check_output(Path(target), folder=folder, inputs=inputs, sign=sign)
    with _temporary_sibling(target) as temporary:
        if not overwrite and target.exists():
            raise _already_exists(where)
        yield temporary
        check_output(target, folder=folder, sign=sign)
        if durable:
            flush(temporary)
        try:
            move_into_place(temporary, target, overwrite=overwrite)
        except FileExistsError as error:
            raise _already_exists(where) from error
        if durable:
            flush(target.parent)


@contextmanager
def build_once(target: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside `target`, and rename it to `target` at the end.

    Any number of processes may build the same target: the first to finish wins, and the work of the others is dropped.
    Raises BridgeTAError when the folder cannot be written.
    """
    with _temporary_sibling(target) as temporary:
        temporary.mkdir()
        yield temporary
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise


def move_into_place(source: Path, target: Path, *, overwrite: bool = True) -> None:
    """Move a file or folder to `target`, which lies in the same file system.

    With `overwrite` what lies there is exchanged for it in one step, and removed. Where the system cannot exchange
    folders, the earlier one is set aside under a name that the next output finds, and is put back if the second step
    fails. Raises FileExistsError without `overwrite` when something lies there.
    """
    if not overwrite:
        if not _rename(source, target, _NO_REPLACE):
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            os.rename(source, target)
    elif not target.is_dir():
        os.replace(source, target)
    elif _rename(source, target, _EXCHANGE):
        discard(source)
    else:
        aside = _name_sibling(target, "old")
        os.rename(target, aside)
        try:
            os.rename(source, target)
        except BaseException:
            os.rename(aside, target)
            raise
        discard(aside)


def discard(path: Path) -> None:
    """Remove a file or folder; it gets a temporary name first, so that no half of it stays. Warn of what stays."""
    try:
        if not (path.name.startswith(".") and path.suffix in (".partial", ".old")):
            path = path.rename(_name_sibling(path, "partial"))
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return
        try:
            shutil.rmtree(path)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)  # the rest
            raise
    except FileNotFoundError:
        return
    except OSError as error:
        if os.path.lexists(path):
            reason = error.strerror or error
            logger.warning("%s: cannot be removed (%s); a later output beside it will try again", path, reason)


@cache
def clean_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder, or put back the earlier outputs that they had set aside; once.

    What belongs to writers that live, or of other machines, stays.
    """
    try:
        leftovers = sorted(path for path in folder.iterdir() if path.suffix in (".partial", ".old"))
    except OSError:  # there is no such folder yet, or it cannot be read
        return
    for path in leftovers:
        name, _, owner = path.stem.removeprefix(".").rpartition(".")
        if not name or not path.name.startswith(".") or not _is_dead(owner):
            continue
        target = path.with_name(name)
        if path.suffix == ".old" and not target.exists():
            path.rename(target)
            logger.warning("%s was set aside by a process that was killed, and is put back", target)
        else:
            discard(path)
            logger.warning("%s was left by a process that was killed, and is removed", path)


@contextmanager
def _temporary_sibling(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` that does not exist, and remove what is there at the end."""
    temporary = _name_sibling(target, "partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clean_leftovers(target.parent)
        yield temporary
    except OSError as error:
        raise explain_unwritable(target, error) from error
    finally:
        discard(temporary)


def _name_sibling(target: Path, kind: str) -> Path:
    return target.with_name(f".{_shorten(target.name)}.{_describe_writer()}-{next(_numbers)}.{kind}")


def _shorten(name: str) -> str:
    """Return the name, or a long one's beginning with a hash of the whole."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST_NAME:
        return name
    return os.fsdecode(data[: _LONGEST_NAME - 16]) + hashlib.sha256(data).hexdigest()[:16]


def _describe_writer() -> str:
    """Describe this process: its machine, the machine's start, its number, and its own start in clock ticks."""
    return f"{_read_machine()}-{os.getpid()}-{_read_start(os.getpid())}"


def _is_dead(owner: str) -> bool:
    """Tell whether the process that a sibling's name describes ran on this machine and has ended."""
    parts = owner.split("-")
    if len(parts) != 5 or not all(part.isalnum() for part in parts):
        return False
    host, boot, number, start, _ = parts
    here_host, here_boot = _read_machine().split("-")
    if host != here_host or not number.isdecimal():
        return False
    return boot != here_boot or start != _read_start(int(number))


@cache
def _read_machine() -> str:
    """Identify the machine, and its last start together with the space of process numbers, in hexadecimal digits."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:8] for part in (socket.gethostname(), boot))


def _read_start(number: int) -> str:
    """Read when a process started, in clock ticks since the machine's start; "0" where it does not exist."""
    try:
        return Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return "0"


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Rename by renameat2 with a flag. Return False where the system or the file system lacks it."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here = ctypes.c_int(-100)  # AT_FDCWD: relative to the current folder
    if function(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(flag)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))


def _already_exists(target: Path) -> BridgeTAError:
    return BridgeTAError("already exists", where=target, fix="Name another output or remove it first")
