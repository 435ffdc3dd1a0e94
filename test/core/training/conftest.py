"""Small runs: a network of a few thousand weights on a few synthetic frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridgeta_core.config import experiment as config
from bridgeta_core.training.train import train_teacher

SMALL = [
    "model.image.width=96",
    "model.image.height=64",
    "model.backbone.options={embedding_size: 8, hidden_sizes: [8, 8, 16, 16], depths: [1, 1, 1, 1], layer_type: basic}",
    "model.backbone.channels=16",
    "model.lift.depth_step=4.0",
    "model.lift.channels=8",
    "model.lift.grid.resolution=3.2",
    "model.decoder={width: 16, stages: [16, 16], blocks: 1, channels: 8}",
    "model.head.width=8",
    "teacher.lidar={channels: 8, width: 16, blocks: 0, sweeps: 1}",
    "distill.bridgeta.network.channels=8",
    "grid.resolution=2.0",
    "data.batch_size=2",
    "data.workers=0",
    "train.epochs=2",
]

Make = Callable[..., config.Experiment]


@pytest.fixture(scope="session")
def experiment() -> Make:
    """`experiment(root, *overrides)`: settings of a small run on a root of version v1.0-mini."""

    def make(root: Path, *overrides: str) -> config.Experiment:
        roots = [f"data.train_root={root}", f"data.val_root={root}", "data.version=v1.0-mini"]
        return config.load(config.Experiment, "tiny", [*SMALL, *roots, *overrides])

    return make


@pytest.fixture(scope="session")
def two_scenes(experiment: Make, small_root: Path) -> Make:
    """`two_scenes(*overrides)`: settings for the small root: 2 scenes of 2 frames with 2 cameras."""

    def make(*overrides: str) -> config.Experiment:
        return experiment(small_root, "data.cameras=[CAM_FRONT,CAM_BACK]", *overrides)

    return make


@pytest.fixture(scope="session")
def teacher(two_scenes: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a teacher of the two scenes, trained for one step."""
    return train_teacher(two_scenes("train.epochs=1", "data.steps_per_epoch=1"), tmp_path_factory.mktemp("teacher"))
