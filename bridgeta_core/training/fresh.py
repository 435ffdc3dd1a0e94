"""Training frames that are made while training, for ever: by what, in which order, and how often each is used."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from bridgeta_core.config.experiment import AugmentConfig, Experiment, LidarConfig
from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.frames import Batch, Frame, collate
from bridgeta_core.data.loader import make_loader
from bridgeta_core.data.pointcloud import move
from bridgeta_core.geometry.images import from_planes, to_planes
from bridgeta_core.training.frames import Frames, RunFrames
from bridgeta_core.training.processes import Processes
from bridgeta_core.utils.errors import BridgeTAError

logger = logging.getLogger(__name__)

SOURCES: Mapping[str, str] = {"synthetic": "bridgeta_synth.dataset.frames:FreshTowns"}
"""What makes frames while training, by the name that `data.source` gives it: module and class of a `FrameSource`."""


class FrameSource(Protocol):
    """An endless sequence of towns, each of them a list of `size` frames.

    A town depends on its number alone, not on what was made before it or where.
    """

    size: int

    @classmethod
    def build(cls, experiment: Experiment, lidar: LidarConfig | None, augment: Augment) -> FrameSource:
        """Make the source of an experiment, whose frames are augmented as they are made.

        Raises BridgeTAError (exit code 2) that names the setting at fault.
        """

    def __getitem__(self, town: int) -> list[Frame]: ...


def open_frames(
    experiment: Experiment, processes: Processes, lidar: LidarConfig | None = None, unlabelled: bool = False
) -> RunFrames:
    """Open the frames of a run: those of a root, or those that `data.source` makes. Arguments as of `Frames`."""
    if experiment.data.source in SOURCES:
        return FreshFrames(experiment, processes, lidar)
    return Frames(experiment, processes, lidar, unlabelled)


class FreshFrames(RunFrames):
    """Frames that are made while training, and the validation frames of a nuScenes-format root.

    They are mirrored and recoloured anew whenever they are used, and otherwise augmented once, when they are made.
    Raises BridgeTAError (exit code 2) for settings that mean nothing here.
    """

    batches: FreshBatches

    def __init__(self, experiment: Experiment, processes: Processes, lidar: LidarConfig | None = None) -> None:
        data, train = experiment.data, experiment.train
        wrong = {
            "steps_per_epoch to how many batches an epoch has": not data.steps_per_epoch,
            "balance=false": data.balance,
            "labelled=1": data.labelled < 1,
            "unlabelled_root=null": bool(data.unlabelled_roots),
            "root_weights=[]": bool(data.root_weights),
        }
        if changes := [f"data.{change}" for change, is_wrong in wrong.items() if is_wrong]:
            raise BridgeTAError(
                f"data.source={data.source} makes frames without end while training, each with its labels",
                fix=f"Set {', '.join(changes)}",
                exit_code=2,
            )
        super().__init__(experiment, processes, "nuscenes", lidar)
        symmetric = experiment.grid.is_symmetric[1]
        each = AugmentConfig(flip=data.augment.flip and symmetric, colour=data.augment.colour)
        once = replace(data.augment, flip=data.augment.flip and not symmetric, colour=0.0)
        source = _open_source(experiment, lidar, Augment(once, train.seed))
        self.batches = FreshBatches(source, experiment, processes, Augment(each, train.seed))
        if processes.rank == 0:  # minutes on a few cores, in which the bar of the epoch stands still
            first = data.fresh.pool * source.size
            logger.warning("the first step comes when %d frames are made; a smaller data.fresh.pool is sooner", first)
        used = train.epochs * data.steps_per_epoch * data.batch_size * processes.world
        self.labelled, self.unlabelled = range(math.ceil(used / data.fresh.uses)), range(0)

    def train_dataloader(self) -> Iterable[Batch]:
        """Return the batches of an epoch."""
        assert self.trainer is not None
        self.batches.set_epoch(self.trainer.current_epoch)
        return self.batches

    def sample_dataloader(self, frames: int) -> Iterable[Batch]:
        """Return the batches of the first frames, the same in every process."""
        return self.batches.first(frames)


def _open_source(experiment: Experiment, lidar: LidarConfig | None, augment: Augment) -> FrameSource:
    name = experiment.data.source
    module, _, attribute = SOURCES[name].partition(":")
    try:
        kind: type[FrameSource] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        fix = "Install the whole package, or train on files (data.source=nuscenes)"
        raise BridgeTAError(f"data.source={name} cannot be imported ({error})", fix=fix, exit_code=2) from error
    return kind.build(experiment, lidar, augment)


class Schedule:
    """Which frames make up which batch, by (seed, rank) alone.

    Batches of `size` are drawn at random from a pool of the frames of up to `pool` towns. A frame that was used `uses`
    times leaves the pool, and the next town comes in when there is room for it. `towns` counts those that came in.
    """

    def __init__(self, size: int, town: int, pool: int, uses: int, seed: int, rank: int = 0) -> None:
        """Start with a full pool; `town` is the number of frames of a town."""
        self._size, self._town, self._room, self._uses = size, town, (pool - 1) * town, uses
        self._random = np.random.default_rng((seed, rank))
        self._used: dict[int, int] = {}
        self.towns = 0
        self._admit()

    def list_towns(self) -> list[int]:
        """List the towns that have frames in the pool."""
        return sorted({frame // self._town for frame in self._used})

    def draw(self) -> list[tuple[int, int]]:
        """Draw the next batch: the numbers of its frames, and how often each was used before."""
        frames = list(self._used)
        chosen = [frames[i] for i in self._random.choice(len(frames), self._size, replace=False)]
        drawn = [(frame, self._used[frame]) for frame in chosen]
        for frame, before in drawn:
            self._used[frame] = before + 1
            if before + 1 == self._uses:
                del self._used[frame]
        self._admit()
        return drawn

    def _admit(self) -> None:
        while len(self._used) <= self._room:
            start = self.towns * self._town
            self._used.update(dict.fromkeys(range(start, start + self._town), 0))
            self.towns += 1


class FreshBatches:
    """Batches of a source's frames, which loader processes make meanwhile.

    Of the towns process `rank` of `world` takes every `world`-th. A batch depends on the settings, the seed and its
    step alone, not on the number of loader processes or on how fast they are. A run that resumes makes those towns
    again that are in its pool.
    """

    def __init__(self, source: FrameSource, experiment: Experiment, processes: Processes, each: Augment) -> None:
        """Set up batches; `each` is what changes at every use of a frame: mirrors and colours.

        Raises BridgeTAError (exit code 2) when the pool may have fewer frames than a batch.
        """
        data = experiment.data
        if data.batch_size > (data.fresh.pool - 1) * source.size + 1:
            raise BridgeTAError(
                f"data.batch_size = {data.batch_size} is too much for {data.fresh.pool} towns of {source.size} frames",
                fix="Raise data.fresh.pool, or lower data.batch_size",
                exit_code=2,
            )
        self._source, self._data, self._seed, self._each = source, data, experiment.train.seed, each
        self._rank, self._world = processes.rank, processes.world
        self._towns: dict[int, list[Frame]] = {}
        self._made: Iterator[tuple[int, Batch]] = iter(())
        self._next, self._epoch = -1, 0

    def __len__(self) -> int:
        return self._data.steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, whose batches come next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        if self._next != self._epoch * len(self):
            self._seek(self._epoch * len(self))
        for _ in range(len(self)):
            batch = collate([self._take(frame, use) for frame, use in self._schedule.draw()])
            self._next += 1
            for town in self._towns.keys() - set(self._schedule.list_towns()):
                del self._towns[town]
            yield batch.pin_memory() if torch.cuda.is_available() else batch

    def first(self, frames: int) -> Iterator[Batch]:
        """Yield batches of the first frames of the source as they were made."""
        size = self._data.batch_size
        for _, town in self._make(range(math.ceil(frames / self._source.size))):
            made = _split(town)[:frames]
            frames -= len(made)
            yield from (collate(made[start : start + size]) for start in range(0, len(made), size))

    def _seek(self, step: int) -> None:
        """Make the batch of `step` the next one."""
        fresh = self._data.fresh
        self._schedule = Schedule(
            self._data.batch_size, self._source.size, fresh.pool, fresh.uses, self._seed, self._rank
        )
        for _ in range(step):
            self._schedule.draw()
        self._towns, self._next = {}, step
        own = chain(self._schedule.list_towns(), count(self._schedule.towns))
        self._made = self._make(self._rank + self._world * town for town in own)

    def _make(self, towns: Iterable[int]) -> Iterator[tuple[int, Batch]]:
        """Make towns in this order, each with its number."""
        workers, options = self._data.workers, dict[str, Any]()
        if workers and self._data.fresh.device != "cpu":
            options["multiprocessing_context"] = "spawn"  # CUDA does not outlive a fork
        with torch.random.fork_rng(devices=[]):  # a loader draws a random number, a resumed run in another epoch
            return iter(make_loader(_Towns(self._source), workers, batch_size=None, sampler=towns, **options))

    def _take(self, number: int, use: int) -> Frame:
        """Return a frame of this process as it is changed at one of its uses; wait until it is made."""
        town, row = divmod(number, self._source.size)
        while town not in self._towns:
            made, batch = next(self._made)
            self._towns[(made - self._rank) // self._world] = _split(batch)
        sample = (self._rank + self._world * town) * self._source.size + row
        return change_frame(self._towns[town][row], self._each.draw(use, sample))


class _Towns(Dataset[tuple[int, Batch]]):
    """The towns of a source with their numbers, each as one batch: that is one block in shared memory."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    def __getitem__(self, town: int) -> tuple[int, Batch]:
        return town, collate(self._source[town])


def _split(batch: Batch) -> list[Frame]:
    """Undo `collate`."""
    points = batch.points if batch.points is not None else [None] * len(batch.tokens)
    stacked = (batch.images, batch.intrinsics, batch.ego_T_cam, batch.labels, batch.known)
    return [Frame(*parts) for parts in zip(*stacked, batch.tokens, points, strict=True)]


def change_frame(frame: Frame, change: Change) -> Frame:
    """Mirror and recolour a frame on a grid that is symmetric about y = 0; nothing else may change."""
    pixels = to_planes(change.images(from_planes(frame.images.numpy())))
    intrinsics = change.intrinsics(frame.intrinsics.double().numpy(), pixels.shape[-1])
    points = frame.points
    if points is not None and change.flip:
        points = torch.from_numpy(move(change.world, points.numpy()))
    return replace(
        frame,
        images=torch.from_numpy(pixels),
        intrinsics=torch.from_numpy(intrinsics).float(),
        ego_T_cam=torch.from_numpy(change.ego_T_cam(frame.ego_T_cam.double().numpy())).float(),
        labels=frame.labels.flip(-2) if change.flip else frame.labels,
        points=points,
    )
