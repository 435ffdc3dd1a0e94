"""Whether there is room for what is derived from a root: the index, and decoded frames."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bridgeta_core.config.experiment import Experiment, load
from bridgeta_core.data.check.findings import Report
from bridgeta_core.data.nuscenes.index_cache import cache_folder

_INDEX_SHARE = 0.5  # bytes of an index per byte of sample_data.json, rounded up


def check_index_room(folder: Path, report: Report) -> None:
    """Whether the index of a table folder can be kept: its place must be writable, and have room.

    That it cannot is a note, since everything works all the same, if slowly.
    """
    cache, there = cache_folder(), _nearest(cache_folder())
    table = folder / "sample_data.json"
    need = table.stat().st_size * _INDEX_SHARE if table.is_file() else 0
    fix = "Set BRIDGETA_CACHE to a folder that can be written and has room"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        report.note("cache", f"{cache} cannot be written: the tables are read anew at every start", fix)
        return
    free = shutil.disk_usage(there).free
    what = f"{cache}: {_gigabytes(free)} free, the index takes at most {_gigabytes(need)}"
    if free < need:
        report.note("cache", f"{what}: the tables are read anew at every start", fix)
    else:
        report.ok("cache", what)


def check_frame_room(keyframes: int, report: Report) -> None:
    """What `data.cache` takes for the images and labels of all keyframes, if it is wanted: told, never a problem."""
    sizes = {name: keyframes * _frame_bytes(load(Experiment, name)) for name in ("tiny", "nuscenes_swin_t")}
    told = " and ".join(f"{_gigabytes(size)} for {name}" for name, size in sizes.items())
    free = shutil.disk_usage(_nearest(cache_folder())).free
    what = f"data.cache, if you use it, takes {told}"
    if free < min(sizes.values()):
        report.note("frame cache", f"{what}; {_gigabytes(free)} are free", "Put it on another disk")
    else:
        report.ok("frame cache", what)


def _frame_bytes(experiment: Experiment) -> int:
    """Bytes of a kept frame: uint8 RGB images, and one bit per class and label cell."""
    image, (rows, columns) = experiment.model.image, experiment.grid.shape
    return len(experiment.data.cameras) * image.height * image.width * 3 + 6 * rows * columns // 8


def _nearest(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if os.path.exists(p))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
