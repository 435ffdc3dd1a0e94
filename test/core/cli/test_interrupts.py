"""A signal ends a command in one line, also while its libraries load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENTRY_POINTS = {
    "bridgeta": ["-c", "from bridgeta_ros.cli import main; main()"],
    "core": ["-m", "bridgeta_core", "--help"],
    "bev_node": ["-m", "bridgeta_ros.node.main"],
}
# What stands for typer or rclpy: it loads for a long time, and makes an error of its own of an interrupt.
SLOW = """
import time
print("loading", flush=True)
try:
    time.sleep(60)
except BaseException as error:
    raise ImportError("the C extensions failed") from error
"""


def start(tmp_path: Path, program: str, ignored: signal.Signals | None = None) -> subprocess.Popen[bytes]:
    """Start a program whose libraries load slowly; return when they have begun to."""
    for name in ("typer", "rclpy"):
        (tmp_path / f"{name}.py").write_text(SLOW)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])

    def set_handlers() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("RMW_IMPLEMENTATION", None)
    process = subprocess.Popen(
        [sys.executable, *ENTRY_POINTS[program]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        preexec_fn=set_handlers,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"loading\n"
    return process


@pytest.mark.parametrize("program", ENTRY_POINTS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_libraries_load_is_one_line(tmp_path, program, number, code):
    process = start(tmp_path, program)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    name = b"bev_node" if program == "bev_node" else b"bridgeta"
    assert (process.returncode, err) == (code, name + b": interrupted\n")


def test_under_nohup_a_closed_terminal_does_not_end_the_loading(tmp_path):
    process = start(tmp_path, "bridgeta", ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.kill()
    process.communicate()
