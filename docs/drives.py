"""A dataset of your own vehicle, in the layout of own_data.md: `data.source=drives:Drives` trains on it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from shapely.geometry import shape

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.dataset import ListDataset
from bridgeta_core.data.maps.expansion import LAYERS
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import LIDAR, Sample, SensorRecord
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import rigid


class Drives(ListDataset):
    """All drives below a folder, on one map; a drive is a scene."""

    def __init__(self, root: Path, version: str) -> None:
        rig = Rig.load(root / "rig.yaml")
        drives = {path.parent: csv.reader(path.open()) for path in root.glob("*/poses.csv")}
        super().__init__(root, [read_sample(drive, rig, row) for drive, rows in drives.items() for row in rows])

    def read_map(self, location: str, labels: LabelConfig) -> MapRaster:
        """Read the one map of all drives."""
        shapes: dict[str, list[object]] = {name: [] for name in LAYERS}
        for feature in json.loads((self.root / "map.geojson").read_text())["features"]:
            shapes[feature["properties"]["layer"]].append(shape(feature["geometry"]))
        return MapRaster(location, {name: np.array(layer, dtype=object) for name, layer in shapes.items()}, labels)


def read_sample(drive: Path, rig: Rig, row: list[str]) -> Sample:
    """Read the sample of one row of poses.csv."""
    stamp, pose = int(row[0]), [float(value) for value in row[1:8]]
    common = {"stamp_us": stamp, "is_keyframe": True, "global_T_ego": rigid(pose[:3], pose[3:])}
    records = {}
    for c in rig.cameras:
        path = drive / c.name / f"{stamp}.jpg"
        token = f"{drive.name}-{c.name}-{stamp}"
        records[c.name] = SensorRecord(
            c.name,
            path,
            token=token,
            width=c.width,
            height=c.height,
            intrinsics=c.intrinsics,
            ego_T_sensor=c.ego_T_cam,
            **common,
        )
    if (path := drive / LIDAR / f"{stamp}.bin").exists():
        token = f"{drive.name}-{LIDAR}-{stamp}"
        records[LIDAR] = SensorRecord(
            LIDAR, path, token=token, width=0, height=0, intrinsics=None, ego_T_sensor=np.eye(4), **common
        )
    return Sample(f"{drive.name}-{stamp}", drive.name, "world", stamp, records)
