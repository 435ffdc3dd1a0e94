"""Who watches a run learns what is trained, how each epoch ended, and what came out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bridgeta_core.config import experiment as config
from bridgeta_core.runs import words
from bridgeta_core.runs.words import describe_epoch, describe_start, format_duration
from bridgeta_core.training.train import train_student

METRICS = {"train/loss": 0.41234, "val/loss": 0.5, "val/miou": 0.2437}


@pytest.fixture(autouse=True)
def _old_processor(monkeypatch):
    monkeypatch.setattr(words, "has_bfloat16", lambda: False)


def test_the_start_says_what_is_trained_on_what():
    experiment = config.load(config.Experiment, "tiny", ["train.epochs=3", "data.batch_size=2"])
    text = describe_start(
        experiment,
        "distill",
        device="cpu",
        processes=2,
        frames={"training": "1,960 frames"},
        parameters={"student": 970_123, "assistant": 12_345},
        batches=800,
        teacher="teacher.safetensors, its features read from cache",
    )
    assert text.splitlines() == [
        "Training distill",
        "  device      cpu, 32-true, 2 processes",
        "  parameters  student 0.97 M, assistant 12,345",
        "  training    1,960 frames",
        "  teacher     teacher.safetensors, its features read from cache",
        "  epochs      3 of 800 batches of 4 frames",
    ]


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [("cpu", "32-true", True), ("cpu", "bf16-mixed", False), ("cuda:0", "32-true", False)],
)
def test_a_processor_that_could_train_faster_is_said(monkeypatch, device, precision, said):
    monkeypatch.setattr(words, "has_bfloat16", lambda: True)
    experiment = config.load(config.Experiment, "tiny", [f"train.precision={precision}"])
    text = describe_start(experiment, "student", device=device, processes=1, frames={}, parameters={}, batches=1)
    assert ("train.precision=bf16-mixed is faster" in text) is said


def test_an_epoch_is_one_line_in_per_cent():
    line = describe_epoch(1, 6, METRICS, {"miou": 0.25, "epoch": 0}, 65.0, 250.0)
    assert line == (
        "epoch 2 of 6: loss 0.4123, validation loss 0.5, mIoU 24.4 % (best 25.0 % in epoch 1), 1 min 05 s, "
        "about 4 min 10 s to go"
    )


def test_the_last_epoch_has_nothing_to_go():
    assert "to go" not in describe_epoch(5, 6, METRICS, None, 65.0, 0.0)


def test_a_validation_without_any_class_is_a_dash():
    assert "mIoU - %" in describe_epoch(0, 1, {"val/miou": float("nan")}, None, 1.0, 0.0)


@given(st.floats(0, 1e6))
def test_a_duration_is_right_to_the_unit_that_it_shows(seconds):
    units = {"s": 1, "min": 60, "h": 3600}
    parts = format_duration(seconds).split()
    value = sum(int(number) * units[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))
    assert abs(value - seconds) <= (0.5 if seconds < 3599.5 else 30)


def test_what_is_not_known_is_no_duration():
    assert format_duration(float("nan")) == "?"


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_shows_its_start_every_epoch_and_its_scores(two_scenes, tmp_path, capsys, monkeypatch, resume):
    monkeypatch.setattr("bridgeta_core.training.train.Console", lambda: Console(width=120))
    settings = ["data.steps_per_epoch=1", "data.cache=null"]
    if resume:
        from bridgeta_core.training.tasks import StudentTask

        def stop(task):
            if task.current_epoch == 1:
                raise RuntimeError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(StudentTask, "on_train_epoch_start", stop)
            with pytest.raises(RuntimeError):
                train_student(two_scenes(*settings), tmp_path)
        assert "epoch 1 of 2" in capsys.readouterr().out
    train_student(two_scenes(*settings), tmp_path, resume=resume)
    text = capsys.readouterr().out
    assert "Training student" in text
    assert "frames with labels, of 2 scenes" in text
    assert ("epoch 1 of 2" in text) is not resume
    assert "epoch 2 of 2: loss" in text
    assert "IoU in %, validation after epoch" in text
    assert "ped_crossing" in text
