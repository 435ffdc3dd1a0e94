"""What ends a process from outside: within a time, and with the right exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from bridgeta_core.cli.interrupts import end_within
print("begun")
with end_within({seconds}):
    time.sleep({work})
time.sleep(0.3)
print("done")
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("seconds", "work", "code", "output"),
    [(0.1, 60, 0, "begun\n"), (0.2, 0, 7, "begun\ndone\n")],
    ids=["late", "in time"],
)
def test_a_block_that_takes_too_long_ends_the_process(seconds: float, work: float, code: int, output: str) -> None:
    script = SCRIPT.format(seconds=seconds, work=work)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, output)
