"""A training run: what it writes, what it refuses, and that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from memory_limit import little_memory

from bridgeta_core.config import experiment as config
from bridgeta_core.deploy.weights import load_student, read_info
from bridgeta_core.training.tasks import StudentTask
from bridgeta_core.training.train import train_distill, train_student
from bridgeta_core.utils.errors import BridgeTAError


@pytest.fixture(scope="module")
def finished(two_scenes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_student(two_scenes("train.ema=0.99"), folder)
    return folder


def test_a_run_writes_settings_logs_checkpoints_and_weights(finished):
    assert config.load(config.Experiment, finished / "experiment.yaml").train.epochs == 2
    rows = list(csv.DictReader((finished / "logs/version_0/metrics.csv").open()))
    assert any(row.get("train/loss") for row in rows)
    assert len([row for row in rows if row.get("val/miou")]) == 2
    assert list(finished.glob("logs/version_0/events.out.tfevents.*"))
    assert (finished / "checkpoints/last.ckpt").exists()
    assert (finished / "checkpoints/best.ckpt").exists()


def test_the_weights_have_their_provenance(finished, small_root):
    info = read_info(finished / "student.safetensors")
    assert info.provenance["data"]["train_root"] == str(small_root)
    assert info.provenance["train"]["epochs"] == 2
    assert info.provenance["steps"] > 0
    student, _ = load_student(finished / "student.safetensors")
    assert sum(p.numel() for p in student.parameters()) > 0


def test_a_resumed_run_ends_with_the_same_weights(finished, two_scenes, tmp_path, monkeypatch):
    def break_off(task: StudentTask) -> None:
        if task.current_epoch == 1:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(StudentTask, "on_train_epoch_start", break_off)
        with pytest.raises(RuntimeError, match="power cut"):
            train_student(two_scenes("train.ema=0.99"), tmp_path)
    assert not (tmp_path / "student.safetensors").exists()
    train_student(two_scenes("train.ema=0.99"), tmp_path, resume=True)
    last = [torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (finished, tmp_path)]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_validation_samples_are_drawn_after_every_epoch_and_after_a_resumption_alike(
    finished, two_scenes, tmp_path, monkeypatch
):
    def break_off(task: StudentTask) -> None:
        if task.current_epoch == 1:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(StudentTask, "on_train_epoch_start", break_off)
        with pytest.raises(RuntimeError, match="power cut"):
            train_student(two_scenes("train.ema=0.99"), tmp_path)
    first = (tmp_path / "samples.png").read_bytes()
    train_student(two_scenes("train.ema=0.99"), tmp_path, resume=True)
    assert first != (tmp_path / "samples.png").read_bytes() == (finished / "samples.png").read_bytes()
    assert cv2.imread(str(tmp_path / "samples.png")).shape[2] == 3


def test_a_finished_run_is_not_overwritten(finished, two_scenes):
    with pytest.raises(BridgeTAError, match="already holds a run"):
        train_student(two_scenes("train.ema=0.99"), finished)


def test_a_run_is_not_resumed_with_other_settings(finished, two_scenes):
    with pytest.raises(BridgeTAError, match="other settings"):
        train_student(two_scenes("train.ema=0.99", "train.seed=5"), finished, resume=True)


def test_there_is_nothing_to_resume_in_an_empty_folder(two_scenes, tmp_path):
    with pytest.raises(BridgeTAError, match="no checkpoint"):
        train_student(two_scenes("train.ema=0.99"), tmp_path, resume=True)


def test_an_interrupted_run_says_how_to_continue(two_scenes, tmp_path, monkeypatch):
    def stop(task: StudentTask) -> None:
        if task.current_epoch == stop.epoch:
            raise KeyboardInterrupt

    for stop.epoch, advice in ((0, "start again"), (1, "continue with --resume")):
        with monkeypatch.context() as patch:
            patch.setattr(StudentTask, "on_train_epoch_start", stop)
            with pytest.raises(BridgeTAError, match=f"was interrupted.*{advice}"):
                train_student(two_scenes("train.ema=0.99"), tmp_path)
    assert train_student(two_scenes("train.ema=0.99"), tmp_path, resume=True).exists()


def test_a_schedule_may_rise_in_one_step(two_scenes, tmp_path):
    assert train_student(two_scenes("train.epochs=1", "data.steps_per_epoch=2", "train.warmup=0.5"), tmp_path).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from bridgeta_core.config import experiment as config
from bridgeta_core.training.train import train_distill
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


def test_a_logger_of_the_settings_receives_what_the_files_have(two_scenes, tmp_path):
    logs = tmp_path / "elsewhere"
    options = f"train.logger_options={{save_dir: {logs}, name: mine}}"
    train_student(
        two_scenes("train.epochs=1", "train.logger=lightning.pytorch.loggers:CSVLogger", options), tmp_path / "run"
    )
    (page,) = logs.glob("mine/version_0/metrics.csv")
    assert "val/miou" in page.read_text()


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ("no_such_module:Logger", "cannot be made.*no_such_module"),
        ("lightning.pytorch.loggers:NoLogger", "cannot be made.*NoLogger"),
        ("lightning.pytorch.loggers:CSVLogger", "cannot be made.*save_dir"),
        ("pathlib:Path", "is no Lightning logger"),
    ],
)
def test_a_logger_that_cannot_be_made_is_named_before_anything_is_written(two_scenes, tmp_path, logger, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        train_student(two_scenes("train.epochs=1", f"train.logger={logger}"), tmp_path / "run")
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_without_the_memory_to_train_nothing_is_left_behind(two_scenes, tmp_path):
    with little_memory(256 * 2**20), pytest.raises(MemoryError, match="no 512 MiB for training"):
        train_student(two_scenes(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
