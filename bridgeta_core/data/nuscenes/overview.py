"""What the index of a nuScenes root holds, as a table to read."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.table import Table

from bridgeta_core.data.nuscenes.dataset import NuScenesDataset, official_splits
from bridgeta_core.data.nuscenes.index_cache import is_kept
from bridgeta_core.data.sample import Scene
from bridgeta_core.utils.errors import BridgeTAError


def index_overview(root: str | Path, version: str) -> Table:
    """Open the index of a root, building it if needed, and tell what it covers and where it lies.

    Raises BridgeTAError as `NuScenesDataset.open` does.
    """
    was_there = is_kept(Path(root).expanduser().resolve(), version)
    start = time.monotonic()
    index = NuScenesDataset(root, version)
    seconds = time.monotonic() - start

    table = Table(title=f"{index.root}, {version}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("scenes", f"{len(index.scenes):,}")
    table.add_row("samples", f"{len(index):,}")
    table.add_row("time", _span(index))
    for name, scenes in _kinds(index).items():
        table.add_row(name, _count(scenes))
    table.add_section()
    for name, covered in _splits(index).items():
        table.add_row(f"split {name}", covered)
    table.add_section()
    for channel, (keyframes, sweeps) in index.file_counts().items():
        table.add_row(channel, f"{keyframes:,} keyframes, {sweeps:,} sweeps")
    table.add_section()
    if index.folder is None:
        table.add_row("index", "is not kept: the cache cannot be written")
    else:
        size = sum(path.stat().st_size for path in index.folder.iterdir())
        table.add_row("index", f"{index.folder}, {size / 1e6:,.1f} MB")
    table.add_row("", f"was there already, opened in {seconds:.2f} s" if was_there else f"built in {seconds:.1f} s")
    return table


def _kinds(index: NuScenesDataset) -> dict[str, list[Scene]]:
    """Scenes by light, weather and city."""
    scenes = index.scenes
    kinds = {
        "day": [scene for scene in scenes if not scene.night],
        "night": [scene for scene in scenes if scene.night],
        "rain": [scene for scene in scenes if scene.rain],
    }
    cities = Counter(scene.location for scene in scenes)
    return kinds | {city: [scene for scene in scenes if scene.location == city] for city, _ in cities.most_common()}


def _count(scenes: list[Scene]) -> str:
    return f"{len(scenes):,} scenes, {_samples(scenes)}" if scenes else "none"


def _samples(scenes: list[Scene]) -> str:
    return f"{sum(len(scene.samples) for scene in scenes):,} samples"


def _splits(index: NuScenesDataset) -> dict[str, str]:
    """How much of each official split is there, of those of which anything is."""
    covered = {}
    try:
        official = official_splits()
    except BridgeTAError as error:  # the rest can be told without the devkit
        return {"": str(error)}
    for name, names in official.items():
        wanted = set(names)
        scenes = [scene for scene in index.scenes if scene.name in wanted]
        if scenes:
            covered[name] = f"{len(scenes):,} of its {len(names):,} scenes, {_samples(scenes)}"
    return covered


def _span(index: NuScenesDataset) -> str:
    first, last = (str(np.datetime64(us, "us").astype("datetime64[m]")).replace("T", " ") for us in index.span_us)
    return f"{first} to {last} UTC"
