"""How long the runs that are left take, against times worked out by hand."""

from __future__ import annotations

import csv
import io
import math

import pytest
from rich.console import Console

from bridgeta_core.study.forecast import describe_rest, look_ahead
from bridgeta_core.study.plan import plan
from bridgeta_core.study.results import Results
from bridgeta_core.study.state import State
from bridgeta_core.study.study import build_overview, describe_work

ARMS = {
    "A0": {},
    "A0_long": {"longer": 3},
    "A2": {"kind": "distill"},
    "A0_time": {"like": "A2"},
    "A0_all": {"like": "A2", "like_counts": "everything"},
}
STEPS = ["train.epochs=2", "data.steps_per_epoch=100"]


@pytest.fixture
def ahead(make_study, write_run, tmp_path):
    """`ahead({name: seconds}, ...)`: the outlooks by the names of the runs, of which those named are done."""

    def look(done: dict[str, float], steps: int = 200, **settings):
        made = {
            "arms": ARMS,
            "control": "",
            "teachers": {"fusion": []},
            "seeds": [0, 1],
            "overrides": STEPS,
            **settings,
        }
        study = make_study(**made)
        for run in plan(study, tmp_path / "out"):
            if run.name in done:
                write_run(run, seconds=done[run.name], steps=steps, seconds_per_step=0.5, cache_seconds=0.0)
        return {outlook.run.name: outlook for outlook in look_ahead(Results(study, tmp_path / "out"))}

    return look


def test_a_run_is_as_fast_per_step_as_the_finished_ones_of_its_arm_and_budget(ahead):
    found = ahead({"A0/full/seed0": 60.0, "A0/tenth/seed0": 90.0})
    assert found["A0/full/seed0"].state is State.done
    assert found["A0/full/seed0"].seconds == 0
    assert (found["A0/full/seed1"].seconds, found["A0/full/seed1"].guess) == (60.0, "")
    assert (found["A0/tenth/seed1"].seconds, found["A0/tenth/seed1"].guess) == (90.0, "")


def test_what_other_budgets_and_arms_tell_is_a_guess(ahead):
    found = ahead({"A0/full/seed0": 60.0, "A0_long/full/seed0": 300.0}, steps=100)
    other = found["A0/tenth/seed0"]
    assert (other.seconds, other.guess) == (120.0, "a guess from other budgets")  # 200 steps instead of 100
    longer = found["A0_long/full/seed1"]
    assert (longer.seconds, longer.guess) == (1800.0, "")  # 600 steps instead of 100
    found = ahead({}, seeds=[0, 1], arms={**ARMS, "B": {}})
    assert found["B/full/seed0"].guess == "a guess from other arms"
    assert math.isnan(found["A2/full/seed0"].seconds)
    assert math.isnan(found["teachers/fusion/full/seed0"].seconds)


def test_without_a_number_of_steps_epochs_are_compared(ahead):
    found = ahead({"A0/full/seed0": 60.0}, overrides=["train.epochs=2"])
    assert found["A0/full/seed1"].seconds == 60
    assert found["A0_long/full/seed0"].seconds == 180


def test_an_interrupted_run_needs_the_rest_of_its_epochs(ahead, make_study, tmp_path):
    folder = tmp_path / "out" / "A0/full/seed1"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").touch()
    (folder / "logs/version_0").mkdir(parents=True)
    with (folder / "logs/version_0/metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "step", "val/miou"), (0, 99, 0.2)])
    run = ahead({"A0/full/seed0": 60.0})["A0/full/seed1"]
    assert (run.state, run.seconds) == (State.interrupted, 30.0)


def test_a_run_as_long_as_another_arm_takes_what_that_one_takes(ahead):
    found = ahead({"A0/full/seed0": 60.0, "teachers/fusion/full/seed0": 700.0})
    assert math.isnan(found["A0_time/full/seed0"].seconds)
    found = ahead({"A2/tenth/seed0": 150.0, "teachers/fusion/tenth/seed0": 500.0})
    equal, everything = found["A0_time/full/seed1"], found["A0_all/full/seed1"]
    assert (equal.seconds, equal.guess) == (150.0, "as long as A2, once that is measured")
    assert everything.seconds == 150 + 700
    found = ahead({"A2/full/seed0": 200.0})
    measured = found["A0_time/full/seed1"]
    assert (measured.seconds, measured.guess) == (60.0, "a guess from other arms")  # as many steps as A2 and A0 took


def test_what_is_left_is_added_up_and_its_guesses_beside(ahead, make_study, tmp_path):
    found = ahead({"A0/full/seed0": 60.0}, arms={"A0": {}, "A2": {"kind": "distill"}})
    # A0/full/seed1 is known, A0/tenth twice a guess; A2 four times and two teachers unknown
    expected = (
        "about 1 min 30 s to go with 2 at a time, 1 min 00 s of that a guess; 6 runs without a finished one of their"
    )
    assert describe_rest([*found.values()], 2) == f"{expected} kind are not counted"
    study = make_study(
        arms={"A0": {}, "A2": {"kind": "distill"}}, control="", teachers={"fusion": []}, seeds=[0, 1], overrides=STEPS
    )
    assert describe_work(study, tmp_path / "out", 2) == (9, f"9 of 10 runs to do; {expected} kind are not counted")
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(build_overview(study, tmp_path / "out", 2))
    text = console.export_text()
    lines = {line.split()[1]: line for line in text.splitlines() if "/seed" in line}
    assert [cell.strip() for cell in lines["A0/full/seed0"].split("│")[2:4]] == ["done", "1 min 00 s"]
    assert "about 1 min 00 s" in lines["A0/tenth/seed1"]
    assert "a guess from other budgets" in lines["A0/tenth/seed1"]
    assert "guess" not in lines["A0/full/seed1"]
    assert lines["A2/full/seed0"].split("│")[3].strip() == "?"
    assert f"1 of 10 done; {expected}" in " ".join(text.split())


def test_nothing_is_left_of_a_finished_study(ahead):
    names = [f"{arm}/{budget}/seed{seed}" for arm in ("A0", "A2") for budget in ("full", "tenth") for seed in (0, 1)]
    names += [f"teachers/fusion/{budget}/seed0" for budget in ("full", "tenth")]
    found = ahead(dict.fromkeys(names, 60.0), arms={"A0": {}, "A2": {"kind": "distill"}})
    assert describe_rest([*found.values()], 2) == ""


def test_a_new_study_claims_no_time(ahead):
    found = ahead({})
    assert describe_rest([*found.values()], 1) == "22 runs without a finished one of their kind are not counted"
