"""A teacher of a few thousand weights, trained on a few synthetic frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.training.train import train_teacher


@pytest.fixture(scope="session")
def teacher(two_scenes: Callable[..., Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a teacher of the two scenes, trained for one step."""
    return train_teacher(two_scenes("train.epochs=1", "data.steps_per_epoch=1"), tmp_path_factory.mktemp("teacher"))
