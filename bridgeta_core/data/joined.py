"""Several roots as one dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.dataset import Dataset, open_dataset
from bridgeta_core.data.maps.expansion import LAYERS
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import Sample, Scene, SensorRecord
from bridgeta_core.geometry.transforms import Matrix
from bridgeta_core.utils.errors import BridgeTAError


class JoinedDataset(Dataset):
    """The samples of several datasets, one dataset after the other.

    Scenes and locations carry the name of their root, as in `town-2/scene-0001`: roots may have equal names for other
    drives and maps. The maps of the last `unlabelled` datasets are never read; empty ones, which know no class, stand
    for them. Raises BridgeTAError (exit code 2) when a root comes twice or two roots share samples.
    """

    def __init__(self, datasets: Sequence[Dataset], unlabelled: int = 0) -> None:
        roots = [dataset.root for dataset in datasets]
        common = Path(os.path.commonpath(roots))
        names = [root.name for root in roots]
        if len(set(names)) < len(names):
            names = [str(root.relative_to(common)) for root in roots]
        self._datasets = dict(zip(names, datasets, strict=True))
        if len(self._datasets) < len(datasets):
            twice = next(root for root in roots if roots.count(root) > 1)
            raise BridgeTAError(
                "this root comes twice in the list of roots",
                where=twice,
                fix="Give every root once: its labels are used (data.train_root) or not (data.unlabelled_root)",
                exit_code=2,
            )
        self._unlabelled = frozenset(names[len(names) - unlabelled :])
        self._starts = np.cumsum([0, *map(len, datasets)])
        scenes = [
            Scene(
                f"{name}/{scene.name}",
                scene.description,
                f"{name}/{scene.location}",
                range(start + scene.samples.start, start + scene.samples.stop),
            )
            for (name, dataset), start in zip(self._datasets.items(), self._starts.tolist(), strict=False)
            for scene in dataset.scenes
        ]
        super().__init__(common, scenes)
        self._tokens = np.concatenate([dataset.tokens for dataset in datasets])
        if len(np.unique(self._tokens)) < len(self._tokens):
            raise BridgeTAError(
                f"the roots {', '.join(names)} have samples in common",
                where=common,
                fix="Give roots of different drives; synthetic ones need different seeds",
                exit_code=2,
            )

    @property
    def tokens(self) -> NDArray[np.bytes_]:
        """The tokens of all samples, UTF-8."""
        return self._tokens

    @property
    def parts(self) -> tuple[range, ...]:
        """The positions of the samples of each root."""
        return tuple(map(range, self._starts[:-1].tolist(), self._starts[1:].tolist()))

    def find_origin(self, position: int) -> tuple[Dataset, int]:
        """Find the dataset of a single root that a sample is of, and its position there."""
        name, own = self._find(position)
        return self._datasets[name], own

    def __getitem__(self, position: int) -> Sample:
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        name, own = self._find(position % len(self))
        sample = self._datasets[name][own]
        return replace(sample, scene=f"{name}/{sample.scene}", location=f"{name}/{sample.location}")

    def scene_of(self, position: int) -> Scene:
        """Return the scene of a sample."""
        name, own = self._find(position)
        return self.scene(f"{name}/{self._datasets[name].scene_of(own).name}")

    def global_T_ego(self, position: int) -> Matrix:
        """Return the pose of a sample's labels."""
        name, own = self._find(position)
        return self._datasets[name].global_T_ego(own)

    def lidar_sweeps(self, position: int, limit: int) -> list[SensorRecord]:
        """Return the LiDAR record of a sample and up to `limit` before it in its scene, latest first."""
        name, own = self._find(position)
        return self._datasets[name].lidar_sweeps(own, limit)

    def raster(self, location: str, labels: LabelConfig) -> MapRaster:
        """Load the map of a location. Raises BridgeTAError when it is missing or broken."""
        name, _, own = location.rpartition("/")
        if name in self._unlabelled:
            return MapRaster(own, dict.fromkeys(LAYERS, np.empty(0, dtype=object)), labels)
        return self._datasets[name].raster(own, labels)

    def map_files(self, location: str) -> list[Path]:
        """List the files that the map depends on."""
        name, _, own = location.rpartition("/")
        return [] if name in self._unlabelled else self._datasets[name].map_files(own)

    def select(self, scenes: str) -> list[int]:
        """Return the positions of scenes "a/b,c/d", or of what every root selects: "all", or an official split."""
        if all(name.strip() in self._scene_number for name in scenes.split(",")):
            return super().select(scenes)
        starts = self._starts.tolist()
        chosen = [dataset.select(scenes) for dataset in self._datasets.values()]
        return [start + i for start, own in zip(starts, chosen, strict=False) for i in own]

    def _find(self, position: int) -> tuple[str, int]:
        """Return the name of a sample's root, and its position there."""
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return list(self._datasets)[number], position - int(self._starts[number])


def open_roots(name: str, roots: Sequence[str], version: str, unlabelled: Sequence[str] = ()) -> Dataset:
    """Open the dataset in one root, or those in several as one. Raises BridgeTAError as `open_dataset` does.

    Those in the roots `unlabelled` come last, and without their labels.
    """
    datasets = [open_dataset(name, root, version) for root in (*roots, *unlabelled)]
    return datasets[0] if len(datasets) == 1 else JoinedDataset(datasets, len(unlabelled))
