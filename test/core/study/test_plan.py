"""The order of the runs, and what they need."""

from __future__ import annotations

import itertools

import pytest

from bridgeta_core.study.plan import plan
from bridgeta_core.utils.errors import BridgeTAError


def test_teachers_come_first_then_seed_by_seed_all_arms(make_study, tmp_path):
    runs = plan(make_study(seeds=[4, 2]), tmp_path)
    names = ["fusion/full", "lidar/full", "fusion/tenth", "lidar/tenth"]
    assert [run.name for run in runs[:4]] == [f"teachers/{name}/seed0" for name in names]
    arms = runs[4:]
    assert [seed for seed, _ in itertools.groupby(run.seed for run in arms)] == [4, 2]
    full = [run.arm for run in arms if (run.budget, run.seed) == ("full", 4)]
    assert full == ["A0", "A1", "A2", "A0_time", "R1"]  # A0_time needs A2
    assert [run.arm for run in arms if (run.budget, run.seed) == ("tenth", 4)] == full[:-1]
    assert all(run.folder == tmp_path / run.name for run in runs)


def test_a_run_comes_after_the_runs_that_it_needs(make_study, tmp_path):
    study = make_study(teacher_seeds=[5, 6])
    runs = plan(study, tmp_path)
    names = [run.name for run in runs]
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(names[:place])
    by_name = dict(zip(names, runs, strict=True))
    assert by_name["A2/full/seed1"].needs == ("teachers/fusion/full/seed6",)
    assert by_name["A2/full/seed2"].needs == ("teachers/fusion/full/seed5",)
    assert by_name["A2/tenth/seed2"].needs == ("teachers/fusion/tenth/seed5",)
    teacher = tmp_path / "teachers/fusion/full/seed6/teacher.safetensors"
    assert by_name["A2/full/seed1"].experiment.distill.teacher == str(teacher)
    assert by_name["A0_time/tenth/seed2"].needs == ("A2/tenth/seed0", "A0/tenth/seed0")


def test_budgets_apply_to_teachers_and_arms_and_later_settings_win(make_study, tmp_path):
    arms = {"A0": {}, "B": {"overrides": ["data.labelled=0.7", "train.epochs=1"], "seeds": 1}}
    teachers = {"fusion": [], "all": ["data.labelled=0.9"]}
    runs = {run.name: run.experiment for run in plan(make_study(arms=arms, teachers=teachers, control=""), tmp_path)}
    assert runs["teachers/fusion/full/seed0"].data.labelled == 1
    assert runs["teachers/fusion/tenth/seed0"].data.labelled == 0.1
    assert runs["teachers/all/tenth/seed0"].data.labelled == 0.9
    assert (runs["A0/tenth/seed1"].data.labelled, runs["A0/tenth/seed1"].train.epochs) == (0.1, 4)
    assert (runs["B/tenth/seed0"].data.labelled, runs["B/tenth/seed0"].train.epochs) == (0.7, 1)
    assert {e.train.seed for name, e in runs.items() if name.startswith("A0/")} == {0, 1, 2}
    assert "B/full/seed1" not in runs


def test_an_arm_may_be_longer(make_study, tmp_path):
    runs = plan(make_study(arms={"A0": {}, "B": {"longer": 2.6}}, control=""), tmp_path)
    assert {run.arm: run.experiment.train.epochs for run in runs if run.kind != "teacher"} == {"A0": 4, "B": 11}


def test_a_shared_teacher_is_trained_once_without_the_settings_of_a_budget(make_study, tmp_path):
    runs = {run.name: run for run in plan(make_study(shared_teachers=True), tmp_path)}
    teachers = [name for name, run in runs.items() if run.kind == "teacher"]
    assert teachers == ["teachers/fusion/seed0", "teachers/lidar/seed0"]
    assert runs["teachers/fusion/seed0"].experiment.data.labelled == 1
    assert runs["A2/full/seed1"].needs == runs["A2/tenth/seed1"].needs == ("teachers/fusion/seed0",)


def test_wrong_settings_of_a_teacher_name_it_and_its_budget(make_study, tmp_path):
    study = make_study(budgets={"full": ["data.labeled=0.5"]})
    with pytest.raises(BridgeTAError, match=r"teachers.fusion with budgets.full: .*data.labeled"):
        plan(study, tmp_path)
