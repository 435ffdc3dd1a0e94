"""What training, evaluation and pictures need of a dataset: samples in scenes, and maps."""

from __future__ import annotations

import importlib
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import LIDAR, Sample, Scene, SensorRecord
from bridgeta_core.geometry.transforms import Matrix
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.hub import find_root

DATASETS: Mapping[str, str] = {"nuscenes": "bridgeta_core.data.nuscenes.dataset:NuScenesDataset"}
"""The datasets that have a name: module and class."""

# Sweeps come every 50 ms and keyframes every 500 ms: nine sweeps are within reach, the keyframe before never is.
SWEEP_WINDOW_US = 475_000
_PACKAGE = Path(__file__).parents[1]


class Dataset(ABC):
    """A sequence of samples, ordered by scene and time. `scenes` are in the order of the samples."""

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
    def lidar_sweeps(self, position: int, limit: int) -> list[SensorRecord]:
        """Return the LiDAR record of a sample and up to `limit` before it in its scene, latest first.

        None is older than nuScenes' sweeps between two keyframes. Raises BridgeTAError for a sample without LiDAR.
        """

    @abstractmethod
    def raster(self, location: str, labels: LabelConfig) -> MapRaster:
        """Load the map of a location that scenes name. Raises BridgeTAError when it is missing or broken."""

    @abstractmethod
    def map_files(self, location: str) -> list[Path]:
        """List the files below the root that the map depends on; cached labels are rebuilt when one changes."""

    @property
    def parts(self) -> tuple[range, ...]:
        """The positions of the samples of each root, where there are several."""
        return (range(len(self)),)

    def find_origin(self, position: int) -> tuple[Dataset, int]:
        """Find the dataset of a single root that a sample is of, and its position there."""
        return self, position

    def __len__(self) -> int:
        return len(self.tokens)

    def records(
        self, scene_name: str, channels: Sequence[str] | None = None, keyframes_only: bool = False
    ) -> list[SensorRecord]:
        """Return the files of a scene by time, those of some channels, and those between its samples if it has any.

        With `keyframes_only` without the latter. Raises BridgeTAError for a channel that the scene lacks.
        """
        samples = [self[i] for i in self.scene(scene_name).samples]
        found = [record for sample in samples for record in sample.records.values()]
        present = {record.channel for record in found}
        require_channels(scene_name, channels or (), present)
        chosen = [record for record in found if channels is None or record.channel in channels]
        return sorted(chosen, key=lambda record: (record.stamp_us, record.channel))

    def find(self, name: str) -> int:
        """Return the position of a sample, given as its token, the beginning of its token, or the position.

        Raises BridgeTAError (exit code 2) when no sample or several samples match.
        """
        if name.isdecimal() and int(name) < len(self):
            return int(name)
        wanted = name.encode()
        matches = np.flatnonzero(self.tokens == wanted)
        if len(matches) != 1:
            matches = np.flatnonzero(np.char.startswith(self.tokens, wanted))
        if len(matches) != 1:
            problem = f"{len(matches)} samples start with {name!r}" if len(matches) else f"no sample {name!r}"
            fix = f"Give a token such as {self.tokens[0].decode()}, or a position from 0 to {len(self) - 1}"
            raise BridgeTAError(problem, where=self.root, fix=fix, exit_code=2)
        return int(matches[0])

    def scene_of(self, position: int) -> Scene:
        """Return the scene of a sample."""
        return self.scene(self[position].scene)

    def global_T_ego(self, position: int) -> Matrix:
        """Return the pose of a sample's labels."""
        return self[position].global_T_ego

    def scene(self, name: str) -> Scene:
        """Return the scene of this name. Raises BridgeTAError that lists some names when there is none."""
        if name not in self._scene_number:
            fix = f"There are {self._scene_names()}"
            raise BridgeTAError(f"no scene {name!r}", where=self.root, fix=fix, exit_code=2)
        return self.scenes[self._scene_number[name]]

    def select(self, scenes: str) -> list[int]:
        """Return the positions of the samples of "all", or of scenes "a,b"."""
        if scenes == "all":
            return list(range(len(self)))
        names = [name.strip() for name in scenes.split(",") if name.strip()]
        return sorted({i for name in names for i in self.scene(name).samples})

    def _scene_names(self) -> str:
        return join_first([scene.name for scene in self.scenes])


def require_channels(scene_name: str, channels: Sequence[str], present: set[str]) -> None:
    """Raise BridgeTAError (exit code 2) that lists the channels of a scene unless `channels` are among them."""
    missing = [name for name in channels if name not in present]
    if missing:
        what = f"has no {', '.join(missing)}; its sensors are {', '.join(sorted(present))}"
        raise BridgeTAError(what, where=f"scene {scene_name}", exit_code=2)


class ListDataset(Dataset):
    """A dataset of your own, given as a list of samples in any order.

    Subclasses read the samples from files and add `read_map`. `descriptions` describe scenes by name as nuScenes' do:
    the words night and rain decide under which conditions a scene is scored. Raises BridgeTAError when there is no
    sample, when two share a token, when a scene is in two places, or when a pose is no rigid transform.
    """

    def __init__(self, root: Path, samples: Iterable[Sample], descriptions: Mapping[str, str] | None = None) -> None:
        self._samples = sorted(samples, key=lambda sample: (sample.scene, sample.stamp_us))
        if not self._samples:
            raise BridgeTAError("holds no sample", where=root, exit_code=2)
        _check_transforms(self._samples)
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

    def lidar_sweeps(self, position: int, limit: int) -> list[SensorRecord]:
        """Return the LiDAR record of a sample and those of up to `limit` samples shortly before it, latest first."""
        keyframe = self[position].record(LIDAR)
        earlier = self._samples[self.scene(self[position].scene).samples.start : position][::-1]
        near = [s.records[LIDAR] for s in earlier if LIDAR in s.records]
        in_window = [record for record in near if keyframe.stamp_us - record.stamp_us <= SWEEP_WINDOW_US]
        return [keyframe, *in_window[:limit]]

    @abstractmethod
    def read_map(self, location: str, labels: LabelConfig) -> MapRaster:
        """Read the map of a location that scenes name."""

    def raster(self, location: str, labels: LabelConfig) -> MapRaster:
        """Load the map of a location. Raises BridgeTAError when `read_map` fails."""
        with _explain_failures(f"{type(self).__name__}.read_map", self.root):
            return self.read_map(location, labels)

    def map_files(self, location: str) -> list[Path]:
        """List the files that lie in the root itself, not in folders."""
        return sorted(path for path in self.root.iterdir() if path.is_file())


def _check_transforms(samples: Sequence[Sample]) -> None:
    """Check that all poses are rigid transforms. Raises BridgeTAError that names the file of the first that is not."""
    records = [record for sample in samples for record in sample.records.values()]
    for name in ("ego_T_sensor", "global_T_ego") if records else ():
        poses = [np.asarray(getattr(record, name), dtype=np.float64) for record in records]
        wrong = [i for i, pose in enumerate(poses) if pose.shape != (4, 4)]
        if not wrong:
            stacked = np.stack(poses)
            turn = stacked[:, :3, :3]
            with np.errstate(invalid="ignore"):
                off = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
                fits = np.isfinite(stacked).all(axis=(1, 2)) & (off < 1e-3) & (np.linalg.det(turn) > 0)
            wrong = np.flatnonzero(~fits).tolist()
        if wrong:
            record = records[wrong[0]]
            what = f"{name} of {record.channel} is no rigid transform: {poses[wrong[0]].tolist()}"
            raise BridgeTAError(what, where=record.path, fix="Build it with bridgeta_core.geometry.transforms.rigid")


def open_dataset(name: str, root: str | Path, version: str) -> Dataset:
    """Open the dataset in `root`, a folder or a hub's `hf://datasets/owner/name[@revision]`.

    `name` is one of `DATASETS`, or "module:Class" for a subclass of `ListDataset` that takes root and version. Raises
    BridgeTAError (exit code 2) when there is no such class, and what the class raises.
    """
    root = find_root(root)
    kind = _find_class(name)
    if name in DATASETS:
        return kind(root, version)
    if not root.is_dir():
        raise BridgeTAError("is not a folder", where=root, fix="Give the root of the dataset", exit_code=2)
    with _explain_failures(name, root):
        return kind(root, version)


def _find_class(name: str) -> Callable[[Path, str], Dataset]:
    module, _, attribute = DATASETS.get(name, name).partition(":")
    fix = f"Give {', '.join(DATASETS)}, synthetic to train on, or module:Class with the module's folder on PYTHONPATH"
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BridgeTAError(f"the source {name!r} cannot be imported ({error})", fix=fix, exit_code=2) from error
    if not (isinstance(kind, type) and issubclass(kind, Dataset)):
        raise BridgeTAError(f"the source {name!r} is no subclass of {Dataset.__name__}", fix=fix, exit_code=2)
    make: Callable[[Path, str], Dataset] = kind
    return make


@contextmanager
def _explain_failures(reader: str, where: Path) -> Iterator[None]:
    """Turn whatever a user's class stumbles over into one message that names the file and line of that class."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, BridgeTAError) as error:
        if isinstance(error, BridgeTAError) and error.where is not None:
            raise
        frames = traceback.extract_tb(error.__traceback__)
        outside = [f for f in frames if not Path(f.filename).is_relative_to(_PACKAGE)]
        place = f", {Path(outside[0].filename).name} line {outside[0].lineno}" if outside else ""
        message = f"{reader} cannot read it ({type(error).__name__}: {error}{place})"
        raise BridgeTAError(message, where=where) from error
