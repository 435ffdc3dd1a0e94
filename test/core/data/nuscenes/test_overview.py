"""`bridgeta data index`."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app


@pytest.fixture
def overview(small_root, tmp_path, monkeypatch):
    """A call of the command, which gives its lines with single spaces."""
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bridgeta_core.cli.common.console.width", 300, raising=False)

    def call() -> list[str]:
        result = CliRunner().invoke(app, ["data", "index", str(small_root)])
        assert result.exit_code == 0, result.output
        return [re.sub(r"[│\s]+", " ", line).strip() for line in result.output.splitlines()]

    return call


def test_it_tells_what_the_tables_hold(overview, tmp_path):
    lines = overview()
    for line in (
        "scenes 2",
        "samples 4",
        "day 1 scenes, 2 samples",
        "night 1 scenes, 2 samples",
        "rain 1 scenes, 2 samples",
        "boston-seaport 1 scenes, 2 samples",
        "singapore-onenorth 1 scenes, 2 samples",
        "split mini_train 1 of its 8 scenes, 2 samples",
        "split mini_val 1 of its 2 scenes, 2 samples",
        "split train 1 of its 700 scenes, 2 samples",
        "split val 1 of its 150 scenes, 2 samples",
        "CAM_FRONT 4 keyframes, 4 sweeps",
        "LIDAR_TOP 4 keyframes, 4 sweeps",
        "time 2020-09-13 12:26 to 2020-09-13 12:28 UTC",
    ):
        assert line in lines
    assert not any(line.startswith("split test") for line in lines)
    assert any(line.startswith(f"index {tmp_path / 'cache' / 'index'}") and line.endswith(" MB") for line in lines)


def test_it_tells_whether_it_was_there(overview):
    assert any("built in" in line for line in overview())
    assert any("was there already" in line for line in overview())
