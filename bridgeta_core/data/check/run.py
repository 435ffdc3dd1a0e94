"""Check a nuScenes root: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.config.experiment import DataConfig
from bridgeta_core.data.check.content import Expected, find_damaged, find_lidar_fault
from bridgeta_core.data.check.files import (
    Channel,
    check_channels,
    check_frame_room,
    check_index_room,
    check_scenes,
    check_splits,
    list_bad_files,
    list_channels,
)
from bridgeta_core.data.check.report import Report, add_damaged, describe_problem
from bridgeta_core.data.check.source import check_source
from bridgeta_core.data.check.tables import check_basemaps, check_expansions, check_tables, find_version, read_cities
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.nuscenes.index_cache import cache_folder
from bridgeta_core.data.nuscenes.versions import read_synthetic_settings
from bridgeta_core.data.sample import LIDAR
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import find_root
from bridgeta_core.utils.misplaced import find_misplaced

_BLOBS = {
    "v1.0-trainval": "Extract all ten v1.0-trainval*_blobs.tgz into this root",
    "v1.0-mini": "Extract v1.0-mini.tgz into this root again",
    "v1.0-test": "Extract v1.0-test_blobs.tgz into this root again",
}


def check(
    root: str | Path,
    version: str | None = None,
    *,
    source: str = "nuscenes",
    deep: bool = False,
    jobs: int | None = None,
) -> Report:
    """Check a nuScenes root: its tables, maps, sensor files and splits, and the cache of its index.

    Another `source` is checked by `check_source`. `deep` decodes every camera image and reads every LIDAR_TOP file in
    `jobs` processes (by default one per core). What is missing or broken is in the report; BridgeTAError (exit code 2)
    is for wrong arguments.
    """
    if jobs is not None and jobs < 1:
        raise BridgeTAError(f"jobs is {jobs}, it must be 1 or more", exit_code=2)
    if source != "nuscenes":
        return check_source(root, version or "", source, deep=deep, jobs=jobs or os.cpu_count() or 1)
    root, report = find_root(root), Report()
    origin = read_synthetic_settings(root)
    chosen = find_version(root, version, report)
    dataset = None
    if chosen is not None:
        dataset = _check_tables_and_maps(root, chosen, report)
    if dataset is not None:
        _check_files(dataset, origin, report, os.cpu_count() or 1 if jobs is None else jobs, deep)
    else:
        report.verdict = describe_problem(report)
    return report


def _check_tables_and_maps(root: Path, version: str, report: Report) -> NuScenesDataset | None:
    """Check tables and maps, and return the dataset when the tables allow to open it."""
    folder = root / version
    whole = check_tables(folder, report)
    check_index_room(folder, report)
    dataset = _open_dataset(root, version, report) if "sample_data" in whole and not report.problems else None
    if "map" in whole:
        check_basemaps(root, folder, report)
    if "log" in whole:
        check_expansions(root, read_cities(folder), report)
    return dataset


def _open_dataset(root: Path, version: str, report: Report) -> NuScenesDataset | None:
    """Open the dataset, which builds its index when that is not cached yet."""
    before, start = _cached_indexes(), time.monotonic()
    try:
        dataset = NuScenesDataset(root, version)
    except BridgeTAError as error:
        report.add_problem("index", f"{_shorten(error.where, root)}: {error.what}", error.fix or "")
        return None
    made = "built now, in" if _cached_indexes() != before else "opened in"
    what = f"{len(dataset):,} keyframes in {len(dataset.scenes):,} scenes; {made} {time.monotonic() - start:.1f} s"
    if len(dataset):
        report.add_ok("index", what)
        return dataset
    report.add_problem("index", what, "Extract the metadata archive of this version again")
    return None


def _shorten(path: object, root: Path) -> str:
    """Name a path below the root without it."""
    return str(path.relative_to(root) if isinstance(path, Path) and path.is_relative_to(root) else path)


def _cached_indexes() -> set[str]:
    """Return the names of the indexes in the cache."""
    folder = cache_folder() / "index"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _check_files(
    dataset: NuScenesDataset, origin: dict[str, Any] | None, report: Report, jobs: int, deep: bool
) -> None:
    channels = list(list_channels(dataset))
    remedy = _find_remedy(dataset, channels, origin)
    check_channels(channels, remedy, report)
    if not any(c.files.size.any() and c.files.is_keyframe.any() for c in channels):
        fix = "Extract the metadata archive of this version again"
        report.add_problem("cameras", "the tables name no camera image of any keyframe", fix)
    whole = check_scenes(dataset, channels, remedy, report)
    if origin:
        report.add_ok("splits", f"synthetic: all of its scenes are of the split {origin.get('split')}")
    check_frame_room(len(dataset), report)
    complete = [] if origin else check_splits(dataset, whole, report)
    report.bad_files = list_bad_files(channels)
    if deep:
        _check_content(dataset.root, channels, remedy, report, jobs)
    else:
        _check_first_lidar(dataset.root, channels, report)
    report.verdict = (
        describe_problem(report) if report.problems else _describe_start(dataset, channels, complete, origin)
    )


def _find_remedy(dataset: NuScenesDataset, channels: Sequence[Channel], origin: dict[str, Any] | None) -> str:
    """Say where missing or broken files come from."""
    lost = next((c.files.paths[i] for c in channels if c.is_used for i in np.flatnonzero(c.wanted & ~c.there)), None)
    if lost is not None and (found := find_misplaced(dataset.root, lost)):
        here, there = (dataset.root / lost).parent, found.parent
        while here.name == there.name and not here.is_relative_to(there.parent):  # the highest folder to move whole
            here, there = here.parent, there.parent
        return f"Move what is in {there} to {here}"
    if origin:
        return "Write this dataset again with bridgeta synth"
    return _BLOBS.get(dataset.version, "Extract the archives with the files of this dataset again")


def _check_content(root: Path, channels: Sequence[Channel], remedy: str, report: Report, jobs: int) -> None:
    files = [
        Expected(c.files.paths[i], *c.files.size[i].tolist())
        for c in channels
        if c.is_used
        for i in np.flatnonzero(c.there)
    ]
    faults = find_damaged(root, files, jobs)
    add_damaged(report, faults, remedy)
    if not faults:
        report.add_ok("content", f"{len(files):,} files are whole")


def _check_first_lidar(root: Path, channels: Sequence[Channel], report: Report) -> None:
    """Read one LiDAR file: points of another kind than nuScenes' are so in all files."""
    first = next((c.files.paths[np.flatnonzero(c.there)[0]] for c in channels if _is_read(c)), None)
    if first is not None and (fault := find_lidar_fault(root, first)):
        add_damaged(report, [fault], "")


def _is_read(channel: Channel) -> bool:
    return channel.files.channel == LIDAR and bool(channel.there.any())


def _describe_start(
    dataset: NuScenesDataset, channels: Sequence[Channel], complete: Sequence[str], origin: dict[str, Any] | None
) -> str:
    """Give the command that trains on a root without problems."""
    names = {channel.files.channel for channel in channels}
    cameras = sorted(channel.files.channel for channel in channels if channel.files.size.any())
    if dataset.version == "v1.0-test":
        return "There is nothing to train on in v1.0-test; bridgeta eval, view and bag can use it."
    full = {"train", "val"} <= set(complete)
    arguments = ["teacher" if LIDAR in names else "student", "nuscenes_swin_t" if full else "tiny"]
    arguments += [f"data.train_root={dataset.root}", f"data.val_root={dataset.root}"]
    defaults = DataConfig()
    if dataset.version != defaults.version:
        arguments.append(f"data.version={dataset.version}")
    if set(defaults.cameras) - set(cameras):
        arguments.append(f"data.cameras=[{','.join(cameras)}]")
    if {"mini_train", "mini_val"} <= set(complete):
        arguments += ["data.train_scenes=mini_train", "data.val_scenes=mini_val"]
    command = f"bridgeta train {' '.join(arguments)}"
    if origin and origin.get("split") == "train":
        return f"Training can start: {command} (validate on a root of bridgeta synth --split val instead)."
    if origin:
        return f"This is a synthetic root of the split {origin.get('split')}: train on another one, and validate here."
    if not complete:
        return f"Training can start, on a part of nuScenes: {command}"
    return f"Training can start: {command}"
