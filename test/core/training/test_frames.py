"""The frames of a run, by its settings."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridgeta_core.config.experiment import AugmentConfig, LidarConfig
from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.frames import Batch, Frame
from bridgeta_core.training import fresh
from bridgeta_core.training.cache.arrays import read_seconds
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.fresh import FreshBatches, Schedule, change_frame, open_frames
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.tasks import StudentTask
from bridgeta_core.training.train import train_student
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


@pytest.mark.parametrize("options", [[], ["data.cache"], ["labels.cache"]], ids=["files", "cache", "cached labels"])
def test_drives_of_another_city_join_without_labels(two_scenes, fleet_root, tmp_path, options):
    settings = two_scenes(f"data.unlabelled_root={fleet_root}", *(f"{option}={tmp_path}" for option in options))
    frames = Frames(settings, Processes(), unlabelled=True)
    assert (frames.labelled, frames.unlabelled) == ([0, 1, 2, 3], [4, 5, 6, 7])
    if settings.data.cache:
        frames.use_cache(settings.data.cache)
    frames.trainer = type("Trainer", (), {"current_epoch": 0})
    for batch in frames.train_dataloader():
        assert [token.startswith("other-") for token in batch.tokens] == [False, True]
        assert batch.labels[0].any()
        assert batch.known[0].any()
        assert not batch.labels[1].any()
        assert not batch.known[1].any()
        assert batch.images[1].any()


def test_a_run_knows_how_long_its_cache_took_whoever_built_it(two_scenes, tmp_path):
    settings = two_scenes("data.val_scenes=mini_val")
    assert Frames(settings, Processes()).cache_seconds == 0
    built, found = Frames(settings, Processes()), Frames(settings, Processes())
    for frames in (built, found):
        for cached in frames.use_cache(tmp_path).values():
            cached.add_points(KEYFRAME)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 4  # frames and points of two scenes; training and validation share one scene
    assert built.cache_seconds == found.cache_seconds == pytest.approx(sum(map(read_seconds, folders)))
    assert built.cache_seconds > 0
    (folders[0] / "seconds.npy").unlink()
    assert math.isnan(found.cache_seconds)


def test_training_without_a_teacher_leaves_drives_without_labels_out(two_scenes, fleet_root):
    frames = Frames(two_scenes(f"data.unlabelled_root={fleet_root}"), Processes())
    plain = Frames(two_scenes(), Processes())
    assert (len(frames.training), frames.unlabelled) == (4, [])
    assert [frames.training.sample(i).scene for i in range(4)] == [plain.training.sample(i).scene for i in range(4)]
    assert list(frames.batches) == list(plain.batches)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_another_city_does_not_change_which_frames_have_labels(two_scenes, fleet_root, share):
    alone = Frames(two_scenes(f"data.labelled={share}"), Processes())
    settings = two_scenes(f"data.labelled={share}", f"data.unlabelled_root=[{fleet_root}]")
    joined = Frames(settings, Processes(), unlabelled=True)
    tokens = [[frames.training.sample(i).token for i in frames.labelled] for frames in (joined, alone)]
    assert tokens[0] == tokens[1]


def test_a_root_cannot_have_labels_and_have_none(two_scenes, small_root):
    with pytest.raises(BridgeTAError, match="this root comes twice") as caught:
        Frames(two_scenes(f"data.unlabelled_root=[{small_root}]"), Processes(), unlabelled=True)
    assert caught.value.exit_code == 2


def test_a_missing_unlabelled_root_is_named(two_scenes, tmp_path):
    with pytest.raises(BridgeTAError, match=f"{tmp_path / 'nowhere'}") as caught:
        Frames(two_scenes(f"data.unlabelled_root={tmp_path / 'nowhere'}"), Processes(), unlabelled=True)
    assert caught.value.exit_code == 2


def test_a_class_that_no_map_of_the_labelled_frames_knows_is_found(two_scenes):
    assert Frames(two_scenes("data.train_scenes=mini_val"), Processes()).find_unknown_classes() == ["stop_line"]
    assert Frames(two_scenes(), Processes()).find_unknown_classes() == []
    frames = Frames(two_scenes("data.labelled=0.5"), Processes(), unlabelled=True)
    known = {frames.training.sample(i).location for i in frames.labelled}
    assert known == {"singapore-onenorth"}
    assert frames.find_unknown_classes() == []


def test_frames_of_several_roots_are_drawn_by_their_weights(two_scenes, small_root, other_root):
    roots = f"data.train_root=[{small_root},{other_root}]"
    frames = Frames(two_scenes(roots, "data.root_weights=[1,3]"), Processes())
    assert len(frames.training) == 8
    assert {frames.training[i].token.startswith("other") for i in range(4)} == {False}
    drawn = Counter(frames.training.sample(i).token.startswith("other") for batch in frames.batches for i in batch)
    assert drawn[True] == 3 * drawn[False] > 0


def test_as_many_weights_as_roots_are_needed(two_scenes, fleet_root):
    with pytest.raises(BridgeTAError, match=r"root_weights has 2 weights for 1 roots of data\.train_root"):
        Frames(two_scenes("data.root_weights=[1,3]"), Processes())
    with pytest.raises(BridgeTAError, match=r"root_weights has 1 weights for 2 roots"):
        Frames(two_scenes("data.root_weights=[1]", f"data.unlabelled_root={fleet_root}"), Processes())


def test_unlabelled_roots_have_weights_too(two_scenes, fleet_root):
    settings = two_scenes(
        "data.labelled=0.5", "data.root_weights=[3,1]", f"data.unlabelled_root={fleet_root}", "data.steps_per_epoch=16"
    )
    frames = Frames(settings, Processes(), unlabelled=True)
    drawn = Counter(i for batch in frames.batches for i in batch)
    assert drawn[2] + drawn[3] == 3 * sum(drawn[i] for i in range(4, 8)) == 12
    assert Frames(settings, Processes()).labelled == [0, 1]


def test_more_processes_than_validation_frames_are_refused(two_scenes):
    with pytest.raises(BridgeTAError, match="5 processes cannot share 4 validation samples"):
        Frames(two_scenes(), Processes(0, 5))


class Towns:
    """Towns of three frames of noise, as the synthetic world's: each depends on its number alone."""

    size = 3

    def __init__(self, frames: Frames) -> None:
        self.plain = frames.validation[0]

    def __getitem__(self, town: int) -> list[Frame]:
        generator = torch.Generator().manual_seed(town)
        noise = [torch.randint(256, self.plain.images.shape, generator=generator).byte() for _ in range(3)]
        return [
            Frame(**{**vars(self.plain), "images": images, "token": f"{town}-{i}"}) for i, images in enumerate(noise)
        ]


KEYFRAME = LidarConfig(sweeps=0)
ENDLESS = ("data.source=synthetic", "data.steps_per_epoch=4", "data.fresh.uses=2", "data.fresh.pool=2")


@pytest.fixture
def batches(two_scenes):
    """`batches(*overrides, rank=0, world=1)`: batches of frames of noise."""

    def make(*overrides: str, rank: int = 0, world: int = 1) -> FreshBatches:
        settings = two_scenes(*ENDLESS, *overrides)
        each = Augment(AugmentConfig(flip=True, colour=0.2), seed=1)
        source = Towns(Frames(two_scenes(), Processes()))
        return FreshBatches(source, settings, Processes(rank, world), each)

    return make


def same(one: Batch, other: Batch) -> bool:
    names = [f.name for f in fields(Batch) if f.name not in ("tokens", "points")]
    return one.tokens == other.tokens and all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@given(
    size=st.integers(1, 6),
    town=st.integers(1, 5),
    pool=st.integers(2, 5),
    uses=st.integers(1, 4),
    steps=st.integers(1, 60),
)
def test_every_frame_is_used_as_often_as_said(size, town, pool, uses, steps):
    size = min(size, (pool - 1) * town + 1)
    schedule, counts = Schedule(size, town, pool, uses, seed=3), Counter[int]()
    for _ in range(steps):
        drawn = schedule.draw()
        assert len({frame for frame, _ in drawn}) == size
        assert all(counts[frame] == before for frame, before in drawn)
        counts.update(frame for frame, _ in drawn)
        assert max(counts) < schedule.towns * town
    left = uses * schedule.towns * town - counts.total()
    assert max(counts.values()) <= uses
    assert left <= pool * town * uses
    gone = set(range(schedule.towns)) - set(schedule.list_towns())
    assert all(counts[k * town + i] == uses for k in gone for i in range(town))


def test_fresh_batches_do_not_depend_on_the_loader_processes(batches):
    alone, helped = list(batches("data.workers=0")), list(batches("data.workers=2"))
    assert len(alone) == len(helped) == 4
    assert all(map(same, alone, helped))
    assert not same(*list(batches("train.seed=5"))[:2])


def test_a_run_that_resumes_sees_the_same_fresh_batches(batches):
    whole, resumed = batches(), batches()
    for epoch in range(3):
        whole.set_epoch(epoch)
        unbroken = list(whole)
    resumed.set_epoch(2)
    assert all(map(same, unbroken, resumed))


def test_frames_used_again_are_changed_again(batches):
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in batches():
        for token, images in zip(batch.tokens, batch.images, strict=True):
            seen.setdefault(token, []).append(images)
    twice = [images for images in seen.values() if len(images) == 2]
    assert twice
    assert not any(torch.equal(*images) for images in twice)


def test_processes_take_turns_in_the_towns(batches):
    parts = [{t.split("-")[0] for batch in batches(rank=rank, world=2) for t in batch.tokens} for rank in (0, 1)]
    assert all(int(town) % 2 == rank for rank, part in enumerate(parts) for town in part)


def test_the_first_fresh_frames_are_as_they_were_made(batches):
    (first, second, third) = batches(rank=1, world=2).first(5)
    assert first.tokens + second.tokens + third.tokens == ["0-0", "0-1", "0-2", "1-0", "1-1"]


def test_a_changed_frame_equals_one_that_is_read_changed(two_scenes):
    plain = Frames(two_scenes("data.augment.flip=false", "data.augment.colour=0"), Processes(), KEYFRAME)
    augmented = Frames(two_scenes("data.augment.colour=0.3"), Processes(), KEYFRAME).training
    flips = 0
    for position in range(4):
        change = augmented.augment.draw(0, position)
        ours, theirs = change_frame(plain.training[position], change), augmented[position]
        flips += change.flip
        for name in ("images", "labels", "known", "points"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        for name in ("intrinsics", "ego_T_cam"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert 0 < flips < 4
    frame = plain.training[0]
    assert all(torch.equal(a, b) for a, b in zip(change_frame(frame, Change()).images, frame.images, strict=True))


def test_settings_that_mean_nothing_to_fresh_frames_are_named(two_scenes):
    wrong = ["data.steps_per_epoch=0", "data.balance=true", "data.labelled=0.5", "data.root_weights=[1.0]"]
    wrong += ["data.unlabelled_root=data/fleet"]
    with pytest.raises(BridgeTAError, match="without end") as caught:
        open_frames(two_scenes("data.source=synthetic", *wrong), Processes())
    meant = ("steps_per_epoch", "balance=false", "labelled=1", "root_weights=[]", "unlabelled_root=null")
    assert all(key in str(caught.value.fix) for key in meant)
    one = two_scenes(*ENDLESS, "data.fresh.pool=1", "data.fresh.frames=1", "data.fresh.drives=1")
    with pytest.raises(BridgeTAError, match=r"batch_size = 2 is too much for 1 towns of 1 frames"):
        open_frames(one, Processes())


def test_a_broken_off_run_on_fresh_frames_resumes_to_the_same_bytes(two_scenes, tmp_path, monkeypatch):
    towns = Towns(Frames(two_scenes(), Processes()))
    monkeypatch.setattr(fresh, "_open_source", lambda *_: towns)
    settings = two_scenes(*ENDLESS, f"data.cache={tmp_path / 'cache'}")

    def break_off(task: StudentTask) -> None:
        if task.current_epoch == 1:
            raise KeyboardInterrupt

    train_student(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(StudentTask, "on_train_epoch_start", break_off)
        with pytest.raises(BridgeTAError, match="was interrupted"):
            train_student(settings, tmp_path / "broken")
    train_student(settings, tmp_path / "broken", resume=True)
    states = [torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "broken")]
    weights = [state["state_dict"] for state in states]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
