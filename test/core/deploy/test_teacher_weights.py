"""A teacher's weights file: written and read without a change, frozen, and not to be confused with a student's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_networks import GRID, small_student, small_teacher

from bridgeta_core.config.experiment import (
    StudentConfig,
)
from bridgeta_core.deploy.teacher_weights import load_teacher, save_teacher
from bridgeta_core.deploy.weights import load_student, save_weights
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError

CAMERAS = ("LEFT", "RIGHT")
ORIGIN = {"command": "bridgeta train teacher", "steps": 12, "metrics": {"mIoU": 0.5}}


def small() -> StudentConfig:
    return small_student({"margin": 1.25}, {"downsample": 2})


@pytest.fixture(scope="module", params=["fusion", "lidar"])
def teacher(request: pytest.FixtureRequest) -> Teacher:
    torch.manual_seed(0)
    return Teacher(small_teacher(request.param, sweeps=4, z_min=-3.0, subdivide=2), small(), GRID)


@pytest.fixture
def path(tmp_path: Path, teacher: Teacher) -> Path:
    target = tmp_path / "teacher.safetensors"
    save_teacher(target, teacher, CAMERAS, ORIGIN)
    return target


def test_a_round_trip_changes_nothing(path: Path, teacher: Teacher) -> None:
    loaded, info = load_teacher(path)
    assert loaded.state_dict().keys() == teacher.state_dict().keys()
    for name, value in teacher.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert info.model == teacher.model == loaded.model
    assert info.teacher == teacher.config == loaded.config
    assert (info.grid, info.classes, info.cameras, info.provenance) == (GRID, CLASS_NAMES, CAMERAS, ORIGIN)


def test_a_loaded_teacher_is_not_trained(path: Path) -> None:
    loaded, _ = load_teacher(path)
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_loaded_teacher_computes_the_same(path: Path, teacher: Teacher) -> None:
    loaded, _ = load_teacher(path)
    k = torch.tensor([[32.0, 0, 31.5], [0, 32, 15.5], [0, 0, 1]])[None, None]
    pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])[None, None]
    images = torch.randint(0, 256, (1, 1, 3, 32, 64), dtype=torch.uint8)
    points = [torch.randn(99, 5) * torch.tensor([5, 4, 1, 0, 0]) + torch.tensor([0, 0, 0, 90, 0.1])]
    teacher.eval()
    ours, theirs = (net(images, net.camera and net.camera.plan(k, pose), points) for net in (teacher, loaded))
    assert torch.equal(ours.Z, theirs.Z)


def test_loading_asks_no_hub(tmp_path: Path) -> None:
    net = Teacher(small_teacher(), small(), GRID)
    net.model.backbone.pretrained = "somebody/nothing-of-this-name"
    save_teacher(tmp_path / "a.safetensors", net, CAMERAS, {})
    assert load_teacher(tmp_path / "a.safetensors")[1].model.backbone.pretrained == "somebody/nothing-of-this-name"


def test_student_and_teacher_files_are_told_apart(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "student.safetensors"
    save_weights(other, Student(small(), GRID), CAMERAS, ORIGIN)
    with pytest.raises(BridgeTAError, match=r"student\.safetensors.* weights of a student, not of a teacher"):
        load_teacher(other)
    with pytest.raises(BridgeTAError, match=r"teacher\.safetensors.* weights of a teacher, not of a student"):
        load_student(path)


def newer_format(tensors: dict, metadata: dict) -> None:
    metadata["format"] = "bridgeta-teacher/7"


def no_description(tensors: dict, metadata: dict) -> None:
    metadata.clear()


def no_teacher(tensors: dict, metadata: dict) -> None:
    del metadata["teacher"]


def unknown_setting(tensors: dict, metadata: dict) -> None:
    metadata["teacher"] = json.dumps(json.loads(metadata["teacher"]) | {"wings": 2})


def missing_tensor(tensors: dict, metadata: dict) -> None:
    del tensors["lidar.pillars.linear.weight"]


def exploded_tensor(tensors: dict, metadata: dict) -> None:
    tensors["fuser.0.weight"][0] = float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (newer_format, "format bridgeta-teacher/7, this version reads bridgeta-teacher/1"),
        (no_description, "without BridgeTA's description"),
        (no_teacher, "lacks 'teacher'"),
        (unknown_setting, "wings"),
        (missing_tensor, r"lidar\.pillars\.linear\.weight is missing"),
        (exploded_tensor, r"not finite, e\.g\. in fuser\.0\.weight"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(path: Path, change: Callable, message: str) -> None:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(BridgeTAError, match=message) as caught:
        load_teacher(path)
    assert str(path) in str(caught.value)
