"""The metric by light and weather."""

from __future__ import annotations

import pytest
import torch

from bridgeta_core.config.experiment import ImageConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.evaluation.conditions import ConditionIoU, group_samples
from bridgeta_core.evaluation.metric import THRESHOLDS, MapIoU
from bridgeta_core.geometry.grid import BevGrid

GRID = BevGrid(resolution=2.0)
GROUPS = {"day": 0, "night": 1, "wet": 2, "wet night": 3}


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (4, 6, *GRID.shape)
    return {
        "probabilities": torch.rand(shape, generator=generator),
        "labels": (torch.rand(shape, generator=generator) < 0.3).to(torch.uint8),
        "known": torch.tensor([True] * 5 + [False]).repeat(4, 1),
    }


@pytest.fixture(scope="module")
def result(batch) -> dict:
    metric = ConditionIoU(GRID, GROUPS)
    for rows in ([0, 1], [2, 3]):
        metric.update(*(value[rows] for value in batch.values()), [list(GROUPS)[i] for i in rows])
    return metric.result(metric.counts, metric.samples)


def test_over_all_frames_it_is_the_metric_of_all_frames(batch, result):
    whole = MapIoU(GRID)
    whole.update(*batch.values())
    assert result["samples"] == 4
    assert result["miou"] == pytest.approx(whole.result().miou, abs=1e-6)
    assert result["miou_at_0.5"] == pytest.approx(whole.result().miou_half, abs=1e-6)
    assert result["classes"]["divider"]["iou"] is None  # known nowhere


@pytest.mark.parametrize(("name", "rows"), [("day", [0, 2]), ("night", [1, 3]), ("dry", [0, 1]), ("rain", [2, 3])])
def test_a_condition_is_the_metric_of_its_frames(batch, result, name, rows):
    alone = MapIoU(GRID)
    alone.update(*(value[rows] for value in batch.values()))
    assert result["conditions"][name]["samples"] == 2
    assert result["conditions"][name]["miou"] == pytest.approx(alone.result().miou, abs=1e-6)


def test_at_a_half_a_range_is_the_overlap_of_its_cells(batch, result):
    near = torch.from_numpy(GRID.ranges() < 20)
    predicted, true = batch["probabilities"][:, 0, near] >= 0.5, batch["labels"][:, 0, near] > 0
    expected = (predicted & true).sum() / (predicted | true).sum()
    assert 0.5 in THRESHOLDS
    assert result["classes"]["drivable_area"]["iou_by_range_at_0.5"]["0-20 m"] == pytest.approx(expected, abs=1e-6)


def test_a_condition_without_frames_is_left_out():
    metric = ConditionIoU(GRID, GROUPS)
    assert metric.result(metric.counts, metric.samples)["conditions"] == {}


def test_groups_come_from_the_scenes_descriptions(small_root):
    dataset = FrameDataset(NuScenesDataset(small_root, "v1.0-mini"), "all", (), ImageConfig(), GRID)
    groups = group_samples(dataset)
    assert {token: group for token, group in groups.items() if token.endswith("-0")} == {
        "scene-0061-0": 0,  # "Day"
        "scene-0103-0": 3,  # "Night, rain"
    }
