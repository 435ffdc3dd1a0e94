"""Bad input to the commands on datasets: one message that names what is wrong, an exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from bridgeta_core.config import experiment as config
from bridgeta_core.data.sample import SensorRecord
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_ros.commands import app

VERSION = "v1.0-mini"
CITY = "singapore-onenorth"
SHORT = [
    "tiny",
    f"data.version={VERSION}",
    "data.cameras=[CAM_FRONT,CAM_BACK]",
    "data.batch_size=4",
    "data.workers=0",
    "train.epochs=1",
    "teacher.lidar.sweeps=1",
    "model.image.width=64",
    "model.image.height=32",
    "model.lift.grid.resolution=3.2",
    "model.lift.depth_step=4.0",
    "grid.resolution=2.0",
]

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights for the small root's two cameras."""
    from bridgeta_core.deploy.weights import save_weights
    from bridgeta_core.model.student import Student

    experiment = config.load(config.Experiment, SHORT[0], SHORT[1:])
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    student = Student(experiment.model, experiment.grid, pretrained=False)
    save_weights(path, student, experiment.data.cameras, {})
    return path


@pytest.fixture
def run(weights: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run a command on a root, `run(command, root)`; its outputs go to the folder `out`."""
    out = tmp_path / "out"

    def invoke(command: str, root: Path, *more: str) -> Result:
        training = [*SHORT, f"data.train_root={root}", f"data.val_root={root}", "--out", str(out / "run")]
        arguments = {
            "student": ["train", "student", *training],
            "teacher": ["train", "teacher", *training],
            "eval": ["eval", str(weights), str(root), "--version", VERSION, "--out", str(out / "eval")],
            "view": ["view", str(root), str(out / "sample.png"), "--version", VERSION],
            "sheet": ["view", str(root), str(out / "sheet.png"), "--check", "--version", VERSION],
            "bag": ["bag", str(root), str(out / "bag"), "--scene", "scene-0061", "--version", VERSION],
            "check": ["data", "check", str(root), "--list", str(out / "list")],
        }[command]
        return CliRunner().invoke(app, [*arguments, *more])

    return invoke


def read_message(result: Result) -> str:
    """Read the message of a command that failed properly: the last line, without a traceback."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (1, 2, 130)
    lines = result.output.strip().splitlines()
    assert lines[-1].startswith("bridgeta: ")
    assert sum(line.startswith("bridgeta: ") for line in lines) == 1
    return lines[-1]


def list_outputs(tmp_path: Path) -> list[str]:
    """List the outputs that a command left. Settings, logs and lock of a run are whole at any time."""
    out = tmp_path / "out"
    names = (str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return [name for name in names if not name.startswith(("run/logs/", "run/experiment.yaml", "run/.lock"))]


def _first(root: Path, channel: str) -> Path:
    return sorted((root / "samples" / channel).iterdir())[0]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 1])


def _expansion(root: Path) -> Path:
    return root / "maps" / "expansion" / f"{CITY}.json"


def _older(root: Path) -> None:
    path = _expansion(root)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "1.2"}))


def _nan(root: Path) -> None:
    path = _first(root, "LIDAR_TOP")
    points = np.fromfile(path, "<f4")
    points[3] = np.nan
    points.tofile(path)


def _no_file_named(root: Path) -> None:
    (root / VERSION / "sample_data.json").write_text("[]")


EVERY = ("student", "teacher", "eval", "view", "sheet", "bag")


def _four_columns(root: Path) -> None:
    for path in sorted(root.glob("s*/LIDAR_TOP/*")):
        np.fromfile(path, "<f4").reshape(-1, 5)[:, :4].tofile(path)


def _no_rotation(root: Path) -> None:
    path = root / VERSION / "ego_pose.json"
    rows = json.loads(path.read_text())
    rows[3]["rotation"] = [0, 0, 0, 0]
    path.write_text(json.dumps(rows))


LABELS = ("student", "eval", "view", "sheet")
POINTS = ("teacher", "sheet", "bag")
BAD: tuple[tuple[str, Damage, tuple[str, ...], str], ...] = (
    ("no expansion", lambda root: _expansion(root).unlink(), LABELS, f"{CITY}.json: the map expansion is missing"),
    ("older expansion", _older, ("eval", "bag"), "is map expansion v1.2, v1.3 is needed"),
    ("half an expansion", lambda root: _cut(_expansion(root)), ("student", "bag"), "is not JSON, perhaps truncated"),
    ("an image missing", lambda root: _first(root, "CAM_FRONT").unlink(), EVERY, "-CAM_FRONT-0.jpg: CAM_FRONT file"),
    ("half an image", lambda root: _cut(_first(root, "CAM_BACK")), ("sheet", "bag"), "-CAM_BACK-0.jpg: "),
    ("no LiDAR file", lambda root: _first(root, "LIDAR_TOP").unlink(), ("teacher", "view"), "LiDAR file cannot be"),
    ("half a LiDAR file", lambda root: _cut(_first(root, "LIDAR_TOP")), POINTS, "LiDAR file of 499 bytes is truncated"),
    ("NaN in a LiDAR file", _nan, POINTS, "LiDAR file: 1 of 50 points are not finite"),
    ("LiDAR of KITTI", _four_columns, (*POINTS, "view"), "4 columns of float32 (x, y, z, intensity, as KITTI"),
    (
        "no rotation",
        _no_rotation,
        EVERY,
        "ego_pose.json: is not a table of nuScenes v1.0: rotation of record 3 (token e-",
    ),
    ("half a table", lambda root: _cut(root / VERSION / "sample_data.json"), ("student", "bag"), "sample_data.json"),
    ("no table", lambda root: (root / VERSION / "ego_pose.json").unlink(), ("eval", "view"), "lacks ego_pose.json"),
    ("no file named", _no_file_named, ("student", "sheet", "bag"), "has no"),
    ("other version", lambda root: (root / VERSION).rename(root / "v1.0-test"), EVERY, "Use version v1.0-test"),
)


@pytest.mark.parametrize(
    ("damage", "command", "message"),
    [pytest.param(d, c, m, id=f"{name}-{c}") for name, d, commands, m in BAD for c in commands],
)
def test_every_command_names_what_is_wrong_with_a_root(broken_root, run, tmp_path, damage, command, message):
    damage(broken_root)
    assert message in read_message(run(command, broken_root))
    assert list_outputs(tmp_path) == []


def test_a_bad_file_is_named_from_a_loader_process_too(broken_root, run, tmp_path):
    path = _first(broken_root, "CAM_FRONT")
    _cut(path)
    assert f"{path.name}: JPEG is truncated" in read_message(run("student", broken_root, "data.workers=1"))
    assert list_outputs(tmp_path) == []


def test_labels_on_another_grid_than_the_teachers_are_refused(small_root, tmp_path):
    arguments = ["train", "distill", *SHORT[:6], f"data.train_root={small_root}", f"data.val_root={small_root}"]
    result = CliRunner().invoke(app, [*arguments, "grid.resolution=2.0", "--out", str(tmp_path / "out")])
    assert "is a teacher for other frames: the label grid is" in read_message(result)
    assert result.exit_code == 2
    assert list_outputs(tmp_path) == []


def test_weights_for_other_classes_are_refused(small_root, run, weights, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(weights, framework="pt") as file:
        metadata = {**file.metadata(), "classes": json.dumps([*CLASS_NAMES[:-1], "tram_track"])}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, metadata)
    result = CliRunner().invoke(app, ["eval", str(other), str(small_root)])
    assert "they differ in divider, tram_track" in read_message(result)


@contextmanager
def _full_disk(size: int) -> Iterator[None]:
    """No file of more than `size` bytes can be written: the same failure, at the same place, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("command", "size"), [("student", 60_000), ("view", 500), ("sheet", 500), ("bag", 500)])
def test_a_full_disk_is_one_message_and_no_output(small_root, run, tmp_path, monkeypatch, command, size):
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "cache"))
    with _full_disk(size):
        message = read_message(run(command, small_root))
    assert f"cannot be written ({os.strerror(errno.EFBIG)})" in message
    assert "free space" in message
    assert list_outputs(tmp_path) == []


def test_a_full_disk_under_the_logs_of_a_run_says_how_to_go_on(small_root, run, monkeypatch):
    from lightning.pytorch.loggers import CSVLogger

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CSVLogger, "save", full)
    message = read_message(run("student", small_root))
    assert "cannot write its logs (No space left on device)" in message
    assert "start again" in message or "--resume" in message


def test_a_folder_that_cannot_be_made_is_one_message(small_root, weights, tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["eval", str(weights), str(small_root), "--out", str(tmp_path / "file" / "out")])
    assert "which is no folder" in read_message(result)


def test_a_loader_process_that_dies_is_one_message(small_root, run, tmp_path, monkeypatch):
    here = os.getpid()

    def die(_: SensorRecord) -> bytes:
        assert os.getpid() != here
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(SensorRecord, "read_bytes", die)
    for command, more in (("eval", []), ("student", ["data.workers=1"])):
        assert "lost a loader process (DataLoader worker" in read_message(run(command, small_root, *more))
        assert list_outputs(tmp_path) == []


@pytest.mark.parametrize("command", EVERY)
def test_ctrl_c_is_one_message_and_no_output(small_root, run, tmp_path, monkeypatch, command):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # The images of an evaluation are read in other processes.
    owner, name = (MapIoU, "update") if command == "eval" else (SensorRecord, "read_bytes")
    monkeypatch.setattr(owner, name, interrupt)
    assert "interrupted" in read_message(run(command, small_root))
    assert list_outputs(tmp_path) == []


def test_the_check_reports_a_half_extracted_root(broken_root, run, tmp_path):
    files = sorted((broken_root / "samples" / "CAM_FRONT").iterdir())
    for path in files[2:]:
        path.unlink()
    _cut(sorted((broken_root / "samples" / "LIDAR_TOP").iterdir())[1])  # the first is read without --deep too
    result = run("check", broken_root)
    assert result.exit_code == 1
    listed = (tmp_path / "out" / "list").read_text().splitlines()
    assert listed == [str(path.relative_to(broken_root)) for path in files[2:]]


def test_tables_without_any_camera_are_a_problem_of_the_check(broken_root, run):
    path = broken_root / VERSION / "sample_data.json"
    path.write_text(json.dumps([row for row in json.loads(path.read_text()) if "CAM" not in row["token"]]))
    result = run("check", broken_root)
    assert result.exit_code == 1
    assert "First: cameras: the tables name no camera image of any keyframe" in result.output.splitlines()[-1]
