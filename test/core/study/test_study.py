"""The command `bridgeta study`, and that it reads what training really writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.runs.record import read_record
from bridgeta_core.study import study as studies
from bridgeta_core.study.execution import Failure
from bridgeta_core.study.plan import plan

ONE = {"seeds": [0], "budgets": {"full": []}, "teachers": {"fusion": []}}
SHORT = ["train.epochs=1", "distill.warmup_steps=0", "distill.ramp_steps=0"]
SHORT += ["distill.calibrate_steps=1", "distill.statistics_frames=1"]


def bridgeta(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def finished(make_study, write_run, tmp_path) -> tuple[Path, Path]:
    """A study's file and its folder, in which all is done."""
    for run in plan(make_study(**ONE), tmp_path / "out"):
        write_run(run)
    return tmp_path / "study.yaml", tmp_path / "out"


def test_the_command_plans_collects_and_renders(finished, tmp_path):
    configuration, out = finished
    shown = bridgeta("study", configuration, "--out", out, "--plan")
    assert "6 of 6 done" in shown.output
    assert bridgeta("study", configuration, "--out", out, "--collect", tmp_path / "kept.json").exit_code == 0
    page = tmp_path / "docs" / "page.md"
    done = bridgeta("study", configuration, "--out", tmp_path / "kept.json", "--render-only", "--table", page)
    assert done.exit_code == 0, done.output
    command = f"bridgeta study {configuration} --out {tmp_path / 'kept.json'} --render-only --table {page}"
    assert page.read_text().startswith(f"<!-- Written by: {command} -->\n")
    assert page.with_suffix(".png").exists()


@pytest.mark.parametrize("option", [(), ("--plan",), ("--collect", "x.json")])
def test_a_file_of_runs_can_only_be_rendered(finished, tmp_path, option):
    (tmp_path / "kept.json").touch()
    done = bridgeta("study", finished[0], "--out", tmp_path / "kept.json", *option)
    assert done.exit_code == 2
    assert "kept.json: is a file. Add --render-only" in done.output


def test_a_study_whose_runs_failed_writes_its_page_and_fails(finished, monkeypatch):
    configuration, out = finished

    def run_study(study, out, jobs, console):
        return [Failure(plan(study, out)[0], "ended with exit code 3", "no such device")]

    monkeypatch.setattr(studies, "run_study", run_study)
    done = bridgeta("study", configuration, "--out", out)
    assert done.exit_code == 1
    assert "teachers/fusion/full/seed0: ended with exit code 3" in done.output
    assert "no such device" in done.output
    assert "runs that failed: 1" in done.output
    assert (out / "results.md").exists()


def test_many_runs_are_started_only_when_that_is_confirmed(make_study, write_run, tmp_path, monkeypatch):
    study = make_study(seeds=[0, 1, 2, 3])
    runs = plan(study, tmp_path / "out")
    write_run(runs[0])
    monkeypatch.setattr(studies, "run_study", lambda *_: [])
    asked = bridgeta("study", tmp_path / "study.yaml", "seeds=[0,1,2,3]", "--out", tmp_path / "out")
    assert asked.exit_code == 2
    assert f"{len(runs) - 1} of {len(runs)} runs to do" in asked.output
    assert "Add --yes to start them" in asked.output
    planned = bridgeta("study", tmp_path / "study.yaml", "seeds=[0,1,2,3]", "--out", tmp_path / "out", "--plan")
    assert planned.exit_code == 0
    assert f"1 of {len(runs)} done" in planned.output
    assert len(list((tmp_path / "out").rglob("seed*"))) == 1  # what was there before: nothing was started
    started = bridgeta("study", tmp_path / "study.yaml", "seeds=[0,1,2,3]", "--out", tmp_path / "out", "--yes")
    assert f"{len(runs) - 1} of {len(runs)} runs to do; about" in started.output
    assert "unasked" not in started.output


def test_wrong_settings_are_exit_code_2(finished):
    configuration, out = finished
    done = bridgeta("study", configuration, "baseline=B", "--out", out)
    assert done.exit_code == 2
    assert "baseline = B is not among arms" in done.output


def test_the_record_of_every_kind_of_training_is_read(make_study, small_network, small_root, tmp_path):
    from bridgeta_core.training.train import train_distill, train_student, train_teacher

    data = [f"data.train_root={small_root}", f"data.val_root={small_root}"]
    data += ["data.version=v1.0-mini", "data.cameras=[CAM_FRONT,CAM_BACK]"]
    study = make_study(*small_network, *data, *SHORT, overrides=[], **ONE)
    trainers = {"teacher": train_teacher, "student": train_student, "distill": train_distill}
    wanted = {"fusion", "A0", "A2"}
    for run in plan(study, tmp_path / "out"):
        if run.arm in wanted:
            trainers[run.kind](run.experiment, run.folder)
    records = {r.arm: read_record(r.folder) for r in plan(study, tmp_path / "out") if r.arm in wanted}
    for record in records.values():
        assert record.steps > 0
        assert record.seconds_per_step > 0
        assert record.peak_memory > 50
        assert record.parameters > 1000
        last = record.scores["last"]
        assert 0 <= last.miou_half <= last.miou <= 1
        assert len(last.classes) == 6
        assert list(last.ranges) == ["0-20 m", "20-35 m", "35-50 m"]
        assert "day" in last.conditions or "night" in last.conditions
    assert {arm for arm, record in records.items() if record.train_only} == {"A2"}
    explained = {f"{scalar}_{level}" for scalar in ("slack", "delta", "rho") for level in "FDZ"}
    assert explained | {"val/miou", "val/assistant_miou"} == records["A2"].ends.keys()
    assert not any(math.isnan(value) for value in records["A2"].ends.values())
