"""What a finished run tells in run.json, and its picture."""

from __future__ import annotations

import json
import math

import cv2
import pytest

from bridgeta_core.deploy.weights import load_student
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.runs import record as record_module
from bridgeta_core.runs.record import RunRecord, read_record
from bridgeta_core.training.train import train_student, train_teacher


@pytest.fixture(scope="module")
def folder(two_scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_student(two_scenes("train.accumulate=2", "data.steps_per_epoch=4"), folder)
    return folder


@pytest.fixture(scope="module")
def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_it_counts_steps_of_the_optimiser(record):
    assert (record["kind"], record["epochs"], record["steps"]) == ("student", 2, 4)
    assert 0 < record["seconds_per_step"] < record["seconds"]
    assert record["cache_seconds"] == 0
    assert record["peak_memory"]["resident"] > 1e7


def test_it_counts_weights_and_frames(folder, record):
    student, _ = load_student(folder / "student.safetensors")
    assert record["parameters"] == {"student": student.parameter_count}
    assert record["frames"] == {"labelled": 4, "unlabelled": 0, "validation": 4}


def test_it_has_the_scores_of_the_last_and_the_best_weights(record):
    assert record["validation"]["last"]["epoch"] == 1
    for scores in record["validation"].values():
        assert set(scores["classes"]) == set(CLASS_NAMES)
        assert set(scores["ranges"]) == {"0-20 m", "20-35 m", "35-50 m"}
        assert {n: c["samples"] for n, c in scores["conditions"].items()} == {"day": 2, "night": 2, "dry": 2, "rain": 2}
    assert record["validation"]["best"]["miou"] >= record["validation"]["last"]["miou"]


def test_a_record_of_before_does_not_know_the_time_of_the_cache(folder, record, tmp_path):
    assert read_record(folder).total_seconds == pytest.approx(4 * record["seconds_per_step"])
    del record["cache_seconds"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    old = read_record(tmp_path)
    assert math.isnan(old.cache_seconds)
    collected = old.to_mapping()
    assert collected.pop("cache_seconds") is None
    assert math.isnan(RunRecord.from_mapping(collected).total_seconds)


def test_the_best_scores_are_those_of_the_exported_weights(folder, record):
    _, info = load_student(folder / "student.safetensors")
    assert info.provenance["validation"]["epoch"] == record["validation"]["best"]["epoch"]
    assert info.provenance["validation"]["miou"] == pytest.approx(record["validation"]["best"]["miou"], abs=1e-6)


def test_the_picture_of_the_run_can_be_opened(folder):
    assert cv2.imread(str(folder / "curves.png")).shape[2] == 3


def test_a_teacher_is_recorded_as_one(two_scenes, tmp_path):
    path = train_teacher(two_scenes("train.epochs=1", "data.steps_per_epoch=1", "data.balance=true"), tmp_path)
    assert path == tmp_path / "teacher.safetensors"
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["kind"] == "teacher"
    assert set(record["parameters"]) == {"teacher"}


def test_every_root_of_several_is_recorded(two_scenes, small_root, other_root, tmp_path):
    roots = [f"data.train_root=[{small_root},{other_root}]", f"data.val_root=[{other_root},{small_root}]"]
    train_student(two_scenes(*roots, "train.epochs=1", "data.steps_per_epoch=1"), tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["train_root"] == [str(small_root), str(other_root)]
    assert content["val_root"] == [str(other_root), str(small_root)]
    assert content["frames"] == {"labelled": 8, "unlabelled": 0, "validation": 8}
    assert content["synthetic_data"] == {"train": None, "val": None}


def test_the_sheets_of_several_roots_are_told_one_by_one(tmp_path):
    sheet = {"scenes": 3, "split": "train", "seed": 5, "duration": 8.0}
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "synth.json").write_text(
            json.dumps({"generator": "bridgeta synth", "settings": {**sheet, "seed": number}})
        )
    found = record_module._describe_roots([str(tmp_path / name) for name in ("0", "1", "none")])
    text = record_module._describe_data({"train": found, "val": None})
    assert text == "train: 3 scenes of split train, seed 0, 8 s, train: 3 scenes of split train, seed 1, 8 s"
