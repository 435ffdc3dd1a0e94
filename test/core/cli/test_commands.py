"""The commands hand their arguments on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.training import train as training


@pytest.mark.parametrize("kind", ["teacher", "student", "distill"])
def test_each_kind_of_training_has_its_command(kind, monkeypatch):
    calls = []

    def record(experiment, folder, resume):
        calls.append((experiment.train.epochs, folder, resume))
        return folder / "weights"

    monkeypatch.setattr(training, f"train_{kind}", record)
    run = CliRunner().invoke
    assert run(app, ["train", kind, "tiny", "train.epochs=3", "--out", "somewhere", "--resume"]).exit_code == 0
    assert run(app, ["train", kind, "nuscenes_swin_t"]).output.strip() == f"Wrote runs/{kind}/weights"
    assert calls == [(3, Path("somewhere"), True), (20, Path("runs") / kind, False)]
