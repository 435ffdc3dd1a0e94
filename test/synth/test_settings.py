"""Settings: what is impossible is refused by name before anything happens."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.cli import app
from bridgeta_synth.dataset.datasheet import DataSheet, Tally
from bridgeta_synth.settings import SynthSettings


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"scenes": 0}, "scenes"),
        ({"scenes": 10_000}, "scenes"),
        ({"seed": -1}, "seed"),
        ({"split": "trainval"}, "split is 'trainval', it must be train, val or test"),
        ({"image_scale": 0.0}, "image_scale"),
        ({"image_scale": 1.5}, "image_scale"),
        ({"image_scale": float("nan")}, "image_scale"),
        ({"duration": -1.0}, "duration"),
        ({"duration": float("inf")}, "duration"),
        ({"version": "../escape"}, "version"),
        ({"relief": -0.1}, "relief"),
        ({"relief": 2.0}, "relief"),
        ({"relief": float("nan")}, "relief"),
        ({"weather": "hail"}, "weather is 'hail', it must be mixed, clear, overcast, dusk, night or rain"),
        ({"maps": ""}, "maps"),
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, object], name: str) -> None:
    with pytest.raises(BridgeTAError, match=name) as caught:
        SynthSettings(**{"scenes": 1, **change})  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


def test_splits_of_a_seed_have_their_own_random_streams() -> None:
    seeds = [SynthSettings(scenes=1, seed=4, split=split).seeds for split in ("train", "val", "test")]
    assert seeds == [(4, 0), (4, 1), (4, 2)]


@pytest.mark.parametrize(
    ("duration", "keyframes_only", "lidar", "files"),
    [
        (0.0, False, True, 7),
        (2.0, True, True, 7 * 5),
        (2.0, False, True, 6 * (4 * 6 + 1) + 4 * 10 + 1),
        (2.4, False, False, 6 * (4 * 6 + 1)),
    ],
)
def test_cameras_run_at_12_hz_and_lidar_at_20_hz(
    duration: float, keyframes_only: bool, lidar: bool, files: int
) -> None:
    settings = SynthSettings(scenes=1, duration=duration, keyframes_only=keyframes_only, lidar=lidar)
    assert settings.files_per_scene == files


def test_the_command_line_sets_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def write(out: Path, settings: SynthSettings, **options: Any) -> DataSheet:
        asked.update(options, out=out, settings=settings)
        return DataSheet(settings, (), Tally(scenes=1, keyframes=1, cells=1))

    monkeypatch.setattr("bridgeta_synth.dataset.writer.write_dataset", write)
    options = "--scenes 3 --seed 5 --split val --duration 1.5 --version v1.0-mini --keyframes-only --image-scale 0.5"
    more = f"--no-lidar --relief 0.25 --weather night --maps {tmp_path} --device cuda --jobs 7 --overwrite"
    result = CliRunner().invoke(app, ["synth", "town", *options.split(), *more.split()])
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
    )
    assert not [f.name for f in fields(expected) if f.name != "scenes" and getattr(expected, f.name) == f.default]
    assert asked == {"out": Path("town"), "settings": expected, "device": "cuda", "jobs": 7, "overwrite": True}
