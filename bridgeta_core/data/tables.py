"""The columns behind `SampleIndex`: what we need of the nuScenes tables as plain arrays, and their file in the cache.

Text columns are two arrays, the UTF-8 bytes of all strings (`NAME_text`) and where each one ends (`NAME_ends`), so that
nothing needs pickling and any array can be memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.errors import BridgeTAError
from bridgeta_core.files import replace_when_done

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

logger = logging.getLogger(__name__)

Columns = dict[str, NDArray[Any]]

TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)
_LAYOUT = 1  # of the columns; files of another layout are rebuilt


def load_columns(root: Path, version: str) -> Columns:
    """The columns of `root`, from the cache, or through the devkit when the root is new or its tables changed."""
    cache = cache_folder() / "index" / f"{_fingerprint(root, version)}.npz"
    columns = _load_cache(cache)
    if columns is None:
        columns = _columns_from(_load_devkit(root, version), root)
        try:
            with replace_when_done(cache) as temporary, open(temporary, "wb") as file:
                np.savez(file, **columns)
        except BridgeTAError as error:
            logger.warning("the index is not kept, so the next start is as slow as this one: %s", error)
    return columns


def cache_folder() -> Path:
    """Where derived files are kept: BRIDGETA_CACHE, else XDG_CACHE_HOME/bridgeta, else ~/.cache/bridgeta."""
    chosen = os.environ.get("BRIDGETA_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bridgeta"


def text_at(columns: Columns, name: str, i: int) -> str:
    """String `i` of a text column."""
    ends = columns[f"{name}_ends"]
    return columns[f"{name}_text"][int(ends[i - 1]) if i else 0 : int(ends[i])].tobytes().decode()


def text_column(columns: Columns, name: str) -> list[str]:
    """All strings of a text column."""
    return [text_at(columns, name, i) for i in range(len(columns[f"{name}_ends"]))]


def no_devkit(error: ImportError) -> BridgeTAError:
    """What to tell a user who installed the project without its training half."""
    return BridgeTAError(
        f"reading nuScenes needs the devkit ({error})", fix="Install it with: pip install 'bridgeta_ros[train]'"
    )


def _fingerprint(root: Path, version: str) -> str:
    """A name for the cache that changes with the root, the version, and the size or time of any table."""
    folder = root / version
    if not folder.is_dir():
        if not root.is_dir():
            fix = "Give the nuScenes root, which holds samples/ and maps/"
            raise BridgeTAError("is not a folder", where=root, fix=fix, exit_code=2)
        there = sorted(p.name for p in root.iterdir() if (p / "sample_data.json").exists())
        fix = f"Use version {' or '.join(there)}" if there else "Extract the nuScenes metadata (v1.0-*) into this root"
        raise BridgeTAError(f"has no tables of version {version}", where=root, fix=fix)
    missing = [f"{name}.json" for name in TABLES if not (folder / f"{name}.json").is_file()]
    if missing:
        raise BridgeTAError(
            f"lacks {', '.join(missing)}", where=folder, fix="Extract the metadata archive of this version again"
        )
    stats = [(name, (folder / f"{name}.json").stat()) for name in TABLES]
    content = [_LAYOUT, str(root), version, [(name, s.st_size, s.st_mtime_ns) for name, s in stats]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def _load_cache(path: Path) -> Columns | None:
    """The columns of a cache file, or None when it is absent, broken or of another layout."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        logger.warning("%s: the cached index is broken and is rebuilt (%s)", path, error)
        return None
    return columns if columns.get("layout") == _LAYOUT else None


def _load_devkit(root: Path, version: str) -> NuScenes:
    try:
        from nuscenes.nuscenes import NuScenes
    except ImportError as error:
        raise no_devkit(error) from error
    again = "Extract the metadata archive of this version again"
    try:
        return NuScenes(version=version, dataroot=str(root), verbose=False)
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=error.filename or root, fix=again) from error
    except ValueError as error:  # JSON and text decoding; the devkit does not say of which table
        for name in TABLES:
            table = root / version / f"{name}.json"
            try:
                json.loads(table.read_text(encoding="utf-8"))
            except ValueError as cause:
                raise BridgeTAError(f"is not JSON, perhaps truncated ({cause})", where=table, fix=again) from error
        raise
    except KeyError as error:
        message = f"the tables do not belong together: nothing has the token {error}"
        raise BridgeTAError(message, where=root / version, fix=again) from error
    except (AssertionError, IndexError) as error:  # a basemap image that is absent, an empty table of maps
        fix = "Extract the metadata archive again, with its basemap images in maps/"
        raise BridgeTAError(f"the nuScenes devkit rejects it ({error})", where=root, fix=fix) from error


def _text(name: str, strings: Iterable[str]) -> Columns:
    """A column of strings: their UTF-8 bytes in one array, and where each one ends in it."""
    encoded = [s.encode() for s in strings]
    ends = np.cumsum([0, *(len(e) for e in encoded)], dtype=np.int64)[1:]
    return {f"{name}_text": np.frombuffer(b"".join(encoded), dtype=np.uint8), f"{name}_ends": ends}


def _columns_from(nusc: NuScenes, root: Path) -> Columns:
    """All columns, with records sorted by (scene, time) and samples by (order of the scene table, time)."""
    try:
        return _build_columns(nusc)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BridgeTAError(
            f"the tables are not those of nuScenes v1.0 ({type(error).__name__}: {error})",
            where=root / nusc.version,
            fix="Extract the metadata archive of this version again",
        ) from error


def _build_columns(nusc: NuScenes) -> Columns:
    scene_row = {scene["token"]: i for i, scene in enumerate(nusc.scene)}
    samples = sorted(nusc.sample, key=lambda s: (scene_row[s["scene_token"]], s["timestamp"]))
    sample_row = {s["token"]: i for i, s in enumerate(samples)}
    sample_scene = np.array([scene_row[s["scene_token"]] for s in samples], dtype=np.int32)

    channels = sorted({record["channel"] for record in nusc.sensor})
    channel_row = {name: i for i, name in enumerate(channels)}
    calibration_row = {record["token"]: i for i, record in enumerate(nusc.calibrated_sensor)}
    intrinsics = np.full((len(nusc.calibrated_sensor), 3, 3), np.nan)
    for i, record in enumerate(nusc.calibrated_sensor):
        if record["camera_intrinsic"]:
            intrinsics[i] = record["camera_intrinsic"]
    poses = {record["token"]: record["translation"] + record["rotation"] for record in nusc.ego_pose}

    files = sorted(
        nusc.sample_data,
        key=lambda d: (sample_scene[sample_row[d["sample_token"]]], d["timestamp"], d["channel"]),
    )
    file_sample = np.array([sample_row[d["sample_token"]] for d in files], dtype=np.int64)
    file_channel = np.array([channel_row[d["channel"]] for d in files], dtype=np.int16)
    keyframe = np.array([d["is_key_frame"] for d in files], dtype=bool)
    sample_records = np.full((len(samples), len(channels)), -1, dtype=np.int64)
    sample_records[file_sample[keyframe], file_channel[keyframe]] = np.flatnonzero(keyframe)

    scenes = np.arange(len(nusc.scene))
    file_scene = sample_scene[file_sample]
    sensor = [record["translation"] + record["rotation"] for record in nusc.calibrated_sensor]
    return {
        "layout": np.array(_LAYOUT),
        **_text("channels", channels),
        **_text("scene_name", (s["name"] for s in nusc.scene)),
        **_text("scene_description", (s["description"] for s in nusc.scene)),
        **_text("scene_location", (nusc.get("log", s["log_token"])["location"] for s in nusc.scene)),
        **_text("sample_token", (s["token"] for s in samples)),
        **_text("record_token", (d["token"] for d in files)),
        **_text("record_path", (d["filename"] for d in files)),
        "scene_samples": _bounds(sample_scene, scenes),
        "scene_records": _bounds(file_scene, scenes),
        "sample_scene": sample_scene,
        "sample_stamp": np.array([s["timestamp"] for s in samples], dtype=np.int64),
        "sample_records": sample_records,
        "record_stamp": np.array([d["timestamp"] for d in files], dtype=np.int64),
        "record_channel": file_channel,
        "record_calibration": np.array([calibration_row[d["calibrated_sensor_token"]] for d in files], dtype=np.int32),
        "record_keyframe": keyframe,
        "record_size": np.array([(d["width"], d["height"]) for d in files], dtype=np.int32).reshape(-1, 2),
        "record_ego": np.array([poses[d["ego_pose_token"]] for d in files], dtype=np.float64).reshape(-1, 7),
        "calibration_sensor": np.array(sensor, dtype=np.float64).reshape(-1, 7),
        "calibration_intrinsics": intrinsics,
    }


def _bounds(owner: NDArray[np.integer], numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """First and past-the-last position of each number in the sorted `owner`, `[len(numbers), 2]`."""
    return np.stack([np.searchsorted(owner, numbers, side) for side in ("left", "right")], axis=1).astype(np.int64)
