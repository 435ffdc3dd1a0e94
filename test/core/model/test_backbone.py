"""Image encoder: which backbones work, and where their weights come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import GRID, random_images, ring_of_cameras, small_student
from transformers import AutoConfig, AutoModelForImageClassification

from bridgeta_core.config.experiment import (
    BackboneConfig,
    Experiment,
    StudentConfig,
    load,
)
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError


def small(width: int = 64, height: int = 32, downsample: int = 1) -> StudentConfig:
    lift = {"depth_step": 1.0, "downsample": downsample, "ground_prior": True}
    return small_student({"width": width, "height": height}, lift)


def test_swin_t_has_its_architecture_without_a_download() -> None:
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
def test_other_backbones_take_any_image_size(architecture: str, options: dict) -> None:
    config = small(96, 40)
    config.backbone = BackboneConfig(architecture=architecture, options=options, channels=16)
    student = Student(config, GRID).eval()
    assert student(random_images(1, 2, 96, 40), student.plan(*ring_of_cameras(1, 2, 96, 40))).Z.shape == (1, 6, 24, 40)


def test_pretrained_weights_from_a_folder_are_needed_once(tmp_path: Path) -> None:
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


def test_incomplete_pretrained_weights_are_refused(tmp_path: Path) -> None:
    Student(small(), GRID).camera.encoder.backbone.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    first = next(name for name in sorted(tensors) if name.endswith("running_mean"))
    save_file({k: v for k, v in tensors.items() if k != first}, tmp_path / "model.safetensors", {"format": "pt"})
    config = small()
    config.backbone.pretrained = str(tmp_path)
    with pytest.raises(BridgeTAError, match=r"lack 1 tensors, e.g. .*running_mean"):
        Student(config, GRID)


def test_missing_pretrained_weights_are_named(tmp_path: Path) -> None:
    config = small()
    config.backbone.pretrained = str(tmp_path / "nowhere")
    with pytest.raises(BridgeTAError, match=r"nowhere cannot be loaded.*pretrained=null"):
        Student(config, GRID)
    Student(config, GRID, pretrained=False)


def test_pretrained_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    Student(small(), GRID).camera.encoder.backbone.save_pretrained(tmp_path)
    config = small()
    config.backbone = BackboneConfig(architecture="convnext", pretrained=str(tmp_path), channels=16)
    with pytest.raises(BridgeTAError, match="is a resnet, not a convnext"):
        Student(config, GRID)
