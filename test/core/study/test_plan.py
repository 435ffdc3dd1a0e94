"""The order of the runs, what they need, and how long runs of equal time are."""

from __future__ import annotations

import itertools
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import DataConfig, Experiment, TrainConfig
from bridgeta_core.study.equal_time import keep, lengthened, settle
from bridgeta_core.study.plan import plan
from bridgeta_core.study.state import State, state
from bridgeta_core.utils.errors import BridgeTAError


def test_teachers_come_first_then_seed_by_seed_all_arms(make_study, tmp_path):
    runs = plan(make_study(seeds=[4, 2]), tmp_path)
    assert [run.name for run in runs[:2]] == ["teachers/fusion/seed0", "teachers/lidar/seed0"]
    arms = runs[2:]
    assert [seed for seed, _ in itertools.groupby(run.seed for run in arms)] == [4, 2]
    full = [run.arm for run in arms if (run.budget, run.seed) == ("full", 4)]
    assert full == ["A0", "A1", "A2", "A0_time", "R1"]  # A0_time needs A2
    assert [run.arm for run in arms if (run.budget, run.seed) == ("tenth", 4)] == full[:-1]
    assert all(run.folder == tmp_path / run.name for run in runs)


def test_what_a_run_needs_stands_before_it(make_study, tmp_path):
    study = make_study(teacher_seeds=[5, 6])
    runs = plan(study, tmp_path)
    names = [run.name for run in runs]
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(names[:place])
    by_name = dict(zip(names, runs, strict=True))
    assert by_name["A2/full/seed1"].needs == ("teachers/fusion/seed6",)
    assert by_name["A2/full/seed2"].needs == ("teachers/fusion/seed5",)
    teacher = tmp_path / "teachers/fusion/seed6/teacher.safetensors"
    assert by_name["A2/full/seed1"].experiment.distill.teacher == str(teacher)
    assert by_name["A0_time/tenth/seed2"].needs == ("A2/tenth/seed0", "A0/tenth/seed0")


def test_budgets_apply_to_arms_and_not_to_teachers_and_later_settings_win(make_study, tmp_path):
    arms = {"A0": {}, "B": {"overrides": ["data.labelled=0.7", "train.epochs=1"], "seeds": 1}}
    runs = {run.name: run.experiment for run in plan(make_study(arms=arms, control=""), tmp_path)}
    assert runs["teachers/fusion/seed0"].data.labelled == 1
    assert (runs["A0/tenth/seed1"].data.labelled, runs["A0/tenth/seed1"].train.epochs) == (0.1, 4)
    assert (runs["B/tenth/seed0"].data.labelled, runs["B/tenth/seed0"].train.epochs) == (0.7, 1)
    assert {e.train.seed for name, e in runs.items() if name.startswith("A0/")} == {0, 1, 2}
    assert "B/full/seed1" not in runs


def test_an_arm_may_be_longer(make_study, tmp_path):
    runs = plan(make_study(arms={"A0": {}, "B": {"longer": 2.6}}, control=""), tmp_path)
    assert {run.arm: run.experiment.train.epochs for run in runs if run.kind != "teacher"} == {"A0": 4, "B": 11}


@given(st.integers(1, 1000), st.integers(0, 500), st.floats(0.05, 20))
def test_equal_time_is_never_shorter_and_less_than_a_unit_longer(epochs, steps, factor):
    experiment = Experiment(train=TrainConfig(epochs=epochs), data=DataConfig(steps_per_epoch=steps))
    longer = lengthened(experiment, factor)
    before, after = (steps, longer.data.steps_per_epoch) if steps else (epochs, longer.train.epochs)
    assert before * factor - 1e-6 <= after < before * factor + 1
    assert longer.train.epochs == epochs if steps else longer.data.steps_per_epoch == 0
    assert (experiment.train.epochs, experiment.data.steps_per_epoch) == (epochs, steps)


def test_equal_time_is_measured_once_and_kept(make_study, write_run, tmp_path):
    study = make_study()
    runs = plan(study, tmp_path)
    by_name = {run.name: run for run in runs}
    first, second = by_name["A0_time/full/seed0"], by_name["A0_time/full/seed1"]
    write_run(by_name["A0/full/seed0"], steps=400, seconds_per_step=0.1)
    assert settle(study, first, runs) is None
    write_run(by_name["A2/full/seed0"], steps=400, seconds_per_step=0.24)
    assert settle(study, first, runs).train.epochs == 10  # 4 * 2.4, rounded up
    keep(study, first, runs)
    write_run(by_name["A2/full/seed1"], steps=400, seconds_per_step=0.9)  # measured too late
    assert settle(study, second, runs).train.epochs == 10
    keep(study, second, runs)
    kept = [json.loads((run.folder / "like.json").read_text()) for run in (first, second)]
    assert kept[0] == kept[1]
    assert kept[0]["factor"] == pytest.approx(2.4)
    assert kept[0]["training_seconds"]["A2"] == {"A2/full/seed0": 96.0}


def test_the_other_budget_has_a_measure_of_its_own(make_study, write_run, tmp_path):
    study = make_study()
    runs = plan(study, tmp_path)
    by_name = {run.name: run for run in runs}
    for name, pace in (("A0/full/seed0", 0.1), ("A2/full/seed0", 0.2)):
        write_run(by_name[name], seconds_per_step=pace)
    keep(study, by_name["A0_time/full/seed0"], runs)
    assert settle(study, by_name["A0_time/tenth/seed0"], runs) is None


def test_how_far_a_run_is_stands_in_its_folder(make_study, write_run, tmp_path):
    run = plan(make_study(), tmp_path)[2]
    assert state(run) is State.todo
    (run.folder / "checkpoints").mkdir(parents=True)
    (run.folder / "checkpoints/last.ckpt").touch()
    assert state(run, run.experiment) is State.interrupted
    write_run(run)
    assert state(run, run.experiment) is State.done


def test_a_run_with_other_settings_is_refused_by_their_names(make_study, write_run, tmp_path):
    write_run(plan(make_study(), tmp_path)[2])
    run = plan(make_study("train.epochs=5", "train.gamma=1"), tmp_path)[2]
    with pytest.raises(BridgeTAError, match=r"seed0: was .*train.epochs = 4 instead of 5, train.gamma = 2.0 instead"):
        state(run, run.experiment)


def test_a_moved_study_and_other_loaders_are_the_same_settings(make_study, write_run, tmp_path):
    runs = plan(make_study(), tmp_path / "old")
    for run in runs:
        write_run(run)
    (tmp_path / "old").rename(tmp_path / "new")
    for run in plan(make_study("data.workers=7", "labels.cache=kept"), tmp_path / "new"):
        assert state(run, run.experiment) is State.done


def test_a_run_of_before_there_were_label_settings_had_the_default_ones(make_study, write_run, tmp_path):
    run = plan(make_study(), tmp_path)[2]
    write_run(run)
    path = run.folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "labels"}))
    assert state(run, run.experiment) is State.done
    exact = plan(make_study("labels.mode=exact"), tmp_path)[2]
    with pytest.raises(BridgeTAError, match=r"labels.mode = compatible instead of exact"):
        state(exact, exact.experiment)


def test_settings_that_a_kind_of_run_does_not_read_may_change(make_study, write_run, tmp_path):
    old = {run.name: run for run in plan(make_study(), tmp_path)}
    new = plan(make_study("distill.strength=0.5"), tmp_path)
    for run in new:
        write_run(old[run.name])
        if run.kind == "distill":
            with pytest.raises(BridgeTAError, match=r"distill.strength = 1.0 instead of 0.5"):
                state(run, run.experiment)
        else:
            assert state(run, run.experiment) is State.done
