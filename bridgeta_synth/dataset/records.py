"""The records of the nuScenes tables: logs, the records that follow from the plan of a scene, and the shared tables.

Logs are the drives of the vehicle that the scenes are cut from, at hours that suit their light.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridgeta_core.geometry.transforms import Matrix, quaternion, rigid
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.seeds import Seed, token
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.traffic.scene import Scene

_FIRST_DAY = datetime.datetime(2023, 6, 5)
_SCENES_PER_LOG = 40
_SCENE_PERIOD_US = 90_000_000  # from the start of a scene to that of the next; scenes last 60 s at most
_HOUR = {"clear": 10, "overcast": 13, "dusk": 19, "night": 21}  # local time at which a drive in such light begins
_UTC_OFFSET = {"boston-seaport": -4}  # hours, in summer
_SINGAPORE_OFFSET = 8

Record = dict[str, Any]
Tables = dict[str, list[Record]]


@dataclass(frozen=True)
class Log:
    """One drive of the vehicle: its city, its light (`Light.kind`), and its day since the first one."""

    location: str
    light: str
    day: int

    @classmethod
    def of(cls, location: str, light: str, turn: int, city: int, cities: int) -> Log:
        """Find the log of a city's scene number `turn`; the single vehicle is in one city a day."""
        return cls(location, light, turn // _SCENES_PER_LOG * cities + city)

    @property
    def start(self) -> datetime.datetime:
        """When the drive begins."""
        zone = datetime.timezone(datetime.timedelta(hours=_UTC_OFFSET.get(self.location, _SINGAPORE_OFFSET)))
        return (_FIRST_DAY + datetime.timedelta(days=self.day, hours=_HOUR[self.light])).replace(tzinfo=zone)

    @property
    def name(self) -> str:
        """Name of the log file; the names of sensor files begin with it."""
        return "n000-" + self.start.strftime("%Y-%m-%d-%H-%M-%S%z")

    def scene_start_us(self, turn: int) -> int:
        """Compute the stamp, in microseconds since 1970, of the first keyframe of the city's scene number `turn`."""
        return round(self.start.timestamp()) * 1_000_000 + turn % _SCENES_PER_LOG * _SCENE_PERIOD_US

    def token(self, seed: Seed) -> str:
        """Return the token of its record."""
        return token(seed, "log", self.location, self.light, self.day)

    def make_record(self, seed: Seed) -> dict[str, Any]:
        """Make its record in the log table."""
        return {
            "token": self.token(seed),
            "logfile": self.name,
            "vehicle": "n000",
            "date_captured": self.start.strftime("%Y-%m-%d"),
            "location": self.location,
        }


def name_scene(index: int) -> str:
    """Name a scene as the scene table does."""
    return f"scene-{index + 1:04d}"


@dataclass(frozen=True)
class SensorFile:
    """One image or sweep: `frame` counts the frames of its sensor from the first keyframe, `keyframe` is None
    between keyframes, `time` is in seconds since the first keyframe, and `path` is relative to the root.
    """

    channel: str
    frame: int
    keyframe: int | None
    stamp: int
    time: float
    path: str


class SceneRecords:
    """The records of one scene in the tables scene, log, sample, sample_data and ego_pose.

    `city` is the number of the scene's city among the `cities` of the dataset, between which the scenes alternate.
    """

    def __init__(self, scene: Scene, settings: SynthSettings, city: int, cities: int) -> None:
        self.scene, self.settings = scene, settings
        self.name = name_scene(scene.index)
        turn = scene.index // cities
        self.log = Log.of(scene.town.location, scene.light.kind, turn, city, cities)
        self.start_us = self.log.scene_start_us(turn)

    def token(self, *names: object) -> str:
        """Return the token of a record of this scene."""
        return token(self.settings.seeds, self.name, *names)

    def iter_files(self, channel: str) -> Iterator[SensorFile]:
        """Iterate over the files of a sensor in order of time."""
        rate = self.settings.frames_per_keyframe(channel)
        step = rate // self.settings.files_per_keyframe(channel)
        offset = next((c.offset_us for c in facts.CAMERAS if c.channel == channel), 0)
        suffix = "pcd.bin" if channel == facts.LIDAR_CHANNEL else "jpg"
        for frame in range(0, (self.settings.keyframes - 1) * rate + 1, step):
            keyframe, between = divmod(frame, rate)
            since = offset + round(frame * self.settings.keyframe_period_us / rate)
            stamp = self.start_us + since
            folder = "sweeps" if between else "samples"
            path = f"{folder}/{channel}/{self.log.name}__{channel}__{stamp}.{suffix}"
            yield SensorFile(channel, frame, None if between else keyframe, stamp, since / 1e6, path)

    def keyframe_time(self, k: int) -> float:
        """Return the seconds from the first keyframe to keyframe k."""
        return k * self.settings.keyframe_period_us / 1e6

    def make_tables(self) -> Tables:
        """Make all records except annotations and instances."""
        tables: Tables = {"scene": [self._make_scene()], "log": [self.log.make_record(self.settings.seeds)]}
        tables["sample"] = self.make_samples()
        tables["sample_data"], tables["ego_pose"] = [], []
        for channel in self.settings.channels:
            files = list(self.iter_files(channel))
            tables["ego_pose"] += [self.make_ego_pose(file) for file in files]
            tables["sample_data"] += self._make_sample_data(files)
        return tables

    def make_ego_pose(self, file: SensorFile) -> Record:
        """Make the record of the vehicle's pose at the stamp of a file."""
        pose = self.scene.ego_pose(file.time)
        return {
            "token": self.file_token(file),
            "timestamp": file.stamp,
            "rotation": quaternion(pose).tolist(),
            "translation": pose[:3, 3].tolist(),
        }

    def stored_ego_pose(self, time: float) -> Matrix:
        """Compute global_T_ego as a reader of the tables gets it.

        Its last digits decide on which side of the labels' border the ends of lines fall.
        """
        pose = self.scene.ego_pose(time)
        return rigid(pose[:3, 3], quaternion(pose))

    def file_token(self, file: SensorFile) -> str:
        """Return the token of a file's records in sample_data and ego_pose."""
        return self.token("data", file.channel, file.frame)

    def _make_sample_data(self, files: list[SensorFile]) -> list[Record]:
        is_lidar = files[0].channel == facts.LIDAR_CHANNEL
        width, height = (0, 0) if is_lidar else self.settings.image_size
        tokens = ["", *map(self.file_token, files), ""]
        rate = self.settings.frames_per_keyframe(files[0].channel)
        return [
            {
                "token": tokens[i],
                # A sweep belongs to the keyframe that follows it.
                "sample_token": self.token("sample", math.ceil(file.frame / rate)),
                "ego_pose_token": tokens[i],
                "calibrated_sensor_token": token(self.settings.seeds, "calibration", self.log.location, file.channel),
                "timestamp": file.stamp,
                "fileformat": "pcd" if is_lidar else "jpg",
                "is_key_frame": file.keyframe is not None,
                "height": height,
                "width": width,
                "filename": file.path,
                "prev": tokens[i - 1],
                "next": tokens[i + 1],
            }
            for i, file in enumerate(files, start=1)
        ]

    def make_samples(self) -> list[Record]:
        """Make the keyframes, stamped with the LiDAR's times."""
        count = self.settings.keyframes
        tokens = ["", *(self.token("sample", k) for k in range(count)), ""]
        return [
            {
                "token": tokens[k + 1],
                "timestamp": self.start_us + k * self.settings.keyframe_period_us,
                "prev": tokens[k],
                "next": tokens[k + 2],
                "scene_token": self.token("scene"),
            }
            for k in range(count)
        ]

    def _make_scene(self) -> Record:
        count = self.settings.keyframes
        return {
            "token": self.token("scene"),
            "log_token": self.log.token(self.settings.seeds),
            "nbr_samples": count,
            "name": self.name,
            "description": self.scene.describe(),
            "first_sample_token": self.token("sample", 0),
            "last_sample_token": self.token("sample", count - 1),
        }


def make_vocabulary(settings: SynthSettings, locations: Sequence[str]) -> Tables:
    """Make the tables category, attribute, visibility, sensor and calibrated_sensor of a dataset in some cities."""

    def named(kind: str, entries: Sequence[tuple[str, str]]) -> list[Record]:
        return [
            {"token": token(settings.seeds, kind, name), "name": name, "description": text} for name, text in entries
        ]

    return {
        "category": named("category", facts.CATEGORIES),
        "attribute": named("attribute", facts.ATTRIBUTES),
        "visibility": [
            {"token": key, "level": level, "description": text} for key, level, text, _ in facts.VISIBILITIES
        ],
        "sensor": [
            {
                "token": token(settings.seeds, "sensor", channel),
                "channel": channel,
                "modality": "lidar" if channel == facts.LIDAR_CHANNEL else "camera",
            }
            for channel in settings.channels
        ],
        "calibrated_sensor": [record for location in locations for record in make_calibrations(settings, location)],
    }


def make_calibrations(settings: SynthSettings, location: str) -> list[Record]:
    """Make the calibration of all sensors in a city, cameras first."""
    mounts = [(c.channel, c.ego_T_cam, c.intrinsics(*settings.image_size).tolist()) for c in facts.CAMERAS]
    if settings.lidar:
        mounts.append((facts.LIDAR_CHANNEL, rigid(facts.LIDAR_TRANSLATION, facts.LIDAR_ROTATION), []))
    return [
        {
            "token": token(settings.seeds, "calibration", location, channel),
            "sensor_token": token(settings.seeds, "sensor", channel),
            "translation": pose[:3, 3].tolist(),
            "rotation": quaternion(pose).tolist(),
            "camera_intrinsic": intrinsics,
        }
        for channel, pose, intrinsics in mounts
    ]


def make_map_record(settings: SynthSettings, location: str, logs: Sequence[Record]) -> Record:
    """Make the map of a city, which refers to those of the `logs` that are from there."""
    prior = token(settings.seeds, "map", location)
    return {
        "category": "semantic_prior",
        "token": prior,
        "filename": f"maps/{prior}.png",
        "log_tokens": [log["token"] for log in logs if log["location"] == location],
    }
