"""Read and merge LiDAR sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.data.lidar_layout import FIELDS, check_points
from bridgeta_core.data.sample import SensorRecord
from bridgeta_core.geometry.transforms import Matrix, invert
from bridgeta_core.utils.errors import BridgeTAError

_CONVERT = (
    "Download and extract it again if it is nuScenes' own; otherwise write points of float32 x, y, z in metres in the "
    "frame of the LiDAR, intensity 0 to 255 and ring number (0 where there is none)"
)
_AGAIN = "Download and extract the nuScenes file blobs that hold it into the same root"


def read_lidar(path: str | Path) -> NDArray[np.float32]:
    """Read the points `[n, 5]` (x, y, z, intensity, ring) of a .pcd.bin file, in the frame of the LiDAR, metres.

    Raises BridgeTAError when the file is missing or empty, and when its content is no points of this kind, such as
    points of four columns, of float64 or in millimetres, which a network would be trained on in silence.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BridgeTAError(f"LiDAR file cannot be read ({error.strerror})", where=path, fix=_AGAIN) from error
    if fault := check_points(data):
        raise BridgeTAError(f"LiDAR file {fault}".replace(" :", ":"), where=path, fix=_CONVERT)
    return np.frombuffer(data, dtype="<f4").reshape(-1, FIELDS).astype(np.float32)


def merge_sweeps(
    records: Sequence[SensorRecord],
    sweeps: Sequence[NDArray[np.float32]],
    ego_radius: float,
    mount: Sequence[float] | None = None,
    keep_close: bool = False,
) -> NDArray[np.float32]:
    """Merge the points of a keyframe, `records[0]`, and of earlier sweeps: `[n, 5]` (x, y, z, intensity, time lag).

    `sweeps` are `[n_i, 5]` as `read_lidar` returns them. Positions are in metres in the ego frame at the keyframe, with
    the vehicle's motion undone; the lag is in seconds before the keyframe. Points closer to the LiDAR than `ego_radius`
    metres in both x and y, a square as in the devkit's `remove_close`, hit the vehicle and are dropped; with
    `keep_close` not from the keyframe. `mount` is x, y and z where the keyframe's LiDAR is taken to be, level and with
    its x axis to the right: then calibration decides about the earlier sweeps alone.
    """
    keyframe = records[0]
    ego_T_global = invert(keyframe.global_T_ego)
    if mount is not None:
        ego_T_lidar = np.array([[0, 1, 0, mount[0]], [-1, 0, 0, mount[1]], [0, 0, 1, mount[2]], [0, 0, 0, 1]])
        ego_T_global = ego_T_lidar @ invert(keyframe.ego_T_sensor) @ ego_T_global
    merged = []
    for i, (record, points) in enumerate(zip(records, sweeps, strict=True)):
        if i > 0 or not keep_close:
            far = (np.abs(points[:, 0]) >= ego_radius) | (np.abs(points[:, 1]) >= ego_radius)
            points = points.compress(far, axis=0)
        moved = move(ego_T_global @ record.global_T_ego @ record.ego_T_sensor, points)
        moved[:, 4] = (keyframe.stamp_us - record.stamp_us) * 1e-6
        merged.append(moved)
    return np.concatenate(merged)


def move(target_T_source: Matrix, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transform the x, y, z of finite points `[n, 3 + k]` and copy the rest. The 4x4 matrix may mirror."""
    # One product of whole rows is several times as fast as one of three columns of five.
    columns = points.shape[1]
    matrix, shift = np.eye(columns, dtype=np.float32), np.zeros(columns, dtype=np.float32)
    matrix[:3, :3], shift[:3] = target_T_source[:3, :3].T, target_T_source[:3, 3]
    result: NDArray[np.float32] = points @ matrix
    result += shift
    return result
