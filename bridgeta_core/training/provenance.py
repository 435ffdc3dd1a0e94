"""Where weights come from: command, data, settings, figures, versions."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch

from bridgeta_core.config.experiment import Experiment, to_mapping
from bridgeta_core.training.frames import Frames


def command() -> str:
    """The command line of this process."""
    return " ".join(["bridgeta", *sys.argv[1:]])


def git_revision() -> str | None:
    """The revision of the source tree, None for an installed package."""
    arguments = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"python": platform.python_version(), "torch": torch.__version__, "lightning": lightning.__version__}


def sha256(path: str | Path) -> str:
    """The hash of a file."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def synthesis(root: str | Path) -> dict[str, Any] | None:
    """The settings that a synthetic root was made with, None for a root of another origin."""
    sheet = Path(root) / "synth.json"
    return json.loads(sheet.read_text())["settings"] if sheet.exists() else None


def provenance(
    experiment: Experiment, frames: Frames, metrics: dict[str, Any], steps: int, seconds: float, teacher: str | None
) -> dict[str, Any]:
    """What a weights file says about its origin; `teacher` is the hash of the teacher's file, if there was one."""
    return {
        "command": command(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_revision": git_revision(),
        "train_samples": len(frames.labelled),
        "unlabelled_samples": len(frames.unlabelled),
        "validation_samples": len(frames.validation),
        "synthetic_data": synthesis(experiment.data.train_root),
        "data": to_mapping(experiment.data),
        "train": to_mapping(experiment.train),
        **({"distill": to_mapping(experiment.distill), "teacher_sha256": teacher} if teacher else {}),
        "steps": steps,
        "seconds": round(seconds),
        "validation": metrics,
        "versions": versions(),
    }
