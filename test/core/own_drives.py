"""A small dataset in the layout of docs/own_data.md, which docs/drives.py reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import shapely

from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = "drives:Drives"
CAMERAS = ("front", "rear", "bumper")  # of different sizes, and three: nothing wants nuScenes' six
START, STEP = 5_000_000, 200_000
ROAD = shapely.box(-100, -4, 100, 4)
MIDDLE = shapely.LineString([(-100, 0), (100, 0)])


def rig() -> Rig:
    looks = {"front": [0.5, -0.5, 0.5, -0.5], "rear": [0.5, -0.5, -0.5, 0.5], "bumper": [0.5, -0.5, 0.5, -0.5]}
    sizes = {"front": (96, 64), "rear": (96, 64), "bumper": (64, 64)}
    k = np.array([[50.0, 0, 40], [0, 50.0, 30], [0, 0, 1]])
    return Rig(tuple(Camera(n, *sizes[n], k, rigid([1.0, 0.0, 1.5], looks[n])) for n in CAMERAS))


def write_drives(root: Path) -> Path:
    """Write two drives of three samples along a straight road, the second without LiDAR."""
    rng = np.random.default_rng(0)
    rig().save(root / "rig.yaml")
    features = [
        {"type": "Feature", "properties": {"layer": name}, "geometry": shapely.geometry.mapping(found)}
        for name, found in (("drivable_area", ROAD), ("lane_divider", MIDDLE))
    ]
    (root / "map.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    for drive in ("monday", "tuesday"):
        stamps = [START + i * STEP for i in range(3)]
        for camera in rig().cameras:
            (root / drive / camera.name).mkdir(parents=True)
            for stamp in stamps:
                image = rng.integers(0, 255, (camera.height, camera.width, 3), dtype=np.uint8)
                cv2.imwrite(str(root / drive / camera.name / f"{stamp}.jpg"), image)
        if drive == "monday":
            (root / drive / "LIDAR_TOP").mkdir()
            for stamp in stamps:
                points = np.hstack([rng.normal(0, 10, (40, 3)), rng.integers(0, (256, 32), (40, 2))])
                points.astype("<f4").tofile(root / drive / "LIDAR_TOP" / f"{stamp}.bin")
        with open(root / drive / "poses.csv", "w", newline="") as file:
            csv.writer(file).writerows([stamp, 2.0 * i, 1.0, 0.0, 1, 0, 0, 0] for i, stamp in enumerate(stamps))
    return root
