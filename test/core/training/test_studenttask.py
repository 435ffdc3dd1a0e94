"""What the student's task keeps between steps."""

from __future__ import annotations

import pytest

from bridgeta_core.config.experiment import DataConfig
from bridgeta_core.training.studenttask import kept_plans


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
def test_plans_are_not_hoarded_where_every_sample_has_its_own(change):
    assert kept_plans(DataConfig(batch_size=8, **change)) == 8
    assert kept_plans(DataConfig(batch_size=8, flip=True, flip_x=True)) > 16
