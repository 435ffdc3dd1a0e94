"""One study at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Hold the lock of a study's folder, and yield its descriptor to be inherited by the processes that work in it.

    The operating system lets the lock go when the last process that holds the descriptor is gone: what a killed study
    leaves behind locks nothing, but a run that outlives its study does. Raises BridgeTAError that names the holder.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "an unknown process"
            raise BridgeTAError(
                f"another study works here ({holder})",
                where=out,
                fix="Wait until it and its last run have ended, or stop them",
            ) from error
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())
        yield descriptor
    finally:
        # The file stays: removing it would let a third process lock a new file of the same name beside a holder.
        os.close(descriptor)
