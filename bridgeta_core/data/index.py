"""The samples of a nuScenes root as one compact table: read from its JSON once, mapped into memory afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.data.jsontable import Columns
from bridgeta_core.data.tables import KeptColumns, load_columns
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.geometry import Matrix, rigid
from bridgeta_core.rig import Camera, Rig

LIDAR = "LIDAR_TOP"

# Sweeps come every 50 ms and keyframes every 500: nine sweeps are within reach, the keyframe before never is.
_SWEEP_WINDOW_US = 475_000


@dataclass(frozen=True, eq=False)
class SensorRecord:
    """One file of one sensor. `width`, `height` and `intrinsics` (3x3) are 0, 0 and None for a LiDAR.

    `ego_T_sensor` is the sensor's static calibration; `global_T_ego` is the vehicle's pose at `timestamp_us`.
    """

    channel: str
    path: Path
    timestamp_us: int
    is_keyframe: bool
    token: str
    width: int
    height: int
    intrinsics: Matrix | None
    ego_T_sensor: Matrix
    global_T_ego: Matrix

    def read_bytes(self) -> bytes:
        """The file's content. Raises BridgeTAError that names the file when it is not there or cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise BridgeTAError(
                f"{self.channel} file cannot be read ({error.strerror})",
                where=self.path,
                fix="Download and extract the nuScenes file blobs that hold it into the same root",
            ) from error


@dataclass(frozen=True, eq=False)
class Sample:
    """A keyframe: one record per sensor channel. `location` is the city of its map."""

    token: str
    scene: str
    location: str
    timestamp_us: int
    records: Mapping[str, SensorRecord]

    def record(self, channel: str) -> SensorRecord:
        """The record of `channel`; BridgeTAError that lists the channels when there is none."""
        try:
            return self.records[channel]
        except KeyError:
            raise BridgeTAError(
                f"has no {channel}; its sensors are {', '.join(sorted(self.records))}", where=f"sample {self.token}"
            ) from None

    def rig(self, cameras: Sequence[str]) -> Rig:
        """The calibrated cameras `cameras`, in that order. BridgeTAError for a channel that is no camera."""
        rig = []
        for name in cameras:
            record = self.record(name)
            if record.intrinsics is None:
                raise BridgeTAError(f"{name} is not a camera", where=f"sample {self.token}", exit_code=2)
            rig.append(Camera(name, record.width, record.height, record.intrinsics, record.ego_T_sensor))
        return Rig(tuple(rig))

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The channels that have intrinsics, sorted."""
        return tuple(sorted(name for name, record in self.records.items() if record.intrinsics is not None))

    @property
    def global_T_ego(self) -> Matrix:
        """The pose of the labels: the vehicle at the LiDAR's stamp, or without LiDAR at the stamp nearest to ours."""
        if LIDAR in self.records:
            return self.records[LIDAR].global_T_ego
        if not self.records:
            fix = "Extract the metadata archive of this version again"
            raise BridgeTAError("has no file of any sensor", where=f"sample {self.token}", fix=fix)
        return min(self.records.values(), key=lambda r: abs(r.timestamp_us - self.timestamp_us)).global_T_ego


@dataclass(frozen=True)
class Scene:
    """A drive of about 20 s. `samples` are the positions of its keyframes in the index, in order of time."""

    name: str
    description: str
    location: str
    samples: range

    @property
    def night(self) -> bool:
        """Whether the description says so: nuScenes has no other word on the light."""
        return "night" in self.description.lower()

    @property
    def rain(self) -> bool:
        """Whether the description says so, be it of rain that falls or has fallen."""
        return "rain" in self.description.lower()


@dataclass(frozen=True, eq=False)
class ChannelFiles:
    """All n files of one channel: `paths` relative to the root; per file whether it is a keyframe, the number of its
    scene in `SampleIndex.scenes`, and `size` `[n, 2]`, the width and height of an image or 0, 0.
    """

    channel: str
    root: Path
    paths: list[str]
    is_keyframe: NDArray[np.bool_]
    scene: NDArray[np.int64]
    size: NDArray[np.int32]


class SampleIndex:
    """All samples of one nuScenes-format root; a sequence of `Sample`, ordered by scene and time.

    Costs a process next to no memory: it is mapped from the cache, and pickled as the name of its folder there.
    """

    def __init__(self, root: Path, version: str, columns: Columns) -> None:
        self.root, self.version = root, version
        self._columns = columns
        self._channels = _texts(columns["channels"])
        names, descriptions, places = (_texts(columns[f"scene_{k}"]) for k in ("name", "description", "location"))
        spans = [range(first, past) for first, past in columns["scene_samples"].tolist()]
        self.scenes = tuple(map(Scene, names, descriptions, places, spans))
        self._scene_number = {scene.name: number for number, scene in enumerate(self.scenes)}
        self._lidar: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}  # by number of the scene

    @classmethod
    def open(cls, root: str | Path, version: str) -> SampleIndex:
        """Load the index of `root`, building it when it is new or its tables changed.

        The compact copy lies in `tables.cache_folder()`, never in `root`, which may be read-only.
        Raises BridgeTAError that says what is missing or broken.
        """
        root = Path(root).expanduser().resolve()
        return cls(root, version, load_columns(root, version))

    def __reduce__(self) -> tuple[type[SampleIndex], tuple[Path, str, Columns]]:
        return type(self), (self.root, self.version, self._columns)

    @property
    def span_us(self) -> tuple[int, int]:
        """The stamps of the first and the last sample, microseconds."""
        stamps = self._columns["sample_stamp"]
        return int(stamps.min()), int(stamps.max())

    @property
    def folder(self) -> Path | None:
        """Where the index lies; None where the cache could not be written."""
        return self._columns.folder if isinstance(self._columns, KeptColumns) else None

    def __len__(self) -> int:
        return len(self._columns["sample_stamp"])

    def __getitem__(self, position: int) -> Sample:
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        c = self._columns
        scene = self.scene_of(position)
        rows = c["sample_records"][position]
        return Sample(
            token=self.token(position),
            scene=scene.name,
            location=scene.location,
            timestamp_us=int(c["sample_stamp"][position]),
            records={self._channels[i]: self._record(int(row)) for i, row in enumerate(rows) if row >= 0},
        )

    def find(self, name: str) -> int:
        """The position of a sample given as its token, as the beginning of only its token, or as the position."""
        if name.isdecimal() and int(name) < len(self):
            return int(name)
        tokens, wanted = self._columns["sample_token"], name.encode()
        found = np.flatnonzero(tokens == wanted)
        if len(found) != 1:
            found = np.flatnonzero(np.char.startswith(tokens, wanted))
        if len(found) != 1:
            problem = f"{len(found)} samples start with {name!r}" if len(found) else f"no sample {name!r}"
            fix = f"Give a token such as {self.token(0)}, or a position from 0 to {len(self) - 1}"
            raise BridgeTAError(problem, where=self.root, fix=fix, exit_code=2)
        return int(found[0])

    def token(self, position: int) -> str:
        """The token of a sample, without its records."""
        return str(self._columns["sample_token"][position].decode())

    def scene_of(self, position: int) -> Scene:
        """The scene of a sample, without its records."""
        return self.scenes[int(self._columns["sample_scene"][position])]

    def global_T_ego(self, position: int) -> Matrix:
        """The pose of a sample's labels, as `Sample.global_T_ego`, without its records if it has a LiDAR."""
        if LIDAR in self._channels:
            row = int(self._columns["sample_records"][position, self._channels.index(LIDAR)])
            if row >= 0:
                return _rigid(self._columns["record_ego"][row])
        return self[position].global_T_ego

    def scene(self, name: str) -> Scene:
        """The scene of this name; BridgeTAError that lists some names when there is none."""
        if name not in self._scene_number:
            raise BridgeTAError(
                f"no scene {name!r} in {self.version}", where=self.root, fix=f"There are {self._names()}", exit_code=2
            )
        return self.scenes[self._scene_number[name]]

    def select(self, split: str) -> list[int]:
        """Positions of the samples of "all", of an official split (train, val, mini_val, ...) or of scenes "a,b"."""
        if split == "all":
            return list(range(len(self)))
        names = [name.strip() for name in split.split(",") if name.strip()]
        if not all(name in self._scene_number for name in names):
            official = official_splits()  # only here, since the devkit takes longer to import than an index to open
            if split in official:
                wanted = set(official[split])
                names = [scene.name for scene in self.scenes if scene.name in wanted]
                if not names:
                    raise BridgeTAError(
                        f"{self.version} has no scene of the official split {split!r}",
                        where=self.root,
                        fix=f"There are {self._names()}; name some of them, or use all",
                        exit_code=2,
                    )
        return sorted({i for name in names for i in self.scene(name).samples})

    def records(
        self, scene_name: str, channels: Sequence[str] | None = None, keyframes_only: bool = False
    ) -> list[SensorRecord]:
        """The files of a scene, sweeps included, sorted by time; BridgeTAError for a channel that the scene lacks."""
        self.scene(scene_name)
        c = self._columns
        rows = np.arange(*c["scene_records"][self._scene_number[scene_name]])
        if channels is not None:
            present = {self._channels[i] for i in np.unique(c["record_channel"][rows])}
            missing = [name for name in channels if name not in present]
            if missing:
                raise BridgeTAError(
                    f"has no {', '.join(missing)}; its sensors are {', '.join(sorted(present))}",
                    where=f"scene {scene_name}",
                    exit_code=2,
                )
            wanted = [self._channels.index(name) for name in channels]
            rows = rows[np.isin(c["record_channel"][rows], wanted)]
        if keyframes_only:
            rows = rows[c["record_keyframe"][rows]]
        return [self._record(int(row)) for row in rows]

    def files(self) -> Iterator[ChannelFiles]:
        """Every file that the tables name, channel by channel; far faster than `records`, and without calibrations."""
        c = self._columns
        for number, channel in enumerate(self._channels):
            rows = np.flatnonzero(c["record_channel"] == number)
            yield ChannelFiles(
                channel=channel,
                root=self.root,
                paths=_texts(c["record_path"][rows]),
                is_keyframe=c["record_keyframe"][rows],
                scene=np.searchsorted(c["scene_records"][:, 1], rows, side="right"),
                size=c["record_size"][rows],
            )

    def file_counts(self) -> dict[str, tuple[int, int]]:
        """How many keyframes and how many sweeps each channel has."""
        c = self._columns
        kinds = 2 * c["record_channel"].astype(np.int64) + c["record_keyframe"]
        counts = np.bincount(kinds, minlength=2 * len(self._channels)).reshape(-1, 2).tolist()
        return {name: (keys, sweeps) for name, (sweeps, keys) in zip(self._channels, counts, strict=True)}

    def lidar_sweeps(self, position: int, most: int) -> list[SensorRecord]:
        """The LiDAR record of a sample and up to `most` before it in its scene, latest first.

        Sweeps and keyframes count alike, as in the chain that the devkit follows, but none that is older than the
        sweeps between two keyframes. BridgeTAError for a sample without LiDAR.
        """
        keyframe = self[position].record(LIDAR)
        rows, stamps = self._lidar_of_scene(int(self._columns["sample_scene"][position]))
        last = int(np.searchsorted(stamps, keyframe.timestamp_us))
        first = max(last - most, int(np.searchsorted(stamps, keyframe.timestamp_us - _SWEEP_WINDOW_US)))
        return [keyframe, *(self._record(int(row)) for row in rows[first:last][::-1])]

    def _lidar_of_scene(self, scene: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of a scene's LiDAR records and their stamps in microseconds, by time."""
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
            timestamp_us=int(c["record_stamp"][row]),
            is_keyframe=bool(c["record_keyframe"][row]),
            token=c["record_token"][row].decode(),
            width=width,
            height=height,
            intrinsics=None if np.isnan(intrinsics[0, 0]) else intrinsics.copy(),
            ego_T_sensor=_rigid(c["calibration_sensor"][calibration]),
            global_T_ego=_rigid(c["record_ego"][row]),
        )

    def _names(self, limit: int = 5) -> str:
        names = [scene.name for scene in self.scenes]
        return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _texts(column: NDArray[np.bytes_]) -> list[str]:
    return [text.decode() for text in column.tolist()]


def _rigid(seven: NDArray[np.float64]) -> Matrix:
    return rigid(seven[:3], seven[3:])


def official_splits() -> dict[str, list[str]]:
    """The scene names of every official split, as the devkit has them."""
    try:
        from nuscenes.utils.splits import create_splits_scenes
    except ImportError as error:
        raise BridgeTAError(
            f"the official splits need the nuScenes devkit ({error})",
            fix="Install it with: pip install 'bridgeta_ros[train]', or name scenes",
        ) from error
    return create_splits_scenes()
