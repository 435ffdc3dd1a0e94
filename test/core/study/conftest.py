"""Studies of two arms whose runs are made by hand, or by a program that only pretends to train."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridgeta_core.config.experiment import to_mapping
from bridgeta_core.study.config import StudyConfig, load_study
from bridgeta_core.study.plan import Run, plan

SMALL: dict[str, Any] = {
    "base": "tiny",
    "overrides": ["train.epochs=4"],
    "seeds": [0, 1, 2],
    "budgets": {"full": [], "tenth": ["data.labelled=0.1"]},
    "teachers": {"fusion": [], "lidar": ["teacher.sensors=lidar"]},
    "baseline": "A0",
    "control": "A1",
    "arms": {
        "A0": {"title": "labels"},
        "A0_time": {"like": "A2"},
        "A1": {"kind": "distill", "overrides": ["distill.method=direct"]},
        "A2": {"kind": "distill", "title": "BridgeTA"},
        "R1": {"kind": "distill", "overrides": ["distill.method=logits"], "reference": True, "budgets": ["full"]},
    },
}

# Stands for `bridgeta train KIND SETTINGS --out FOLDER`: its arguments are kind, settings, folder, resume, behaviour.
TRAINER = """
import json, os, pathlib, signal, sys, time, yaml
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
kind, settings, folder, resume, behaviour = sys.argv[1:]
folder = pathlib.Path(folder)
experiment = yaml.safe_load(open(settings))
print(kind, "resume" if resume == "True" else "fresh", "threads", os.environ["OMP_NUM_THREADS"], flush=True)
(folder / "started").touch()
if kind == "distill":
    assert pathlib.Path(experiment["distill"]["teacher"]).exists()
for word in behaviour.split(","):
    name, _, what = word.partition(":")
    if name and name in str(folder):
        if what == "crash":
            print("no such device"); sys.exit(3)
        if what == "silent":
            sys.exit(0)
        if what == "hang":
            (folder / "checkpoints").mkdir(exist_ok=True); (folder / "checkpoints/last.ckpt").touch()
            time.sleep(60)
if kind == "teacher":
    (folder / "teacher.safetensors").touch()
step = {"student": 0.1, "distill": 0.25, "teacher": 0.2}[kind]
steps = 100 * experiment["train"]["epochs"]
scores = {"miou": 0.3, "miou_at_0.5": 0.25, "classes": {}, "ranges": {}, "conditions": {}}
(folder / "record").write_text(json.dumps({
    "kind": kind, "steps": steps, "seconds": step * steps + 5, "seconds_per_step": step, "device": "cpu",
    "machine": "toy", "git_revision": "abc", "peak_memory": {"resident": 1e9, "cuda": None},
    "parameters": {"teacher": 9} if kind == "teacher" else {"student": 5},
    "frames": {"labelled": 3, "unlabelled": 0, "validation": 2}, "validation": {"last": scores, "best": scores}}))
(folder / "record").rename(folder / "run.json")  # whole or absent, as the command does it
"""


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyConfig]:
    """A study from the small one with some of its settings replaced."""

    def make(*overrides: str, **settings: Any) -> StudyConfig:
        path = tmp_path / "study.yaml"
        content: dict[str, Any] = {**SMALL, **settings}
        roots = [f"data.train_root={tmp_path}", f"data.val_root={tmp_path}"]  # a study looks for them before it starts
        content["overrides"] = [*roots, *content.get("overrides", [])]
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load_study(path, overrides)

    return make


@pytest.fixture
def pretend() -> Callable[[str], Callable[[str, Path, Path, bool], list[str]]]:
    """Commands that pretend to train: `pretend("A1:crash,A2:hang")`, by a part of the folder's path."""

    def command(behaviour: str = "") -> Callable[[str, Path, Path, bool], list[str]]:
        def of(kind: str, settings: Path, folder: Path, resume: bool) -> list[str]:
            return [sys.executable, "-c", TRAINER, kind, str(settings), str(folder), str(resume), behaviour]

        return of

    return command


@pytest.fixture
def write_run() -> Callable[..., None]:
    """Make a run done by hand: `miou` and `half` as shares, other keys of run.json as they come."""

    def write(
        run: Run, miou: float = 0.3, half: float = 0.2, details: dict[str, Any] | None = None, **content: Any
    ) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "experiment.yaml").write_text(yaml.safe_dump(to_mapping(run.experiment), sort_keys=False))
        empty: dict[str, Any] = {"classes": {}, "ranges": {}, "conditions": {}}
        last = {"miou": miou, "miou_at_0.5": half, **empty, **(details or {})}
        teacher = run.kind == "teacher"
        record = {
            "kind": run.kind,
            "steps": 600,
            "seconds": 300.0,
            "seconds_per_step": 0.5,
            "peak_memory": {"resident": 900_000_000, "cuda": None},
            "parameters": {"teacher": 2_000_000} if teacher else {"student": 1_000_000},
            "frames": {"labelled": 80, "unlabelled": 0, "validation": 20},
            "validation": {"last": last, "best": {**last, "miou": miou + 0.05}},
            "git_revision": "abc1234",
            "device": "cpu",
            "machine": "Toy CPU",
            **content,
        }
        (run.folder / "run.json").write_text(json.dumps(record))

    return write


MIOU = {
    "teachers/fusion/full/seed0": 0.40,
    **{f"A0/full/seed{seed}": miou for seed, miou in enumerate((0.30, 0.31, 0.32))},
    **{f"A1/full/seed{seed}": miou for seed, miou in enumerate((0.32, 0.33, 0.37))},
    **{f"A2/full/seed{seed}": miou for seed, miou in enumerate((0.35, 0.36))},
    "R1/full/seed2": 0.312,
}
PACE = {"A0": 0.5, "A1": 0.75, "A2": 1.0, "R1": 0.6, "fusion": 0.9}


def classes(divider: float | None) -> dict[str, object]:
    return {"drivable_area": {"iou": 0.8, "iou_at_0.5": 0.7}, "divider": {"iou": divider, "iou_at_0.5": None}}


@pytest.fixture
def filled(make_study, write_run, tmp_path):
    """The study and its folder: A0 and A1 with three seeds, A2 with two, R1 with one, all on one budget."""
    study, out = make_study(), tmp_path / "out"
    for run in plan(study, out):
        if run.name not in MIOU:
            continue
        miou = MIOU[run.name]
        details = {
            "classes": classes(None if run.arm == "R1" else miou / 2),
            "ranges": {"0-20 m": {"miou": miou + 0.1}, "20-35 m": {"miou": miou}},
            "conditions": {"day": {"miou": miou}, "night": {"miou": miou / 4}},
        }
        counts = {"student": 1_234_567, "train_only": 170_000} if run.kind == "distill" else None
        more = {"parameters": counts} if counts else {}
        write_run(run, miou, miou - 0.1, details, seconds_per_step=PACE[run.arm], **more)
        if run.arm in ("A1", "A2"):
            path = run.folder / "logs/version_0/metrics.csv"
            path.parent.mkdir(parents=True)
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["epoch", "step", "train/slack_F", "val/miou", "val/assistant_miou"])
                if run.arm == "A2":
                    writer.writerows([(0, 10, 5.0, "", ""), (1, 99, 0.25, "", ""), (1, 100, 0.75, "", "")])
                    writer.writerow((1, 100, "", miou, 0.375))
                else:
                    writer.writerow((1, 100, "", miou, ""))
    return study, out
