"""The student: shapes, taps, freedom of rig and image size, and where its backbone comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageClassification

from bridgeta_core.config.experiment import (
    BackboneConfig,
    DecoderConfig,
    Experiment,
    HeadConfig,
    ImageConfig,
    LiftConfig,
    StudentConfig,
    load,
)
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

GRID = BevGrid(-10, 10, -6, 6, 0.5)
OPTIONS = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}


def small(width: int = 64, height: int = 32, downsample: int = 1, ground_prior: bool = True) -> StudentConfig:
    return StudentConfig(
        image=ImageConfig(width=width, height=height, margin=1.0),
        backbone=BackboneConfig(architecture="resnet", options=dict(OPTIONS), stages=[2, 3, 4], channels=16),
        lift=LiftConfig(
            depth_max=13.0,
            depth_step=1.0,
            channels=8,
            grid=BevGrid(-12, 12, -8, 8, 0.5),
            downsample=downsample,
            ground_prior=ground_prior,
        ),
        decoder=DecoderConfig(width=12, stages=[8, 16], blocks=2, channels=8),
        head=HeadConfig(width=8),
    )


def rig(batch: int, cameras: int, width: int = 64, height: int = 32) -> tuple[Tensor, Tensor]:
    """Cameras that look evenly around, 1.5 m above the ground."""
    poses = []
    for yaw in np.arange(cameras) * 2 * np.pi / cameras:
        c, s = np.cos(yaw), np.sin(yaw)
        pose = np.eye(4)
        pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        pose[2, 3] = 1.5
        poses.append(pose)
    k = np.array([[width / 2, 0, (width - 1) / 2], [0, width / 2, (height - 1) / 2], [0, 0, 1]])
    k = np.broadcast_to(k, (batch, cameras, 3, 3)).astype(np.float32)
    return torch.from_numpy(k.copy()), torch.from_numpy(np.stack(poses)).float().expand(batch, -1, -1, -1)


def pictures(batch: int, cameras: int, width: int = 64, height: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, cameras, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("cameras", [1, 3, 6])
def test_any_number_of_cameras_gives_the_same_taps(cameras: int) -> None:
    student = Student(small(), GRID).eval()
    taps = student(pictures(2, cameras), student.plan(*rig(2, cameras)))
    assert taps.F.shape == (2, 12, 32, 48)
    assert taps.D.shape == (2, 16, 32, 48)
    assert taps.Z.shape == (2, 6, 24, 40)


@pytest.mark.parametrize(("width", "height"), [(64, 32), (96, 40), (72, 64)])
@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_any_image_size_of_whole_cells_and_any_stride(width: int, height: int, downsample: int) -> None:
    student = Student(small(width, height, downsample), GRID).eval()
    taps = student(pictures(1, 2, width, height), student.plan(*rig(1, 2, width, height)))
    assert taps.F.shape == (1, 12, 32 // downsample, 48 // downsample)
    assert student.bev_grid.shape == (32 // downsample, 48 // downsample)
    assert taps.Z.shape == (1, 6, 24, 40)


def test_f_is_tapped_before_its_relu_and_decode_goes_on_from_it() -> None:
    student = Student(small(), GRID).eval()
    plan = student.plan(*rig(1, 2))
    taps = student(pictures(1, 2), plan)
    assert (taps.F < 0).any()
    assert torch.equal(student.bev(pictures(1, 2), plan), taps.F)
    again = student.decode(taps.F)
    assert torch.equal(again.D, taps.D)
    assert torch.equal(again.Z, taps.Z)
    assert torch.equal(student.head(student.decoder(taps.F.relu())), taps.Z)


def test_byte_images_are_normalised_inside() -> None:
    student = Student(small(), GRID).eval()
    plan, images = student.plan(*rig(1, 3)), pictures(1, 3)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(student(images, plan).Z, student((images / 255 - mean) / std, plan).Z)


def test_the_order_of_the_cameras_does_not_matter() -> None:
    student = Student(small(), GRID).eval()
    (k, pose), images, order = rig(1, 3), pictures(1, 3), [2, 0, 1]
    plain = student(images, student.plan(k, pose)).Z
    torch.testing.assert_close(student(images[:, order], student.plan(k[:, order], pose[:, order])).Z, plain)


def test_the_label_loss_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    student = Student(small(downsample=2), GRID).train()
    student(pictures(2, 2), student.plan(*rig(2, 2))).Z.square().mean().backward()
    dead = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_the_untrained_head_expects_few_positives() -> None:
    torch.manual_seed(0)
    student = Student(small(), GRID).eval()
    probability = student(pictures(1, 2), student.plan(*rig(1, 2))).Z.sigmoid()
    assert 0.02 < probability.mean() < 0.3


def test_the_ground_prior_puts_an_untrained_feature_where_its_ray_meets_the_road() -> None:
    student = Student(small(), GRID).eval()
    branch = student.camera
    torch.nn.init.zeros_(branch.depth.weight)
    bias = torch.zeros_like(branch.depth.bias)
    bias[len(branch.bins) :] = 1.0
    branch.depth.bias.data = bias
    branch.ground_width.data.fill_(np.log(0.01))  # narrow, so that one bin takes nearly all
    bev = branch(pictures(1, 1), student.plan(*rig(1, 1)))[0, 0]
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


def test_swin_t_is_swin_t_even_where_nothing_can_be_downloaded() -> None:
    experiment = load(Experiment, "nuscenes_swin_t")
    student = Student(experiment.model, experiment.grid, pretrained=False)
    settings = student.camera.encoder.backbone.config
    assert (settings.embed_dim, tuple(settings.depths)) == (96, (2, 2, 6, 2))
    assert (tuple(settings.num_heads), settings.window_size) == ((3, 6, 12, 24), 7)
    assert student.camera.encoder.stride == 8
    assert student.camera.feature_size == (32, 88)
    # torchvision counts 28.288 M parameters with a classifier of 769,000; the backbone adds three norms of its taps.
    count = sum(p.numel() for p in student.camera.encoder.backbone.parameters())
    assert count == pytest.approx(28_288_354 - 769_000, rel=1e-3)
    assert student.bev_grid.shape == (128, 128)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("swin", {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}),
        ("convnext", {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
        ("convnext", {"hidden_sizes": [8, 8, 16, 16]}),
    ],
)
def test_other_backbones_take_sizes_that_their_windows_do_not_divide(architecture: str, options: dict) -> None:
    config = small(96, 40)
    config.backbone = BackboneConfig(architecture=architecture, options=options, channels=16)
    student = Student(config, GRID).eval()
    assert student(pictures(1, 2, 96, 40), student.plan(*rig(1, 2, 96, 40))).Z.shape == (1, 6, 24, 40)


def test_a_local_folder_serves_as_pretrained_weights_and_is_not_needed_afterwards(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = Student(small(), GRID)
    source.camera.encoder.backbone.save_pretrained(tmp_path / "weights")
    config = small()
    config.backbone.options, config.backbone.pretrained = {}, str(tmp_path / "weights")
    student = Student(config, GRID)
    expected = source.camera.encoder.backbone.state_dict()
    for name, value in student.camera.encoder.backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name
    rebuilt = Student(student.config, GRID, pretrained=False)
    rebuilt.load_state_dict(student.state_dict())


def test_an_image_classifier_serves_as_pretrained_weights(tmp_path: Path) -> None:
    options = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
    classifier = AutoModelForImageClassification.from_config(AutoConfig.for_model("swin", **options, num_labels=10))
    classifier.save_pretrained(tmp_path)
    config = small()
    config.backbone = BackboneConfig(architecture="swin", pretrained=str(tmp_path), channels=16)
    student = Student(config, GRID)
    loaded, checked = student.camera.encoder.backbone.state_dict(), 0
    for name, value in classifier.state_dict().items():
        # The backbone's names have had the prefix "swin." in some versions of transformers and not in others.
        found = loaded.get(name, loaded.get(name.removeprefix("swin.")))
        if found is not None:
            assert torch.equal(found, value), name
            checked += 1
    assert checked > 50
    assert student.config.backbone.options | options == student.config.backbone.options
    Student(student.config, GRID, pretrained=False).load_state_dict(student.state_dict())


def test_pretrained_weights_without_the_needed_tensors_are_refused(tmp_path: Path) -> None:
    Student(small(), GRID).camera.encoder.backbone.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    first = next(name for name in sorted(tensors) if name.endswith("running_mean"))
    save_file({k: v for k, v in tensors.items() if k != first}, tmp_path / "model.safetensors", {"format": "pt"})
    config = small()
    config.backbone.pretrained = str(tmp_path)
    with pytest.raises(BridgeTAError, match=r"lack 1 tensors, e.g. .*running_mean"):
        Student(config, GRID)


def test_pretrained_weights_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    config = small()
    config.backbone.pretrained = str(tmp_path / "nowhere")
    with pytest.raises(BridgeTAError, match=r"nowhere cannot be had.*pretrained=null"):
        Student(config, GRID)
    Student(config, GRID, pretrained=False)


def test_pretrained_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    Student(small(), GRID).camera.encoder.backbone.save_pretrained(tmp_path)
    config = small()
    config.backbone = BackboneConfig(architecture="convnext", pretrained=str(tmp_path), channels=16)
    with pytest.raises(BridgeTAError, match="is a resnet, not a convnext"):
        Student(config, GRID)


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
        student(pictures(1, 2, 96, 32), student.plan(*rig(1, 2)))


def test_resampling_keeps_corners_and_axes() -> None:
    source, target = BevGrid(-4, 4, -2, 2, 1.0), BevGrid(-3, 3, -1, 1, 0.25)
    features = torch.zeros(1, 1, *source.shape)
    features[0, 0, 0, -1] = 1.0  # most negative y, most positive x: rear right is row 0, column 0
    corner = GridResampler(source, BevGrid(-4, 4, -2, 2, 0.5))(features)[0, 0]
    assert corner.argmax() == 15
    assert corner[:, :12].sum() == 0
    # A field that is linear in x and y is resampled exactly.
    x, y = source.centres()
    field = torch.from_numpy(10 * x[None, :] + y[:, None]).float()[None, None]
    x, y = target.centres()
    expected = torch.from_numpy(10 * x[None, :] + y[:, None]).float()
    torch.testing.assert_close(GridResampler(source, target)(field)[0, 0], expected)


@pytest.mark.parametrize("target", [BevGrid(-50, 50, -50, 50, 0.5), BevGrid(-30, 50, -10, 20, 0.4)])
def test_resampling_equals_torch_grid_sample(target: BevGrid) -> None:
    source = BevGrid(-51.2, 51.2, -51.2, 51.2, 0.8)
    features = torch.randn(2, 3, *source.shape, generator=torch.Generator().manual_seed(0))
    x, y = (torch.from_numpy(c / 51.2).float() for c in target.centres())
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(2, -1, -1, -1)
    expected = torch.nn.functional.grid_sample(features, points, padding_mode="border", align_corners=False)
    torch.testing.assert_close(GridResampler(source, target)(features), expected, rtol=1e-4, atol=1e-4)


def test_resampling_to_the_same_grid_is_nothing() -> None:
    features = torch.randn(1, 2, *GRID.shape)
    assert GridResampler(GRID, GRID)(features) is features
