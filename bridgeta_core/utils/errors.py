"""The one type of exception that users see, and helpers for its messages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence


class BridgeTAError(Exception):
    """A failure that the user can act on: what went wrong, where, and what to do about it.

    The command line prints the message without a traceback and exits with `exit_code`: 2 when the command or its
    configuration is wrong, 1 when the data or the machine is.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None, exit_code: int = 1) -> None:
        if what.startswith("Caught BridgeTAError in DataLoader worker"):
            what = what.rpartition("BridgeTAError: ")[2].strip()
        self.what, self.where, self.fix, self.exit_code = what, where, fix, exit_code
        message = what if where is None else f"{where}: {what}"
        super().__init__(message if fix is None else f"{message}. {fix}")


def read_message(error: BaseException) -> str:
    """Return the first line of an error's message, or what a loader process said; of an error without one its type.

    PyTorch raises the error of a loader process again in this process, with the traceback as its message.
    """
    text = str(error).strip()
    if re.match(r"Caught \w+ in DataLoader worker", text):
        return re.sub(r"^[\w.]+: ", "", text.splitlines()[-1])
    return text.splitlines()[0] if text else type(error).__name__


def describe_lost_loader(error: RuntimeError) -> str | None:
    """Describe in one line, by PyTorch's words, a loader process that died; None for any other error."""
    first = str(error).partition("\n")[0]
    died = ("is killed by signal", "exited unexpectedly")
    return first if first.startswith("DataLoader worker") and any(words in first for words in died) else None


def describe_lack_of_memory(error: BaseException) -> str | None:
    """Describe in one line, by the words of what failed, that an allocation did; None for any other error."""
    first = read_message(error) if str(error) else "no memory is left"
    words = ("can't allocate memory", "out of memory", "not enough memory", "can't start new thread")
    of_onednn = first in ("could not create a primitive", "could not execute a primitive")  # which tells no more
    of_torch = isinstance(error, RuntimeError) and (of_onednn or any(text in first for text in words))
    of_linker = isinstance(error, ImportError) and ("failed to map" in first or "annot allocate memory" in first)
    return first if of_torch or of_linker or isinstance(error, MemoryError) else None


def describe_refusal(error: BaseException) -> str | None:
    """Describe in one line what the system refused, by an OSError or by PyTorch's words; None for any other error.

    PyTorch has a RuntimeError for it, whose message ends like "Too many open files (24)".
    """
    said = read_message(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'the output'}: {error.strerror}" if error.strerror else said
    return said if find_system_error(error) is not None else None


def find_system_error(error: BaseException) -> int | None:
    """Find the number of the system's error that PyTorch tells in a RuntimeError; None for any other error."""
    words = re.search(r": ([^:]+) \((\d{1,4})\)$", read_message(error))
    if not isinstance(error, RuntimeError) or words is None or os.strerror(int(words[2])) != words[1]:
        return None
    return int(words[2])


def join_first(names: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """Join the first `limit` names, and say how many more there are."""
    rest = len(names) - limit
    return separator.join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
