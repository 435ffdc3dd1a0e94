"""Carrying out a plan with a program that only pretends to train: order, failures, interruptions, locks."""

from __future__ import annotations

import io
import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.config.experiment import Experiment, to_mapping
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.study.execution import Execution, build_train_command
from bridgeta_core.study.plan import Run, plan
from bridgeta_core.study.study import build_overview, describe_failures, run_study
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import hold_lock

ONE = {"seeds": [0], "budgets": {"full": []}, "teachers": {"fusion": []}}


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO())


def shown(study, out: Path, jobs: int = 1) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(build_overview(study, out, jobs))
    return console.export_text()


def test_a_study_runs_to_its_end_with_its_share_of_the_threads(make_study, pretend, quiet, tmp_path):
    study, out = make_study(**ONE), tmp_path / "out"
    assert run_study(study, out, 2, quiet, pretend("")) == []
    runs = plan(study, out)
    assert all((run.folder / "run.json").exists() for run in runs)
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    logs = {run.arm: (run.folder / "log.txt").read_text() for run in runs}
    assert logs["fusion"] == f"teacher fresh threads {threads}\n"
    assert logs["A1"] == f"distill fresh threads {threads}\n"
    # A distilled step takes 2.5 times as long as the baseline's, so that it gets 2.5 times the 4 epochs.
    assert "epochs: 10" in (out / "A0_time/full/seed0/experiment.yaml").read_text()


def test_finished_runs_are_not_repeated(make_study, pretend, quiet, tmp_path):
    study, out = make_study(**ONE), tmp_path / "out"
    run_study(study, out, 2, quiet, pretend(""))
    times = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    (out / "A1/full/seed0/run.json").unlink()
    assert run_study(study, out, 1, quiet, pretend("")) == []
    changed = [path for path, at in times.items() if path.stat().st_mtime_ns != at]
    assert changed == [out / "A1/full/seed0/run.json"]


def test_a_failed_run_shows_its_log_and_stops_no_other(make_study, pretend, quiet, tmp_path):
    study, out = make_study(**ONE), tmp_path / "out"
    failures = run_study(study, out, 2, quiet, pretend("A1:crash,A2:silent"))
    text = describe_failures(failures)
    assert f"A1/full/seed0: ended with exit code 3 ({out}/A1/full/seed0/log.txt)" in text
    assert "\n  no such device" in text
    assert "A2/full/seed0: ended without a run.json" in text
    assert "A0_time/full/seed0: not started: it needs A2/full/seed0" in text
    assert (out / "R1/full/seed0/run.json").exists()
    assert run_study(study, out, 2, quiet, pretend("")) == []


def test_without_its_teacher_no_arm_is_distilled(make_study, pretend, quiet, tmp_path):
    failures = run_study(make_study(**ONE), tmp_path, 2, quiet, pretend("teachers:crash"))
    reasons = {failure.run.arm: failure.reason for failure in failures}
    assert reasons["A1"] == "not started: it needs teachers/fusion/full/seed0"
    assert reasons.keys() == {"fusion", "A1", "A2", "A0_time", "R1"}
    assert (tmp_path / "A0/full/seed0/run.json").exists()


def interrupted(run: Run, experiment: Experiment) -> None:
    (run.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run.folder / "checkpoints/last.ckpt").touch()
    (run.folder / "experiment.yaml").write_text(yaml.safe_dump(to_mapping(experiment)))


def test_other_settings_are_refused_before_anything_starts(make_study, pretend, quiet, tmp_path):
    run = next(run for run in plan(make_study("train.epochs=3", **ONE), tmp_path) if run.arm == "R1")
    interrupted(run, run.experiment)
    with pytest.raises(BridgeTAError, match=r"R1/full/seed0: was trained with other .*train.epochs = 3 instead of 4"):
        run_study(make_study(**ONE), tmp_path, 1, quiet, pretend(""))
    assert not list(tmp_path.rglob("started"))


def test_an_interrupted_run_is_resumed_where_the_study_is_now(make_study, pretend, quiet, tmp_path):
    old = next(run for run in plan(make_study(**ONE), tmp_path / "old") if run.arm == "A1")
    interrupted(old, old.experiment)
    (tmp_path / "old").rename(tmp_path / "new")
    assert run_study(make_study("data.workers=9", **ONE), tmp_path / "new", 1, quiet, pretend("")) == []
    folder = tmp_path / "new/A1/full/seed0"
    assert (folder / "log.txt").read_text().startswith("distill resume")
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert settings["data"]["workers"] == 9
    assert settings["distill"]["teacher"] == str(tmp_path / "new/teachers/fusion/full/seed0/teacher.safetensors")


def test_ctrl_c_ends_all_runs_and_says_how_to_continue(make_study, pretend, quiet, tmp_path, monkeypatch):
    study = make_study(**ONE)
    look = Execution._watch

    def interrupt(self, item, progress):
        if sum(1 for path in tmp_path.rglob("last.ckpt")) == 2:
            raise KeyboardInterrupt
        look(self, item, progress)

    monkeypatch.setattr(Execution, "_watch", interrupt)
    start = time.monotonic()
    with pytest.raises(BridgeTAError, match=r"was interrupted\. The same command continues"):
        run_study(study, tmp_path, 2, quiet, pretend("A0/:hang,fusion:hang"))
    assert time.monotonic() - start < 30  # they would sleep for a minute
    logs = [(tmp_path / name / "log.txt").read_text() for name in ("A0/full/seed0", "teachers/fusion/full/seed0")]
    assert all("KeyboardInterrupt" in log for log in logs)
    assert "interrupted" in shown(study, tmp_path)
    monkeypatch.undo()
    assert run_study(study, tmp_path, 2, quiet, pretend("")) == []
    assert "student resume" in (tmp_path / "A0/full/seed0/log.txt").read_text()


def test_two_studies_do_not_work_in_one_folder(make_study, pretend, quiet, tmp_path):
    with (
        hold_lock(tmp_path / ".lock", wait=False),
        pytest.raises(BridgeTAError, match=rf"another study works here \(process {os.getpid()} on"),
    ):
        run_study(make_study(**ONE), tmp_path, 1, quiet, pretend(""))
    assert run_study(make_study(**ONE), tmp_path, 2, quiet, pretend("")) == []


def test_a_run_that_another_process_trains_is_left_alone(make_study, pretend, quiet, tmp_path):
    study = make_study(**ONE)
    run = next(run for run in plan(study, tmp_path) if run.arm == "R1")
    with RunFolder(run.folder, run.kind).hold():
        failures = run_study(study, tmp_path, 2, quiet, pretend(""))
        assert [path.name for path in run.folder.iterdir()] == [".lock"]
    assert [(failure.run.name, "another process trains here" in failure.reason) for failure in failures] == [
        (run.name, True)
    ]
    assert run_study(study, tmp_path, 2, quiet, pretend("")) == []


def test_a_log_that_cannot_be_written_fails_one_run(make_study, pretend, quiet, tmp_path):
    study = make_study(**ONE)
    (tmp_path / "R1/full/seed0/log.txt").mkdir(parents=True)
    failures = run_study(study, tmp_path, 2, quiet, pretend(""))
    assert [failure.run.arm for failure in failures] == ["R1"]
    assert "Is a directory" in failures[0].reason


def test_damaged_settings_of_a_run_are_named(make_study, pretend, quiet, tmp_path):
    run = next(run for run in plan(make_study(**ONE), tmp_path) if run.arm == "R1")
    interrupted(run, run.experiment)
    (run.folder / "experiment.yaml").write_text("train: {epochs: 4")
    with pytest.raises(BridgeTAError, match=r"R1/full/seed0/experiment.yaml: is damaged .*move the run's folder away"):
        run_study(make_study(**ONE), tmp_path, 1, quiet, pretend(""))
    assert not list(tmp_path.rglob("started"))


@pytest.mark.parametrize("out", ["file", "file/inside", "/dev/null", "/proc/here"])
def test_a_place_that_can_be_no_folder_is_one_line(make_study, tmp_path, out):
    make_study(**ONE)
    (tmp_path / "file").touch()
    arguments = ["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / out) in result.stderr


def test_jobs_are_at_least_one(make_study, quiet, tmp_path):
    with pytest.raises(BridgeTAError, match="--jobs 0 must be at least 1"):
        run_study(make_study(), tmp_path, 0, quiet)


def test_the_command_of_a_run_is_one_that_a_user_could_type(tmp_path):
    command = build_train_command("teacher", tmp_path / "a.yaml", tmp_path, True)
    assert command[3:] == ["train", "teacher", str(tmp_path / "a.yaml"), "--out", str(tmp_path), "--resume"]
    done = subprocess.run([*command[:5], "--help"], capture_output=True, text=True, check=True)
    assert "--resume" in done.stdout


@pytest.mark.parametrize("key", ["val_root", "unlabelled_root"])
def test_missing_data_are_one_error_before_anything_starts(make_study, pretend, quiet, tmp_path, key):
    study = make_study(f"data.{key}=/nowhere", **ONE)
    with pytest.raises(BridgeTAError, match=rf"/nowhere: data.{key} of .* is not a folder"):
        run_study(study, tmp_path / "out", 2, quiet, pretend(""))
    assert not list((tmp_path / "out").glob("*/*"))
