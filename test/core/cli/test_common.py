"""A command ends with one line and the exit code that shells know, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import resource, signal, sys, threading, time
from pathlib import Path
import typer
from bridgeta_core.cli.common import Commands, say
from bridgeta_core.utils.outputs import replace_when_done

app = typer.Typer(cls=Commands)

@app.command()
def write(out: Path):
    with replace_when_done(out) as temporary:
        temporary.write_text("half")
        print("started", flush=True)
        time.sleep(60)

@app.command()
def load():
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("the C extensions failed")

@app.command()
def talk():
    for _ in range(100_000):
        say("a line")

@app.command()
def ask():
    bytearray(1 << 60)

@app.command()
def drop():
    class Slow:
        def __del__(self):
            print("started", flush=True)
            time.sleep(2)
    slow = Slow()
    del slow
    time.sleep(60)

@app.command()
def crowd():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    threading.stack_size(1 << 29)
    for _ in range(3):
        threading.Thread(target=time.sleep, args=[60], daemon=True).start()

def link(text):
    if text == "main":
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    return text

@app.command()
def bind(place: str = typer.Option("main", parser=link)):
    raise ImportError("lib.so: failed to map segment from shared object")

@app.command()
def log():
    def write():
        raise OSError(28, "No space left on device", "events")
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()

app()
"""


def heed_signals() -> None:
    """Undo what the tests may have inherited: a job in the background ignores Ctrl-C, and one under nohup SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **{**pipes, "preexec_fn": heed_signals, **options})


def only_line(err: bytes) -> str:
    assert len(err.splitlines()) == 1, err.decode()
    return err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_without_leaving_anything(tmp_path, number, code):
    process = start("write", tmp_path / "out")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, only_line(err)) == (code, "bridgeta: interrupted; nothing half-written was left\n")
    assert not list(tmp_path.iterdir())


def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = start("write", tmp_path / "out", preexec_fn=ignore)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.terminate()
    assert process.wait(30) == 143
    process.communicate()


def test_an_interrupt_that_a_library_renames_is_an_interrupt():
    process = start("load")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in only_line(err)


@pytest.mark.parametrize("arguments", [("talk",), ("--help",), ("talk", "--help")])
def test_an_output_that_is_full_is_one_line(arguments):
    with Path("/dev/full").open("wb") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "No space left on device" in only_line(err)


def test_a_closed_pipe_ends_a_command_in_silence():
    process = start("talk")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 141


def test_a_closed_output_stops_nothing():
    process = start("talk", stdout=None, preexec_fn=lambda: os.close(1))
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 0


def test_an_interrupt_in_a_destructor_is_not_lost():
    process = start("drop")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, only_line(err)) == (130, "bridgeta: interrupted; nothing half-written was left\n")


def test_a_thread_that_finds_no_memory_is_one_line():
    process = start("crowd")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "not enough memory (can't start new thread)" in only_line(err)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bind",), "a library cannot be loaded (libGL.so.1: cannot open shared object file"),
        (("bind", "--place", "command"), "not enough memory (lib.so: failed to map"),
    ],
    ids=["while arguments are read", "in a command"],
)
def test_a_library_that_cannot_be_loaded_is_one_line(arguments, says):
    process = start(*arguments)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert says in only_line(err)


def test_a_thread_that_the_system_stops_is_one_line():
    process = start("log")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.decode() == "note: stopped in the background: [Errno 28] No space left on device: 'events'\n"


def test_a_lack_of_memory_is_one_line():
    process = start("ask")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "not enough memory" in only_line(err)
