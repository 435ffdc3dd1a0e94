"""Checkpoint files are whole or absent."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.training.checkpoints import WholeCheckpoints


def test_what_was_written_comes_back(tmp_path):
    WholeCheckpoints().save_checkpoint({"a": torch.arange(3)}, tmp_path / "x" / "last.ckpt")
    assert WholeCheckpoints().load_checkpoint(tmp_path / "x" / "last.ckpt")["a"].tolist() == [0, 1, 2]


def test_a_write_that_breaks_off_leaves_the_checkpoint_before(tmp_path, monkeypatch):
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
