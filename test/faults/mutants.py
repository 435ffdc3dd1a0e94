"""Mutated inputs of every format, read by the commands in forked processes; what once failed is kept in a corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

CORPUS = Path(__file__).with_name("corpus.json")


@dataclass(frozen=True)
class Target:
    """Files that a command reads: patterns below the inputs, or below `cache` or `out` of an earlier run.

    With `checked` the command has to find every change: if it succeeds, its outputs are those of the sound file.
    """

    name: str
    pattern: str
    command: str
    more: tuple[str, ...] = ()
    checked: bool = False


_TARGETS = (
    Target("rig.yaml", "inputs/rig.yaml", "view rig"),
    Target("rig.yaml in a replay", "inputs/rig.yaml", "replay", ("--calibration", "{inputs}/rig.yaml")),
    Target("weights", "inputs/weights.safetensors", "view"),
    Target("weights in a replay", "inputs/weights.safetensors", "replay"),
    Target("weights to export", "inputs/weights.safetensors", "export"),
    Target("teacher's weights", "inputs/teacher_run/teacher.safetensors", "train distill"),
    Target("published checkpoint", "inputs/swin.pth", "import"),
    Target("MCAP", "inputs/bag/*.mcap", "replay"),
    Target("SQLite", "inputs/bag3/*.db3", "replay sqlite3"),
    Target("metadata.yaml", "inputs/bag*/metadata.yaml", "replay"),
    Target("replay.json", "inputs/replay/replay.json", "report"),
    Target("a replay's MCAP", "inputs/replay/*.mcap", "report"),
    Target("tables", "inputs/root/v1.0-mini/*.json", "view"),
    Target("tables in a bag", "inputs/root/v1.0-mini/*.json", "bag"),
    Target("tables in the check", "inputs/root/v1.0-mini/*.json", "data check root"),
    Target("map expansion", "inputs/root/maps/expansion/*.json", "view"),
    Target("image", "inputs/root/samples/CAM_*/*.jpg", "view"),
    Target("image in a bag", "inputs/root/samples/CAM_*/*.jpg", "bag"),
    Target("image in the check", "inputs/root/samples/CAM_*/*.jpg", "data check root"),
    Target("LiDAR", "inputs/root/samples/LIDAR_TOP/*.bin", "view"),
    Target("training settings", "inputs/settings.yaml", "train settings"),
    Target("study settings", "inputs/study.yaml", "study --render-only"),
    Target("run.json", "inputs/study/*/run.json", "study --collect"),
    Target("a run's experiment.yaml", "inputs/study/*/experiment.yaml", "study --collect"),
    Target("collected study", "inputs/collected.json", "study collected"),
    Target("index cache", "cache/index/*", "view", checked=True),
    Target("label cache", "cache/labels/*", "train student", checked=True),
    Target("frame cache", "cache/frames/*", "train student", checked=True),
    Target("checkpoint", "out/student_run/checkpoints/last.ckpt", "train student", ("--resume",), checked=True),
    Target("best checkpoint", "out/student_run/checkpoints/best.ckpt", "train student", ("--resume",), checked=True),
    Target("experiment.yaml to resume", "out/student_run/experiment.yaml", "train student", ("--resume",)),
    Target("metrics.csv", "out/student_run/logs/*/metrics.csv", "train student", ("--resume",), checked=True),
    Target("remains of a synth", "out/root.partial/*.*", "synth", checked=True),
)

TARGETS = {target.name: target for target in _TARGETS}

NASTY = (
    *("0", "-1", "1e308", "1e400", "NaN", "-Infinity", "2147483648", "9223372036854775808", "null", "true", "[]", "{}"),
    *(
        '""',
        '"../../x"',
        '"/etc/passwd"',
        '"\\u0000"',
        '"a\\nb"',
        "[[[[]]]]",
        "*a",
        "&a [*a]",
        "!!python/name:os.x",
        "~",
    ),
    *("9" * 400, "[" * 3000, '"' + "x" * 5000 + '"', "1e-320", "0x7fffffff", "2024-01-01", "190:20:30", ".inf", "²"),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\btrue\b|\bnull\b|\bfalse\b')
_TEXT = (".json", ".yaml", ".csv")


@dataclass(frozen=True)
class Mutant:
    """A file with `edits` of its bytes, one after the other: offset, number of bytes removed, bytes inserted."""

    target: str
    path: str
    edits: tuple[tuple[int, int, bytes], ...]

    def apply(self, data: bytes) -> bytes:
        for offset, removed, inserted in self.edits:
            data = data[:offset] + inserted + data[offset + removed :]
        return data

    def to_json(self) -> dict[str, object]:
        edits = [[offset, removed, inserted.hex()] for offset, removed, inserted in self.edits]
        return {"target": self.target, "path": self.path, "edits": edits}

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> Mutant:
        edits = tuple((o, r, bytes.fromhex(i)) for o, r, i in content["edits"])  # type: ignore[attr-defined]
        return cls(str(content["target"]), str(content["path"]), edits)


def mutate(target: str, path: str, data: bytes, random: np.random.Generator) -> Mutant:
    """Mutate a file: at random, in its head, or, where it is text, word by word."""
    edits, changed = [], data
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        edit = _edit_text(changed, random) if path.endswith(_TEXT) and random.random() < 0.7 else None
        edit = edit or _edit_bytes(changed, random)
        edits.append(edit)
        changed = Mutant("", "", (edit,)).apply(changed)
    return Mutant(target, path, tuple(edits))


def _edit_text(data: bytes, random: np.random.Generator) -> tuple[int, int, bytes] | None:
    tokens = [match.span() for match in _TOKEN.finditer(data)]
    if not tokens:
        return None
    start, end = tokens[random.integers(len(tokens))]
    other_start, other_end = tokens[random.integers(len(tokens))]
    kind = random.integers(4)
    if kind == 0:
        return start, end - start, data[other_start:other_end]
    if kind == 1:
        return start, end - start, b""
    return start, end - start, NASTY[random.integers(len(NASTY))].encode()


def _edit_bytes(data: bytes, random: np.random.Generator) -> tuple[int, int, bytes]:
    size = len(data)
    if size == 0:
        return 0, 0, random.bytes(8)
    # Lengths and offsets stand at the beginning and at the end of most formats.
    near = min(size, 300)
    place = (random.integers(size), random.integers(near), size - 1 - random.integers(near))
    at = int(place[random.integers(3)])
    length = int(min(size - at, 2 ** random.integers(13)))
    match random.integers(7):
        case 0:
            return at, 1, bytes([data[at] ^ (1 << random.integers(8))])
        case 1:
            return at, min(8, size - at), random.bytes(min(8, size - at))
        case 2:
            return at, size - at, b""
        case 3:
            return at, length, b""
        case 4:
            return at, length, bytes(length)
        case 5:
            return at, 0, data[at : at + length]
        case _:
            return at, min(4, size - at), (b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff\xff\x7f")[random.integers(3)]


def list_files(target: Target, inputs: Path, state: Path) -> list[str]:
    """List the files of a target, relative to a sandbox or, with `inputs` first, to the inputs."""
    place, _, pattern = target.pattern.partition("/")
    base = inputs if place == "inputs" else state / place
    paths = (str(path.relative_to(base)) for path in sorted(base.rglob("*")) if path.is_file())
    return [f"{place}/{path}" for path in paths if fnmatch(path, pattern) and not path.endswith(".lock")]


def read_corpus() -> list[Mutant]:
    """Read the mutants that once failed."""
    return [Mutant.from_json(entry) for entry in json.loads(CORPUS.read_text())]


def add_to_corpus(mutant: Mutant) -> None:
    """Keep a mutant for all later campaigns."""
    entries = [m.to_json() for m in dict.fromkeys([*read_corpus(), mutant])]
    CORPUS.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")
