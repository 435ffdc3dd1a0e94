"""The remains of an interrupted run: resumed by the same settings, refused by others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.dataset.checkpoint import Checkpoint
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.settings import SynthSettings

TINY = SynthSettings(scenes=2, seed=3, duration=0.0, version="v1.0-mini", keyframes_only=True, image_scale=0.1)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """Leave the folder of a run that was interrupted at once; return the path that it was to write."""
    with Checkpoint(tmp_path / "out").opened(TINY, "cpu", discard=False):
        pass
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 4}, "seed 3 instead of 4"),
        ({"relief": 0.5, "split": "val"}, "split 'train' instead of 'val', relief 1.0 instead of 0.5"),
    ],
)
def test_a_run_of_other_settings_is_not_resumed(interrupted: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BridgeTAError, match=says) as caught:
        write_dataset(interrupted, replace(TINY, **change), progress=False)
    assert caught.value.exit_code == 2
    assert "remove the folder" in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_a_run_of_an_older_world_is_not_resumed(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgeta_synth.dataset.checkpoint.WORLD_VERSION", 1_000_000)
    with pytest.raises(BridgeTAError, match="version of the synthetic world 2 instead of 1000000"):
        write_dataset(interrupted, TINY, progress=False)


def test_overwriting_discards_only_tasks_of_other_settings(interrupted: Path) -> None:
    checkpoint = Checkpoint(interrupted)
    for settings, kept in ((TINY, True), (replace(TINY, seed=4), False)):
        checkpoint.save("scene-0001", {}, [])
        with checkpoint.opened(settings, "cpu", discard=True):
            assert checkpoint.has("scene-0001") == kept


@pytest.mark.parametrize("damage", ["a listed task", "a file", "a file that is gone", "cut"])
def test_a_damaged_task_is_made_again(interrupted: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = Checkpoint(interrupted)
    file = checkpoint.root / "map.json"
    file.write_bytes(b"0123")
    checkpoint.save("task", {"number": 7}, [file])
    assert checkpoint.has("task")
    assert checkpoint.load("task") == {"number": 7}
    listed = checkpoint.finished / "task.json"
    if damage == "a listed task":
        listed.write_text(listed.read_text().replace("7", "8"))
    elif damage == "cut":
        listed.write_text(listed.read_text()[:20])
    elif damage == "a file":
        file.write_bytes(b"0124")
    else:
        file.unlink()
    assert not checkpoint.has("task")
    assert "task was damaged" in caplog.text


def test_two_runs_cannot_share_a_folder(interrupted: Path) -> None:
    with (
        Checkpoint(interrupted).opened(TINY, "cpu", discard=False),
        pytest.raises(BridgeTAError, match="another process is writing here"),
    ):
        write_dataset(interrupted, TINY, progress=False)


def test_an_earlier_root_is_replaced_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "synth.json").write_text("{}")
    with pytest.raises(BridgeTAError, match="earlier synthetic dataset"):
        write_dataset(tmp_path / "out", TINY, progress=False)
    checkpoint = Checkpoint(tmp_path / "out")
    with checkpoint.opened(TINY, "cpu", discard=False):
        (checkpoint.root / "new.txt").write_text("new")
        checkpoint.publish()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "new.txt"]


def begin(out: Path) -> Checkpoint:
    """A run whose only task is finished, beside an earlier root."""
    out.mkdir()
    (out / "earlier").touch()
    checkpoint = Checkpoint(out)
    with checkpoint.opened(TINY, "cpu", discard=True):
        (checkpoint.root / "new").touch()
        checkpoint.save("task", {}, [])
    return checkpoint


def kill(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_killed_before_its_root_moves_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = begin(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("bridgeta_synth.dataset.checkpoint.move_into_place", kill)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.publish()
    checkpoint.clear_published()
    with checkpoint.opened(TINY, "cpu", discard=True):
        assert checkpoint.has("task")
        checkpoint.publish()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_killed_after_its_root_has_moved_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = begin(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("bridgeta_synth.dataset.checkpoint.discard", kill)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.publish()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    checkpoint.clear_published()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with checkpoint.opened(TINY, "cpu", discard=True):
        assert not checkpoint.has("task")


def test_a_folder_of_something_else_is_not_locked(tmp_path: Path) -> None:
    for name in ("out", "out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").touch()
    with pytest.raises(BridgeTAError, match="not left by"):
        Checkpoint(tmp_path / "out").clear_published()
    assert len(list(tmp_path.rglob("*"))) == 4


def test_a_root_behind_a_link_is_written_where_the_link_points(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    write_dataset(tmp_path / "out", TINY, progress=False, jobs=1)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "synth.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out"]
