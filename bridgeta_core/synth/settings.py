"""What to synthesise."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bridgeta_core.errors import BridgeTAError
from bridgeta_core.synth import nuscenes_facts as facts


@dataclass(frozen=True)
class SynthSettings:
    """What to synthesise.

    scenes: number of scenes, 1 or more; they are spread over up to four towns.
    seed: 0 or more; equal settings give equal bytes on one machine.
    duration: seconds from the first to the last keyframe of a scene, 0 to 60; keyframes are 0.5 s apart.
    version: name of the folder with the tables, such as v1.0-trainval or v1.0-mini.
    keyframes_only: leave out the sweeps between keyframes (cameras 12 Hz, LiDAR 20 Hz).
    image_scale: size of the images relative to 1600x900, above 0.02 and at most 1; intrinsics are scaled alike.
    lidar: write LIDAR_TOP; without it the devkit's LiDAR functions do not work.
    """

    scenes: int
    seed: int = 0
    duration: float = 5.0
    version: str = "v1.0-trainval"
    keyframes_only: bool = False
    image_scale: float = 1.0
    lidar: bool = True

    def __post_init__(self) -> None:
        problem = None
        if self.scenes < 1 or self.scenes > 9999:
            problem = f"scenes is {self.scenes}, it must be 1 to 9999"
        elif self.seed < 0:
            problem = f"seed is {self.seed}, it must be 0 or more"
        elif not 0 <= self.duration <= 60:
            problem = f"duration is {self.duration} s, it must be 0 to 60"
        elif not 0.02 < self.image_scale <= 1:
            problem = f"image_scale is {self.image_scale}, it must be above 0.02 and at most 1"
        elif not re.fullmatch(r"v1\.0-[a-z0-9]+", self.version):
            problem = f"version is '{self.version}', it must look like v1.0-trainval"
        if problem:
            raise BridgeTAError(f"cannot synthesise: {problem}", exit_code=2)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the images."""
        return tuple(max(8, round(side * self.image_scale)) for side in facts.IMAGE_SIZE)  # type: ignore[return-value]

    @property
    def keyframes(self) -> int:
        """Keyframes per scene."""
        return math.floor(self.duration * 2 + 1e-9) + 1
