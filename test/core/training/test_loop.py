"""The loop: averaged weights and whole checkpoints."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.training.loop import MovingAverage, WholeCheckpoints


def test_the_moving_average_forgets_the_initial_weights():
    average = MovingAverage(0.999).average
    mean, steps = torch.tensor(1000.0), 100
    for n in range(1, steps):
        mean = average(mean, torch.tensor(1.0), torch.tensor(n))
    assert mean.item() == pytest.approx(1.0, abs=1e-3)  # a constant decay would still be above 900


def test_the_moving_average_reaches_its_decay():
    average = MovingAverage(0.9).average
    assert average(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(10_000)).item() == pytest.approx(0.9)


def test_counters_and_flags_are_copied():
    average = MovingAverage(0.9).average
    assert average(torch.tensor(3), torch.tensor(7), torch.tensor(50)).item() == 7
    assert average(torch.tensor(False), torch.tensor(True), torch.tensor(50)).item() is True


def test_a_checkpoint_is_read_as_written(tmp_path):
    WholeCheckpoints().save_checkpoint({"a": torch.arange(3)}, tmp_path / "x" / "last.ckpt")
    assert WholeCheckpoints().load_checkpoint(tmp_path / "x" / "last.ckpt")["a"].tolist() == [0, 1, 2]


def test_an_interrupted_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, path)

    def break_off(_, target):
        target.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({"epoch": 2}, path)
    assert WholeCheckpoints().load_checkpoint(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
