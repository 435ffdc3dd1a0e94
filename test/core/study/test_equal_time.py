"""How long runs of equal time are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import DataConfig, Experiment, TrainConfig
from bridgeta_core.study.equal_time import lengthen, resolve_length, save_length
from bridgeta_core.study.plan import plan


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
    assert kept[0]["training_seconds"]["A2"] == {"A2/full/seed0": 96.0}


def test_every_budget_is_measured_by_itself(make_study, write_run, tmp_path):
    study = make_study()
    runs = plan(study, tmp_path)
    by_name = {run.name: run for run in runs}
    for name, pace in (("A0/full/seed0", 0.1), ("A2/full/seed0", 0.2)):
        write_run(by_name[name], seconds_per_step=pace)
    save_length(study, by_name["A0_time/full/seed0"], runs)
    assert resolve_length(study, by_name["A0_time/tenth/seed0"], runs) is None
