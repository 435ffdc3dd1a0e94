"""What all `bridgeta` commands share: how they fail, how they print, and common arguments."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bridgeta_core.cli.interrupts import BY_SIGNAL, INTERRUPTS
from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory, describe_refusal


class Commands(TyperGroup):
    """Commands whose failures are one message on stderr and an exit code, not a traceback.

    The exit code of an interrupted command is that of shells for the signal, 130 after Ctrl-C.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line."""
        try:
            return super().main(*arguments, **options)
        except Exception as error:  # of the help, or of reading the arguments, before a command is chosen
            sys.exit(_report(error, []))

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        threading.excepthook = _report_thread
        with _catch_interrupts() as came:
            try:
                result = super().invoke(ctx)
                _flush_output()
                return result
            except typer.Exit:
                raise
            except (Exception, KeyboardInterrupt) as error:
                code = _report(error, came)
        raise typer.Exit(code)


@contextmanager
def _catch_interrupts() -> Iterator[list[int]]:
    """Handle a service manager's SIGTERM and the SIGHUP of a closed terminal like Ctrl-C; yield the list of what came.

    So no partial outputs are left behind. A signal that is ignored, as by nohup, stays so.
    """
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def repeat(swallowed: sys.UnraisableHookArgs) -> None:
        """Interrupt again where Python could not pass the interrupt on, as in the __del__ of an object."""
        if isinstance(swallowed.exc_value, KeyboardInterrupt) and came:
            # By another thread and a little later, or this very function would be interrupted.
            threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), came.pop())).start()
        else:
            sys.__unraisablehook__(swallowed)

    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    sys.unraisablehook = repeat
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield came
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        for number, handler in before.items():
            # Once interrupted there is nothing left to clean up: another Ctrl-C just ends the process.
            signal.signal(number, signal.SIG_DFL if came and handler is not signal.SIG_IGN else handler)


def _report(error: BaseException, came: list[int]) -> int:
    """Print what ended a command, after the signals that `came`, and return the exit code; raise a fault of our own."""
    message, code = _describe(error, bool(came))
    try:
        _flush_output()
    except OSError:  # let the rest go nowhere, instead of into a traceback at the exit
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if message:
        with suppress(OSError):
            print(f"bridgeta: {message}", file=sys.stderr)
    return BY_SIGNAL + came[0] if came else code


def _report_thread(ended: threading.ExceptHookArgs) -> None:
    """Print in one line what ended a thread for which the system is at fault, as a full disk ends that of a log.

    The command goes on, or ends by itself when it needs the thread.
    """
    if isinstance(ended.exc_value, OSError):
        print(f"note: stopped in the background: {ended.exc_value}", file=sys.stderr)
    else:
        threading.__excepthook__(ended)


def _flush_output() -> None:
    if sys.stdout is not None:  # it was closed before the start
        sys.stdout.flush()


def _describe(error: BaseException, interrupted: bool) -> tuple[str, int]:
    """Return the message about what ended a command, and its exit code; raise an error that no user has caused."""
    if isinstance(error, BridgeTAError):
        return str(error), error.exit_code
    if interrupted or isinstance(error, KeyboardInterrupt):  # libraries turn it into errors of their own
        return "interrupted; nothing half-written was left", BY_SIGNAL + signal.SIGINT
    if isinstance(error, BrokenPipeError):
        return "", BY_SIGNAL + signal.SIGPIPE
    if (refusal := describe_refusal(error)) is not None:
        return refusal, 1
    if (lack := describe_lack_of_memory(error)) is not None:
        return f"there is not enough memory ({lack}). Make what the settings ask for smaller", 1
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        if package not in {"bridgeta_core", "bridgeta_synth", "bridgeta_ros"}:
            return f"this command needs {error.name}. Install the rest: pip install '.[train]'", 1
    if isinstance(error, ImportError) and "shared object" in str(error):
        return f"a library cannot be loaded ({' '.join(str(error).split())})", 1
    raise error


class _Console(Console):
    """A console that leaves a closed pipe to `Commands`."""

    def on_broken_pipe(self) -> None:
        """Raise the error again, which Rich answers with an exit code of its own."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


console = _Console(emoji=False)  # ":x:" may be part of a name

CONFIGURATIONS = ("tiny", "small", "nuscenes_swin_t", "nuscenes_bevfusion")
STUDENTS = ("tiny", "tiny_labels")
"""Names of what ships, here for the help: to list the files would need PyTorch, which takes a second."""

Configuration = Annotated[
    str, typer.Argument(help=f"YAML file, or the name of a shipped one: {', '.join(CONFIGURATIONS)}.")
]
Weights = Annotated[
    str, typer.Argument(help=f"A .safetensors file, hf://owner/name, or shipped weights: {', '.join(STUDENTS)}.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings as key=value, e.g. train.epochs=5.", show_default=False)
]


def show(example: str) -> str:
    """Return the end of a command's help: an example."""
    return f"Example: `{example}`"


def say(text: str) -> None:
    """Print a line without markup or line breaks, so that paths can be copied."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def find_table_version(root: Path, version: str | None, source: str = "nuscenes") -> str:
    """Return `version`, or the only table folder of a nuScenes root; other sources need none."""
    if version is not None or source != "nuscenes":
        return version or ""
    from bridgeta_core.data.nuscenes.versions import explain_missing_tables, list_versions
    from bridgeta_core.utils.hub import find_root

    root = find_root(root)
    versions = list_versions(root)
    if not versions:
        raise explain_missing_tables(root, None)
    if len(versions) > 1:
        what = f"has the table folders {', '.join(versions)}"
        raise BridgeTAError(what, where=root, fix="Choose one with --version", exit_code=2)
    return versions[0]


Version = Annotated[str | None, typer.Option(help="Folder of the tables, such as v1.0-mini; found when there is one.")]
Root = Annotated[
    Path, typer.Argument(help="nuScenes-format folder (with v1.0-*, maps, samples), or hf://datasets/owner/name.")
]
Source = Annotated[str, typer.Option(help="What reads the folder: nuscenes, or module:Class (docs/own_data.md).")]
Backend = Annotated[
    str, typer.Option(help="What computes the network: torch, openvino, onnxruntime, tensorrt, or auto, the fastest.")
]
Precision = Annotated[str, typer.Option(help="float32, float16, bfloat16 or int8, where device and back end have it.")]
