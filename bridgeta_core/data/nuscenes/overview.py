"""Show what the index of a nuScenes root holds, as a table."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.table import Table

from bridgeta_core.data.nuscenes.dataset import NuScenesDataset, official_splits
from bridgeta_core.data.nuscenes.index_cache import is_cached
from bridgeta_core.data.sample import Scene
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import find_root


def index_overview(root: str | Path, version: str) -> Table:
    """Open a root, building its index if needed, and show what it covers and where the index is.

    Raises BridgeTAError as `NuScenesDataset.open` does.
    """
    was_there = is_cached(find_root(root), version)
    start = time.monotonic()
    dataset = NuScenesDataset(root, version)
    seconds = time.monotonic() - start

    table = Table(title=f"{dataset.root}, {version}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("scenes", f"{len(dataset.scenes):,}")
    table.add_row("samples", f"{len(dataset):,}")
    table.add_row("time", _format_span(dataset))
    for name, scenes in _group_scenes(dataset).items():
        table.add_row(name, _count_scenes(scenes))
    table.add_section()
    for name, covered in _describe_splits(dataset).items():
        table.add_row(f"split {name}", covered)
    table.add_section()
    for channel, (keyframes, sweeps) in dataset.file_counts().items():
        table.add_row(channel, f"{keyframes:,} keyframes, {sweeps:,} sweeps")
    table.add_section()
    if dataset.folder is None:
        table.add_row("index", "not cached: the cache cannot be written")
    else:
        size = sum(path.stat().st_size for path in dataset.folder.iterdir())
        table.add_row("index", f"{dataset.folder}, {size / 1e6:,.1f} MB")
    table.add_row("", f"was there already, opened in {seconds:.2f} s" if was_there else f"built in {seconds:.1f} s")
    return table


def _group_scenes(dataset: NuScenesDataset) -> dict[str, list[Scene]]:
    """Group scenes by light, weather and city."""
    scenes = dataset.scenes
    kinds = {
        "day": [scene for scene in scenes if not scene.night],
        "night": [scene for scene in scenes if scene.night],
        "rain": [scene for scene in scenes if scene.rain],
    }
    cities = Counter(scene.location for scene in scenes)
    return kinds | {city: [scene for scene in scenes if scene.location == city] for city, _ in cities.most_common()}


def _count_scenes(scenes: list[Scene]) -> str:
    return f"{len(scenes):,} scenes, {_count_samples(scenes)}" if scenes else "none"


def _count_samples(scenes: list[Scene]) -> str:
    return f"{sum(len(scene.samples) for scene in scenes):,} samples"


def _describe_splits(dataset: NuScenesDataset) -> dict[str, str]:
    """Describe how much of each official split is there, where anything is."""
    covered = {}
    try:
        official = official_splits()
    except BridgeTAError as error:  # the rest needs no devkit
        return {"": str(error)}
    for name, names in official.items():
        wanted = set(names)
        scenes = [scene for scene in dataset.scenes if scene.name in wanted]
        if scenes:
            covered[name] = f"{len(scenes):,} of its {len(names):,} scenes, {_count_samples(scenes)}"
    return covered


def _format_span(dataset: NuScenesDataset) -> str:
    first, last = (str(np.datetime64(us, "us").astype("datetime64[m]")).replace("T", " ") for us in dataset.span_us)
    return f"{first} to {last} UTC"
