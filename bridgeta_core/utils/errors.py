"""The one exception type that reaches a user."""

from __future__ import annotations

from collections.abc import Sequence


class BridgeTAError(Exception):
    """A failure that the user can act on: what went wrong, where, and what to do about it.

    The command line prints the message as it stands, without a traceback, and exits with `exit_code`:
    2 when the command or its configuration is wrong, 1 when the data or the machine is.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None, exit_code: int = 1) -> None:
        if what.startswith("Caught BridgeTAError in DataLoader worker"):
            # PyTorch raises a loader process's error anew in this process, with that traceback for its message.
            what = what.rpartition("BridgeTAError: ")[2].strip()
        self.what, self.where, self.fix, self.exit_code = what, where, fix, exit_code
        message = what if where is None else f"{where}: {what}"
        super().__init__(message if fix is None else f"{message}. {fix}")


def lost_loader(error: RuntimeError) -> str | None:
    """What PyTorch says of a loader process that is gone, in one line; None for any other error."""
    first = str(error).splitlines()[0] if str(error) else ""
    gone = ("is killed by signal", "exited unexpectedly")
    return first if first.startswith("DataLoader worker") and any(end in first for end in gone) else None


def join_first(names: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """Join the first `limit` of some names, and say how many more there are."""
    rest = len(names) - limit
    return separator.join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
