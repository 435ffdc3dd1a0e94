"""Writing: reproducible to the byte, resumable, refusing what is impossible, never half-written under its name."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.dataset.checkpoint import PartialRoot
from bridgeta_synth.dataset.part import Part
from bridgeta_synth.dataset.workers import Backlog, Workers
from bridgeta_synth.dataset.world import World
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.render.renderer import SceneRenderer
from bridgeta_synth.settings import SynthSettings

TINY = SynthSettings(scenes=2, seed=3, duration=0.0, version="v1.0-mini", keyframes_only=True, image_scale=0.1)


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checksums of the tiny world, written in one go by one thread."""
    out = tmp_path_factory.mktemp("reference") / "root"
    write_dataset(out, TINY, progress=False, jobs=1)
    assert [p.name for p in out.parent.iterdir()] == ["root"]
    return digests(out)


def test_a_root_holds_maps_of_its_cities_and_the_files_that_were_asked_for(reference: dict[str, str]) -> None:
    assert len([name for name in reference if name.startswith("maps/expansion")]) == 2
    assert len([name for name in reference if name.startswith("samples")]) == 2 * TINY.files_per_scene
    folders = {Path(name).parts[0] for name in reference}
    assert folders == {"maps", "samples", "v1.0-mini", "synth.json"}


def test_a_run_of_which_a_process_dies_names_the_scene_and_is_gone_on_with_to_the_same_bytes(
    reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, lidar, partial = Workers._receive, SceneRenderer.lidar, PartialRoot(tmp_path / "out")

    def kill(self: Workers, worker: Any, *others: Any) -> None:
        if worker.part.name == "scene-0002":
            worker.process.kill()
            while not partial.has("scene-0001"):
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
    done = {partial.root / record["filename"] for record in partial.load("scene-0001")["tables"]["sample_data"]}
    half = set(partial.root.glob("samples/*/*")) - done
    assert half
    for path in half:
        path.write_bytes(b"half of an image")
    monkeypatch.setattr(SceneRenderer, "lidar", only_the_other_scene)
    write_dataset(tmp_path / "out", TINY, progress=False, jobs=2)
    assert digests(tmp_path / "out") == reference
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyboardInterrupt(), r"was interrupted\. Repeat the command to go on"),
        (OSError(28, "No space left on device"), r"maps-boston-seaport cannot be written \(No space left.*to go on"),
    ],
)
def test_nothing_half_written_has_the_name_of_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, says: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("bridgeta_synth.dataset.world.build_town", lambda *_: None)
    monkeypatch.setattr("bridgeta_synth.dataset.part.write_maps", fail)
    with pytest.raises(BridgeTAError, match=says):
        write_dataset(tmp_path / "out", TINY, progress=False, jobs=1)
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial"]


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A folder with what is left of a run that was interrupted at once; returns the path that was to be written."""
    with PartialRoot(tmp_path / "out").opened(TINY, "cpu", discard=False):
        pass
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 4}, "seed 3 instead of 4"),
        ({"relief": 0.5, "split": "val"}, "split 'train' instead of 'val', relief 1.0 instead of 0.5"),
    ],
)
def test_an_interrupted_run_of_other_settings_is_not_gone_on_with(
    interrupted: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(BridgeTAError, match=says) as caught:
        write_dataset(interrupted, replace(TINY, **change), progress=False)
    assert caught.value.exit_code == 2
    assert "remove the folder" in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_an_interrupted_run_of_an_older_world_is_not_gone_on_with(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgeta_synth.dataset.checkpoint.WORLD_VERSION", 1_000_000)
    with pytest.raises(BridgeTAError, match="version of the synthetic world 2 instead of 1000000"):
        write_dataset(interrupted, TINY, progress=False)


def test_overwriting_discards_the_parts_of_other_settings_and_keeps_those_of_the_same(interrupted: Path) -> None:
    partial = PartialRoot(interrupted)
    for settings, kept in ((TINY, True), (replace(TINY, seed=4), False)):
        partial.save("scene-0001", {}, [])
        with partial.opened(settings, "cpu", discard=True):
            assert partial.has("scene-0001") == kept


def test_two_runs_at_a_time_do_not_meet_in_one_folder(interrupted: Path) -> None:
    with (
        PartialRoot(interrupted).opened(TINY, "cpu", discard=False),
        pytest.raises(BridgeTAError, match="another process is writing here"),
    ):
        write_dataset(interrupted, TINY, progress=False)


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
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
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(BridgeTAError, match=says):
        write_dataset(tmp_path / "out", TINY, progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_missing_maps_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BridgeTAError, match="no such folder"):
        write_dataset(tmp_path / "out", replace(TINY, maps=str(tmp_path / "none")), progress=False)
    assert not list(tmp_path.iterdir())


def test_an_earlier_root_is_replaced_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "synth.json").write_text("{}")
    with pytest.raises(BridgeTAError, match="earlier synthetic dataset"):
        write_dataset(tmp_path / "out", TINY, progress=False)
    partial = PartialRoot(tmp_path / "out")
    with partial.opened(TINY, "cpu", discard=False):
        (partial.root / "new.txt").write_text("new")
        partial.publish()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "new.txt"]


def test_a_worker_stays_in_its_town_and_then_goes_where_most_is_to_do_for_each() -> None:
    parts = Part.all(World(replace(TINY, scenes=10)))
    boston = ["maps-boston-seaport", "scene-0001", "scene-0005", "scene-0009"]
    assert [part.name for part in parts[:5]] == [*boston, "maps-singapore-onenorth"]
    backlog = Backlog(parts)
    taken = [backlog.take(city, [1]) for city in (None, 0, 0, 0, 0, 2, 2, 2)]
    # Four parts are left in onenorth, but a worker is there already; three are in each of the other two.
    then = ["maps-singapore-hollandvillage", "scene-0003", "scene-0007", "maps-singapore-queenstown"]
    assert [part.name for part in taken if part] == [*boston, *then]
    rest = list(iter(lambda: backlog.take(3, [1]), None))
    assert {part.city for part in rest[:2]} == {3}
    assert sorted([*taken, *rest], key=lambda part: part.name) == sorted(parts, key=lambda part: part.name)
