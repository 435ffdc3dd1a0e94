"""run.json: what a finished run tells."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from bridgeta_core.training.frames import Frames
from bridgeta_core.training.loop import Loop
from bridgeta_core.training.provenance import command, git_revision, synthesis, versions
from bridgeta_core.training.tasks import MapTask
from bridgeta_core.utils.files import replace_when_done
from bridgeta_core.utils.machine import read_cpu_name


def peak_memory() -> dict[str, int | None]:
    """Bytes: the largest resident set of this process, and the most that was allocated on its GPU, None without one."""
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"resident": resident, "cuda": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None}


def write_record(loop: Loop, task: MapTask, frames: Frames, parameters: dict[str, int]) -> None:
    """Write run.json.

    `validation` holds the scores of `ConditionIoU.result` with the `last` and the `best` weights, and their epochs.
    """
    experiment, seconds_per_step = task.experiment, loop.stopwatch.seconds_per_step
    content: dict[str, Any] = {
        "kind": loop.run.kind,
        "command": command(),
        "git_revision": git_revision(),
        "versions": versions(),
        "machine": read_cpu_name(),
        "device": torch.cuda.get_device_name() if loop.device.type == "cuda" else "cpu",
        "processes": frames.processes.world,
        "seed": experiment.train.seed,
        "train_root": str(Path(experiment.data.train_root)),
        "val_root": str(Path(experiment.data.val_root)),
        "synthetic_data": {"train": synthesis(experiment.data.train_root), "val": synthesis(experiment.data.val_root)},
        "frames": {
            "labelled": len(frames.labelled),
            "unlabelled": len(frames.unlabelled),
            "validation": len(frames.validation),
        },
        "epochs": loop.trainer.current_epoch,
        "steps": loop.trainer.global_step,
        "seconds": round(loop.stopwatch.seconds, 3),
        "seconds_per_step": None if seconds_per_step is None else round(seconds_per_step, 6),
        "peak_memory": peak_memory(),
        "parameters": parameters,
        "validation": task.scores,
    }
    with replace_when_done(loop.run.record) as temporary:
        temporary.write_text(json.dumps(content, indent=2))
