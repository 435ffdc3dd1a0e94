"""A run folder that was moved, copied or damaged resumes exactly, or says in one error what is wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.training import train
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.tasks import StudentTask
from bridgeta_core.training.train import train_distill, train_student, train_teacher
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import hold_lock


def break_off(task: StudentTask) -> None:
    if task.current_epoch == 1:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(two_scenes, tmp_path_factory) -> Path:
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    train_student(two_scenes(), folder)
    return folder


@pytest.fixture(scope="module")
def broken_off(two_scenes, tmp_path_factory) -> Path:
    """The same run after one epoch."""
    folder = tmp_path_factory.mktemp("broken off")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudentTask, "on_train_epoch_start", break_off)
        with pytest.raises(BridgeTAError, match="was interrupted"):
            train_student(two_scenes(), folder)
    return folder


@pytest.fixture
def copied(broken_off, tmp_path) -> Path:
    """A copy of the run that broke off."""
    return shutil.copytree(broken_off, tmp_path / "copied")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_a_copied_run_resumes_with_its_own_best_checkpoint(copied, broken_off, finished, two_scenes):
    other = (broken_off / "checkpoints/best.ckpt").read_bytes()
    train_student(two_scenes(), copied, resume=True)
    assert (broken_off / "checkpoints/best.ckpt").read_bytes() == other
    state = torch.load(copied / "checkpoints/last.ckpt", weights_only=True)
    paths = [s["best_model_path"] for s in state["callbacks"].values() if "best_model_path" in s]
    assert paths == [str(copied / "checkpoints/best.ckpt"), str(copied / "checkpoints/last.ckpt")]
    assert all(torch.equal(weights(copied)[name], value) for name, value in weights(finished).items())
    files = [(folder / "student.safetensors").read_bytes()[-1000:] for folder in (copied, finished)]
    assert files[0] == files[1]


def test_an_augmented_run_is_the_same_with_a_cache_and_a_break(finished, two_scenes, tmp_path, monkeypatch):
    settings, folder = two_scenes(f"data.cache={tmp_path / 'cache'}"), tmp_path / "run"
    assert settings.data.augment.flip
    assert settings.data.augment.colour
    with monkeypatch.context() as patch:
        patch.setattr(StudentTask, "on_train_epoch_start", break_off)
        with pytest.raises(BridgeTAError, match="was interrupted"):
            train_student(settings, folder)
    train_student(settings, folder, resume=True)
    assert all(torch.equal(weights(folder)[name], value) for name, value in weights(finished).items())


def test_a_run_whose_original_is_gone_resumes(copied, two_scenes, tmp_path):
    moved = copied.rename(tmp_path / "moved")
    assert train_student(two_scenes(), moved, resume=True) == moved / "student.safetensors"


def lose_a_block(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:1000], lambda content: bytes(len(content)), lose_a_block],
    ids=["empty", "cut", "zeros", "a block of zeros"],
)
def test_a_damaged_checkpoint_is_one_error(copied, two_scenes, name, damage):
    path = copied / "checkpoints" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BridgeTAError, match=rf"{path}: cannot be read .*Put a whole one in its place"):
        train_student(two_scenes(), copied, resume=True)


def test_a_lost_best_checkpoint_is_one_error(copied, two_scenes):
    (copied / "checkpoints/best.ckpt").unlink()
    with pytest.raises(BridgeTAError, match=r"best\.ckpt: cannot be read .*No such file"):
        train_student(two_scenes(), copied, resume=True)


def test_the_checkpoint_of_another_kind_of_run_is_refused(copied, two_scenes, teacher):
    with pytest.raises(BridgeTAError, match="of another kind of run"):
        train_teacher(two_scenes(), copied, resume=True)


MANY = b"a: &a [" + b"1," * 100 + b"]\nb: &b [" + b"*a," * 100 + b"]\nc: [" + b"*b," * 100 + b"]\n"  # a million values


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"{F: 0.25", b"- 1", b"\xff\xfe", b"train: {epochs: *x}", MANY])
def test_damaged_settings_are_one_error(copied, two_scenes, content):
    (copied / "experiment.yaml").write_bytes(content)
    with pytest.raises(BridgeTAError, match=r"experiment\.yaml: is damaged \(.*Put a whole one in its place") as caught:
        train_student(two_scenes(), copied, resume=True)
    assert caught.value.exit_code == 2


def test_lost_settings_are_one_error(copied, two_scenes):
    (copied / "experiment.yaml").unlink()
    with pytest.raises(BridgeTAError, match="has lost its settings"):
        train_student(two_scenes(), copied, resume=True)


def test_a_damaged_log_does_not_stop_a_run(copied, two_scenes):
    (copied / "logs/version_0/metrics.csv").write_bytes(b"\0" * 300)
    (copied / "logs/version_x").mkdir()
    assert train_student(two_scenes(), copied, resume=True).exists()
    assert (copied / "run.json").exists()


def test_two_runs_do_not_train_in_one_folder(two_scenes, tmp_path, monkeypatch):
    refused = []

    def start_another(_: StudentTask) -> None:
        with pytest.raises(BridgeTAError, match=r"another process trains here .*name another --out") as caught:
            train_student(two_scenes("train.seed=1"), tmp_path)
        refused.append(caught.value)

    monkeypatch.setattr(StudentTask, "on_train_start", start_another)
    train_student(two_scenes("train.epochs=1"), tmp_path)
    assert len(refused) == 1
    assert "seed: 0" in (tmp_path / "experiment.yaml").read_text()


def test_a_folder_that_was_used_meanwhile_is_refused(finished, two_scenes):
    experiment = two_scenes()
    with (
        pytest.raises(BridgeTAError, match="already holds a run"),
        train._claim(RunFolder(finished, "student"), experiment, Processes(), resume=False),
    ):
        pytest.fail("it is taken")


def test_only_the_first_of_several_processes_holds_the_folder(two_scenes, tmp_path):
    run = RunFolder(tmp_path / "run", "student")
    with train._claim(run, two_scenes(), Processes(rank=1, devices=2), resume=False):
        assert not run.path.exists()
    with train._claim(run, two_scenes(), Processes(rank=0, devices=2), resume=False):
        with pytest.raises(BridgeTAError, match="another process trains here"), run.hold():
            pytest.fail("it is held")
        with train._claim(run, two_scenes(), Processes(rank=1, devices=2), resume=False):
            pass


def test_an_output_that_is_a_file_is_refused_before_anything_is_loaded(two_scenes, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(BridgeTAError, match="no folder") as caught:
            train_distill(two_scenes("distill.teacher=nowhere"), out)
        assert caught.value.exit_code == 2


def test_a_run_that_fails_early_leaves_nothing(two_scenes, tmp_path):
    with pytest.raises(BridgeTAError):
        train_distill(two_scenes("distill.teacher=nowhere"), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_lock_that_nobody_holds_stops_nobody(two_scenes, tmp_path):
    with hold_lock(tmp_path / ".lock", wait=False):
        pass
    assert train_student(two_scenes("train.epochs=1"), tmp_path).exists()
