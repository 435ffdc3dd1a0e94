"""Join the tables of a nuScenes version into the columns of the index, without the devkit.

Rows of `record_*` are files (sample_data), sorted by scene, time and channel. Rows of `sample_*` are samples in the
order of the scene table, then of time. Rows of `scene_*` and `calibration_*` are as in their tables. Strings are UTF-8
bytes of fixed width, poses are translation (metres) and quaternion (w, x, y, z), stamps are in microseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from bridgeta_core.data.nuscenes.json_table import (
    AGAIN,
    FLAG,
    INTEGER,
    INTRINSICS,
    ROTATION,
    STRING,
    Columns,
    Kind,
    read_table,
    within,
)
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.names import leads_outside

_POSE: dict[str, Kind] = {"token": STRING, "translation": within(1e8, "metres in a map"), "rotation": ROTATION}
_MOUNT: dict[str, Kind] = _POSE | {"translation": within(100, "metres on a vehicle")}
_FIELDS: dict[str, dict[str, Kind]] = {
    "sensor": {"token": STRING, "channel": STRING},
    "calibrated_sensor": _MOUNT | {"sensor_token": STRING, "camera_intrinsic": INTRINSICS},
    "log": {"token": STRING, "location": STRING},
    "scene": {"token": STRING, "log_token": STRING, "name": STRING, "description": STRING},
    "sample": {"token": STRING, "scene_token": STRING, "timestamp": INTEGER},
    "sample_data": {
        "token": STRING,
        "sample_token": STRING,
        "ego_pose_token": STRING,
        "calibrated_sensor_token": STRING,
        "timestamp": INTEGER,
        "is_key_frame": FLAG,
        "width": INTEGER,
        "height": INTEGER,
        "filename": STRING,
    },
    "ego_pose": _POSE,
}
COLUMNS = (
    "channels",
    "scene_name",
    "scene_description",
    "scene_location",
    "scene_samples",
    "scene_records",
    "sample_token",
    "sample_scene",
    "sample_stamp",
    "sample_records",
    "record_token",
    "record_path",
    "record_stamp",
    "record_channel",
    "record_calibration",
    "record_keyframe",
    "record_size",
    "record_ego",
    "calibration_sensor",
    "calibration_intrinsics",
)
"""The names of the columns."""


def join_tables(root: Path, version: str) -> Columns:
    """Read and join the tables of a root, with a progress bar on stderr.

    Raises BridgeTAError that names the table for what is missing or wrong in it, as `read_table` does, for a token that
    no record has, and for images without intrinsics or size.
    """
    paths = {name: root / version / f"{name}.json" for name in _FIELDS}
    columns = (TextColumn("Indexing {task.fields[table]}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(path.stat().st_size for path in paths.values()), table="")
        return _Join(root, paths, bar, task).columns()


class _Join:
    """One pass over the tables of a root. Large tables are dropped as soon as they are joined."""

    def __init__(self, root: Path, paths: dict[str, Path], bar: Progress, task: Any) -> None:
        self._root, self._paths, self._bar, self._task = root, paths, bar, task
        self._done = 0

    def columns(self) -> Columns:
        sensor, log, scene, sample = (self._read(name) for name in ("sensor", "log", "scene", "sample"))
        calibration = self._read("calibrated_sensor")

        sample_scene = self._rows("sample", sample, "scene_token", "scene", scene["token"])
        order = np.lexsort((sample["timestamp"], sample_scene))
        sample = {name: column[order] for name, column in sample.items()}
        sample_scene = sample_scene[order].astype(np.int32)
        channels, sensor_channel = np.unique(sensor["channel"], return_inverse=True)
        calibration_sensor = self._rows("calibrated_sensor", calibration, "sensor_token", "sensor", sensor["token"])
        calibration_channel = sensor_channel[calibration_sensor].astype(np.int16)

        record = self._records(sample["token"], sample_scene, calibration["token"], calibration_channel)
        self._check_images(record, calibration)
        record_sample = record.pop("sample")
        keyframe = record["keyframe"]
        sample_records = np.full((len(sample_scene), len(channels)), -1, dtype=np.int64)
        sample_records[record_sample[keyframe], record["channel"][keyframe]] = np.flatnonzero(keyframe)

        scenes = np.arange(len(scene["token"]))
        logs = self._rows("scene", scene, "log_token", "log", log["token"])
        return {
            "channels": channels,
            "scene_name": scene["name"],
            "scene_description": scene["description"],
            "scene_location": log["location"][logs],
            "scene_samples": _bounds(sample_scene, scenes),
            "scene_records": _bounds(sample_scene[record_sample], scenes),
            "sample_token": sample["token"],
            "sample_scene": sample_scene,
            "sample_stamp": sample["timestamp"],
            "sample_records": sample_records,
            **{f"record_{name}": column for name, column in record.items()},
            "calibration_sensor": np.hstack([calibration["translation"], calibration["rotation"]]),
            "calibration_intrinsics": calibration["camera_intrinsic"],
        }

    def _records(
        self,
        sample_token: NDArray[np.bytes_],
        sample_scene: NDArray[np.int32],
        calibration_token: NDArray[np.bytes_],
        calibration_channel: NDArray[np.int16],
    ) -> Columns:
        """Join the columns `record_*`, without that prefix, and for each record the row of its `sample`."""
        data = self._read("sample_data")
        names = data["filename"]
        suspects = np.flatnonzero(
            (names < b"0") | (np.char.find(names, b"..") >= 0) | (np.char.find(names, b"\0") >= 0)
        )
        for token, path in zip(data["token"][suspects], names[suspects], strict=True):
            if leads_outside(path.decode()):
                what = f"filename of the record {token.decode()} leads out of the root: {path.decode()[:200]!r}"
                raise BridgeTAError(what, where=self._paths["sample_data"], fix=AGAIN)
        sample = self._rows("sample_data", data, "sample_token", "sample", sample_token)
        calibration = self._rows("sample_data", data, "calibrated_sensor_token", "calibrated_sensor", calibration_token)
        order = np.lexsort((calibration_channel[calibration], data["timestamp"], sample_scene[sample]))
        calibration = calibration[order]
        record = {
            "sample": sample[order],
            "calibration": calibration.astype(np.int32),
            "channel": calibration_channel[calibration],
            "size": np.stack([data.pop("width"), data.pop("height")], axis=1).astype(np.int32)[order],
        }
        copied = {"token": "token", "path": "filename", "stamp": "timestamp", "keyframe": "is_key_frame"}
        record |= {name: data.pop(field)[order] for name, field in copied.items()}
        pose = self._read("ego_pose")
        rows = self._rows("sample_data", data, "ego_pose_token", "ego_pose", pose["token"])[order]
        return record | {"ego": np.hstack([pose["translation"][rows], pose["rotation"][rows]])}

    def _read(self, name: str) -> Columns:
        done, path = self._done, self._paths[name]
        self._done += path.stat().st_size
        self._bar.update(self._task, table=name)
        return read_table(path, _FIELDS[name], lambda read: self._bar.update(self._task, completed=done + read))

    def _rows(
        self, table: str, columns: Columns, field: str, other: str, tokens: NDArray[np.bytes_]
    ) -> NDArray[np.int64]:
        """Find, for every record of `table`, the row of `other`, with these `tokens`, that its `field` names.

        The column is dropped. Of several records with one token the last counts, as in the devkit.
        """
        wanted = columns.pop(field)
        order, back = np.argsort(tokens, kind="stable"), np.argsort(wanted, kind="stable")
        # Sorted, both are traversed in step; in the order of the table every search would miss the processor's caches.
        place = np.searchsorted(tokens[order], wanted[back], side="right") - 1
        rows = np.empty(len(wanted), dtype=np.int64)
        rows[back] = order[place]
        wrong = np.flatnonzero(tokens[rows] != wanted)  # a place of -1, before all, is that of the last token
        if len(wrong):
            token = wanted[wrong[0]].decode()
            what = f"the tables do not belong together: nothing in {other}.json has the token {token!r}"
            what = f"{what} ({field} of record {wrong[0]:,})"
            raise BridgeTAError(what, where=self._paths[table], fix=AGAIN)
        return rows

    def _check_images(self, record: Columns, calibration: Columns) -> None:
        """Check that records with intrinsics have a size in pixels, and those with a size intrinsics."""
        has_size = (record["size"] > 0).all(axis=1)
        has_matrix = ~np.isnan(calibration["camera_intrinsic"][record["calibration"], 0, 0])
        wrong = np.flatnonzero(has_size != has_matrix)
        if not len(wrong):
            return
        row = int(wrong[0])
        if has_size[row]:
            token = calibration["token"][record["calibration"][row]].decode()
            table, what = "calibrated_sensor", f"camera_intrinsic of the record {token} is empty, but it has images"
        else:
            width, height = record["size"][row].tolist()
            what = f"width and height of the record {record['token'][row].decode()}, an image, are {width} and {height}"
            table = "sample_data"
        raise BridgeTAError(what, where=self._paths[table], fix=AGAIN)


def _bounds(owner: NDArray[np.integer], numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the first and past-the-last position of each number in the sorted `owner`, `[len(numbers), 2]`."""
    return np.stack([np.searchsorted(owner, numbers, side) for side in ("left", "right")], axis=1).astype(np.int64)
