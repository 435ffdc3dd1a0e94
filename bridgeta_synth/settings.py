"""Settings of a synthetic dataset."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.seeds import Seed

# Increased whenever equal settings give other bytes than before.
WORLD_VERSION = 2
SPLITS = ("train", "val", "test")
WEATHERS = ("mixed", "clear", "overcast", "dusk", "night", "rain")


@dataclass(frozen=True)
class SynthSettings:
    """Settings of a synthetic dataset.

    scenes: number of scenes, 1 to 9999; they alternate between the towns.
    seed: 0 or more; equal settings give equal bytes on one machine.
    split: train, val or test: each split of a seed has its own towns, with another layout and palette.
    duration: seconds from the first to the last keyframe of a scene, 0 to 60.
    keyframe_gap: seconds from one keyframe to the next, 0.5 to 60 in steps of 0.5; nuScenes has 0.5.
    spread: spread the keyframes evenly over the roads of their towns, which grow with their number.
    version: name of the folder with the tables, such as v1.0-trainval or v1.0-mini.
    keyframes_only: leave out the sweeps between keyframes (cameras 12 Hz, LiDAR 20 Hz).
    image_scale: size of the images relative to 1600x900, above 0.02 and at most 1; intrinsics are scaled alike.
    lidar: write LIDAR_TOP; without it the devkit's LiDAR functions do not work.
    relief: how hilly the ground is: 1 has slopes of up to 6 %, 0 is flat.
    weather: mixed (in about nuScenes' shares), or the same for all scenes: clear, overcast, dusk, night, rain.
    maps: folder that holds maps/expansion/<city>.json of the real map expansion, to drive through its cities instead of
        synthetic towns, at most one town a city; None for synthetic towns.
    """

    scenes: int
    seed: int = 0
    split: str = "train"
    duration: float = 5.0
    version: str = "v1.0-trainval"
    keyframes_only: bool = False
    image_scale: float = 1.0
    lidar: bool = True
    relief: float = 1.0
    weather: str = "mixed"
    maps: str | None = None
    keyframe_gap: float = 0.5
    spread: bool = False

    def __post_init__(self) -> None:
        problem = None
        if not 1 <= self.scenes <= 9999:
            problem = f"scenes is {self.scenes}, it must be 1 to 9999"
        elif self.seed < 0:
            problem = f"seed is {self.seed}, it must be 0 or more"
        elif self.split not in SPLITS:
            problem = f"split is '{self.split}', it must be {_join_names(SPLITS)}"
        elif not 0 <= self.duration <= 60:
            problem = f"duration is {self.duration} s, it must be 0 to 60"
        elif not 0.5 <= self.keyframe_gap <= 60 or self.keyframe_gap % 0.5:
            problem = f"keyframe_gap is {self.keyframe_gap} s, it must be 0.5 to 60 in steps of 0.5"
        elif 0.5 < self.keyframe_gap > self.duration > 0:
            problem = f"duration is {self.duration} s, it must be 0 or at least keyframe_gap ({self.keyframe_gap} s)"
        elif not 0.02 < self.image_scale <= 1:
            problem = f"image_scale is {self.image_scale}, it must be above 0.02 and at most 1"
        elif not re.fullmatch(r"v1\.0-[a-z0-9]+", self.version):
            problem = f"version is '{self.version}', it must look like v1.0-trainval"
        elif not 0 <= self.relief <= 1:
            problem = f"relief is {self.relief}, it must be 0 to 1"
        elif self.weather not in WEATHERS:
            problem = f"weather is '{self.weather}', it must be {_join_names(WEATHERS)}"
        elif self.maps == "":
            problem = "maps is empty, it must be a folder that holds maps/expansion"
        if problem:
            raise BridgeTAError(f"cannot synthesise: {problem}", exit_code=2)

    @property
    def seeds(self) -> Seed:
        """The seed that starts every random stream of this dataset."""
        return (self.seed, SPLITS.index(self.split))

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the images."""
        return tuple(max(8, round(side * self.image_scale)) for side in facts.IMAGE_SIZE)  # type: ignore[return-value]

    @property
    def keyframes(self) -> int:
        """Keyframes per scene."""
        return math.floor(self.duration / self.keyframe_gap + 1e-9) + 1

    @property
    def keyframe_period_us(self) -> int:
        """Microseconds from one keyframe to the next."""
        return round(self.keyframe_gap * 1e6)

    @property
    def channels(self) -> tuple[str, ...]:
        """The sensors, cameras first."""
        return (*(c.channel for c in facts.CAMERAS), *((facts.LIDAR_CHANNEL,) if self.lidar else ()))

    @property
    def files_per_scene(self) -> int:
        """Images and sweeps per scene."""
        return sum((self.keyframes - 1) * self.files_per_keyframe(channel) + 1 for channel in self.channels)

    def files_per_keyframe(self, channel: str) -> int:
        """Count the files of a sensor from one keyframe to the next."""
        return 1 if self.keyframes_only else self.frames_per_keyframe(channel)

    def frames_per_keyframe(self, channel: str) -> int:
        """Count the frames of a sensor from one keyframe to the next: cameras run at 12 Hz, LiDAR at 20 Hz."""
        if channel == facts.LIDAR_CHANNEL:
            return self.keyframe_period_us // facts.LIDAR_PERIOD_US
        return self.keyframe_period_us // facts.KEYFRAME_PERIOD_US * facts.CAMERA_FRAMES_PER_KEYFRAME


def _join_names(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
