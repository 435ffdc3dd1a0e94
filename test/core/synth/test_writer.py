"""Writing: reproducible to the byte, refusing what is impossible, leaving nothing behind when interrupted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from bridgeta_core.errors import BridgeTAError
from bridgeta_core.synth import SynthSettings, write_dataset
from bridgeta_core.synth.render import SceneRenderer

TINY = SynthSettings(scenes=2, seed=3, duration=0.5, version="v1.0-mini", keyframes_only=True, image_scale=0.1)


def _digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "a", TINY, progress=False)
    monkeypatch.setattr("bridgeta_core.synth.writer._workers", lambda: 1)
    write_dataset(tmp_path / "b", TINY, progress=False)
    first = _digests(tmp_path / "a")
    assert first == _digests(tmp_path / "b")
    assert len({p for p in first if p.startswith("maps/expansion")}) == 2
    assert not any(p.startswith("sweeps") for p in first)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"scenes": 0}, "scenes"),
        ({"seed": -1}, "seed"),
        ({"image_scale": 0.0}, "image_scale"),
        ({"image_scale": 1.5}, "image_scale"),
        ({"image_scale": float("nan")}, "image_scale"),
        ({"duration": -1.0}, "duration"),
        ({"duration": float("inf")}, "duration"),
        ({"version": "../escape"}, "version"),
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, object], name: str) -> None:
    with pytest.raises(BridgeTAError, match=name) as caught:
        SynthSettings(**{"scenes": 1, **change})  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(BridgeTAError, match="was not written by synth"):
        write_dataset(tmp_path, TINY, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_unknown_device_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match="device"):
        write_dataset(tmp_path / "out", TINY, device="cuda:99", progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(self: SceneRenderer, time: float, noise_seed: int) -> None:
        raise error

    monkeypatch.setattr(SceneRenderer, "lidar", fail)
    expected = BridgeTAError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="space" if isinstance(error, OSError) else None):
        write_dataset(tmp_path / "out", replace(TINY, scenes=1), progress=False)
    assert not list(tmp_path.iterdir())
