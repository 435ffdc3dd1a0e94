"""The frames of a run, by its settings."""

from __future__ import annotations

import pytest

from bridgeta_core.config.experiment import AugmentConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.processes import Processes
from bridgeta_core.utils.errors import BridgeTAError


def test_augmentation_applies_to_training_frames_only(two_scenes):
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
    frames = Frames(two_scenes(*(f"data.augment.{k}={v}" for k, v in changes.items()), "train.seed=7"), Processes())
    assert frames.training.augment == Augment(AugmentConfig(**changes), seed=7)
    assert frames.validation.augment is None
    assert not frames.training[0].images.equal(frames.validation[0].images)


def test_every_batch_has_its_share_of_unlabelled_frames(two_scenes):
    frames = Frames(two_scenes("data.labelled=0.5"), Processes(), unlabelled=True)
    assert (frames.labelled, frames.unlabelled) == ([0, 1], [2, 3])
    frames.trainer = type("Trainer", (), {"current_epoch": 0})
    for batch in frames.train_dataloader():
        labelled = batch.known.any(dim=1)
        assert [token.startswith("scene-0061") for token in batch.tokens] == labelled.tolist()
        assert labelled.sum() == 1
        assert not batch.labels[~labelled].any()


def test_more_processes_than_validation_frames_are_refused(two_scenes):
    with pytest.raises(BridgeTAError, match="5 processes cannot share 4 validation samples"):
        Frames(two_scenes(), Processes(0, 5))
