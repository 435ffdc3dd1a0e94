"""The training and validation frames of a run: which ones, in which batches, from the dataset or from the cache."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bridgeta_core.config.experiment import Experiment, LidarConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import Batch, Frame, FrameDataset
from bridgeta_core.data.joined import open_roots
from bridgeta_core.data.loader import check_loaders, make_loader
from bridgeta_core.data.sample import Sample
from bridgeta_core.evaluation.conditions import group_samples
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.training.cache.arrays import read_seconds
from bridgeta_core.training.cache.frames import CachedFrames, check_augment
from bridgeta_core.training.cache.taps import collate_with_taps
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.sampling import (
    MixedBatches,
    Selection,
    balance_classes,
    find_classes,
    space_evenly,
    weigh_parts,
)
from bridgeta_core.utils.errors import BridgeTAError


class PartlyLabelled(Dataset[Frame]):
    """Frames of which only those at the positions `labelled` have their labels; in the others no class is known."""

    def __init__(self, frames: Dataset[Frame], labelled: Collection[int]) -> None:
        self._frames, self._labelled = frames, frozenset(labelled)

    def __getitem__(self, position: int) -> Frame:
        frame = self._frames[position]
        if position in self._labelled:
            return frame
        return replace(frame, labels=torch.zeros_like(frame.labels), known=torch.zeros_like(frame.known))


class RunFrames(lightning.LightningDataModule):
    """What the frames of all runs share: those of validation, which `source` reads from `data.val_root`.

    With `lidar` they have points. `groups` are those of `conditions.group_samples`. Training has `batches` an epoch, of
    the frames `labelled` and `unlabelled`.
    """

    batches: Sized
    labelled: Sequence[int]
    unlabelled: Sequence[int]

    def __init__(self, experiment: Experiment, processes: Processes, source: str, lidar: LidarConfig | None) -> None:
        super().__init__()
        data = experiment.data
        check_loaders(data.workers)
        self.experiment, self.processes = experiment, processes
        validation = open_roots(source, data.val_roots, data.version)
        common = data.cameras, experiment.model.image, experiment.grid
        self.validation = FrameDataset(validation, data.val_scenes, *common, None, lidar, experiment.labels)
        if processes.world > len(self.validation):
            raise BridgeTAError(
                f"{processes.world} processes cannot share {len(self.validation)} validation samples",
                where=", ".join(data.val_roots),
                fix="Start fewer processes, or validate on more scenes",
                exit_code=2,
            )
        self.groups = group_samples(self.validation)
        self._validation_source: FrameDataset | CachedFrames = self.validation
        self._caches: list[CachedFrames] = []

    def describe(self) -> dict[str, str]:
        """Describe the frames of training and validation, for who watches."""
        without = f", {len(self.unlabelled):,} without" if self.unlabelled else ""
        scenes = len(set(self.validation.scene_names()))
        return {
            "training": f"{len(self.labelled):,} frames with labels{without}",
            "validation": f"{len(self.validation):,} frames of {scenes:,} scenes",
        }

    def find_unknown_classes(self) -> list[str]:
        """Find the classes of which no map that is trained on says anything."""
        return []

    @abstractmethod
    def train_dataloader(self) -> Iterable[Batch]:
        """Return the batches of the current epoch."""

    @abstractmethod
    def sample_dataloader(self, count: int) -> Iterable[Batch]:
        """Return batches of at most `count` training frames, as they are made or read, the same in every process."""

    def use_cache(self, folder: str | Path, features: BevGrid | None = None) -> dict[str, CachedFrames]:
        """Build what is missing of the cache in `folder`, and read frames from it from now on.

        Returns the frames by name, `val` and perhaps `train`, to add points or taps to; `features` is the grid of the
        F and D of taps.
        """
        self._validation_source = self._cache(self.validation, folder)
        return {"val": self._validation_source}

    def _cache(self, frames: FrameDataset, folder: str | Path) -> CachedFrames:
        workers, rank, world = self.experiment.data.workers, self.processes.rank, self.processes.world
        self._caches.append(CachedFrames(frames, folder, workers=workers, rank=rank, world=world))
        return self._caches[-1]

    @property
    def cache_seconds(self) -> float:
        """Seconds that it took to build what this run reads from the cache, whatever run did it; NaN if unknown.

        Those of several processes are added up.
        """
        folders = {folder for cache in self._caches for folder in cache.folders}
        return sum((read_seconds(folder) for folder in folders), 0.0)

    def watch(self, count: int) -> list[Sample]:
        """Choose at most `count` evenly spaced validation samples of this process."""
        own = range(self.processes.rank, len(self.validation), self.processes.world)
        return [self.validation.sample(i) for i in space_evenly(own, count)]

    def val_dataloader(self) -> DataLoader:
        """Build the loader of this process's share of the validation frames."""
        own = range(self.processes.rank, len(self.validation), self.processes.world)
        return self._loader(self._validation_source, own)

    def _loader(self, dataset: Dataset[Frame], sampler: Sequence[int] | None = None, **options: Any) -> DataLoader:
        data = self.experiment.data
        if sampler is not None:
            options |= {"sampler": sampler, "batch_size": data.batch_size}
        return make_loader(
            dataset,
            data.workers,
            collate_fn=collate_with_taps,
            pin_memory=torch.cuda.is_available(),
            **options,
        )


class Frames(RunFrames):
    """Training and validation frames; order and augmentation depend only on the seed, the epoch and the sample.

    With `lidar` frames have points. The argument `unlabelled` lets frames without labels take part, those that
    `data.labelled` leaves out and those of `data.unlabelled_root`. The attributes `labelled` and `unlabelled` are
    positions in the dataset `training`.
    """

    batches: MixedBatches

    def __init__(
        self,
        experiment: Experiment,
        processes: Processes,
        lidar: LidarConfig | None = None,
        unlabelled: bool = False,
    ) -> None:
        data, train = experiment.data, experiment.train
        super().__init__(experiment, processes, data.source, lidar)
        augment = Augment(data.augment, train.seed)
        without_labels = data.unlabelled_roots if unlabelled else []
        dataset = open_roots(data.source, data.train_roots, data.version, without_labels)
        self._parts = dataset.parts
        chosen = Selection.choose(dataset, data, unlabelled)
        common = data.cameras, experiment.model.image, experiment.grid
        self.training = FrameDataset(dataset, chosen.expression, *common, augment, lidar, experiment.labels)
        self._training_source: FrameDataset | CachedFrames = self.training
        with_labels = set(chosen.labelled)
        scenes = self.training.scene_names()
        self.labelled = [i for i, scene in enumerate(scenes) if scene in with_labels]
        self.unlabelled = [i for i, scene in enumerate(scenes) if scene not in with_labels]
        self.batches = MixedBatches(
            self._weigh(self._balance() if data.balance else self.labelled),
            self._weigh(self.unlabelled),
            size=data.batch_size,
            share=data.unlabelled_share,
            steps=data.steps_per_epoch,
            seed=train.seed,
            rank=processes.rank,
            world=processes.world,
        )

    def find_unknown_classes(self) -> list[str]:
        """Find the classes of which no map that is trained on says anything."""
        locations = {self.training.sample(i).location for i in self.labelled}
        known = np.any([self.training.maps[location].known for location in locations], axis=0)
        return [name for name, is_known in zip(CLASS_NAMES, known, strict=True) if not is_known]

    def describe(self) -> dict[str, str]:
        """Describe the frames of training and validation, for who watches."""
        found = super().describe()
        return {**found, "training": f"{found['training']}, of {len(set(self.training.scene_names())):,} scenes"}

    def _balance(self) -> list[int]:
        classes = find_classes(self.training, self.labelled, hidden=self.processes.rank > 0)
        return balance_classes(self.labelled, classes, self.experiment.train.seed)

    def _weigh(self, positions: Sequence[int]) -> Sequence[int]:
        """Repeat positions so that those of each root are drawn as often as its weight says."""
        data, weights = self.experiment.data, self.experiment.data.root_weights
        if not weights:
            return positions
        if len(weights) != len(roots := data.train_roots + data.unlabelled_roots):
            raise BridgeTAError(
                f"data.root_weights has {len(weights)} weights for {len(roots)} roots of data.train_root and "
                "data.unlabelled_root",
                fix="Give one weight for each root, in their order, or none",
                exit_code=2,
            )
        numbers = range(len(self._parts))  # without those of data.unlabelled_root where they take no part
        part_of = np.repeat(numbers, [len(part) for part in self._parts])[self.training.positions]
        parts = [[i for i in positions if part_of[i] == part] for part in numbers]
        return weigh_parts(parts, weights[: len(parts)], self.experiment.train.seed)

    def use_cache(self, folder: str | Path, features: BevGrid | None = None) -> dict[str, CachedFrames]:
        """Cache the frames `train` and `val`.

        Raises BridgeTAError (exit code 2) for augmentation that cached images or taps cannot follow.
        """
        check_augment(self.experiment.data.augment, () if features is None else (features, self.experiment.grid))
        self._training_source = self._cache(self.training, folder)
        return {"train": self._training_source, **super().use_cache(folder, features)}

    def train_dataloader(self) -> DataLoader:
        """Build the loader of an epoch: its workers carry the epoch that seeds the augmentation."""
        assert self.trainer is not None
        self.training.set_epoch(self.trainer.current_epoch)
        self.batches.set_epoch(self.trainer.current_epoch)
        return self._loader(PartlyLabelled(self._training_source, self.labelled), batch_sampler=self.batches)

    def sample_dataloader(self, count: int) -> DataLoader:
        """Build a loader of at most `count` evenly spaced training frames, unaugmented, the same in every process."""
        frames = PartlyLabelled(self._training_source.unaugmented(), self.labelled)
        return self._loader(frames, space_evenly(range(len(self.training)), count))
