"""What the commands of a campaign are given, made by the commands themselves where these make it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from commands import SCENE, SYNTH, TRAINING, Command
from sandbox import Sandbox
from transformers import AutoConfig

from bridgeta_core.bevfusion.swin import list_swin_entries
from bridgeta_core.config import experiment as config
from bridgeta_core.deploy.weights import save_weights
from bridgeta_core.model.student import Student


def make_inputs(folder: Path, names: Iterable[str]) -> Path:
    """Make what some commands are given, and return the folder: a dataset, and what the commands read besides."""
    names = list(names)
    folder.mkdir(parents=True)
    (folder / "matplotlib").mkdir()
    maker = Sandbox(folder / "maker", folder)

    def run(*arguments: str) -> None:
        outcome = maker.run(Command("", arguments, ()))
        if outcome.code:
            raise RuntimeError(f"bridgeta {' '.join(arguments)}: exit code {outcome.code}\n{outcome.errors}")

    run("synth", "{inputs}/root", *SYNTH, "--seed", "3")
    shutil.copytree(folder / "root", folder / "broken")
    images = sorted((folder / "broken" / "samples").glob("CAM_*/*.jpg"))
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:-200])
    settings = [argument.format_map(maker.folders) for argument in TRAINING[1:]]
    experiment = config.load(config.Experiment, TRAINING[0], settings)
    student = Student(experiment.model, experiment.grid, pretrained=False)
    torch.nn.init.normal_(student.head.classify.weight, std=30)  # so that thresholds can be told apart
    save_weights(folder / "weights.safetensors", student, experiment.data.cameras, {})
    swin = AutoConfig.for_model("swin", embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    entries = list_swin_entries(swin, prefix="", mmdet=False, norms={})
    torch.save({entry.source: torch.ones(entry.shape) for entry in entries}, folder / "swin.pth")
    if any(name.startswith(("replay", "report", "view rig")) for name in names):
        run("bag", "{inputs}/root", "{inputs}/bag", "--scene", SCENE)
        run("bag", "{inputs}/root", "{inputs}/bag3", "--scene", SCENE, "--storage", "sqlite3")
        run("replay", "{inputs}/bag", "{inputs}/replay", "--weights", "{inputs}/weights.safetensors")
        shutil.copy(folder / "replay" / "rig.yaml", folder / "rig.yaml")
    if any(name.startswith(("train", "study")) for name in names):
        run("train", "teacher", *TRAINING, "--out", "{inputs}/teacher_run")
        study = {
            "base": TRAINING[0],
            "overrides": settings,
            "budgets": {"full": []},
            "arms": {"A0": {}, "A1": {"overrides": ["train.learning_rate=0.01"]}},
        }
        (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        run("study", "{inputs}/study.yaml", "--out", "{inputs}/study")
        run("study", "{inputs}/study.yaml", "--out", "{inputs}/study", "--collect", "{inputs}/collected.json")
        (folder / "settings.yaml").write_text(yaml.safe_dump(config.to_mapping(experiment), sort_keys=False))
    maker.remove()
    return folder
