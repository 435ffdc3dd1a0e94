"""The clock and the name of the machine, for all measurements."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bridgeta_core.utils.machine import read_cpu_name as read_cpu_name


def milliseconds(call: Callable[[], object]) -> float:
    """Measure the wall time of one call in milliseconds."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def milliseconds_on(device: str, call: Callable[[], object]) -> float:
    """Measure one call with the work that it leaves to a GPU, in milliseconds of the clock of `device`."""
    if torch.device(device).type != "cuda":
        return milliseconds(call)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def replayed(device: str, call: Callable[[], object]) -> Callable[[], object]:
    """Record a call as a CUDA graph and return its replay; on a CPU return the call itself."""
    if torch.device(device).type != "cuda":
        return call
    for _ in range(3):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def name_device(device: str) -> str:
    """Name the processor or GPU that a device is."""
    return read_cpu_name() if torch.device(device).type == "cpu" else torch.cuda.get_device_name(device)
