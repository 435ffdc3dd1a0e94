"""What decoded frames and a teacher's taps depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bridgeta_core.config.experiment import LidarConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.sample import SensorRecord
from bridgeta_core.utils.files import describe_file, hash_json

_LAYOUT = 2  # of the arrays and of what their values mean; raise it when decoding changes


def of_frames(dataset: FrameDataset, positions: Sequence[int]) -> str:
    """Of images, calibrations and labels at some positions: settings, poses, and name, size and time of each file."""
    samples, root = [dataset.sample(i) for i in positions], dataset.dataset.root
    cities = dict.fromkeys(sample.location for sample in samples)
    return hash_json(
        [
            _LAYOUT,
            "frames",
            [sample.token for sample in samples],
            list(dataset.cameras),
            dataclasses.asdict(dataset.image),
            dataclasses.asdict(dataset.grid),
            [sample.global_T_ego.tolist() for sample in samples],
            [_record(sample.record(name), root) for sample in samples for name in dataset.cameras],
            [describe_file(path, root) for city in cities for path in dataset.dataset.map_files(city)],
            dataset.label_config.decisive(),
        ]
    )


def of_points(dataset: FrameDataset, positions: Sequence[int], lidar: LidarConfig) -> str:
    """Of LiDAR points at some positions: the settings that choose them, and all sweeps."""
    indexed = [dataset.positions[i] for i in positions]
    sweeps: Iterable[SensorRecord] = (r for i in indexed for r in dataset.dataset.lidar_sweeps(i, lidar.sweeps))
    chosen = {"sweeps": lidar.sweeps, "ego_radius": lidar.ego_radius}  # the rest is the network's
    return hash_json([_LAYOUT, "points", chosen, [_record(record, dataset.dataset.root) for record in sweeps]])


def of_taps(frames: str, points: str, teacher: str) -> str:
    """Of a teacher's taps, from the fingerprints of what it sees and the hash of its weights file."""
    return hash_json([_LAYOUT, "taps", frames, points, teacher])


def _record(record: SensorRecord, root: Path) -> Any:
    intrinsics = None if record.intrinsics is None else record.intrinsics.tolist()
    pose = [record.ego_T_sensor.tolist(), record.global_T_ego.tolist(), record.stamp_us]
    return [*describe_file(record.path, root), record.width, record.height, intrinsics, pose]
