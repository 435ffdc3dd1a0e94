"""A dataset of one's own, given as a list of samples."""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import LIDAR, Sample, Scene, SensorRecord
from bridgeta_core.data.source import SWEEP_WINDOW_US, Source
from bridgeta_core.utils.errors import BridgeTAError

_PACKAGE = Path(__file__).parents[1]


@contextmanager
def reading(what: str, where: Path) -> Iterator[None]:
    """Whatever a class of the user's stumbles over in its files becomes one message that says in which line of it."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if not Path(f.filename).is_relative_to(_PACKAGE)]
        place = f", {Path(theirs[0].filename).name} line {theirs[0].lineno}" if theirs else ""
        raise BridgeTAError(f"{what} cannot read it ({type(error).__name__}: {error}{place})", where=where) from error


class SampleList(Source):
    """Samples in any order, as a Source: subclasses read them from files, and add `read_map`.

    `descriptions` tell of scenes by name what nuScenes' do; the words night and rain decide under which conditions a
    scene is scored. Raises BridgeTAError when there is no sample, when two have one token, or when a scene is in two
    places.
    """

    def __init__(self, root: Path, samples: Iterable[Sample], descriptions: Mapping[str, str] | None = None) -> None:
        self._samples = sorted(samples, key=lambda sample: (sample.scene, sample.timestamp_us))
        if not self._samples:
            raise BridgeTAError("holds no sample", where=root, exit_code=2)
        names = [sample.scene for sample in self._samples]
        scenes = []
        for name in dict.fromkeys(names):
            span = range(names.index(name), names.index(name) + names.count(name))
            places = {self._samples[i].location for i in span}
            if len(places) > 1:
                raise BridgeTAError(f"scene {name} is in {' and in '.join(sorted(places))}", where=root)
            scenes.append(Scene(name, (descriptions or {}).get(name, ""), places.pop(), span))
        super().__init__(root, scenes)
        if len(np.unique(self.tokens)) < len(self.tokens):
            raise BridgeTAError("has samples of the same token", where=root)

    @cached_property
    def tokens(self) -> NDArray[np.bytes_]:
        """The tokens of all samples, UTF-8."""
        return np.array([sample.token.encode() for sample in self._samples])

    def __getitem__(self, position: int) -> Sample:
        return self._samples[position]

    def lidar_sweeps(self, position: int, most: int) -> list[SensorRecord]:
        """The LiDAR record of a sample and those of up to `most` samples shortly before it, latest first."""
        keyframe = self[position].record(LIDAR)
        earlier = self._samples[self.scene(self[position].scene).samples.start : position][::-1]
        near = [s.records[LIDAR] for s in earlier if LIDAR in s.records]
        recent = [record for record in near if keyframe.timestamp_us - record.timestamp_us <= SWEEP_WINDOW_US]
        return [keyframe, *recent[:most]]

    @abstractmethod
    def read_map(self, location: str, labels: LabelConfig) -> MapRaster:
        """The map of a location that scenes name."""

    def raster(self, location: str, labels: LabelConfig) -> MapRaster:
        """The map of a location. Raises BridgeTAError when `read_map` fails."""
        with reading(f"{type(self).__name__}.read_map", self.root):
            return self.read_map(location, labels)

    def map_files(self, location: str) -> list[Path]:
        """The files that lie in the root itself, not in folders."""
        return sorted(path for path in self.root.iterdir() if path.is_file())
