"""What ends a command from outside: Ctrl-C, a service manager, a closed terminal. Imports next to nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL = 128  # shells add the signal to this for the exit code of a process that it ended


def end_on_signals(program: str, numbers: Sequence[signal.Signals] = INTERRUPTS) -> None:
    """Let signals end the process in one line, while its libraries load and before it has begun anything.

    Python would print where it was, and a library that is being imported may turn a Ctrl-C into an error of its own.
    A signal that is ignored, as by nohup, stays so.
    """

    def end(number: int, _: object) -> None:
        try:
            os.write(2, f"{program}: interrupted\n".encode())
        finally:
            os._exit(BY_SIGNAL + number)

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


@contextmanager
def end_within(seconds: float) -> Iterator[None]:
    """End the process with exit code 0 when this block, which closes what is in use, takes longer."""

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
