"""The record of a finished run, run.json. The names of its keys stand here and nowhere else."""

from __future__ import annotations

import json
import math
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bridgeta_core.config.experiment import DataConfig, Experiment, to_mapping
from bridgeta_core.data.nuscenes.versions import read_synthetic_settings
from bridgeta_core.runs.folder import RECORD
from bridgeta_core.runs.log import read_log, summarise_end
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import find_root
from bridgeta_core.utils.machine import read_cpu_name
from bridgeta_core.utils.outputs import replace_when_done


@dataclass(frozen=True)
class RunOutcome:
    """What a training run knows when it ends, for its record and for the origin of its weights.

    `frames` counts the labelled, unlabelled and validation frames; `device` is the device's type; `cache_seconds` is
    how long it took to build what the run read from the cache, NaN if unknown; `parameters` are numbers of weights;
    `validation` holds the scores of `ConditionIoU.result` with the `last` and the `best` weights and their epochs,
    `best` the mIoU, the epoch and the best threshold of each class of the exported ones; `unknown_classes` are those of
    which the training data say nothing, `teacher_sha256` is the hash of the teacher's file, if there was one.
    """

    kind: str
    experiment: Experiment
    frames: Mapping[str, int]
    processes: int
    device: str
    epochs: int
    steps: int
    seconds: float
    seconds_per_step: float | None
    cache_seconds: float
    parameters: Mapping[str, int]
    validation: Mapping[str, Any]
    best: Mapping[str, Any]
    unknown_classes: Sequence[str] = ()
    teacher_sha256: str | None = None


def save_record(path: Path, outcome: RunOutcome) -> None:
    """Write the record of a run that this process finished."""
    import torch

    data, pace = outcome.experiment.data, outcome.seconds_per_step
    # A run without a teacher does not read them.
    without_labels = data.unlabelled_roots if outcome.frames["unlabelled"] else []
    content: dict[str, Any] = {
        "kind": outcome.kind,
        **_describe_process(),
        "machine": read_cpu_name(),
        "device": torch.cuda.get_device_name() if outcome.device == "cuda" else "cpu",
        "processes": outcome.processes,
        "seed": outcome.experiment.train.seed,
        "train_root": _one_or_all([str(Path(root)) for root in data.train_roots]),
        "val_root": _one_or_all([str(Path(root)) for root in data.val_roots]),
        **({"unlabelled_root": _one_or_all([str(Path(root)) for root in without_labels])} if without_labels else {}),
        "synthetic_data": {
            "train": _describe_training(data),
            **({"unlabelled": _describe_roots(without_labels)} if without_labels else {}),
            "val": _describe_roots(data.val_roots),
        },
        "frames": dict(outcome.frames),
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "seconds_per_step": None if pace is None else round(pace, 6),
        "cache_seconds": None if math.isnan(outcome.cache_seconds) else round(outcome.cache_seconds, 3),
        "peak_memory": _measure_peak_memory(),
        "parameters": dict(outcome.parameters),
        "validation": dict(outcome.validation),
    }
    with replace_when_done(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2))


def describe_origin(outcome: RunOutcome) -> dict[str, Any]:
    """Describe for a weights file where its weights come from: command, data, settings, figures and versions."""
    experiment, process = outcome.experiment, _describe_process()
    taught = {"distill": to_mapping(experiment.distill), "teacher_sha256": outcome.teacher_sha256}
    return {
        "command": process["command"],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_revision": process["git_revision"],
        "train_samples": outcome.frames["labelled"],
        "unlabelled_samples": outcome.frames["unlabelled"],
        "validation_samples": outcome.frames["validation"],
        "unknown_classes": list(outcome.unknown_classes),
        "synthetic_data": _describe_training(experiment.data),
        "data": to_mapping(experiment.data),
        "train": to_mapping(experiment.train),
        **(taught if outcome.teacher_sha256 else {}),
        "steps": outcome.steps,
        "seconds": round(outcome.seconds),
        "validation": dict(outcome.best),
        "versions": process["versions"],
    }


@dataclass(frozen=True)
class RunScores:
    """Shares of 1, NaN where nothing is scored: mIoU, and IoU or mIoU by class, range and condition."""

    miou: float
    miou_half: float
    classes: Mapping[str, float]
    ranges: Mapping[str, float]
    conditions: Mapping[str, float]


@dataclass(frozen=True)
class RunRecord:
    """A finished run, as a study reads it.

    `parameters` are the network's own, `train_only` those that only training needs; `peak_memory` is in MB, of the GPU
    if there is one; `scores` has those of the `last` and the `best` weights; `ends` is of `log.summarise_end`;
    `cache_seconds` is as of `RunOutcome`, NaN for runs that were recorded without it.
    """

    steps: int
    seconds: float
    seconds_per_step: float
    peak_memory: float
    parameters: int
    train_only: int
    labelled: int
    unlabelled: int
    revision: str
    machine: str
    data: str
    scores: Mapping[str, RunScores]
    ends: Mapping[str, float]
    cache_seconds: float = math.nan

    @property
    def training_seconds(self) -> float:
        """Seconds of all steps, loading included; not those of validation and of starting."""
        return self.steps * self.seconds_per_step

    @property
    def total_seconds(self) -> float:
        """Seconds of training and of building what it reads from the cache; NaN if unknown."""
        return self.training_seconds + self.cache_seconds

    def to_mapping(self) -> dict[str, Any]:
        """Return the record as plain values for JSON: null for NaN."""
        content: dict[str, Any] = _replace_nan(asdict(self))
        return content

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> RunRecord:
        """Build a record from the plain values of `to_mapping`; others are a KeyError, TypeError or AttributeError."""
        values = _restore_nan(content)
        scores = {name: RunScores(**values["scores"][name]) for name in ("last", "best")}
        record = cls(**{**values, "scores": scores})
        _check_types(record)
        for each in scores.values():
            _check_types(each)
        return record


def _check_types(part: RunRecord | RunScores) -> None:
    """Raise TypeError for a value that is of another type than its field. A whole number is also a float."""
    kinds: dict[Any, Any] = {"str": str, "int": int, "float": (int, float), "Mapping[str, float]": Mapping}
    for each in fields(part):
        if each.type not in kinds:  # the scores, which are checked for themselves
            continue
        value = getattr(part, each.name)
        numbers = value.values() if isinstance(value, Mapping) else ()
        sound = isinstance(value, kinds[each.type]) and all(isinstance(n, (int, float)) for n in numbers)
        if not sound or any(isinstance(n, bool) for n in (value, *numbers)):
            raise TypeError(f"{each.name} is {value!r:.60}")


def read_record(folder: Path) -> RunRecord:
    """Read the record and the log in the folder of a finished run.

    Raises BridgeTAError that names the file when it lacks what is needed.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text())
        memory, counts, frames = content["peak_memory"], content["parameters"], content["frames"]
        return RunRecord(
            steps=int(content["steps"]),
            seconds=float(content["seconds"]),
            seconds_per_step=_number(content["seconds_per_step"]),
            peak_memory=(memory["resident"] if memory["cuda"] is None else memory["cuda"]) / 1e6,
            parameters=int(counts["teacher" if content["kind"] == "teacher" else "student"]),
            train_only=int(counts.get("train_only", 0)),
            labelled=int(frames["labelled"]),
            unlabelled=int(frames["unlabelled"]),
            revision=content["git_revision"] or "",
            machine=" on ".join(dict.fromkeys((content["device"], content["machine"]))),
            data=_describe_data(content.get("synthetic_data") or {}),
            scores={name: _read_scores(content["validation"][name]) for name in ("last", "best")},
            ends=summarise_end(read_log(folder)),
            cache_seconds=_number(content.get("cache_seconds")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BridgeTAError(
            f"is not the record of a finished run ({type(error).__name__}: {error})",
            where=path,
            fix="Move the run's folder away to have it trained again",
        ) from error


def _describe_process() -> dict[str, Any]:
    """Collect the command line, the revision of the source tree (None if installed), and the versions that compute."""
    import lightning
    import torch

    arguments = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return {
        "command": " ".join(["bridgeta", *sys.argv[1:]]),
        "git_revision": result.stdout.strip() or None if result.returncode == 0 else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }


def _measure_peak_memory() -> dict[str, int | None]:
    """Bytes: the largest resident set of this process, and the most that was allocated on its GPU, None without one."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"resident": resident, "cuda": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None}


def _describe_training(data: DataConfig) -> Any:
    """Return `_describe_roots` of what was trained on; None where frames were rendered, which `data` describes."""
    return None if data.source == "synthetic" else _describe_roots(data.train_roots)


def _describe_roots(roots: Sequence[str]) -> Any:
    """Return the settings that a synthetic root was made with, of several a list; None for roots of another origin."""
    found = [read_synthetic_settings(find_root(root)) for root in roots]
    return _one_or_all(found) if any(found) else None


def _one_or_all(values: list[Any]) -> Any:
    """Return the only value, or all: records of one root stay as they were."""
    return values[0] if len(values) == 1 else values


def _describe_data(synthetic: Mapping[str, Any]) -> str:
    """Name the synthetic roots that a run was trained and validated on."""
    roots = ((name, found if isinstance(found, list) else [found]) for name, found in synthetic.items())
    made = [(name, settings) for name, found in roots for settings in found if settings]
    return ", ".join(
        f"{name}: {s['scenes']} scenes of split {s['split']}, seed {s['seed']}, {s['duration']:g} s" for name, s in made
    )


def _read_scores(content: Mapping[str, Any]) -> RunScores:
    return RunScores(
        miou=_number(content["miou"]),
        miou_half=_number(content["miou_at_0.5"]),
        classes={name: _number(values["iou"]) for name, values in content["classes"].items()},
        ranges={name: _number(values["miou"]) for name, values in content["ranges"].items()},
        conditions={name: _number(values["miou"]) for name, values in content["conditions"].items()},
    )


def _number(value: float | None) -> float:
    """Read a number; JSON has null for what is unknown or not scored."""
    return math.nan if value is None else float(value)


def _replace_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _restore_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _restore_nan(each) for key, each in value.items()}
    return math.nan if value is None else value
