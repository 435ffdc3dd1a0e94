"""Settings of a study: what is refused before any run starts, and what the shipped studies hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridgeta_core.config.experiment import to_mapping
from bridgeta_core.distill.methods.registry import METHODS
from bridgeta_core.study.config import STUDY_FOLDER, load_study
from bridgeta_core.study.plan import plan
from bridgeta_core.utils.errors import BridgeTAError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "B0"}, r"baseline = B0 is not among arms. Use one of A0, A0_time, A1, A2, R1"),
        ({"control": "B1"}, r"control = B1 is not among arms"),
        ({"seeds": []}, r"seeds = \[\] must name at least one seed"),
        ({"seeds": [1, 1]}, r"seeds = \[1, 1\] must name .* each once"),
        ({"budgets": {}}, r"budgets is empty"),
        ({"budgets": {"a/b": []}}, r"budgets.a/b: the name is also that of a folder"),
        ({"budgets": {"teachers": []}}, r"budgets.teachers: the folder of that name is that of all teachers"),
        ({"teachers": {}}, r"arms.A1.kind = distill needs a teacher. Add one to teachers"),
        ({"weights": "middle"}, r"weights = 'middle' is not one of last, best"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_setting_of_a_study_names_key_and_remedy(make_study, settings, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        make_study(**settings)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"A0'": {}}, r"arms.A0': the name is also that of a folder. .* the arm's title"),
        ({"A0": {"kind": "teach"}}, r"arms.A0.kind = 'teach' is not one of student, distill"),
        ({"A0": {"longer": 0}}, r"arms.A0.longer = 0.* must be at least 0.01"),
        ({"A0": {"title": "x", "colour": 1}}, r"arms.A0.colour"),
        ({"A0": {}, "teachers": {}}, r"arms.teachers: the folder of that name is that of all teachers"),
        ({"A0": {}, "B": {"budgets": ["half"]}}, r"arms.B.budgets = \['half'\] names half, .*Use some of full, tenth"),
        ({"A0": {}, "B": {"teacher": "radar"}}, r"arms.B.teacher = radar is not among teachers. Use one of fusion"),
        ({"A0": {}, "B": {"like": "C"}}, r"arms.B.like = C is not among arms. Use one of A0, B"),
        ({"A0": {}, "B": {"like_counts": "everything"}}, r"arms.B.like_counts says nothing without like"),
        ({"A0": {}, "B": {"like": "A0", "like_counts": "all"}}, r"arms.B.like_counts = 'all' is not one of training"),
        ({"A0": {}, "B": {"like": "B"}}, r"arms.B.like: B like B goes in a circle"),
        ({"A0": {}, "B": {"like": "C"}, "C": {"like": "B"}}, r"arms.B.like: B like C like B goes in a circle"),
        ({"A0": {"like": "B"}, "B": {}}, r"arms.A0.like: the baseline cannot be as long as another arm"),
        ({"A0": {}, "B": {"kind": "distill", "like": "A0"}}, r"arms.B.like: an arm of kind distill does not cost"),
        (
            {"A0": {}, "B": {"like": "C"}, "C": {"budgets": ["full"]}},
            r"arms.B.like: C has no runs of the budget tenth to measure",
        ),
    ],
)
def test_a_wrong_setting_of_an_arm_names_key_and_remedy(make_study, arms, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        make_study(arms=arms, control="")
    assert error.value.exit_code == 2


def test_a_wrong_setting_of_the_runs_names_arm_and_setting(make_study, tmp_path):
    study = make_study(arms={"A0": {"overrides": ["train.epoch=1"]}}, control="")
    with pytest.raises(BridgeTAError, match=r"arms.A0 with budgets.full: .*train.epoch"):
        plan(study, tmp_path)


def test_overrides_change_the_study_or_all_of_its_runs(make_study, tmp_path):
    study = make_study("seeds=[7]", "train.epochs=9", "data.train_root=/data/x")
    assert study.seeds == [7]
    runs = plan(study, tmp_path)
    assert {(run.experiment.train.epochs, run.experiment.data.train_root) for run in runs} == {(9, "/data/x")}


def test_the_tiny_study_has_its_arms_and_controls():
    study = load_study("tiny")
    assert list(study.budgets) == ["full", "tenth"]
    assert list(study.teachers) == ["fusion", "lidar"]
    assert study.seeds == [0, 1, 2, 3, 4, 5]
    runs = {run.arm: run.experiment for run in plan(study, Path("out")) if run.budget == "tenth"}
    assert {e.data.labelled for e in runs.values()} == {0.1}
    assert study.arms["A0_time"].like == "A2_shared"
    assert runs["A0_converged"].train.epochs == 3 * runs["A0"].train.epochs
    methods = {arm: e.distill.method for arm, e in runs.items() if study.arms[arm].kind == "distill"}
    assert methods["A1"] == methods["A1_sdec"] == "direct"
    assert (methods["R1"], methods["R2"]) == ("logits", "fitnet")
    assert runs["A1_sdec"].distill.direct.read_teacher == 1
    bridgeta = {arm: runs[arm].distill.bridgeta for arm, method in methods.items() if method == "bridgeta"}
    assert bridgeta.keys() == {"A2_shared", "A2_frozen", "midpoint", "A3"}
    assert (bridgeta["A2_shared"].reading, bridgeta["A2_shared"].assistant) == ("shared", "learned")
    assert bridgeta["A2_frozen"].reading == "frozen"
    assert (bridgeta["midpoint"].assistant, bridgeta["midpoint"].reading) == ("midpoint", "shared")
    assert bridgeta["A3"].label_weight == 0


def test_the_ablations_all_differ():
    study = load_study("ablations")
    assert len(study.seeds) == 3
    runs = [run for run in plan(study, Path("out")) if run.seed == 0 and run.kind != "teacher"]
    made = {run.arm: (run.kind, str(to_mapping(run.experiment))) for run in runs}
    assert made.keys() == study.arms.keys()
    assert len(set(made.values())) == len(made)
    assert {name.split("_")[0] for name in study.arms} == {f"A{i}" for i in range(18)} - {"A3"}
    distill = {run.arm: run.experiment.distill for run in runs}
    assert {d.bridgeta.eps for d in distill.values()} == {0.25, 0.5, 1, 2, 4}
    assert {d.levels.distance for d in distill.values()} == {"brier", "js", "kl"}
    assert {d.bridgeta.reading for d in distill.values()} == {"shared", "frozen", "own", "none"}
    assert {"".join(d.levels.levels) for d in distill.values()} == {"F", "D", "Z", "FD", "FZ", "DZ", "FDZ"}


@pytest.mark.parametrize("path", sorted(STUDY_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_study_plans_different_runs_after_those_that_they_need(path):
    runs = plan(load_study(path.stem), Path("out"))
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for place, run in enumerate(runs):
        assert set(run.needs) <= set(names[:place])
    made = [(run.kind, run.like, run.arm if run.like else "", str(to_mapping(run.experiment))) for run in runs]
    assert len(set(made)) == len(made)


def test_the_claim_hides_from_a_teacher_what_it_hides_from_its_students():
    study = load_study("claim")
    assert (study.seeds, study.teacher_seeds, study.shared_teachers) == ([0, 1, 2], [0, 1, 2], False)
    runs = {run.name: run for run in plan(study, Path("out"))}
    assert list(study.budgets) == ["full", "tenth", "other"]
    for budget in study.budgets:
        taught = [run for run in runs.values() if run.budget == budget and run.kind == "distill"]
        assert {run.teacher for run in taught} == {f"teachers/fusion/{budget}/seed{seed}" for seed in (0, 1, 2)}
        data = [runs[name].experiment.data for name in {run.teacher for run in taught}]
        data += [run.experiment.data for run in runs.values() if run.budget == budget]
        assert {d.labelled for d in data} == {0.1 if budget == "tenth" else 1}
        assert {str(d.train_root) for d in data} == {
            "data/towns_a" if budget == "other" else "['data/towns_a', 'data/towns_b']"
        }
        assert {d.unlabelled_root for d in data} == {"data/towns_b" if budget == "other" else None}
    epochs = {run.experiment.train.epochs * run.experiment.data.steps_per_epoch for run in runs.values()}
    assert epochs == {600, 3200}
    assert all(run.experiment.data.augment.flip and run.experiment.data.augment.colour for run in runs.values())


def test_the_claim_has_its_arms():
    study = load_study("claim")
    runs = {run.arm: run.experiment for run in plan(study, Path("out")) if run.budget == "other" and run.seed == 0}
    longer = {name: (arm.like, arm.like_counts) for name, arm in study.arms.items() if arm.like}
    assert longer == {"A0_time": ("A2", "training"), "A0_all": ("A2", "everything")}
    direct = {name: "".join(runs[name].distill.levels.levels) for name in ("A1", "A1_F", "A1_D", "A1_Z")}
    assert direct == {"A1": "FDZ", "A1_F": "F", "A1_D": "D", "A1_Z": "Z"}
    from_teacher = {name for name, e in runs.items() if e.distill.decoder_from_teacher}
    assert from_teacher == {"A17_A0", "A17_A1", "A17_A2"}
    assert (runs["A17_A0"].distill.strength, runs["A17_A0"].data.unlabelled) == (0, "none")
    rest = {"A0", "A1_sdec", "A2", "midpoint", "A3", "A2_frozen", "R1", "R2"}
    assert study.arms.keys() == rest | longer.keys() | direct.keys() | from_teacher


def test_the_roots_of_the_claim_come_from_the_command_line():
    overrides = ["data.train_root=[x,y]", "data.val_root=z", "budgets.other=[data.train_root=x,data.unlabelled_root=y]"]
    runs = {run.name: run.experiment.data for run in plan(load_study("claim", overrides), Path("out"))}
    roots = {name: (d.train_root, d.unlabelled_root, d.val_root) for name, d in runs.items()}
    assert roots["A2/tenth/seed0"] == (["x", "y"], None, "z")
    assert roots["A2/other/seed0"] == roots["teachers/fusion/other/seed0"] == ("x", "y", "z")


def test_longer_runs_of_the_claim_have_the_same_teachers():
    short, long = (
        {run.name: run.experiment for run in plan(load_study("claim", overrides), Path("out"))}
        for overrides in ([], ["data.steps_per_epoch=1200"])
    )
    assert all(long[name] == experiment for name, experiment in short.items() if name.startswith("teachers/"))
    assert all(long[name].data.steps_per_epoch == 1200 for name in short if not name.startswith("teachers/"))


def test_the_study_of_all_methods_leaves_none_out():
    study = load_study("all_methods")
    arms = [arm for arm in study.arms.values() if arm.kind == "distill"]
    assert sorted(text.removeprefix("distill.method=") for arm in arms for text in arm.overrides) == sorted(METHODS)
