"""Keys of cached arrays: hashes of everything that decoded frames and a teacher's taps depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridgeta_core.config.experiment import LidarConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.sample import SensorRecord
from bridgeta_core.utils.files import describe_file, hash_json

_LAYOUT = 3  # of the arrays and the meaning of their values; raise it when decoding changes


def hash_frames(frames: FrameDataset, positions: Sequence[int]) -> str:
    """Hash what images, calibrations and labels at some positions depend on: settings, poses, and name, size and time
    of each file.
    """
    samples, root = [frames.sample(i) for i in positions], _find_root(frames, positions)
    cities = dict.fromkeys(sample.location for sample in samples)
    is_labelled = any(known for city in cities for known in frames.maps[city].known)
    return hash_json(
        [
            _LAYOUT,
            "frames",
            [sample.token for sample in samples],
            list(frames.cameras),
            dataclasses.asdict(frames.image),
            dataclasses.asdict(frames.grid),
            [sample.global_T_ego.tolist() for sample in samples],
            [_describe_record(sample.record(name), root) for sample in samples for name in frames.cameras],
            [describe_file(path, root) for city in cities for path in frames.dataset.map_files(city)],
            frames.label_config.key(),
            *([frames.border] if frames.border else []),
            *([] if is_labelled else ["unlabelled"]),
        ]
    )


def hash_points(frames: FrameDataset, positions: Sequence[int], lidar: LidarConfig) -> str:
    """Hash what LiDAR points at some positions depend on: the settings that choose them, and all sweeps."""
    root, records = _find_root(frames, positions), []
    for i in positions:
        records += frames.dataset.lidar_sweeps(frames.positions[i], lidar.sweeps)
    chosen: dict[str, Any] = {"sweeps": lidar.sweeps, "ego_radius": lidar.ego_radius}  # the others are the network's
    chosen |= {} if lidar.mount is None else {"mount": lidar.mount}
    chosen |= {} if lidar.close == "all" else {"close": lidar.close}
    return hash_json([_LAYOUT, "points", chosen, [_describe_record(record, root) for record in records]])


def hash_taps(frames: str, points: str, teacher: str) -> str:
    """Hash what a teacher's taps depend on: the keys of its inputs, and the hash of its weights file."""
    return hash_json([_LAYOUT, "taps", frames, points, teacher])


def _find_root(frames: FrameDataset, positions: Sequence[int]) -> Path:
    """Find the root of some positions of one scene, which is the same in whatever list of roots."""
    return frames.dataset.find_origin(frames.positions[positions[0]])[0].root


def _describe_record(record: SensorRecord, root: Path) -> Any:
    intrinsics = None if record.intrinsics is None else record.intrinsics.tolist()
    pose = [record.ego_T_sensor.tolist(), record.global_T_ego.tolist(), record.stamp_us]
    return [*describe_file(record.path, root), record.width, record.height, intrinsics, pose]
