"""A synthetic world in the nuScenes schema: free, seeded, and consistent between map, cameras and LiDAR."""

from __future__ import annotations

from bridgeta_core.synth.settings import SynthSettings
from bridgeta_core.synth.writer import DATA_SHEET, write_dataset

__all__ = ["DATA_SHEET", "SynthSettings", "write_dataset"]
