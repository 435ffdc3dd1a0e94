"""Starting from trained weights, and how many plans a task caches."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from bridgeta_core.config.experiment import AugmentConfig, DataConfig
from bridgeta_core.deploy.teacher_weights import load_teacher
from bridgeta_core.deploy.weights import load_student, save_weights
from bridgeta_core.training.tasks import StudentTask, TeacherTask, choose_plan_cache_size
from bridgeta_core.training.train import train_distill, train_student, train_teacher
from bridgeta_core.utils.errors import BridgeTAError


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_teacher_starts_from_one_on_another_label_grid(two_scenes, teacher):
    task = TeacherTask(two_scenes(f"train.initial={teacher}", "grid.resolution=1.0"), {})
    assert same(task.teacher, load_teacher(teacher)[0])
    assert task.teacher.grid.resolution == 1.0
    assert all(p.requires_grad for p in task.teacher.parameters())


def test_a_student_starts_from_a_student(two_scenes, tmp_path):
    first = StudentTask(two_scenes("train.seed=1"), {})
    save_weights(tmp_path / "student.safetensors", first.student, ["CAM_FRONT"], {})
    second = StudentTask(two_scenes(f"train.initial={tmp_path / 'student.safetensors'}"), {})
    assert same(second.student, first.student)
    assert not same(StudentTask(two_scenes(), {}).student, first.student)


def test_weights_of_another_architecture_are_refused(two_scenes, teacher, tmp_path):
    task = StudentTask(two_scenes(), {})
    save_weights(tmp_path / "student.safetensors", task.student, ["CAM_FRONT"], {})
    wider = two_scenes(f"train.initial={tmp_path / 'student.safetensors'}", "model.head.width=16")
    with pytest.raises(BridgeTAError, match=r"another architecture.*head"):
        StudentTask(wider, {})
    with pytest.raises(BridgeTAError, match="holds the weights of a teacher, not of a student"):
        StudentTask(two_scenes(f"train.initial={teacher}"), {})


def test_named_weights_do_not_decay_and_momentum_follows_the_rate(two_scenes):
    task = StudentTask(two_scenes("train.undecayed=[bias]", "train.momentum=[0.9,0.8]", "train.warmup=0.5"), {})
    with mock.patch.object(type(task), "trainer", SimpleNamespace(estimated_stepping_batches=10)):
        prepared = task.configure_optimizers()
    decayed, rest = prepared["optimizer"].param_groups
    biases = [p for name, p in task.named_parameters() if name.endswith("bias")]
    assert list(map(id, rest["params"])) == list(map(id, biases))
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(biases) == len(list(task.parameters()))
    momenta = []
    for _ in range(9):
        momenta.append(prepared["optimizer"].param_groups[1]["betas"][0])
        prepared["optimizer"].step()
        prepared["lr_scheduler"]["scheduler"].step()
    assert (max(momenta), min(momenta)) == pytest.approx((0.9, 0.8))


@pytest.mark.parametrize(
    "change",
    [
        {"rotate": 10.0},
        {"scale": 0.1},
        {"translate": 0.5},
        {"image_resize": [0.8, 1.2]},
        {"image_flip": True},
        {"image_rotate": 5.0},
    ],
)
def test_few_plans_are_cached_where_every_sample_has_its_own(change):
    assert choose(**change) == 8
    assert choose(flip=True, flip_x=True) > 16


def test_shifted_images_have_nine_times_the_plans_while_memory_lasts():
    assert choose(image_shift=4) == 9 * choose()
    assert choose(image_shift=4, feature_size=(320, 880)) == choose()


def choose(feature_size=(12, 32), **change) -> int:
    camera = SimpleNamespace(bins=torch.arange(56.0), feature_size=feature_size)
    return choose_plan_cache_size(DataConfig(batch_size=8, augment=AugmentConfig(**change)), camera)


@pytest.mark.parametrize("cache", [False, True])
def test_a_loss_on_depth_teaches_the_camera_and_adds_no_weights(two_scenes, teacher, tmp_path, cache):
    settings = ["train.epochs=1", *([f"data.cache={tmp_path / 'cache'}"] if cache else [])]
    for train, more in ((train_student, []), (train_distill, [f"distill.teacher={teacher}"])):
        plain, taught = (
            train(two_scenes(*settings, *more, f"train.depth_loss={weight}"), tmp_path / f"{train.__name__}{weight}")
            for weight in (0, 1)
        )
        assert not same(load_student(plain)[0].camera.depth, load_student(taught)[0].camera.depth)
        assert load_student(plain)[0].parameter_count == load_student(taught)[0].parameter_count
        assert [has_depth(path) for path in (plain, taught)] == [False, True]


def has_depth(weights):
    return "train/depth" in (weights.parent / "logs/version_0/metrics.csv").read_text().splitlines()[0]


def test_a_network_without_cameras_has_no_depth_to_learn(two_scenes, tmp_path):
    with pytest.raises(BridgeTAError, match="compares the depth of cameras with LiDAR") as raised:
        train_teacher(two_scenes("teacher.sensors=lidar", "train.depth_loss=1"), tmp_path)
    assert raised.value.exit_code == 2
