"""The written root: its tables, the devkit on it, and the ground under its town."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridgeta_synth.dataset.datasheet import DATA_SHEET
from bridgeta_synth.dataset.map_expansion import write_maps
from bridgeta_synth.dataset.world import World
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.world.terrain import Terrain
from bridgeta_synth.world.town.builder import build_town
from bridgeta_synth.world.town.town import Town

VERSION = "v1.0-mini"
TOWN_SEED, LOCATION = (3, 0), "singapore-onenorth"
TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample"),
    *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)


@pytest.fixture(scope="session")
def tables(synthetic_root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Read all tables, by token."""
    read = {name: json.loads((synthetic_root / VERSION / f"{name}.json").read_text()) for name in TABLES}
    return {name: {record["token"]: record for record in records} for name, records in read.items()}


@pytest.fixture(scope="session")
def nusc(synthetic_root: Path) -> Any:
    from nuscenes.nuscenes import NuScenes

    return NuScenes(VERSION, str(synthetic_root), verbose=False)


@pytest.fixture(scope="session")
def terrain(synthetic_root: Path) -> Terrain:
    """Build the bare ground under the root's only town, which nuScenes' tables lack."""
    settings = SynthSettings(**json.loads((synthetic_root / DATA_SHEET).read_text())["settings"])
    return World(settings).town(0).terrain


@pytest.fixture(scope="session")
def town() -> Town:
    return build_town(TOWN_SEED, 1, LOCATION, False, 1.0, 12)


@pytest.fixture(scope="session")
def map_root(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    prior = write_maps(root, town, TOWN_SEED)
    (root / "maps" / f"{prior}.png").rename(root / "maps" / "prior.png")
    return root
