"""A synthetic world in the nuScenes schema: free, seeded, and consistent between map, cameras and LiDAR."""

from __future__ import annotations

from bridgeta_core.synth.dataset.datasheet import DATA_SHEET, DataSheet
from bridgeta_core.synth.dataset.frames import SceneShuffle, SyntheticFrames
from bridgeta_core.synth.dataset.writer import write_dataset
from bridgeta_core.synth.settings import SynthSettings

__all__ = ["DATA_SHEET", "DataSheet", "SceneShuffle", "SynthSettings", "SyntheticFrames", "write_dataset"]
