"""A synthetic world in the nuScenes schema: free, seeded, and consistent between map, cameras and LiDAR."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import bridgeta_core  # noqa: F401  it tells OpenBLAS and OpenMP how to wait, before numpy and torch load them

if TYPE_CHECKING:
    from bridgeta_synth.dataset.datasheet import DATA_SHEET, DataSheet
    from bridgeta_synth.dataset.frames import SceneShuffle, SyntheticFrames
    from bridgeta_synth.dataset.writer import write_dataset
    from bridgeta_synth.settings import SynthSettings

# Loaded at first use: the help text of `bridgeta synth` needs no torch.
_MODULE_OF = {
    "DATA_SHEET": "bridgeta_synth.dataset.datasheet",
    "DataSheet": "bridgeta_synth.dataset.datasheet",
    "SceneShuffle": "bridgeta_synth.dataset.frames",
    "SynthSettings": "bridgeta_synth.settings",
    "SyntheticFrames": "bridgeta_synth.dataset.frames",
    "write_dataset": "bridgeta_synth.dataset.writer",
}

__all__ = ["DATA_SHEET", "DataSheet", "SceneShuffle", "SynthSettings", "SyntheticFrames", "write_dataset"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
