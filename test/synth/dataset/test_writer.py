"""Writing: reproducible to the byte, resumable, and never half-written under its final name."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.dataset.checkpoint import Checkpoint
from bridgeta_synth.dataset.workers import Workers
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.render.renderer import SceneRenderer
from bridgeta_synth.settings import SynthSettings

TINY = SynthSettings(scenes=2, seed=3, duration=0.0, version="v1.0-mini", keyframes_only=True, image_scale=0.1)


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hash the files of the tiny world, written in one go by one thread."""
    out = tmp_path_factory.mktemp("reference") / "root"
    write_dataset(out, TINY, progress=False, jobs=1)
    assert [p.name for p in out.parent.iterdir()] == ["root"]
    return digests(out)


def test_a_root_holds_its_maps_and_the_requested_files(reference: dict[str, str]) -> None:
    assert len([name for name in reference if name.startswith("maps/expansion")]) == 2
    assert len([name for name in reference if name.startswith("samples")]) == 2 * TINY.files_per_scene
    folders = {Path(name).parts[0] for name in reference}
    assert folders == {"maps", "samples", "v1.0-mini", "synth.json"}


def test_resuming_after_a_worker_dies_gives_identical_bytes(
    reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, lidar, checkpoint = Workers._receive, SceneRenderer.render_sweep, Checkpoint(tmp_path / "out")

    def kill(self: Workers, worker: Any, *others: Any) -> None:
        if worker.task.name == "scene-0002":
            worker.process.kill()
            while not checkpoint.has("scene-0001"):
                time.sleep(0.02)
        receive(self, worker, *others)

    def only_the_other_scene(self: SceneRenderer, at: float) -> Any:
        assert self.scene.index == 1, "a finished scene is made again"
        return lidar(self, at)

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "_receive", kill)
        with pytest.raises(BridgeTAError, match=r"scene-0002: the process that wrote it died \(SIGKILL\)"):
            write_dataset(tmp_path / "out", TINY, progress=False, jobs=2)
    assert not (tmp_path / "out").exists()
    done = {checkpoint.root / record["filename"] for record in checkpoint.load("scene-0001")["tables"]["sample_data"]}
    half = set(checkpoint.root.glob("samples/*/*")) - done
    assert half
    for path in half:
        path.write_bytes(b"half of an image")
    monkeypatch.setattr(SceneRenderer, "render_sweep", only_the_other_scene)
    write_dataset(tmp_path / "out", TINY, progress=False, jobs=2)
    assert digests(tmp_path / "out") == reference
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyboardInterrupt(), r"was interrupted\. Repeat the command to go on"),
        (OSError(28, "No space left on device"), r"maps-boston-seaport cannot be written \(No space left.*to go on"),
        (MemoryError(), r"maps-boston-seaport: there is not enough memory \(no memory is left\)\. Use fewer --jobs"),
        (RuntimeError("can't start new thread"), r"maps-boston-seaport: there is not enough memory \(can't start new"),
    ],
)
def test_a_failed_run_leaves_only_the_partial_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, says: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("bridgeta_synth.dataset.world.build_town", lambda *_: None)
    monkeypatch.setattr("bridgeta_synth.dataset.tasks.write_maps", fail)
    with pytest.raises(BridgeTAError, match=says):
        write_dataset(tmp_path / "out", TINY, progress=False, jobs=1)
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial"]


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("precious")
    with pytest.raises(BridgeTAError, match=r"not (written|left) by") as caught:
        write_dataset(tmp_path / "out", TINY, progress=False, overwrite=True)
    assert caught.value.exit_code == 2
    assert [p.name for p in tmp_path.rglob("*")] == [name, "thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"device": "cuda:99"}, "device"), ({"device": "abacus"}, "device"), ({"jobs": 0}, "jobs")],
)
def test_unusable_arguments_are_refused_before_writing(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BridgeTAError, match=says):
        write_dataset(tmp_path / "out", TINY, progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_missing_maps_are_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match="no such folder"):
        write_dataset(tmp_path / "out", replace(TINY, maps=str(tmp_path / "none")), progress=False)
    assert not list(tmp_path.iterdir())
