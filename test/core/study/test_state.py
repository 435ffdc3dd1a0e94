"""How far a run is, and which settings it must share with the study."""

from __future__ import annotations

import pytest
import yaml

from bridgeta_core.study.plan import plan
from bridgeta_core.study.state import State, find_state
from bridgeta_core.utils.errors import BridgeTAError


def test_the_state_of_a_run_is_read_from_its_folder(make_study, write_run, tmp_path):
    run = plan(make_study(), tmp_path)[2]
    assert find_state(run) is State.todo
    (run.folder / "checkpoints").mkdir(parents=True)
    (run.folder / "checkpoints/last.ckpt").touch()
    assert find_state(run, run.experiment) is State.interrupted
    write_run(run)
    assert find_state(run, run.experiment) is State.done


def test_a_run_with_other_settings_is_refused_by_their_names(make_study, write_run, tmp_path):
    write_run(plan(make_study(), tmp_path)[2])
    run = plan(make_study("train.epochs=5", "train.gamma=1"), tmp_path)[2]
    with pytest.raises(BridgeTAError, match=r"seed0: was .*train.epochs = 4 instead of 5, train.gamma = 2.0 instead"):
        find_state(run, run.experiment)


def test_moving_a_study_changes_no_settings(make_study, write_run, tmp_path):
    runs = plan(make_study(), tmp_path / "old")
    for run in runs:
        write_run(run)
    (tmp_path / "old").rename(tmp_path / "new")
    for run in plan(make_study("data.workers=7", "labels.cache=kept"), tmp_path / "new"):
        assert find_state(run, run.experiment) is State.done


def test_the_teacher_of_another_budget_is_another_setting(make_study, write_run, tmp_path):
    for run in plan(make_study(shared_teachers=True), tmp_path):
        write_run(run)
    found = {run.name: run for run in plan(make_study(), tmp_path)}
    with pytest.raises(
        BridgeTAError, match=r"distill.teacher = \S*/teachers/fusion/seed0/\S* instead of \S*/full/seed0"
    ):
        find_state(found["A2/full/seed0"], found["A2/full/seed0"].experiment)
    assert find_state(found["A0/full/seed0"], found["A0/full/seed0"].experiment) is State.done
    moved = plan(make_study(shared_teachers=True), tmp_path / "teachers")  # a study's folder may have that name too
    (tmp_path / "teachers" / "A2").mkdir()
    (tmp_path / "A2/full").rename(tmp_path / "teachers/A2/full")
    run = next(run for run in moved if run.name == "A2/full/seed0")
    assert find_state(run, run.experiment) is State.done


def test_settings_that_an_older_run_lacks_were_default(make_study, write_run, tmp_path):
    run = plan(make_study(), tmp_path)[2]
    write_run(run)
    path = run.folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "labels"}))
    assert find_state(run, run.experiment) is State.done
    wide = plan(make_study("model.lift.edge=widen"), tmp_path)[2]
    with pytest.raises(BridgeTAError, match=r"model.lift.edge = cut instead of widen"):
        find_state(wide, wide.experiment)
    exact = plan(make_study("labels.mode=exact"), tmp_path)[2]
    with pytest.raises(BridgeTAError, match=r"labels.mode = compatible instead of exact"):
        find_state(exact, exact.experiment)


def test_settings_that_a_run_does_not_read_may_change(make_study, write_run, tmp_path):
    old = {run.name: run for run in plan(make_study(), tmp_path)}
    new = plan(make_study("distill.strength=0.5"), tmp_path)
    for run in new:
        write_run(old[run.name])
        if run.kind == "distill":
            with pytest.raises(BridgeTAError, match=r"distill.strength = 1.0 instead of 0.5"):
                find_state(run, run.experiment)
        else:
            assert find_state(run, run.experiment) is State.done
