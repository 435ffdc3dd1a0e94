"""The training and validation frames of a run: which ones, in which batches, from the dataset or from the cache."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from bridgeta_core.config.experiment import Experiment, LidarConfig
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.frames import Frame, FrameDataset
from bridgeta_core.data.loader import check_loaders, make_loader
from bridgeta_core.evaluation.conditions import group_samples
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.training.cache.frames import CachedFrames, check_augment
from bridgeta_core.training.cache.taps import collate_with_taps
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.sampling import MixedBatches, Selection, balance_classes, find_classes, space_evenly
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


class Frames(lightning.LightningDataModule):
    """Training and validation frames; order and augmentation depend only on the seed, the epoch and the sample.

    With `lidar` frames have points. The argument `unlabelled` lets frames without labels take part. The attributes
    `labelled` and `unlabelled` are positions in the dataset `training`; `groups` are those of the validation frames.
    """

    def __init__(
        self,
        experiment: Experiment,
        processes: Processes,
        lidar: LidarConfig | None = None,
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        data, train = experiment.data, experiment.train
        check_loaders(data.workers)
        self.experiment, self.processes = experiment, processes
        augment = Augment(data.augment, train.seed)
        dataset = open_dataset(data.source, data.train_root, data.version)
        validation = open_dataset(data.source, data.val_root, data.version)
        chosen = Selection.choose(dataset, data, unlabelled)
        common = data.cameras, experiment.model.image, experiment.grid
        rest = lidar, experiment.labels
        self.training = FrameDataset(dataset, chosen.expression, *common, augment, *rest)
        self.validation = FrameDataset(validation, data.val_scenes, *common, None, *rest)
        if processes.world > len(self.validation):
            raise BridgeTAError(
                f"{processes.world} processes cannot share {len(self.validation)} validation samples",
                where=data.val_root,
                fix="Start fewer processes, or validate on more scenes",
                exit_code=2,
            )
        with_labels = set(chosen.labelled)
        scenes = self.training.scene_names()
        self.labelled = [i for i, scene in enumerate(scenes) if scene in with_labels]
        self.unlabelled = [i for i, scene in enumerate(scenes) if scene not in with_labels]
        self.groups = group_samples(self.validation)
        self._sources: dict[str, FrameDataset | CachedFrames] = {"train": self.training, "val": self.validation}
        self.batches = MixedBatches(
            self._balance() if data.balance else self.labelled,
            self.unlabelled,
            size=data.batch_size,
            share=data.unlabelled_share,
            steps=data.steps_per_epoch,
            seed=train.seed,
            rank=processes.rank,
            world=processes.world,
        )

    def _balance(self) -> list[int]:
        classes = find_classes(self.training, self.labelled, hidden=self.processes.rank > 0)
        return balance_classes(self.labelled, classes, self.experiment.train.seed)

    def use_cache(self, folder: str | Path, features: BevGrid | None = None) -> dict[str, CachedFrames]:
        """Build what is missing of the cache in `folder`, and read frames from it from now on.

        Returns the frames `train` and `val`, to add points or taps to; `features` is the grid of the F and D of taps.
        Raises BridgeTAError (exit code 2) for augmentation that cached images or taps cannot follow.
        """
        data = self.experiment.data
        check_augment(data.augment, (features, self.experiment.grid) if features is not None else ())
        cached = {
            name: CachedFrames(
                dataset, folder, workers=data.workers, rank=self.processes.rank, world=self.processes.world
            )
            for name, dataset in (("train", self.training), ("val", self.validation))
        }
        self._sources.update(cached)
        return cached

    def train_dataloader(self) -> DataLoader:
        """Build the loader of an epoch: its workers carry the epoch that seeds the augmentation."""
        assert self.trainer is not None
        self.training.set_epoch(self.trainer.current_epoch)
        self.batches.set_epoch(self.trainer.current_epoch)
        return self._loader(PartlyLabelled(self._sources["train"], self.labelled), batch_sampler=self.batches)

    def val_dataloader(self) -> DataLoader:
        """Build the loader of this process's share of the validation frames."""
        own = range(self.processes.rank, len(self.validation), self.processes.world)
        return self._loader(self._sources["val"], own)

    def sample_dataloader(self, count: int) -> DataLoader:
        """Build a loader of at most `count` evenly spaced training frames, unaugmented, the same in every process."""
        return self._loader(self._sources["train"].unaugmented(), space_evenly(range(len(self.training)), count))

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
