"""Hostile input of every kind that comes from outside: `python bench/fuzz.py [--scale 1] [--seed 0]`.

Each case is answered, refused by a BridgeTAError, or it escapes: it raises something else. Processor time (of all
threads) and the growth of the process's peak memory are measured for each. A case costs too much when it takes 200 ms
or 200 MB more than the unchanged input of its kind; what is printed on stderr is counted. Exits with 1 when a case
escapes or costs too much. `--one jpeg:123` runs one case alone, with its traceback.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import gc
import os
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import fuzz_cases as cases
import numpy as np
from machine import read_cpu_name
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bridgeta_core.utils.errors import BridgeTAError

MILLISECONDS, MEGABYTES = 200.0, 200.0
HUNG = 60.0  # seconds of a case after which the whole run ends with a traceback
COUNTS = {
    "jpeg": 5000,
    "png": 3000,
    "webp": 2000,
    "bmp": 2000,
    "raw": 4000,
    "info": 2500,
    "tf": 1500,
    "rig": 3000,
    "message": 3000,
    "bag": 500,
}


@dataclass
class Cost:
    """What a case took: processor milliseconds and megabytes of memory."""

    milliseconds: float
    megabytes: float
    index: int


@dataclass
class Tally:
    """The cases of one kind of input."""

    name: str
    plain: Cost
    answered: int = 0
    refused: int = 0
    escapes: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def find_costly(self) -> list[Cost]:
        """Find the cases that cost too much."""
        slow, large = MILLISECONDS + self.plain.milliseconds, MEGABYTES + self.plain.megabytes
        return [c for c in self.costs if c.milliseconds > slow or c.megabytes > large]


class Meter:
    """Measures a call, and what it prints on stderr, by Linux' /proc."""

    def __init__(self) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process lives)
        self._terminal = os.fdopen(os.dup(2), "w")
        faulthandler.enable(self._terminal)
        os.dup2(self._printed.fileno(), 2)

    def close(self) -> None:
        """Let stderr be what it was."""
        os.dup2(self._terminal.fileno(), 2)

    def measure(self, case: cases.Case, index: int) -> tuple[Cost, BaseException | None, str]:
        """Run a case; return its cost, what it raised and what it printed."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts over
        before, start = _read_status("VmRSS"), time.process_time()
        faulthandler.dump_traceback_later(HUNG, exit=True, file=self._terminal)
        error: BaseException | None = None
        try:
            case()
        except BaseException as caught:
            if isinstance(caught, KeyboardInterrupt):
                raise
            error = caught.with_traceback(None)
        faulthandler.cancel_dump_traceback_later()
        cost = Cost(1e3 * (time.process_time() - start), _read_status("VmHWM") - before, index)
        size = os.fstat(2).st_size
        printed = os.pread(2, 300, 0).decode(errors="replace") if size else ""
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        return cost, error, printed


def _read_status(key: str) -> float:
    """Read a size of this process in megabytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024 / 1e6


def list_makers(folder: Path) -> dict[str, Any]:
    """List the kinds of input by name."""
    return {
        "jpeg": cases.make_jpeg,
        "png": cases.make_png,
        "webp": cases.make_webp,
        "bmp": cases.make_bmp,
        "raw": cases.make_raw,
        "info": cases.make_info,
        "tf": cases.make_tf,
        "rig": partial(cases.make_rig, folder=folder),
        "message": cases.make_message,
        "bag": partial(cases.make_bag, folder=folder),
    }


def make_case(name: str, maker: Any, seed: int, index: int) -> cases.Case:
    """Make a case; seed, kind and index alone decide what it is."""
    case: cases.Case = maker(index, np.random.default_rng([seed, list(COUNTS).index(name), index]))
    return case


def run_kind(name: str, maker: Any, seed: int, count: int, meter: Meter) -> Tally:
    """Run the cases of one kind. One that costs too much runs twice more: only the least counts."""
    for _ in range(3):  # the first fill caches
        plain, error, _ = meter.measure(make_case(name, maker, seed, 0), 0)
        if error is not None:
            raise error
    tally = Tally(name, plain)
    for index in track(range(1, count + 1), description=name, console=Console(file=sys.stdout)):
        cost, error, printed = meter.measure(make_case(name, maker, seed, index), index)
        for _ in range(2):
            if cost.milliseconds > MILLISECONDS + plain.milliseconds or cost.megabytes > MEGABYTES + plain.megabytes:
                gc.collect()
                again, _, _ = meter.measure(make_case(name, maker, seed, index), index)
                cost = Cost(min(cost.milliseconds, again.milliseconds), min(cost.megabytes, again.megabytes), index)
        tally.costs.append(cost)
        if printed:
            tally.printed.append(f"{name}:{index} {printed.splitlines()[0]}")
        if error is None:
            tally.answered += 1
        elif isinstance(error, BridgeTAError):
            tally.refused += 1
        else:
            tally.escapes.append(f"{name}:{index} {type(error).__name__}: {str(error)[:150]}")
    return tally


def make_table(tallies: list[Tally]) -> Table:
    """Tabulate what became of the cases, and the most expensive of each kind."""
    total = sum(len(tally.costs) for tally in tallies)
    table = Table(title=f"{total:,} cases")
    columns = ("kind", "cases", "answered", "refused", "escaped", "printed", "unchanged", "slowest", "largest")
    for column in columns:
        table.add_column(column, justify="left" if column == "kind" else "right")
    for tally in tallies:
        slowest = max(tally.costs, key=lambda cost: cost.milliseconds)
        largest = max(tally.costs, key=lambda cost: cost.megabytes)
        table.add_row(
            tally.name,
            *(f"{n:,}" for n in (len(tally.costs), tally.answered, tally.refused)),
            *(f"{len(n):,}" for n in (tally.escapes, tally.printed)),
            f"{tally.plain.milliseconds:.1f} ms, {tally.plain.megabytes:.0f} MB",
            f"{slowest.milliseconds:.0f} ms ({slowest.index})",
            f"{largest.megabytes:.0f} MB ({largest.index})",
        )
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1 runs 26,500 cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(COUNTS), choices=list(COUNTS))
    parser.add_argument("--one", help="run one case, KIND:INDEX, and show what it raises")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        makers = list_makers(Path(folder))
        if options.one:
            name, _, index = options.one.partition(":")
            print(make_case(name, makers[name], options.seed, int(index))())
            return
        with closing(Meter()) as meter:
            tallies = [
                run_kind(name, makers[name], options.seed, max(1, round(options.scale * COUNTS[name])), meter)
                for name in options.kinds
            ]
    console = Console(width=140, file=sys.stdout)
    console.print(make_table(tallies))
    for tally in tallies:
        for line in tally.printed[:3]:
            console.print(f"printed: {line}", markup=False)
    faults = [line for tally in tallies for line in tally.escapes[:10]]
    faults += [
        f"{t.name}:{c.index} costs {c.milliseconds:.0f} ms, {c.megabytes:.0f} MB"
        for t in tallies
        for c in t.find_costly()
    ]
    for line in faults:
        console.print(line, markup=False)
    console.print(f"seed {options.seed}, {read_cpu_name()}, OpenCV {cv2.__version__}, {datetime.date.today()}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
