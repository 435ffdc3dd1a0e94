"""How long runs of equal time are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import DataConfig, Experiment, TrainConfig
from bridgeta_core.study.equal_time import lengthen, resolve_length, save_length
from bridgeta_core.study.plan import plan
from bridgeta_core.utils.errors import BridgeTAError

BOTH_WAYS = {
    "A0": {},
    "A2": {"kind": "distill"},
    "A0_time": {"like": "A2"},
    "A0_all": {"like": "A2", "like_counts": "everything"},
}


@given(st.integers(1, 1000), st.integers(0, 500), st.floats(0.05, 20))
def test_equal_time_is_at_most_one_unit_longer(epochs, steps, factor):
    experiment = Experiment(train=TrainConfig(epochs=epochs), data=DataConfig(steps_per_epoch=steps))
    longer = lengthen(experiment, factor)
    before, after = (steps, longer.data.steps_per_epoch) if steps else (epochs, longer.train.epochs)
    assert before * factor - 1e-6 <= after < before * factor + 1
    assert longer.train.epochs == epochs if steps else longer.data.steps_per_epoch == 0
    assert (experiment.train.epochs, experiment.data.steps_per_epoch) == (epochs, steps)


def test_equal_time_is_measured_once_and_saved(make_study, write_run, tmp_path):
    study = make_study()
    runs = plan(study, tmp_path)
    by_name = {run.name: run for run in runs}
    first, second = by_name["A0_time/full/seed0"], by_name["A0_time/full/seed1"]
    write_run(by_name["A0/full/seed0"], steps=400, seconds_per_step=0.1)
    assert resolve_length(study, first, runs) is None
    write_run(by_name["A2/full/seed0"], steps=400, seconds_per_step=0.24)
    assert resolve_length(study, first, runs).train.epochs == 10  # 4 * 2.4, rounded up
    save_length(study, first, runs)
    write_run(by_name["A2/full/seed1"], steps=400, seconds_per_step=0.9)  # measured too late
    assert resolve_length(study, second, runs).train.epochs == 10
    save_length(study, second, runs)
    kept = [json.loads((run.folder / "like.json").read_text()) for run in (first, second)]
    assert kept[0] == kept[1]
    assert kept[0]["factor"] == pytest.approx(2.4)
    assert kept[0]["seconds"]["A2"] == {"A2/full/seed0": 96.0}


def test_every_budget_is_measured_by_itself(make_study, write_run, tmp_path):
    study = make_study()
    runs = plan(study, tmp_path)
    by_name = {run.name: run for run in runs}
    for name, pace in (("A0/full/seed0", 0.1), ("A2/full/seed0", 0.2)):
        write_run(by_name[name], seconds_per_step=pace)
    save_length(study, by_name["A0_time/full/seed0"], runs)
    assert resolve_length(study, by_name["A0_time/tenth/seed0"], runs) is None


def test_everything_counts_the_teacher_and_the_cache(make_study, write_run, tmp_path):
    study = make_study(arms=BOTH_WAYS, control="")
    runs = plan(study, tmp_path)
    by_name = {run.name: run for run in runs}
    equal, training = by_name["A0_all/full/seed0"], by_name["A0_time/full/seed0"]
    write_run(by_name["A0/full/seed0"], steps=400, seconds_per_step=0.1, cache_seconds=2.0)
    write_run(by_name["A2/full/seed0"], steps=400, seconds_per_step=0.24, cache_seconds=10.0)
    assert resolve_length(study, equal, runs) is None  # not without its teacher
    write_run(by_name["teachers/fusion/full/seed0"], steps=1000, seconds_per_step=0.5, cache_seconds=4.0)
    write_run(by_name["teachers/fusion/tenth/seed0"], steps=9000, seconds_per_step=0.5, cache_seconds=4.0)
    save_length(study, equal, runs)
    kept = json.loads((equal.folder / "like.json").read_text())
    assert kept["counts"] == "everything"
    assert kept["seconds"] == {"A2": {"A2/full/seed0": 610.0}, "A0": {"A0/full/seed0": 40.0}}
    assert kept["factor"] == pytest.approx((96 + 10 + 500 + 4 - 2) / 40)
    assert resolve_length(study, equal, runs).train.epochs == 61  # 4 * 15.2, rounded up
    assert resolve_length(study, training, runs).train.epochs == 10


@pytest.mark.parametrize("without", ["A0", "A2", "teachers/fusion"])
def test_a_cache_of_unknown_time_cannot_count(make_study, write_run, tmp_path, without):
    study = make_study(arms=BOTH_WAYS, control="")
    runs = plan(study, tmp_path)
    for run in runs:
        if run.name in ("A0/full/seed0", "A2/full/seed0", "teachers/fusion/full/seed0"):
            known = {} if run.name.startswith(without) else {"cache_seconds": 1.0}
            write_run(run, **known)
    by_name = {run.name: run for run in runs}
    assert resolve_length(study, by_name["A0_all/full/seed0"], runs) is None
    assert resolve_length(study, by_name["A0_time/full/seed0"], runs) is not None


def test_a_length_that_was_measured_otherwise_is_refused(make_study, write_run, tmp_path):
    study = make_study()
    runs = {run.name: run for run in plan(study, tmp_path)}
    run = runs["A0_time/full/seed0"]
    run.folder.mkdir(parents=True)
    (run.folder / "like.json").write_text('{"like": "A2", "factor": 2.0}')  # as older studies wrote it
    assert resolve_length(study, run, list(runs.values())).train.epochs == 8
    study.arms["A0_time"].like_counts = "everything"
    with pytest.raises(
        BridgeTAError, match=r"like.json: .*it is of A2, training.* Remove it to have it measured again"
    ):
        resolve_length(study, run, list(runs.values()))
