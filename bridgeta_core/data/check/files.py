"""Check the files of a root: sensor files, the scenes and splits that lack some, and room for what is derived."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bridgeta_core.config.experiment import Experiment, load
from bridgeta_core.data.check.report import Report
from bridgeta_core.data.check.tables import OFFICIAL
from bridgeta_core.data.nuscenes.dataset import ChannelFiles, NuScenesDataset, official_splits
from bridgeta_core.data.nuscenes.index_cache import cache_folder
from bridgeta_core.data.sample import LIDAR
from bridgeta_core.utils.arrays import Flags
from bridgeta_core.utils.errors import BridgeTAError, join_first

_ABSENT, _EMPTY, _THERE = range(3)

_SPLITS: Mapping[str, tuple[str, ...]] = dict(
    zip(OFFICIAL, (("train", "val"), ("mini_train", "mini_val"), ("test",)), strict=True)
)


@dataclass(frozen=True, eq=False)
class Channel:
    """The files of a channel as they are on disk: `there` and `empty` are flags per file."""

    files: ChannelFiles
    there: Flags
    empty: Flags

    @cached_property
    def is_used(self) -> bool:
        """Whether anything reads this channel: cameras and the LiDAR are read, radars are not."""
        return bool(self.files.size.any()) or self.files.channel == LIDAR

    @cached_property
    def has_no_sweeps(self) -> bool:
        """Whether the tables name sweeps but the root was extracted without their folder."""
        sweeps = ~self.files.is_keyframe
        if not sweeps.any() or self.there[sweeps].any():
            return False
        folders = {self.files.paths[i].rpartition("/")[0] for i in np.flatnonzero(sweeps)}
        return not any((self.files.root / folder).is_dir() for folder in folders)

    @cached_property
    def wanted(self) -> Flags:
        """The files that should be there: all of a channel that is used, but no sweeps where none were extracted."""
        if not self.is_used:
            return np.zeros(len(self.there), dtype=bool)
        return self.files.is_keyframe if self.has_no_sweeps else np.ones(len(self.there), dtype=bool)


def list_channels(dataset: NuScenesDataset) -> Iterator[Channel]:
    """List all channels of a dataset that have files. Each folder is listed once.

    Sizes are read only where training reads: of keyframes and of the LiDAR's sweeps. For the millions of other files
    that would take far longer than everything else.
    """
    for files in dataset.files():
        listings: dict[str, dict[str, int]] = {}
        states = np.zeros(len(files.paths), dtype=np.int8)
        is_camera = bool(files.size.any())
        for i, (path, is_keyframe) in enumerate(zip(files.paths, files.is_keyframe.tolist(), strict=True)):
            folder, _, name = path.rpartition("/")
            if folder not in listings:
                sized = files.channel == LIDAR or (is_camera and is_keyframe)
                listings[folder] = _list_folder(dataset.root / folder, sized)
            states[i] = listings[folder].get(name, _ABSENT)
        if files.paths:
            yield Channel(files, states == _THERE, states == _EMPTY)


def _list_folder(folder: Path, sized: bool) -> dict[str, int]:
    """Return the state of every file in a folder by name; nothing when there is no such folder."""
    listing = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    listing[entry.name] = _EMPTY if sized and not entry.stat().st_size else _THERE
                except FileNotFoundError:
                    continue  # a link to nothing
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        fix = "Check the permissions of this folder and the state of its disk"
        raise BridgeTAError(f"cannot be listed ({error.strerror})", where=folder, fix=fix) from error
    return listing


def check_channels(channels: Sequence[Channel], remedy: str, report: Report) -> None:
    """Add an item per channel, and one for empty files. `remedy` says where missing files come from."""
    for channel in channels:
        _check_channel(channel, remedy, report)
    empty = [c.files.paths[i] for c in channels if c.is_used for i in np.flatnonzero(c.empty)]
    if empty:
        report.add_problem("empty files", f"{len(empty):,} without content: {join_first(sorted(empty), 3)}", remedy)


def _check_channel(channel: Channel, remedy: str, report: Report) -> None:
    name, keyframe = channel.files.channel, channel.files.is_keyframe
    here = channel.there | channel.empty
    what = f"{here[keyframe].sum():,} of {keyframe.sum():,} keyframes"
    if not keyframe.all():
        what += f", {here[~keyframe].sum():,} of {(~keyframe).sum():,} sweeps"
    if here.all():
        report.add_ok(name, what)
    elif not channel.is_used:
        report.add_note(name, f"{what}; nothing reads them")
    elif not here[channel.wanted].all():
        report.add_problem(name, what, remedy)
    elif name == LIDAR:
        report.add_note(
            name, f"{what}: the teacher gets keyframes only", "Extract the sweeps if it is to see more points"
        )
    else:
        report.add_note(name, f"{what}: training needs none", "Write bags with bridgeta bag --keyframes-only")


def check_scenes(dataset: NuScenesDataset, channels: Sequence[Channel], remedy: str, report: Report) -> set[str]:
    """Return the names of the scenes that have all their files, and report those that lack some."""
    named, lacking = np.zeros((2, len(dataset.scenes)), dtype=np.int64)
    for channel in channels:
        scene, wanted = channel.files.scene, channel.wanted
        named += np.bincount(scene[wanted], minlength=len(named))
        lacking += np.bincount(scene[wanted & ~channel.there], minlength=len(named))
    names = [scene.name for scene in dataset.scenes]
    total = len(names)
    for word, numbers in (
        ("all", np.flatnonzero((lacking == named) & (named > 0))),
        ("some", np.flatnonzero((lacking > 0) & (lacking < named))),
    ):
        if len(numbers):
            hit = join_first([names[i] for i in numbers])
            report.add_problem(
                "scenes", f"{len(numbers):,} of {total:,} scenes lack {word} of their files: {hit}", remedy
            )
    if not lacking.any():
        report.add_ok("scenes", f"{total:,} scenes, {len(dataset):,} keyframes: all files are there")
    return {names[i] for i in np.flatnonzero((lacking == 0) & (named > 0))}


def check_splits(dataset: NuScenesDataset, whole: set[str], report: Report) -> list[str]:
    """Return the official splits whose scenes are all in `whole`, the names of the scenes with all their files."""
    official = official_splits()
    named = {scene.name for scene in dataset.scenes}
    complete = []
    for split in _SPLITS.get(dataset.version, ("train", "val", "test", "mini_train", "mini_val")):
        scenes = set(official[split])
        if not scenes & named:
            continue
        what = f"{len(scenes & named):,} of {len(scenes):,} scenes are in the tables"
        if scenes <= whole:
            report.add_ok(f"split {split}", f"complete: {len(scenes):,} scenes")
            complete.append(split)
        elif scenes <= named:  # the scenes that lack files are reported already
            report.add_note(f"split {split}", f"{len(scenes & whole):,} of {len(scenes):,} scenes have all their files")
        else:
            report.add_note(f"split {split}", what, "Its results cannot be compared with published ones")
    return complete


def list_bad_files(channels: Sequence[Channel]) -> list[str]:
    """List the files to extract again, missing or empty, sorted."""
    return sorted(c.files.paths[i] for c in channels for i in np.flatnonzero(c.wanted & ~c.there))


_INDEX_SHARE = 0.5  # bytes of an index per byte of sample_data.json, rounded up


def check_index_room(folder: Path, report: Report) -> None:
    """Check that the index of a table folder can be cached: its place must be writable and have room.

    Otherwise add a note only, since everything still works, if slowly.
    """
    cache, there = cache_folder(), _nearest_existing(cache_folder())
    table = folder / "sample_data.json"
    need = table.stat().st_size * _INDEX_SHARE if table.is_file() else 0
    fix = "Set BRIDGETA_CACHE to a folder that can be written and has room"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        report.add_note("cache", f"{cache} cannot be written: the tables are read again at every start", fix)
        return
    free = shutil.disk_usage(there).free
    what = f"{cache}: {_format_size(free)} free, the index takes at most {_format_size(need)}"
    if free < need:
        report.add_note("cache", f"{what}: the tables are read again at every start", fix)
    else:
        report.add_ok("cache", what)


def check_frame_room(keyframes: int, report: Report) -> None:
    """Report how much `data.cache` takes for the images and labels of all keyframes; this is never a problem."""
    sizes = {name: keyframes * _frame_bytes(load(Experiment, name)) for name in ("tiny", "nuscenes_swin_t")}
    sizes_by_name = " and ".join(f"{_format_size(size)} for {name}" for name, size in sizes.items())
    free = shutil.disk_usage(_nearest_existing(cache_folder())).free
    what = f"data.cache, if you use it, takes {sizes_by_name}"
    if free < min(sizes.values()):
        report.add_note("frame cache", f"{what}; {_format_size(free)} are free", "Put it on another disk")
    else:
        report.add_ok("frame cache", what)


def _frame_bytes(experiment: Experiment) -> int:
    """Return the bytes of a cached frame: uint8 RGB images, and one bit per class and label cell."""
    image, (rows, columns) = experiment.model.image, experiment.grid.shape
    return len(experiment.data.cameras) * image.height * image.width * 3 + 6 * rows * columns // 8


def _nearest_existing(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if os.path.exists(p))


def _format_size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
