"""The samples of a nuScenes root, from a compact index: built from its JSON once, mapped into memory afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.dataset import SWEEP_WINDOW_US, Dataset, require_channels
from bridgeta_core.data.maps.expansion import expansion_path
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.index_cache import CachedColumns, load_columns
from bridgeta_core.data.nuscenes.json_table import Columns
from bridgeta_core.data.nuscenes.versions import read_synthetic_settings
from bridgeta_core.data.sample import LIDAR, Sample, Scene, SensorRecord
from bridgeta_core.geometry.transforms import Matrix, rigid
from bridgeta_core.utils.arrays import Flags, Floats, Ints
from bridgeta_core.utils.errors import BridgeTAError


@dataclass(frozen=True, eq=False)
class ChannelFiles:
    """All n files of one channel.

    `paths` are relative to the root, `scene` numbers `NuScenesDataset.scenes`, and `size` `[n, 2]` is the width and
    height of an image or 0, 0.
    """

    channel: str
    root: Path
    paths: list[str]
    is_keyframe: Flags
    scene: Ints
    size: NDArray[np.int32]


class NuScenesDataset(Dataset):
    """All samples of one nuScenes-format root.

    It costs a process next to no memory: its index is mapped from the cache, and pickled as the name of its folder.
    """

    def __init__(self, root: str | Path, version: str, columns: Columns | None = None) -> None:
        """Open `root`, indexing its tables when it is new or they changed.

        The index lies in `index_cache.cache_folder()`, never in `root`, which may be read-only. `columns` is the index
        of this root, where the caller has it already. Raises BridgeTAError that says what is missing or broken.
        """
        root = Path(root).expanduser().resolve()
        columns = load_columns(root, version) if columns is None else columns
        self.version, self._columns = version, columns
        self._channels = _decode(columns["channels"])
        names, descriptions, places = (_decode(columns[f"scene_{k}"]) for k in ("name", "description", "location"))
        spans = [range(first, past) for first, past in columns["scene_samples"].tolist()]
        super().__init__(root, list(map(Scene, names, descriptions, places, spans)))
        self._lidar: dict[int, tuple[Ints, Ints]] = {}  # by number of the scene

    def __reduce__(self) -> tuple[type[NuScenesDataset], tuple[Path, str, Columns]]:
        return type(self), (self.root, self.version, self._columns)

    @property
    def span_us(self) -> tuple[int, int]:
        """The stamps of the first and the last sample, microseconds."""
        stamps = self._columns["sample_stamp"]
        return int(stamps.min()), int(stamps.max())

    @property
    def folder(self) -> Path | None:
        """The folder of the index; None where the cache could not be written."""
        return self._columns.folder if isinstance(self._columns, CachedColumns) else None

    @property
    def tokens(self) -> NDArray[np.bytes_]:
        """The tokens of all samples, UTF-8."""
        return self._columns["sample_token"]

    def raster(self, location: str, labels: LabelConfig) -> MapRaster:
        """Load the map expansion of a city. Raises BridgeTAError as `load_layers` does."""
        return MapRaster.load(self.root, location, labels)

    def map_files(self, location: str) -> list[Path]:
        """List the city's map expansion."""
        return [expansion_path(self.root, location)]

    def __getitem__(self, position: int) -> Sample:
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        c = self._columns
        scene = self.scene_of(position)
        rows = c["sample_records"][position]
        return Sample(
            token=self.tokens[position].decode(),
            scene=scene.name,
            location=scene.location,
            stamp_us=int(c["sample_stamp"][position]),
            records={self._channels[i]: self._record(int(row)) for i, row in enumerate(rows) if row >= 0},
        )

    def scene_of(self, position: int) -> Scene:
        """Return the scene of a sample, without building its records."""
        return self.scenes[int(self._columns["sample_scene"][position])]

    def global_T_ego(self, position: int) -> Matrix:
        """Return the pose of a sample's labels, without building its records if it has a LiDAR."""
        if LIDAR in self._channels:
            row = int(self._columns["sample_records"][position, self._channels.index(LIDAR)])
            if row >= 0:
                return _rigid(self._columns["record_ego"][row])
        return self[position].global_T_ego

    def select(self, scenes: str) -> list[int]:
        """Return the positions of the samples of "all", of an official split (train, ...) or of scenes "a,b".

        All of a root of the synthetic world is in the split that it was made as.
        """
        if scenes == "all" or all(name.strip() in self._scene_number for name in scenes.split(",")):
            return super().select(scenes)
        synthetic = read_synthetic_settings(self.root) if scenes in ("train", "val", "test") else None
        if synthetic is not None:
            made_as = synthetic.get("split", "train")
            if scenes != made_as:
                what = f"is the split {made_as!r} of the synthetic world, and has no scene of {scenes!r}"
                fix = f"Use all or {made_as}, or make that split: bridgeta synth --split {scenes}"
                raise BridgeTAError(what, where=self.root, fix=fix, exit_code=2)
            return super().select("all")
        official = official_splits()  # only here: the devkit takes longer to import than an index to open
        if scenes not in official:
            return super().select(scenes)
        wanted = set(official[scenes])
        names = [scene.name for scene in self.scenes if scene.name in wanted]
        if not names:
            raise BridgeTAError(
                f"{self.version} has no scene of the official split {scenes!r}",
                where=self.root,
                fix=f"There are {self._scene_names()}; name some of them, or use all",
                exit_code=2,
            )
        return super().select(",".join(names))

    def records(
        self, scene_name: str, channels: Sequence[str] | None = None, keyframes_only: bool = False
    ) -> list[SensorRecord]:
        """Return the files of a scene by time, sweeps included.

        Raises BridgeTAError for a channel that the scene lacks.
        """
        self.scene(scene_name)
        c = self._columns
        rows = np.arange(*c["scene_records"][self._scene_number[scene_name]])
        if channels is not None:
            present = {self._channels[i] for i in np.unique(c["record_channel"][rows])}
            require_channels(scene_name, channels, present)
            wanted = [self._channels.index(name) for name in channels]
            rows = rows[np.isin(c["record_channel"][rows], wanted)]
        if keyframes_only:
            rows = rows[c["record_keyframe"][rows]]
        return [self._record(int(row)) for row in rows]

    def files(self) -> Iterator[ChannelFiles]:
        """Yield every file that the tables name, by channel: far faster than `records`, and without calibrations."""
        c = self._columns
        for number, channel in enumerate(self._channels):
            rows = np.flatnonzero(c["record_channel"] == number)
            yield ChannelFiles(
                channel=channel,
                root=self.root,
                paths=_decode(c["record_path"][rows]),
                is_keyframe=c["record_keyframe"][rows],
                scene=np.searchsorted(c["scene_records"][:, 1], rows, side="right"),
                size=c["record_size"][rows],
            )

    def file_counts(self) -> dict[str, tuple[int, int]]:
        """Count the keyframes and the sweeps of each channel."""
        c = self._columns
        kinds = 2 * c["record_channel"].astype(np.int64) + c["record_keyframe"]
        counts = np.bincount(kinds, minlength=2 * len(self._channels)).reshape(-1, 2).tolist()
        return {name: (keys, sweeps) for name, (sweeps, keys) in zip(self._channels, counts, strict=True)}

    def lidar_sweeps(self, position: int, limit: int) -> list[SensorRecord]:
        """Return a sample's LiDAR record and earlier ones; sweeps and keyframes count alike, as in the devkit."""
        keyframe = self[position].record(LIDAR)
        rows, stamps = self._lidar_of_scene(int(self._columns["sample_scene"][position]))
        last = int(np.searchsorted(stamps, keyframe.stamp_us))
        first = max(last - limit, int(np.searchsorted(stamps, keyframe.stamp_us - SWEEP_WINDOW_US)))
        return [keyframe, *(self._record(int(row)) for row in rows[first:last][::-1])]

    def _lidar_of_scene(self, scene: int) -> tuple[Ints, Ints]:
        """Return the rows of a scene's LiDAR records and their stamps in microseconds, by time."""
        if scene not in self._lidar:
            rows = np.arange(*self._columns["scene_records"][scene])
            rows = rows[self._columns["record_channel"][rows] == self._channels.index(LIDAR)]
            self._lidar[scene] = rows, self._columns["record_stamp"][rows]
        return self._lidar[scene]

    def _record(self, row: int) -> SensorRecord:
        c = self._columns
        calibration = int(c["record_calibration"][row])
        intrinsics = c["calibration_intrinsics"][calibration]
        width, height = c["record_size"][row].tolist()
        return SensorRecord(
            channel=self._channels[int(c["record_channel"][row])],
            path=self.root / c["record_path"][row].decode(),
            stamp_us=int(c["record_stamp"][row]),
            is_keyframe=bool(c["record_keyframe"][row]),
            token=c["record_token"][row].decode(),
            width=width,
            height=height,
            intrinsics=None if np.isnan(intrinsics[0, 0]) else intrinsics.copy(),
            ego_T_sensor=_rigid(c["calibration_sensor"][calibration]),
            global_T_ego=_rigid(c["record_ego"][row]),
        )


def _decode(column: NDArray[np.bytes_]) -> list[str]:
    return [value.decode() for value in column.tolist()]


def _rigid(seven: Floats) -> Matrix:
    return rigid(seven[:3], seven[3:])


def official_splits() -> dict[str, list[str]]:
    """Return the scene names of every official split, as the devkit has them."""
    try:
        from nuscenes.utils.splits import create_splits_scenes
    except ImportError as error:
        raise BridgeTAError(
            f"the official splits need the nuScenes devkit ({error})",
            fix="Install it with: pip install 'bridgeta_ros[train]', or name scenes",
        ) from error
    return create_splits_scenes()
