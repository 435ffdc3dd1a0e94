"""A synthetic world in the nuScenes schema: free, seeded, and consistent between map, cameras and LiDAR."""

from __future__ import annotations

from bridgeta_synth.dataset.datasheet import DATA_SHEET, DataSheet
from bridgeta_synth.dataset.frames import SceneShuffle, SyntheticFrames
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.settings import SynthSettings

__all__ = ["DATA_SHEET", "DataSheet", "SceneShuffle", "SynthSettings", "SyntheticFrames", "write_dataset"]
