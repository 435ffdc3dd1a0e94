"""Segmentation head: resampling between grids, and what it predicts before training."""

from __future__ import annotations

import pytest
import torch
from small_networks import GRID, random_images, ring_of_cameras, small_student

from bridgeta_core.config.experiment import (
    StudentConfig,
)
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.head import GridResampler
from bridgeta_core.model.student import Student


def small(width: int = 64, height: int = 32, downsample: int = 1) -> StudentConfig:
    lift = {"depth_step": 1.0, "downsample": downsample, "ground_prior": True}
    return small_student({"width": width, "height": height}, lift)


def test_the_untrained_head_expects_few_positives() -> None:
    torch.manual_seed(0)
    student = Student(small(), GRID).eval()
    probability = student(random_images(1, 2), student.plan(*ring_of_cameras(1, 2))).Z.sigmoid()
    assert 0.02 < probability.mean() < 0.3


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


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    features = torch.randn(1, 2, *GRID.shape)
    assert GridResampler(GRID, GRID)(features) is features
