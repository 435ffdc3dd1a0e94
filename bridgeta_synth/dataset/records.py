"""The table records of a scene that follow from its plan alone: what is taken when, where to, and from which pose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bridgeta_core.geometry.transforms import Matrix, quaternion, rigid
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.logs import Log
from bridgeta_synth.seeds import token
from bridgeta_synth.settings import SynthSettings, frames_per_keyframe
from bridgeta_synth.traffic.scene import Scene

Record = dict[str, Any]
Tables = dict[str, list[Record]]


def scene_name(index: int) -> str:
    """Name of a scene, as the scene table has it."""
    return f"scene-{index + 1:04d}"


@dataclass(frozen=True)
class SensorFile:
    """One image or sweep: `frame` counts what its sensor takes from the first keyframe on, `keyframe` is None between
    keyframes, `time` is in seconds since the first keyframe, and `path` is relative to the root.
    """

    channel: str
    frame: int
    keyframe: int | None
    stamp: int
    time: float
    path: str


class SceneRecords:
    """The records of one scene in the tables scene, log, sample, sample_data and ego_pose.

    `city` is the number of the scene's city among the `cities` of the data set, which the scenes take turns in.
    """

    def __init__(self, scene: Scene, settings: SynthSettings, city: int, cities: int) -> None:
        self.scene, self.settings = scene, settings
        self.name = scene_name(scene.index)
        turn = scene.index // cities
        self.log = Log.of(scene.town.location, scene.light.kind, turn, city, cities)
        self.start_us = self.log.scene_start_us(turn)

    def token(self, *names: object) -> str:
        """The token of a record of this scene."""
        return token(self.settings.seeds, self.name, *names)

    def files(self, channel: str) -> Iterator[SensorFile]:
        """The files of a sensor in order of time."""
        rate = frames_per_keyframe(channel)
        step = rate // self.settings.files_per_keyframe(channel)
        offset = next((c.offset_us for c in facts.CAMERAS if c.channel == channel), 0)
        suffix = "pcd.bin" if channel == facts.LIDAR_CHANNEL else "jpg"
        for frame in range(0, (self.settings.keyframes - 1) * rate + 1, step):
            keyframe, between = divmod(frame, rate)
            since = offset + round(frame * facts.KEYFRAME_PERIOD_US / rate)
            stamp = self.start_us + since
            folder = "sweeps" if between else "samples"
            path = f"{folder}/{channel}/{self.log.name}__{channel}__{stamp}.{suffix}"
            yield SensorFile(channel, frame, None if between else keyframe, stamp, since / 1e6, path)

    def tables(self) -> Tables:
        """All records; annotations and instances are not among them."""
        tables: Tables = {"scene": [self._scene()], "log": [self.log.record(self.settings.seeds)]}
        tables["sample"] = self.samples()
        tables["sample_data"], tables["ego_pose"] = [], []
        for channel in self.settings.channels:
            files = list(self.files(channel))
            tables["ego_pose"] += [self.ego_pose(file) for file in files]
            tables["sample_data"] += self._sample_data(files)
        return tables

    def ego_pose(self, file: SensorFile) -> Record:
        """The vehicle's pose at the stamp of a file."""
        pose = self.scene.ego_pose(file.time)
        return {
            "token": self.file_token(file),
            "timestamp": file.stamp,
            "rotation": quaternion(pose).tolist(),
            "translation": pose[:3, 3].tolist(),
        }

    def stored_ego_pose(self, time: float) -> Matrix:
        """global_T_ego as a reader of the tables gets it. Its last digits decide on which side of the labels' border
        the ends of lines fall.
        """
        pose = self.scene.ego_pose(time)
        return rigid(pose[:3, 3], quaternion(pose))

    def file_token(self, file: SensorFile) -> str:
        """The token of a file's records in sample_data and ego_pose."""
        return self.token("data", file.channel, file.frame)

    def _sample_data(self, files: list[SensorFile]) -> list[Record]:
        is_lidar = files[0].channel == facts.LIDAR_CHANNEL
        width, height = (0, 0) if is_lidar else self.settings.image_size
        tokens = ["", *map(self.file_token, files), ""]
        rate = frames_per_keyframe(files[0].channel)
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

    def samples(self) -> list[Record]:
        """The keyframes, stamped with the LiDAR's times."""
        count = self.settings.keyframes
        tokens = ["", *(self.token("sample", k) for k in range(count)), ""]
        return [
            {
                "token": tokens[k + 1],
                "timestamp": self.start_us + k * facts.KEYFRAME_PERIOD_US,
                "prev": tokens[k],
                "next": tokens[k + 2],
                "scene_token": self.token("scene"),
            }
            for k in range(count)
        ]

    def _scene(self) -> Record:
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
