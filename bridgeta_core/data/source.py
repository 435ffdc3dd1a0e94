"""What training, evaluation and pictures want of a dataset: samples in scenes, and maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import Sample, Scene, SensorRecord
from bridgeta_core.geometry.transforms import Matrix
from bridgeta_core.utils.errors import BridgeTAError

# Sweeps come every 50 ms and keyframes every 500: nine sweeps are within reach, the keyframe before never is.
SWEEP_WINDOW_US = 475_000


class Source(ABC):
    """A dataset as a sequence of samples, ordered by scene and time. `scenes` are in the order of the samples."""

    def __init__(self, root: Path, scenes: Sequence[Scene]) -> None:
        self.root, self.scenes = root, tuple(scenes)
        self._scene_number = {scene.name: number for number, scene in enumerate(self.scenes)}

    @abstractmethod
    def __getitem__(self, position: int) -> Sample: ...

    @property
    @abstractmethod
    def tokens(self) -> NDArray[np.bytes_]:
        """The tokens of all samples, UTF-8."""

    @abstractmethod
    def lidar_sweeps(self, position: int, most: int) -> list[SensorRecord]:
        """The LiDAR record of a sample and up to `most` before it in its scene, latest first.

        None is older than nuScenes' sweeps between two keyframes. BridgeTAError for a sample without LiDAR.
        """

    @abstractmethod
    def raster(self, location: str, labels: LabelConfig) -> MapRaster:
        """The map of a location that scenes name. Raises BridgeTAError when it is missing or broken."""

    @abstractmethod
    def map_files(self, location: str) -> list[Path]:
        """The files below the root that the map depends on; labels that are kept are made anew when one changes."""

    def __len__(self) -> int:
        return len(self.tokens)

    def find(self, name: str) -> int:
        """The position of a sample given as its token, as the beginning of only its token, or as the position."""
        if name.isdecimal() and int(name) < len(self):
            return int(name)
        wanted = name.encode()
        found = np.flatnonzero(self.tokens == wanted)
        if len(found) != 1:
            found = np.flatnonzero(np.char.startswith(self.tokens, wanted))
        if len(found) != 1:
            problem = f"{len(found)} samples start with {name!r}" if len(found) else f"no sample {name!r}"
            fix = f"Give a token such as {self.tokens[0].decode()}, or a position from 0 to {len(self) - 1}"
            raise BridgeTAError(problem, where=self.root, fix=fix, exit_code=2)
        return int(found[0])

    def scene_of(self, position: int) -> Scene:
        """The scene of a sample."""
        return self.scene(self[position].scene)

    def global_T_ego(self, position: int) -> Matrix:
        """The pose of a sample's labels."""
        return self[position].global_T_ego

    def scene(self, name: str) -> Scene:
        """The scene of this name; BridgeTAError that lists some names when there is none."""
        if name not in self._scene_number:
            raise BridgeTAError(f"no scene {name!r}", where=self.root, fix=f"There are {self._names()}", exit_code=2)
        return self.scenes[self._scene_number[name]]

    def select(self, scenes: str) -> list[int]:
        """Positions of the samples of "all", or of scenes "a,b"."""
        if scenes == "all":
            return list(range(len(self)))
        names = [name.strip() for name in scenes.split(",") if name.strip()]
        return sorted({i for name in names for i in self.scene(name).samples})

    def _names(self, limit: int = 5) -> str:
        names = [scene.name for scene in self.scenes]
        return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
