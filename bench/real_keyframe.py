"""Measure how far LiDAR and map are from the objects in the images of a real nuScenes keyframe, in pixels.

python bench/real_keyframe.py ROOT

ROOT holds the first keyframe of scene-0061 (v1.0-mini) with the map expansion. The positions below were read off its
images by hand, to about a pixel: edges of posts and pillars, and the middle of painted lines. LiDAR beams are 5 to 9
pixels apart, so the position of a post is uncertain by half of that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.pointcloud import move, read_lidar
from bridgeta_core.data.sample import LIDAR, Sample
from bridgeta_core.geometry.transforms import invert, project, transform
from bridgeta_core.view.ground import GroundHeight


@dataclass(frozen=True)
class Upright:
    """A post: its left and right edge in a row of an image, pixels. Its points are the nearest ones there."""

    camera: str
    what: str
    left: float
    right: float
    row: float


@dataclass(frozen=True)
class Paint:
    """A pixel in the middle of a painted line that the map knows as a divider."""

    camera: str
    what: str
    pixel: tuple[float, float]


UPRIGHTS = (
    Upright("CAM_FRONT_LEFT", "stake in the lawn", 615, 619, 623),
    Upright("CAM_FRONT_LEFT", "the same, lower", 618.5, 622.5, 659),
    Upright("CAM_FRONT_RIGHT", "lamp post", 510.5, 516.5, 364),
    Upright("CAM_FRONT_RIGHT", "the same, lower", 509.5, 515.5, 396),
    Upright("CAM_FRONT_RIGHT", "post of a sign", 1118, 1123, 468),
    Upright("CAM_BACK_LEFT", "bollard", 890, 910, 551),
    Upright("CAM_BACK_LEFT", "bollard with tape", 1188, 1208, 533),
    Upright("CAM_BACK", "column", 384, 408, 324),
    Upright("CAM_BACK", "slim column", 467, 487, 330),
    Upright("CAM_BACK_RIGHT", "pillar", 943, 985, 433),
    Upright("CAM_BACK_RIGHT", "second pillar", 1023, 1065, 429),
)
PAINT = (
    Paint("CAM_FRONT", "dash ahead", (818.5, 665)),
    Paint("CAM_FRONT", "next dash", (829.5, 635)),
    Paint("CAM_FRONT", "dash of the lane to the right", (1215, 653.8)),
)


def project_points(sample: Sample, camera: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project ego-frame points to pixels `[n, 2]` and depths `[n]`, with the vehicle's pose at the image's stamp."""
    record = sample.record(camera)
    ego_T_cam = invert(sample.global_T_ego) @ record.global_T_ego @ record.ego_T_sensor
    return project(record.intrinsics, transform(invert(ego_T_cam), points[:, :3]))


def measure_upright(sample: Sample, points: np.ndarray, place: Upright) -> tuple[float, float]:
    """Return the middle of the nearest object's points minus that of the edges, and its depth in metres."""
    pixel, depth = project_points(sample, place.camera, points)
    reach = (place.right - place.left) / 2 + 8
    near = (np.abs(pixel[:, 1] - place.row) < 6) & (np.abs(pixel[:, 0] - (place.left + place.right) / 2) < reach)
    near &= depth > 1
    hits = near & (depth < 1.05 * depth[near].min())
    u = pixel[hits, 0]
    return float((u.min() + u.max()) / 2 - (place.left + place.right) / 2), float(depth[hits].mean())


def measure_paint(sample: Sample, lines: list[np.ndarray], place: Paint) -> tuple[float, float]:
    """Return the distance from the pixel to the nearest projected divider, and the depth there in metres."""
    best = (np.inf, np.nan)
    for line in lines:
        dense = np.concatenate([np.linspace(a, b, 400) for a, b in pairwise(line)])
        pixel, depth = project_points(sample, place.camera, dense)
        distance = np.where(depth > 1, np.hypot(*(pixel - place.pixel).T), np.inf)
        i = int(distance.argmin())
        best = min(best, (float(distance[i]), float(depth[i])))
    return best


def main(root: str) -> None:
    sample = NuScenesDataset(root, "v1.0-mini")[0]
    lidar = sample.record(LIDAR)
    points = move(lidar.ego_T_sensor, read_lidar(lidar.path))
    lines = MapRaster.load(root, sample.location).polylines(sample.global_T_ego, 60.0, GroundHeight(points))["divider"]
    table = Table(title="LiDAR and map against the images, pixels of 1600x900")
    for column in ("camera", "place", "depth, m", "off, px", "off, cm"):
        table.add_column(column, justify="left" if column in ("camera", "place") else "right")
    for upright in UPRIGHTS:
        _add_row(table, sample, upright, *measure_upright(sample, points, upright))
    table.add_section()
    for paint in PAINT:
        _add_row(table, sample, paint, *measure_paint(sample, lines, paint))
    Console().print(table)


def _add_row(table: Table, sample: Sample, place: Upright | Paint, off: float, depth: float) -> None:
    focal = sample.record(place.camera).intrinsics[0, 0]
    table.add_row(place.camera, place.what, f"{depth:.1f}", f"{off:.1f}", f"{100 * off * depth / focal:.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
