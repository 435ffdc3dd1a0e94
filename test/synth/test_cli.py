"""The command line: every setting has an option."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bridgeta_ros.commands import app
from bridgeta_synth.dataset.datasheet import DataSheet, Tally
from bridgeta_synth.settings import SynthSettings


def test_the_command_line_sets_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}

    def write(out: Path, settings: SynthSettings, **options: Any) -> DataSheet:
        received.update(options, out=out, settings=settings)
        return DataSheet(settings, (), Tally(scenes=1, keyframes=1, cells=1))

    monkeypatch.setattr("bridgeta_synth.dataset.writer.write_dataset", write)
    options = "--scenes 3 --seed 5 --split val --duration 1.5 --version v1.0-mini --keyframes-only --image-scale 0.5"
    places = "--keyframe-gap 1.5 --spread"
    switches = f"--no-lidar --relief 0.25 --weather night --maps {tmp_path} --device cuda --jobs 7 --overwrite"
    result = CliRunner().invoke(app, ["synth", "town", *options.split(), *places.split(), *switches.split()])
    assert result.exit_code == 0, result.output
    expected = SynthSettings(
        scenes=3,
        seed=5,
        split="val",
        duration=1.5,
        version="v1.0-mini",
        keyframes_only=True,
        image_scale=0.5,
        lidar=False,
        relief=0.25,
        weather="night",
        maps=str(tmp_path),
        keyframe_gap=1.5,
        spread=True,
    )
    assert not [f.name for f in fields(expected) if f.name != "scenes" and getattr(expected, f.name) == f.default]
    assert received == {"out": Path("town"), "settings": expected, "device": "cuda", "jobs": 7, "overwrite": True}
