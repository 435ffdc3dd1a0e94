"""The tries of a campaign: a command is killed, its disk fails, it has a twin, or it has little of something."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from commands import COMMANDS, Command
from mutants import TARGETS, Mutant, Target, list_files, mutate
from oracle import (
    Expected,
    check_deceived,
    check_ending,
    check_outputs,
    check_surroundings,
    read_stamps,
    read_tree,
    simplify,
)
from sandbox import Outcome, Sandbox
from tracing import NAMING, Injection, Operation, read_operations, trace_options, was_met

_MOST_MEMORY = 500e6  # bytes that a mutated input may cost beyond the interpreter
_MOST_SECONDS = 60.0  # of processor time
_READS = 30  # operations that only read, chosen for each command beside all those that write
_MOST = 120  # operations of one kind and command; of more every n-th is tried


@dataclass(frozen=True)
class Verdict:
    """What became of a try: its kind, what was tried, and each promise that it broke. `met` is false for a miss."""

    kind: str
    command: str
    what: str
    problems: tuple[str, ...] = ()
    met: bool = True


class Bench:
    """Runs tries of all commands in sandboxes below `folder`, on inputs made once."""

    def __init__(self, folder: Path, inputs: Path) -> None:
        self.folder, self.inputs = folder, inputs
        self._stamps = read_stamps(inputs)
        self._numbers = itertools.count()
        self.expected: dict[str, Expected] = {}
        self._operations: dict[str, list[Operation]] = {}
        self._recovered: set[tuple[str, frozenset[tuple[str, str]]]] = set()

    @contextmanager
    def sandbox(self, inputs: Path | None = None) -> Iterator[Sandbox]:
        """Yield a new sandbox, and remove it."""
        sandbox = Sandbox(self.folder / f"t{os.getpid()}-{next(self._numbers)}", inputs or self.inputs)
        try:
            yield sandbox
        finally:
            sandbox.kill_survivors()
            sandbox.remove()

    def learn(self, command: Command) -> list[str]:
        """Run a command undisturbed, as tries of it need it; return what it did wrong even then."""
        with self.sandbox() as first, self.sandbox() as second, self.sandbox() as third:
            log = first.path / "trace.log"
            outcomes = [first.run(command, strace=trace_options(log)), second.run(command)]
            trees = [read_tree(first.out), read_tree(second.out)]
            earlier: Mapping[str, str] = {}
            if command.earlier:
                outcomes.append(third.run(command, command.earlier))
                earlier = read_tree(third.out)
                shutil.move(third.out, self.folder / f"earlier {command.name}")
            varying = {path for path in trees[0] if trees[0][path] != trees[1].get(path)}
            expected = Expected(trees[0], frozenset(varying), earlier)
            problems = [problem for outcome in outcomes for problem in check_ending(outcome)]
            problems += [f"lacks {o}" for o in command.outputs if not (first.out / o).exists()]
            problems += check_outputs(command, second, expected, 0)
            self.expected[command.name] = expected
            self._operations[command.name] = read_operations(log, first.places)
        return problems

    def save_states(self, names: Iterable[str]) -> None:
        """Keep sandboxes as commands leave them, `state NAME`; that of a synth is killed on its way."""
        for name in names:
            with self.sandbox() as sandbox:
                if name == "synth":
                    running = sandbox.start(COMMANDS[name])
                    while not list(sandbox.out.glob("root.partial/parts/*.json")):
                        time.sleep(0.01)
                    os.kill(running.process, signal.SIGKILL)
                    sandbox.wait(running)
                    sandbox.settle()
                else:
                    sandbox.run(COMMANDS[name])
                shutil.copytree(sandbox.path, self.folder / f"state {name}")

    def list_operations(self, command: Command, random: np.random.Generator) -> list[Operation]:
        """List the operations to disturb: all that name files, of the rest an even share, and some that only read."""
        every = self._operations[command.name]
        naming = [o for o in every if o.name in NAMING or (o.writes and "open" in o.name)]
        writing = [o for o in every if o.writes and o not in naming]
        reading = [o for o in every if not o.writes]
        chosen = [*_thin(naming, _MOST), *_thin(writing, _MOST)]
        chosen += [reading[i] for i in random.choice(len(reading), min(_READS, len(reading)), replace=False)]
        return [chosen[i] for i in random.permutation(len(chosen))]

    def kill(self, command: Command, operation: Operation, replacing: bool) -> Verdict:
        """Kill a command before an operation, then do what its user would: start it again."""
        injection = Injection(operation)
        with self.sandbox() as sandbox:
            more = self._place_earlier(command, sandbox) if replacing else ()
            log = sandbox.path / "strace.log"
            outcome = sandbox.run(command, more, strace=injection.options(log))
            met = was_met(log, injection, sandbox.places)
            problems = [f"still runs: {line}" for line in outcome.survivors]
            # A worker alone may have been killed: then its parent says so.
            ending = None if outcome.code in (-signal.SIGKILL, 128 + signal.SIGKILL) else outcome.code
            problems += self._judge(command, sandbox, outcome, ending)
            problems += self._recover(command, sandbox)
            return self._verdict("kill", command, injection, replacing, problems, outcome, met)

    def fail(self, command: Command, operation: Operation, code: str, replacing: bool) -> Verdict:
        """Let an operation fail with an error of the disk, then start the command again on a sound one."""
        injection = Injection(operation, code)
        with self.sandbox() as sandbox:
            more = self._place_earlier(command, sandbox) if replacing else ()
            log = sandbox.path / "strace.log"
            outcome = sandbox.run(command, more, strace=injection.options(log))
            met = was_met(log, injection, sandbox.places)
            problems = self._judge(command, sandbox, outcome, outcome.code, operation.writes) if met else []
            problems += self._recover(command, sandbox)
            return self._verdict("error", command, injection, replacing, problems, outcome, met)

    def run_twice(self, command: Command, delay: float, kill_first: bool) -> Verdict:
        """Run a command twice at once into one place; the second starts after `delay` seconds."""
        with self.sandbox() as sandbox:
            first = sandbox.start(command)
            time.sleep(delay)
            second = sandbox.start(command)
            if kill_first:
                os.kill(first.process, signal.SIGKILL)
            outcomes = [sandbox.wait(process) for process in (second, first)]
            outcomes[0].survivors += sandbox.settle()
            problems = []
            for outcome in outcomes[: 1 if kill_first else 2]:
                problems += check_ending(outcome)
            codes = [outcome.code for outcome in outcomes]
            if not kill_first and all(codes) and command.name != "data check":
                problems.append(f"neither succeeded: {outcomes[0].message} {outcomes[1].message}")
            done = 0 if 0 in codes and not kill_first else None
            problems += check_outputs(command, sandbox, self.expected[command.name], done)
            problems += self._recover(command, sandbox)
            what = f"two, {delay:.2f} s apart{', the first killed' if kill_first else ''}"
            return Verdict("two at once", command.name, what, _explain(problems, outcomes[0]))

    def limit(self, command: Command, what: str, amount: int, replacing: bool) -> Verdict:
        """Give a command little of something: `what` is a key of LIMITS, and `amount` is in its unit."""
        with self.sandbox() as sandbox:
            more = self._place_earlier(command, sandbox) if replacing else ()
            prepare, wrapper = LIMITS[what](sandbox, amount)
            outcome = sandbox.run(command, more, wrapper=wrapper, prepare=prepare)
            problems = self._judge(command, sandbox, outcome, outcome.code)
            problems += self._recover(command, sandbox)
            label = f"{what} {amount:,}"
            return self._verdict(what, command, label, replacing, problems, outcome, True)

    def deceive(self, mutant: Mutant) -> Verdict:
        """Run the command of a mutant's target on it. The inputs are links but for the mutant."""
        target = TARGETS[mutant.target]
        command = COMMANDS[target.command]
        inputs = self.folder / f"i{os.getpid()}-{next(self._numbers)}"
        shutil.copytree(self.inputs, inputs, copy_function=os.link)
        try:
            with self.sandbox(inputs) as sandbox:
                place, _, rest = mutant.path.partition("/")
                if place != "inputs":
                    shutil.copytree(self._state(target), sandbox.path, dirs_exist_ok=True)
                victim = (inputs if place == "inputs" else sandbox.path / place) / rest
                data = mutant.apply(victim.read_bytes())
                victim.unlink()
                victim.write_bytes(data)
                stamps = read_stamps(inputs)
                outcome = sandbox.run(command, target.more)
                problems = check_ending(outcome)
                if outcome.memory > _MOST_MEMORY:
                    problems.append(f"took {outcome.memory / 1e6:.0f} MB more than the interpreter")
                if outcome.seconds > _MOST_SECONDS:
                    problems.append(f"took {outcome.seconds:.0f} s of processor time")
                problems += check_surroundings(sandbox, stamps, outcome.code, outcome.errors)
                expected = self.expected[command.name] if target.checked else None
                problems += check_deceived(command, sandbox, expected, outcome)
                return Verdict("mutant", target.name, json.dumps(mutant.to_json()), _explain(problems, outcome))
        finally:
            shutil.rmtree(inputs)

    def make_mutant(self, target: Target, random: np.random.Generator) -> Mutant:
        """Make a mutant of one of a target's files."""
        files = self.list_files(target)
        path = files[random.integers(len(files))]
        place, _, rest = path.partition("/")
        source = (self.inputs if place == "inputs" else self._state(target) / place) / rest
        return mutate(target.name, path, source.read_bytes(), random)

    def list_files(self, target: Target) -> list[str]:
        """List the files of a target that may be mutated."""
        return list_files(target, self.inputs, self._state(target))

    def _state(self, target: Target) -> Path:
        return self.folder / f"state {target.command}"

    def _place_earlier(self, command: Command, sandbox: Sandbox) -> tuple[str, ...]:
        """Put an earlier output in its place; return the arguments that replace it."""
        shutil.copytree(self.folder / f"earlier {command.name}", sandbox.out, dirs_exist_ok=True)
        return command.again

    def _judge(
        self, command: Command, sandbox: Sandbox, outcome: Outcome, ending: int | None, readable: bool = True
    ) -> list[str]:
        if not readable and command.arguments[:2] == ("data", "check") and ending == 1:
            # It lists what it cannot read.
            return check_ending(replace(outcome, code=0)) + check_surroundings(sandbox, self._stamps, 0, outcome.errors)
        if command.name == "data check" and ending == 1 and (sandbox.out / "list.txt").exists():
            ending = 0  # the dataset has faults, and they were listed
        problems = [] if ending is None else check_ending(outcome)
        problems += check_outputs(command, sandbox, self.expected[command.name], ending, outcome.errors)
        return problems + check_surroundings(sandbox, self._stamps, ending, outcome.errors)

    def _recover(self, command: Command, sandbox: Sandbox) -> list[str]:
        """Start a command again as its user would, unless that was seen to work from the same state."""
        state = (command.name, simplify(read_tree(sandbox.path)))
        if state in self._recovered:
            return []
        for more in dict.fromkeys([(), command.again]):
            outcome = sandbox.run(command, more)
            ending = 0 if outcome.code == 0 or command.name == "data check" else outcome.code
            if ending == 0:
                break
            if problems := check_ending(outcome):
                return [f"started again: {problem}" for problem in problems]
        problems = self._judge(command, sandbox, outcome, ending)
        if ending:
            problems.append(f"does not work any more: {outcome.message}")
        elif not problems:
            self._recovered.add(state)
        return [f"started again: {problem}" for problem in problems]

    def _verdict(
        self,
        kind: str,
        command: Command,
        what: object,
        replacing: bool,
        problems: Sequence[str],
        outcome: Outcome,
        met: bool,
    ) -> Verdict:
        text = f"{what}{', replacing an earlier output' if replacing else ''}"
        return Verdict(kind, command.name, text, _explain(problems, outcome), met)


def _explain(problems: Sequence[str], outcome: Outcome) -> tuple[str, ...]:
    """Add what a command printed to what it did wrong."""
    if not problems:
        return ()
    return (*problems, f"exit code {outcome.code}, stderr: {outcome.errors[-1500:]}")


def _thin(operations: list[Operation], most: int) -> list[Operation]:
    step = max(1, -(-len(operations) // most))
    return operations[::step]


Limit = tuple[Callable[[], None] | None, list[str]]


def _limit_resource(kind: int) -> Callable[[Sandbox, int], Limit]:
    def make(sandbox: Sandbox, amount: int) -> Limit:
        def prepare() -> None:
            resource.setrlimit(kind, (amount, amount))

        return prepare, []

    return make


def _limit_memory(sandbox: Sandbox, amount: int) -> Limit:
    """Let a command map so much beyond the interpreter and its modules."""

    def prepare() -> None:
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + amount
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return prepare, []


def _limit_mount(folder: Callable[[Sandbox], Path], keep: bool = True) -> Callable[[Sandbox, int], Limit]:
    """Mount a small file system, seen by the command alone, over a folder; `keep` what is left in the folder."""
    script = 'place=$2; mount -t tmpfs -o size="$1" none "$place" || exit 99; shift 2; "$@"; code=$?; '
    if keep:
        script += (
            'cp -a "$place" "$place.kept"; umount -l "$place"; cp -a "$place.kept/." "$place"; rm -r "$place.kept"; '
        )

    def make(sandbox: Sandbox, amount: int) -> Limit:
        return None, ["unshare", "-Urm", "sh", "-c", f"{script}exit $code", "sh", str(amount), str(folder(sandbox))]

    return make


LIMITS: dict[str, Callable[[Sandbox, int], Limit]] = {
    "bytes of memory": _limit_memory,
    "open files": _limit_resource(resource.RLIMIT_NOFILE),
    "bytes of a file": _limit_resource(resource.RLIMIT_FSIZE),
    "bytes of shared memory": _limit_mount(lambda sandbox: Path("/dev/shm"), keep=False),
    "bytes of disk": _limit_mount(lambda sandbox: sandbox.out),
    "bytes of disk for the cache": _limit_mount(lambda sandbox: sandbox.cache),
    "bytes of disk for temporary files": _limit_mount(lambda sandbox: sandbox.tmp),
}


def needs_mount(what: str) -> bool:
    """Tell whether a limit is that of a file system of its own."""
    return "disk" in what or "shared" in what


@cache
def explain_no_mounts() -> str | None:
    """Return why small file systems cannot be mounted here, or None when they can."""
    tried = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    return f"no file system can be mounted here: {tried.stderr.strip()}" if tried.returncode else None
