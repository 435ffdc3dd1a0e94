"""The student: shapes, taps, any rig and image size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import GRID, bevfusion_student, random_images, ring_of_cameras, small_student

from bridgeta_core.config.experiment import (
    BackboneConfig,
    Experiment,
    ImageConfig,
    LiftConfig,
    StudentConfig,
    load,
)
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError


def small(width: int = 64, height: int = 32, downsample: int = 1) -> StudentConfig:
    lift = {"depth_step": 1.0, "downsample": downsample, "ground_prior": True}
    return small_student({"width": width, "height": height}, lift)


@pytest.mark.parametrize("cameras", [1, 3, 6])
def test_any_number_of_cameras_gives_the_same_shapes(cameras: int) -> None:
    student = Student(small(), GRID).eval()
    taps = student(random_images(2, cameras), student.plan(*ring_of_cameras(2, cameras)))
    assert taps.F.shape == (2, 12, 32, 48)
    assert taps.D.shape == (2, 16, 32, 48)
    assert taps.Z.shape == (2, 6, 24, 40)


@pytest.mark.parametrize(("width", "height"), [(64, 32), (96, 40), (72, 64)])
@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_any_image_size_and_stride_works(width: int, height: int, downsample: int) -> None:
    student = Student(small(width, height, downsample), GRID).eval()
    taps = student(random_images(1, 2, width, height), student.plan(*ring_of_cameras(1, 2, width, height)))
    assert taps.F.shape == (1, 12, 32 // downsample, 48 // downsample)
    assert student.bev_grid.shape == (32 // downsample, 48 // downsample)
    assert taps.Z.shape == (1, 6, 24, 40)


def test_f_is_before_its_relu_and_decode_continues_from_it() -> None:
    student = Student(small(), GRID).eval()
    plan = student.plan(*ring_of_cameras(1, 2))
    taps = student(random_images(1, 2), plan)
    assert (taps.F < 0).any()
    assert torch.equal(student.neck(student.camera(random_images(1, 2), plan)), taps.F)
    again = student.decode(taps.F)
    assert torch.equal(again.D, taps.D)
    assert torch.equal(again.Z, taps.Z)
    assert torch.equal(student.head(student.decoder(taps.F.relu())), taps.Z)


def test_the_parts_of_bevfusion_fit_together() -> None:
    student = Student(bevfusion_student(), GRID).train()
    taps = student(random_images(2, 3), student.plan(*ring_of_cameras(2, 3)))
    assert [tap.shape[1:] for tap in taps] == [(12, 16, 24), (8, 16, 24), (6, 24, 40)]
    taps.Z.square().mean().backward()
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("decoder", {"stages": [8]}, "model.decoder.stages needs two or more"),
        ("backbone", {"stages": [4]}, "pyramid = concatenation needs two stages or more"),
    ],
)
def test_parts_of_bevfusion_that_cannot_be_built_are_named(part: str, change: dict, message: str) -> None:
    config = bevfusion_student()
    for name, value in change.items():
        setattr(getattr(config, part), name, value)
    with pytest.raises(BridgeTAError, match=message):
        Student(config, GRID)


def test_byte_images_are_normalised_inside() -> None:
    student = Student(small(), GRID).eval()
    plan, images = student.plan(*ring_of_cameras(1, 3)), random_images(1, 3)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(student(images, plan).Z, student((images / 255 - mean) / std, plan).Z)


def test_the_order_of_the_cameras_does_not_matter() -> None:
    student = Student(small(), GRID).eval()
    (k, pose), images, order = ring_of_cameras(1, 3), random_images(1, 3), [2, 0, 1]
    plain = student(images, student.plan(k, pose)).Z
    torch.testing.assert_close(student(images[:, order], student.plan(k[:, order], pose[:, order])).Z, plain)


def test_the_label_loss_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    student = Student(small(downsample=2), GRID).train()
    student(random_images(2, 2), student.plan(*ring_of_cameras(2, 2))).Z.square().mean().backward()
    dead = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_the_ground_prior_puts_features_on_the_road() -> None:
    student = Student(small(), GRID).eval()
    branch = student.camera
    torch.nn.init.zeros_(branch.depth.weight)
    bias = torch.zeros_like(branch.depth.bias)
    bias[len(branch.bins) :] = 1.0
    branch.depth.bias.data = bias
    branch.ground_width.data.fill_(np.log(0.01))  # narrow, so that one bin takes nearly all
    bev = branch(random_images(1, 1), student.plan(*ring_of_cameras(1, 1)))[0, 0]
    # The bottom row of cells has its centre at v = 27.5: the ground lies 32 * 1.5 / (27.5 - 15.5) = 4 m ahead, which
    # is the border of two bins; the row above it, 32 * 1.5 / (19.5 - 15.5) = 12 m ahead, is beyond the sixth bin.
    x = (bev.nonzero()[:, 1] + 0.5) * 0.5 - 12
    weight = bev[bev > 0]
    near = (x > 3) & (x < 5)
    assert weight[near].sum() > 0.9 * 8
    assert weight[x < 3].sum() < 0.05 * 8


def test_tiny_fits_its_budget() -> None:
    experiment = load(Experiment, "tiny")
    student = Student(experiment.model, experiment.grid)
    assert student.parameter_count * 4 < 8e6
    assert student.parameter_count == sum(p.numel() for p in student.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ImageConfig(width=60, height=32)}, r"model.image.width = 60 must be a multiple of 8"),
        ({"image": ImageConfig(width=64, height=36)}, r"model.image.height = 36 must be a multiple of 8"),
        ({"backbone": BackboneConfig(architecture="bicycle")}, "'bicycle' is not a model type"),
        ({"backbone": BackboneConfig(architecture="bert")}, "bert cannot be built"),
        ({"backbone": BackboneConfig(architecture="resnet", options={"wheels": 4})}, "resnet has no wheels"),
        ({"backbone": BackboneConfig(architecture="resnet", stages=[4, 2])}, "stages .* must ascend"),
        ({"backbone": BackboneConfig(architecture="resnet", stages=[4, 5])}, "resnet cannot be built"),
        (
            {"backbone": BackboneConfig(architecture="resnet", options={"depths": [1, 2, None]})},
            "resnet cannot be built",
        ),
        ({"lift": LiftConfig(z_min=1.0, z_max=0.0)}, "z_min must be below z_max"),
    ],
)
def test_a_setting_that_cannot_work_is_named(change: dict, message: str) -> None:
    config = small()
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(BridgeTAError, match=message) as caught:
        Student(config, GRID)
    assert caught.value.exit_code == 2


def test_images_of_another_size_are_refused() -> None:
    student = Student(small(), GRID)
    with pytest.raises(BridgeTAError, match="the network takes"):
        student(random_images(1, 2, 96, 32), student.plan(*ring_of_cameras(1, 2)))
