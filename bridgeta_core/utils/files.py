"""Outputs that are either whole or absent."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError


@contextmanager
def replace_when_done(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary sibling of `target`, and rename it to `target` once the block ends without an error.

    The caller creates a file or a folder at the yielded path. On any exception, Ctrl-C included, what was
    written is removed and an earlier `target` stays untouched. Raises BridgeTAError when the target exists and
    `overwrite` is off, when its parent cannot be written, or when the disk is full.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise BridgeTAError("already exists", where=target, fix="Name another output or remove it first")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if target.is_dir() and not target.is_symlink():
            old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
            os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, target)
    except OSError as error:
        raise BridgeTAError(
            f"cannot be written ({error.strerror or error})",
            where=target,
            fix="Check the permissions and the free space of that folder",
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # it may never have come to be, and an error on its way must not be hidden
                temporary.unlink()
