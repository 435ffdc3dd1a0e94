"""What a finished run tells in its run.json. The names of its keys stand here and nowhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgeta_core.runs.log import ends, read_log
from bridgeta_core.study.state import RECORD
from bridgeta_core.utils.errors import BridgeTAError


@dataclass(frozen=True)
class Scores:
    """Shares of 1, NaN where nothing is scored: mIoU, and IoU or mIoU by class, range and condition."""

    miou: float
    miou_half: float
    classes: Mapping[str, float]
    ranges: Mapping[str, float]
    conditions: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """A finished run. `parameters` are the network's own, `train_only` those that are left behind; `peak_memory` is in
    MB, of the GPU if there is one; `scores` has those of the `last` and the `best` weights; `ends` is of `log.ends`.
    """

    steps: int
    seconds: float
    seconds_per_step: float
    peak_memory: float
    parameters: int
    train_only: int
    labelled: int
    unlabelled: int
    scores: Mapping[str, Scores]
    ends: Mapping[str, float]
    revision: str
    machine: str
    data: str


def read_record(folder: Path) -> Record:
    """The record of a finished run. Raises BridgeTAError that names the file when it lacks what is needed."""
    path = folder / RECORD
    try:
        content = json.loads(path.read_text())
        memory, counts, frames = content["peak_memory"], content["parameters"], content["frames"]
        return Record(
            steps=int(content["steps"]),
            seconds=float(content["seconds"]),
            seconds_per_step=_number(content["seconds_per_step"]),
            peak_memory=(memory["resident"] if memory["cuda"] is None else memory["cuda"]) / 1e6,
            parameters=int(counts["teacher" if content["kind"] == "teacher" else "student"]),
            train_only=int(counts.get("train_only", 0)),
            labelled=int(frames["labelled"]),
            unlabelled=int(frames["unlabelled"]),
            scores={name: _scores(content["validation"][name]) for name in ("last", "best")},
            ends=ends(read_log(folder)),
            revision=content["git_revision"] or "",
            machine=" on ".join(dict.fromkeys((content["device"], content["machine"]))),
            data=_data(content.get("synthetic_data") or {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BridgeTAError(
            f"is not the record of a finished run ({type(error).__name__}: {error})",
            where=path,
            fix="Move the run's folder away to have it trained again",
        ) from error


def _data(synthetic: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Which synthetic roots a run was trained and validated on."""
    made = [(name, settings) for name, settings in synthetic.items() if settings]
    return ", ".join(
        f"{name}: {s['scenes']} scenes of split {s['split']}, seed {s['seed']}, {s['duration']:g} s" for name, s in made
    )


def _scores(content: Mapping[str, Any]) -> Scores:
    return Scores(
        miou=_number(content["miou"]),
        miou_half=_number(content["miou_at_0.5"]),
        classes={name: _number(values["iou"]) for name, values in content["classes"].items()},
        ranges={name: _number(values["miou"]) for name, values in content["ranges"].items()},
        conditions={name: _number(values["miou"]) for name, values in content["conditions"].items()},
    )


def _number(value: float | None) -> float:
    """What is not known or not scored is null in JSON."""
    return math.nan if value is None else float(value)
