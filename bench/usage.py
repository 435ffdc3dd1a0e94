"""What a process holds over time: memory, open files, threads."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from rich.table import Table

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """One look at a process."""

    seconds: float  # of the steady clock
    memory: float  # resident, MiB
    files: int  # open file descriptors
    threads: int
    cpu: float  # seconds of processor time since its start

    @classmethod
    def measure(cls, pid: int) -> Usage:
        """Look at a process now."""
        folder = Path("/proc", str(pid))
        times = (folder / "stat").read_text().rpartition(")")[2].split()
        pages = int((folder / "statm").read_text().split()[1])
        files, threads = (len(os.listdir(folder / name)) for name in ("fd", "task"))
        cpu = (int(times[11]) + int(times[12])) / _TICKS
        return cls(time.monotonic(), pages * _PAGE / 2**20, files, threads, cpu)


def add_rows(table: Table, looks: list[Usage]) -> None:
    """Add what looks at a process show: start, end, most, and the slope of the second half, where it should rest."""
    columns = {field.name: np.array([getattr(look, field.name) for look in looks]) for field in fields(Usage)}
    hours = columns["seconds"] / 3600
    half = hours >= (hours[0] + hours[-1]) / 2
    for name, what in (("memory", "resident memory, MiB"), ("files", "open files"), ("threads", "threads")):
        values = columns[name]
        slopes = [np.polyfit(hours[which], values[which], 1)[0] for which in (half, ~half) if which.sum() > 2]
        ends = f"{values[0]:.0f} / {values[-1]:.0f} / {values.max():.0f}"
        table.add_row(f"{what}: start / end / most", ends)
        if len(slopes) == 2:
            table.add_row(f"{what}: slope per hour, first / second half", f"{slopes[1]:+.1f} / {slopes[0]:+.1f}")
    spans = np.array_split(columns["memory"], min(10, len(looks)))
    table.add_row("resident memory, MiB, median of each tenth", " ".join(f"{np.median(s):.0f}" for s in spans))
    seconds = columns["seconds"][-1] - columns["seconds"][0]
    table.add_row("cores in use", f"{(columns['cpu'][-1] - columns['cpu'][0]) / max(seconds, 1e-9):.2f}")
