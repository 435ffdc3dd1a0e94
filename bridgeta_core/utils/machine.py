"""The machine: its processor, its devices, and the signals of its terminal."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

from bridgeta_core.utils.errors import BridgeTAError, read_message

if TYPE_CHECKING:
    import torch


def read_cpu_name() -> str:
    """Read the name of the CPU, such as AMD EPYC."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Tell whether the CPU has instructions for products of bfloat16 numbers: AVX-512, AMX or Arm's."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def require_memory(mebibytes: int, purpose: str) -> None:
    """Raise MemoryError unless so much more memory can be mapped.

    For code that does not survive a failed allocation: OpenBLAS asks again for ever, and the exporter of ONNX graphs,
    its readers and oneDNN, which computes PyTorch's convolutions, end in a segmentation fault. A limit of the address
    space is noticed (`ulimit -v`). What Linux lends beyond what it has is not: there the kernel kills.
    """
    try:
        mmap.mmap(-1, mebibytes * 2**20).close()
    except OSError as error:
        raise MemoryError(f"no {mebibytes} MiB for {purpose}") from error


def choose_device(name: str | torch.device) -> str:
    """Name the device of "auto", CUDA where there is one; any other name stays as it is, usable or not."""
    import torch

    if str(name) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(name)


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the device of a name, such as auto, cpu, cuda or cuda:1. Raises BridgeTAError when it cannot be used."""
    import torch

    try:
        device = torch.device(choose_device(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = read_message(error)
        raise BridgeTAError(f"device {name} is not usable ({reason})", fix="Use auto or cpu", exit_code=2) from error
    return device


def return_memory() -> None:
    """Return to the system what was freed, which glibc keeps between pieces in use; elsewhere do nothing.

    It takes some milliseconds. Without it a process that now and then makes large things anew, a network or a lift,
    grows by megabytes each time, none of them in use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


SHARED_MEMORY = "/dev/shm"
_OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}
_ON_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG


def check_semaphores() -> None:
    """Check that processes can be started that wait for each other. Raises BridgeTAError where there is no room."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        what = f"has no room for what processes share ({error.strerror or error})"
        fix = "Give it more, in Docker with docker run --shm-size=1g"
        raise BridgeTAError(what, where=SHARED_MEMORY, fix=fix) from error


def end_with_parent() -> None:
    """End this process when the process that started it ends, however that happens; call it first in a worker.

    Without effect where the system cannot do it (Linux can): then a worker ends at its next attempt to answer.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_ON_PARENTS_DEATH, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and (os.getppid() != parent.pid or not parent.is_alive()):
        os._exit(1)  # it ended while this process was loading its libraries, and sends no signal any more


@contextmanager
def shield_from_interrupts() -> Iterator[None]:
    """Shield the processes started in this block from what a terminal sends to all, so that their parent ends them.

    That is SIGINT at Ctrl-C, and SIGHUP when the terminal is closed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
    try:
        resource_tracker.ensure_running()  # it unblocks interrupts when it starts (Python 3.9 to 3.12)
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
