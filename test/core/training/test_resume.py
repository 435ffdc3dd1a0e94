"""A run that is killed in the middle of an epoch goes on as if nothing had happened."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import torch

from bridgeta_core.config import experiment as config
from bridgeta_core.training import train_distill

KILLED = """
import os, signal, sys
from pathlib import Path
from bridgeta_core import config
from bridgeta_core.training import train_distill
from bridgeta_core.training.distill_task import DistillTask

def kill(task, batch, index):
    if (task.current_epoch, index) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)

DistillTask.on_train_batch_start = kill
train_distill(config.load(config.Experiment, sys.argv[1]), Path(sys.argv[2]))
"""


def losses(log: Path) -> list[dict[str, str]]:
    """Everything that was logged of the second epoch."""
    with (log / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file) if row["epoch"] == "1"]


def test_a_killed_run_repeats_its_epoch_exactly(two_scenes, teacher, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = two_scenes(
        f"distill.teacher={teacher}",
        "distill.warmup_steps=1",
        "distill.ramp_steps=3",
        "distill.calibrate_steps=2",
        "train.ema=0.9",
        "data.steps_per_epoch=3",
        "data.labelled=0.5",
    )
    train_distill(settings, whole)
    command = [sys.executable, "-c", KILLED, str(whole / "experiment.yaml"), str(broken)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert not (broken / "run.json").exists()
    train_distill(config.load(config.Experiment, broken / "experiment.yaml"), broken, resume=True)

    again, expected = losses(broken / "logs/version_1"), losses(whole / "logs/version_0")
    assert len(expected) == 2  # training and validation
    assert again == expected
    last = [torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (whole, broken)]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
