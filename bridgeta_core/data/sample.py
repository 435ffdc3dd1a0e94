"""Samples, sensor records and scenes: what every dataset is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridgeta_core.geometry.images import Image, decode, decode_and_fit
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import ImageFit, Matrix
from bridgeta_core.utils.errors import BridgeTAError

LIDAR = "LIDAR_TOP"


@dataclass(frozen=True, eq=False)
class SensorRecord:
    """One file of one sensor.

    `ego_T_sensor` is the sensor's calibration, `global_T_ego` the vehicle's pose at `stamp_us` (microseconds). `width`,
    `height` and `intrinsics` (3x3) are 0, 0 and None for a LiDAR.
    """

    channel: str
    path: Path
    stamp_us: int
    is_keyframe: bool
    token: str
    width: int
    height: int
    intrinsics: Matrix | None
    ego_T_sensor: Matrix
    global_T_ego: Matrix

    def read_bytes(self) -> bytes:
        """Read the file. Raises BridgeTAError that names it when it is missing or cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise BridgeTAError(
                f"{self.channel} file cannot be read ({error.strerror})",
                where=self.path,
                fix="Download and extract the nuScenes file blobs that hold it into the same root",
            ) from error

    def read_image(self, *, fit: ImageFit | None = None, reduction: int = 1) -> Image:
        """Decode the image to RGB `[H, W, 3]`, at 1/reduction of its size, or fitted to a network input by `fit`.

        Raises BridgeTAError that names the file when it cannot be read or decoded, or is not of the tables' size.
        """
        data = self.read_bytes()
        try:
            size = self.width, self.height
            return decode(data, reduction, size) if fit is None else decode_and_fit(data, fit)
        except BridgeTAError as error:
            raise BridgeTAError(error.what, where=self.path, fix="Download and extract this file again") from error


@dataclass(frozen=True, eq=False)
class Sample:
    """A keyframe: one record per sensor channel. `location` is the city of its map, `stamp_us` in microseconds."""

    token: str
    scene: str
    location: str
    stamp_us: int
    records: Mapping[str, SensorRecord]

    def record(self, channel: str) -> SensorRecord:
        """Return the record of `channel`. Raises BridgeTAError that lists the channels when there is none."""
        try:
            return self.records[channel]
        except KeyError:
            raise BridgeTAError(
                f"has no {channel}; its sensors are {', '.join(sorted(self.records))}", where=f"sample {self.token}"
            ) from None

    def rig(self, cameras: Sequence[str]) -> Rig:
        """Return these cameras, calibrated, in this order. Raises BridgeTAError for a channel that is not a camera."""
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
        """The pose of the labels: at the LiDAR's stamp, or without LiDAR at the record nearest to `stamp_us`."""
        if LIDAR in self.records:
            return self.records[LIDAR].global_T_ego
        if not self.records:
            fix = "Extract the metadata archive of this version again"
            raise BridgeTAError("has no file of any sensor", where=f"sample {self.token}", fix=fix)
        return min(self.records.values(), key=lambda r: abs(r.stamp_us - self.stamp_us)).global_T_ego


@dataclass(frozen=True)
class Scene:
    """A drive of about 20 s. `samples` are the positions of its keyframes in the dataset, in order of time."""

    name: str
    description: str
    location: str
    samples: range

    @property
    def night(self) -> bool:
        """Whether the description says night: nuScenes records the light nowhere else."""
        return "night" in self.description.lower()

    @property
    def rain(self) -> bool:
        """Whether the description says rain, falling or fallen."""
        return "rain" in self.description.lower()
