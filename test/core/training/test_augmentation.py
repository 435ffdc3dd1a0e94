"""The frames of a run follow its settings."""

from __future__ import annotations

from bridgeta_core.data.augment import Augment
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.processes import Processes


def test_every_setting_of_augmentation_reaches_the_training_frames_and_none_the_validation(two_scenes):
    changes = {
        "flip": False,
        "rotate": 12.0,
        "colour": 0.3,
        "scale": 0.1,
        "translate": 0.5,
        "flip_x": True,
        "image_resize": [0.8, 1.1],
        "image_flip": True,
        "image_rotate": 4.0,
    }
    frames = Frames(two_scenes(*(f"data.{k}={v}" for k, v in changes.items()), "train.seed=7"), Processes())
    assert frames.training.augment == Augment(**changes, seed=7)
    assert frames.validation.augment is None
    assert not frames.training[0].images.equal(frames.validation[0].images)
