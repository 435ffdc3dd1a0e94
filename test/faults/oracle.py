"""The one judge of all tries: whole or absent, one line, nothing outside, nothing left running."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from commands import Command
from rosbags.highlevel import AnyReader
from safetensors import safe_open
from sandbox import Outcome, Sandbox

Tree = Mapping[str, str]
"""Relative paths of files, and hashes of their bytes."""

_OWNED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]+-[0-9a-f]+-\d+-\d+-\d+\.(?P<kind>partial|old)(/|$)")
_FAULTS = ("Traceback (most recent call last)", "Segmentation fault", "Fatal Python error", "core dumped")
_OF_THE_C_LIBRARY = "cannot allocate memory for thread-local data: ABORT"
# What Python itself says at the start of a process, before any code of ours: of an installed package that it cannot
# read, and of its own modules in a worker.
_OF_PYTHON = re.compile(
    r"(?ms)^Error processing line \d+ of \S+\.pth:\n.*?^Remainder of file ignored$"
    r"|^Traceback \(most recent call last\):\n  File \"<string>\", line 1, in <module>\n"
    r"(?:  File \"(?:\S*/lib/python3\.\d+/(?!site-packages)[^\n]*|<frozen[^\n]*)\n(?:    [^\n]*\n)*)+"
    r"(?:OSError|ImportError): [^\n]*$"
)


@dataclass(frozen=True)
class Expected:
    """What a command leaves in `out`: `new` of two runs, the same but for `varying`; and an `earlier` output."""

    new: Tree
    varying: frozenset[str]
    earlier: Tree


def read_tree(folder: Path) -> dict[str, str]:
    """Read all files below a folder, but locks."""
    tree = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base) / name
            if not (name.startswith(".") and name.endswith(".lock")):
                tree[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return tree


def read_stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Read size and time of change of all files below a folder: cheaper than their bytes."""
    return {
        str(path): (status.st_size, status.st_mtime_ns)
        for base, _, names in os.walk(folder)
        for name in names
        for path in [Path(base) / name]
        for status in [path.lstat()]
    }


def simplify(tree: Tree) -> frozenset[tuple[str, str]]:
    """Return a tree without what differs between processes in the names of temporary files."""
    return frozenset((_OWNED.sub(r".\g<name>.\g<kind>\g<3>", path), digest) for path, digest in tree.items())


def check_ending(outcome: Outcome) -> list[str]:
    """Check that a command that was not killed ended by itself, succeeded or said in one line why not.

    Where memory ends inside the C library, that ends the process, by a line and an exit code of its own.
    """
    problems = [f"still runs: {line}" for line in outcome.survivors]
    if outcome.code == 127 and outcome.errors.strip() == _OF_THE_C_LIBRARY:
        return problems
    if outcome.code < 0:
        problems.append(f"ended by signal {-outcome.code}")
    everything = _OF_PYTHON.sub("", outcome.errors + outcome.output)
    problems += [f"printed: {fault}" for fault in _FAULTS if fault in everything]
    if outcome.code and len(outcome.message) != 1 and not _found_damage(outcome):
        problems.append(f"exit code {outcome.code} with {len(outcome.message)} messages")
    if outcome.code not in (0, 1, 2) and outcome.code > 0:
        problems.append(f"exit code {outcome.code}")
    return problems


def check_outputs(
    command: Command, sandbox: Sandbox, expected: Expected, ending: int | None, said: str = ""
) -> list[str]:
    """Check each output: whole after a success, and else whole, as it was before, or absent. A kill has no `ending`.

    A temporary file may stay where the command `said` that it could not be removed.
    """
    tree = read_tree(sandbox.out)
    problems = []
    for output in command.outputs:
        found, new, earlier = (_below(t, output) for t in (tree, expected.new, expected.earlier))
        if not found and (sandbox.out / output).is_dir() and any((sandbox.out / output).iterdir()):
            problems.append(f"{output} has folders and no files")
        if (not found and ending != 0) or (found and found == earlier and ending != 0):
            continue
        if found.keys() != new.keys():
            missing, more = sorted(new.keys() - found.keys()), sorted(found.keys() - new.keys())
            problems.append(f"{output} is not whole: lacks {missing[:3]}, has {more[:3]}")
            continue
        for path in found:
            if found[path] == new[path]:
                continue
            if path not in expected.varying and (ending == 0 or path not in command.growing):
                problems.append(f"{path} differs from that of an undisturbed run")
            elif fault := find_damage(sandbox.out / path):
                problems.append(f"{path} is damaged: {fault}")
    known = {path for output in command.outputs for path in _below(tree, output)}
    allowed = () if ending == 0 and command.again != ("--resume",) else command.unfinished
    for path in sorted(tree.keys() - known):
        if any(fnmatch.fnmatch(path, pattern) for pattern in allowed) and not _OWNED.search(path):
            continue
        if _OWNED.search(path) and (ending is None or _was_admitted(path, said)):
            continue
        problems.append(f"left {path}")
    return problems


def check_deceived(command: Command, sandbox: Sandbox, expected: Expected | None, outcome: Outcome) -> list[str]:
    """Check what a command left that read a changed file: sound files, and with `expected` those of a sound input."""
    tree = read_tree(sandbox.out)
    problems = []
    for output in command.outputs:
        files = _below(tree, output)
        if outcome.code == 0 and not files:
            problems.append(f"succeeded without {output}")
        if outcome.code and files and not command.unfinished:
            problems.append(f"failed and left {output}")
        if outcome.code == 0:
            problems += [f"{path}: {fault}" for path in files if (fault := find_damage(sandbox.out / path))]
    if expected is not None and outcome.code == 0:
        stable = {path: digest for path, digest in expected.new.items() if path not in expected.varying}
        problems += [f"{path} differs" for path, digest in stable.items() if tree.get(path) != digest]
    return problems


def check_surroundings(
    sandbox: Sandbox, before: Mapping[str, tuple[int, int]], ending: int | None, said: str = ""
) -> list[str]:
    """Check that inputs and home are untouched, and that caches and temporary files are tidy, as in `check_outputs`."""
    after = read_stamps(sandbox.inputs)
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    problems = [f"changed the input {path}" for path in sorted(changed)[:3]]
    problems += [f"wrote {path}" for path in sorted(read_stamps(sandbox.home))[:3]]
    beside = {path.name for path in sandbox.path.iterdir() if path.suffix != ".log"} - {"out", "cache", "tmp", "home"}
    problems += [f"wrote {name}" for name in sorted(beside)]
    if ending is not None:
        problems += [f"left {path}" for path in sorted(read_stamps(sandbox.tmp))[:3]]
        owned = [path for path in read_tree(sandbox.cache) if _OWNED.search(path)]
        problems += [f"left {path}" for path in owned if not _was_admitted(path, said)]
    return problems


def _was_admitted(path: str, said: str) -> bool:
    """Tell whether a command said that it could not remove the temporary file or folder that a path is, or lies in."""
    owned = _OWNED.search(path)
    return owned is not None and f"{path[: owned.end('kind')]}: cannot be removed" in said


def find_damage(path: Path) -> str | None:
    """Say what is wrong with a file by what others read it with; None for a whole file."""
    try:
        _read(path)
    except Exception as error:  # any reader, any fault
        return f"{type(error).__name__}: {error}"
    return None


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".yaml":
        yaml.safe_load(path.read_text())
    elif path.suffix in (".png", ".jpg"):
        if cv2.imread(str(path)) is None:
            raise ValueError("OpenCV cannot decode it")
    elif path.suffix in (".mcap", ".db3"):
        with AnyReader([path.parent]) as reader:
            for _ in reader.messages():
                pass
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_tensor(name)
    elif path.suffix == ".ckpt":
        if (bad := zipfile.ZipFile(path).testzip()) is not None:
            raise ValueError(f"{bad} is damaged")
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("it has no end")


def _below(tree: Tree, output: str) -> dict[str, str]:
    return {path: digest for path, digest in tree.items() if path == output or path.startswith(f"{output}/")}


def _found_damage(outcome: Outcome) -> bool:
    """Tell whether `data check` reports a dataset's faults, which is no failure of its own."""
    return outcome.code == 1 and "problem" in outcome.output and not outcome.message
