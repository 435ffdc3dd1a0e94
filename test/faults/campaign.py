"""Kill, starve and deceive every command that writes: `make campaign HOURS=1`, or `python test/faults/campaign.py`.

Commands are killed before their file operations, which are found by strace; operations fail as on full and broken
disks; two commands write to one place; memory, files, disks and shared memory are scarce; inputs of every format are
mutated. One oracle judges: outputs are whole, as before, or absent; a failure is one line and an exit code; nothing is
written elsewhere or left running; the same command works again. Exits with 1 when a promise was broken. A mutant that
fails is added to corpus.json, and every later campaign begins with it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from commands import COMMANDS
from inputs import make_inputs
from mutants import TARGETS, Mutant, add_to_corpus, read_corpus
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tracing import explain_no_strace, list_codes
from tries import LIMITS, Bench, Verdict, explain_no_mounts, needs_mount

from bridgeta_core.utils.machine import read_cpu_name

STATES = ("view", "train student", "synth")
"""Commands whose caches and unfinished outputs are mutated."""

_HEAVY = (
    *("matplotlib.pyplot", "bridgeta_core.training.train", "bridgeta_core.view.sample"),
    *("bridgeta_ros.bags.replay", "bridgeta_ros.bags.report", "bridgeta_ros.commands"),
)
"""What commands import when they need it: imported once, since every try is a fork of this process."""

KINDS = {
    "kill": Bench.kill,
    "error": Bench.fail,
    "two": Bench.run_twice,
    "limit": Bench.limit,
    "mutant": Bench.deceive,
}
"""The kinds of tries by the names of the command line."""

Try = partial[Verdict]  # of one of these


def plan_tries(bench: Bench, names: list[str], seed: int, worker: int, workers: int) -> Iterator[Try]:
    """Yield the tries of one of several workers, without end: each command in its turn, between them mutants."""
    random = np.random.default_rng([seed, worker])
    operations = {name: bench.list_operations(COMMANDS[name], np.random.default_rng(seed)) for name in names}
    mutants = plan_mutants(bench, names, seed, worker, workers)
    for turn in itertools.count(worker, workers):
        for name in names:
            command, every = COMMANDS[name], operations[name]
            replacing = bool(command.earlier) and turn // workers % 2 == 1
            yield partial(bench.kill, command, every[turn % len(every)], replacing)
            if mutants is not None:
                yield next(mutants)
            if turn // workers % 2 == 0:
                operation = every[random.integers(len(every))]
                yield partial(bench.fail, command, operation, str(random.choice(list_codes(operation))), replacing)
            if turn % 5 == 0:
                what = list(LIMITS)[random.integers(len(LIMITS))]
                if explain_no_mounts() is None or not needs_mount(what):
                    yield partial(bench.limit, command, what, choose_amount(what, random), False)
            if turn % 9 == 4:
                delay = float(random.choice((0, 0.3, 1, 2, 4)))
                yield partial(bench.run_twice, command, delay, bool(random.integers(2)))


def plan_mutants(bench: Bench, names: list[str], seed: int, worker: int, workers: int) -> Iterator[Try] | None:
    """Yield the corpus, and then mutants of all targets in turn without end; None where no command reads any."""
    targets = [target for target in TARGETS.values() if target.command in names]

    def plan() -> Iterator[Try]:
        for mutant in read_corpus()[worker::workers]:
            if TARGETS[mutant.target].command in names:
                yield partial(bench.deceive, mutant)
        for index in itertools.count(worker, workers):
            random = np.random.default_rng([seed, index])
            target = targets[random.integers(len(targets))]
            yield partial(bench.deceive, bench.make_mutant(target, random))

    return plan() if targets else None


def choose_amount(what: str, random: np.random.Generator) -> int:
    """Choose how much there is of something that is scarce: log-uniform over what lies between nothing and plenty."""
    low, high = {
        "bytes of memory": (1e6, 2e9),
        "open files": (12, 200),
        "bytes of a file": (4096, 1e7),
        "bytes of shared memory": (4096, 1e8),
    }.get(what, (4096, 2e7))
    return int(np.exp(random.uniform(np.log(low), np.log(high))))


class Campaign:
    """Collects verdicts, shows those of broken promises, and writes all to a log."""

    def __init__(self, console: Console, log: Path | None, names: list[str]) -> None:
        self.console, self.verdicts = console, list[Verdict]()
        self._log, self._names = log, names

    @property
    def broken(self) -> int:
        return sum(bool(verdict.problems) for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        return f"{len(self.verdicts):,} tries, {self.broken} violations"

    def read(self, file: Path, start: int) -> int:
        """Record the verdicts that stand in a file from `start` on, in whole lines; return their number of bytes."""
        if not file.exists():
            return 0
        with open(file, "rb") as stream:
            stream.seek(start)
            data = stream.read()
        data = data[: data.rfind(b"\n") + 1]
        for line in data.splitlines():
            content = json.loads(line)
            self.record(Verdict(**{**content, "problems": tuple(content["problems"])}))
        return len(data)

    def has_ended(self, worker: int) -> bool:
        """Tell whether a worker has ended; one that failed is a violation, since its tries are missing."""
        done, status = os.waitpid(worker, os.WNOHANG)
        if done and (code := os.waitstatus_to_exitcode(status)):
            self.record(Verdict("worker", "the campaign itself", "", (f"exit code {code}",)))
        return done != 0

    def record(self, verdict: Verdict) -> None:
        """Add a verdict; keep a mutant that failed in the corpus."""
        self.verdicts.append(verdict)
        if self._log is not None:
            with open(self._log, "a") as file:
                file.write(json.dumps(vars(verdict)) + "\n")
        if verdict.problems:
            self.console.print(f"{verdict.command}: {verdict.kind} {verdict.what}", markup=False)
            for problem in verdict.problems:
                self.console.print(f"  {problem}", markup=False)
            if verdict.kind == "mutant":
                add_to_corpus(Mutant.from_json(json.loads(verdict.what)))

    def make_table(self) -> Table:
        """Tabulate the tries by kind: how many met what they aimed at, how often of each command, and what broke."""
        table = Table(title=f"{len(self.verdicts):,} tries")
        for column in ("kind", "tries", "met", "different, of a command: least", "median", "violations"):
            table.add_column(column, justify="left" if column == "kind" else "right")
        for kind in dict.fromkeys(verdict.kind for verdict in self.verdicts):
            mine = [verdict for verdict in self.verdicts if verdict.kind == kind]
            subjects = self._names if kind == "kill" else dict.fromkeys(verdict.command for verdict in mine)
            met = [verdict for verdict in mine if verdict.met]
            counts = sorted(len({v.what for v in met if v.command == subject}) for subject in subjects)
            broken = sum(bool(verdict.problems) for verdict in mine)
            cells = (len(mine), len(met), counts[0], counts[len(counts) // 2], broken)
            table.add_row(kind, *(f"{cell:,}" for cell in cells))
        return table


def learn(bench: Bench, names: list[str], campaign: Campaign) -> None:
    """Run every command undisturbed, and keep for the mutants what some of them leave."""
    with Progress(console=campaign.console, auto_refresh=False) as progress:  # no thread, since forks follow
        for name in progress.track(names, description="undisturbed"):
            progress.refresh()
            if problems := bench.learn(COMMANDS[name]):
                campaign.record(Verdict("undisturbed", name, "", tuple(problems)))
    bench.save_states(name for name in STATES if name in names)
    empty = [target.name for target in TARGETS.values() if target.command in names and not bench.list_files(target)]
    if empty:
        raise RuntimeError(f"there are no files of {', '.join(empty)}")


def work(tries: Iterator[Try], most: int | None, end: float, verdicts: Path) -> None:
    """Carry out tries, until the end or at most so many, and write each verdict to a file as a line of JSON."""
    with open(verdicts, "w") as file:
        for one in itertools.islice(tries, most):
            if most is None and time.monotonic() > end:
                return
            file.write(json.dumps(vars(one())) + "\n")
            file.flush()


def fork(task: Callable[[], None]) -> int:
    """Carry out a task in a child process; return its number. It shares what this process has learnt."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        except KeyboardInterrupt:  # of a terminal, which interrupts all of a campaign
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def run(folder: Path, options: argparse.Namespace, console: Console) -> Campaign:
    """Run a campaign in a folder."""
    for name in _HEAVY:
        importlib.import_module(name)
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    cv2.setNumThreads(1)
    names = [name for name in COMMANDS if not options.commands or name in options.commands]
    campaign = Campaign(console, options.log, names)
    bench = Bench(folder, make_inputs(folder / "in", names))
    learn(bench, names, campaign)
    end = time.monotonic() + 3600 * options.hours
    wanted = [KINDS[name] for name in options.kinds]
    files = {folder / f"verdicts{i}": 0 for i in range(options.jobs)}
    children = set()
    for i, file in enumerate(files):
        planned = plan_tries(bench, names, options.seed, i, options.jobs)
        tries = (one for one in planned if one.func.__func__ in wanted)
        children.add(fork(partial(work, tries, options.tries, end, file)))
    total = 3600 * options.hours if options.tries is None else options.tries * options.jobs
    with Progress(console=console) as progress:
        task = progress.add_task("campaign", total=total)
        while True:
            alive = {child for child in children if not campaign.has_ended(child)}
            for file, start in files.items():
                files[file] = start + campaign.read(file, start)
            done = total - max(0.0, end - time.monotonic()) if options.tries is None else len(campaign.verdicts)
            progress.update(task, completed=done, description=campaign.summary)
            if not alive:
                return campaign
            children = alive
            with suppress(KeyboardInterrupt):  # the workers end too, and what they found counts
                time.sleep(1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--tries", type=int, help="so many of each job, in place of the time")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="tries at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), help="only these, and what they read")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="only these")
    parser.add_argument("--log", type=Path, help="write every verdict to this file as a line of JSON")
    options = parser.parse_args()
    if (lack := explain_no_strace()) is not None:
        sys.exit(lack)
    console = Console(width=None if sys.stdout.isatty() else 120)
    # Short, since the sockets of training processes lie below it and have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="bta"))
    try:
        campaign = run(folder, options, console)
    except KeyboardInterrupt:
        sys.exit("interrupted before the first try")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(campaign.make_table())
    lack = explain_no_mounts()
    console.print(
        f"{options.jobs} at a time, seed {options.seed}, {read_cpu_name()}, Python "
        f"{platform.python_version()}, {datetime.date.today()}{'; ' + lack if lack else ''}"
    )
    sys.exit(campaign.broken > 0)


if __name__ == "__main__":
    main()
