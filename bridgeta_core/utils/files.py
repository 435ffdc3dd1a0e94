"""Lock files, force them onto the disk, and name cached ones by what they depend on."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bridgeta_core.utils.errors import BridgeTAError

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def find_user_cache() -> Path:
    """Return the folder for derived files of all programs: XDG_CACHE_HOME, else ~/.cache.

    A user without a home that can be written, as in a container that runs under another user's number, has it among
    the temporary files.
    """
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen)
    cache = Path(os.path.expanduser("~")) / ".cache"
    nearest = next((p for p in (cache, *cache.parents) if os.path.exists(p)), Path())
    if cache.is_absolute() and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return cache
    return Path(tempfile.gettempdir()) / f"bridgeta-cache-{os.getuid()}"


def cache_folder() -> Path:
    """Return the folder of derived files: BRIDGETA_CACHE, else `bridgeta` in the user's cache."""
    chosen = os.environ.get("BRIDGETA_CACHE")
    return Path(os.path.expanduser(chosen)) if chosen else find_user_cache() / "bridgeta"


def flush(*paths: Path) -> None:
    """Force files, or the lists of what is in folders, onto the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def hold_lock(
    path: Path, *, wait: bool, busy: str = "another process works here", fix: str = "Wait until it has ended"
) -> Iterator[int]:
    """Hold an exclusive lock on the file `path`, and yield its descriptor; the file and its folder are created.

    The operating system releases the lock when the last process that holds the descriptor ends: a killed process
    leaves no lock behind, but a child process that inherited the descriptor keeps it. Where the file system has no
    locks, log a warning and go on.

    Raises BridgeTAError (exit code 2) when the folder is a file, when the file cannot be created, and without `wait`
    when the lock is held: the message is `busy`, with the holder, and `fix`.
    """
    check_folder(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise explain_unwritable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "an unknown process"
            raise BridgeTAError(f"{busy} ({holder})", where=path.parent, fix=fix) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s cannot be locked (%s): run one process there at a time", path.parent, error.strerror)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {now}"
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder.encode())
        except OSError as error:
            raise explain_unwritable(path, error) from error
        yield descriptor
    finally:
        # The file stays: removing it would let a third process lock a new file of the same name beside a holder.
        os.close(descriptor)


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Wait for an exclusive lock on a folder, which leaves no file in it; the folder is created.

    The lock ends with the process. Where the file system has no locks of folders, as NFS, go on without. Raises
    BridgeTAError when the folder cannot be created.
    """
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise explain_unwritable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (*_NO_LOCKS, errno.EBADF):
                raise
        yield
    finally:
        os.close(descriptor)


def check_folder(path: Path) -> None:
    """Raise BridgeTAError (exit code 2) when a path can be no folder, because it or a part of it is something else."""
    for part in (path, *path.parents):
        if os.path.isdir(part):
            return
        if os.path.lexists(part):
            raise BridgeTAError(
                "is no folder" if part == path else f"lies in {part}, which is no folder",
                where=path,
                fix="Name another output",
                exit_code=2,
            )


def hash_json(content: Any) -> str:
    """Hash plain values to 24 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def hash_file(path: str | Path) -> str:
    """Hash the bytes of a file to the 64 hexadecimal digits of its SHA-256."""
    result = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


def describe_file(path: Path, root: Path) -> list[Any]:
    """Return the path below the root, size and modification time; a missing file has neither of the last two."""
    try:
        status = path.stat()
    except OSError:
        return [str(path.relative_to(root)), None, None]
    return [str(path.relative_to(root)), status.st_size, status.st_mtime_ns]


def explain_unwritable(path: Path, error: OSError) -> BridgeTAError:
    """Make the error that says why a path cannot be written."""
    return BridgeTAError(
        f"cannot be written ({error.strerror or error})",
        where=path,
        fix="Check the permissions and the free space of that folder",
    )
