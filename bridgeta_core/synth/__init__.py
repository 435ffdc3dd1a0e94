"""A synthetic world in the nuScenes schema: free, seeded, and consistent between map, cameras and LiDAR."""

from __future__ import annotations

from bridgeta_core.synth.writer import DATA_SHEET, SynthSettings, write_dataset

__all__ = ["DATA_SHEET", "SynthSettings", "write_dataset"]
