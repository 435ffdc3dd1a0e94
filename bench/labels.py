"""Compare the label rasterisers with the nuScenes devkit.

python bench/labels.py ROOT... [--poses 500] [--version NAME]

For every city of the roots it rasterises labels around random poses near the map: in both modes, from the cache, and by
the devkit's `NuScenesMap.get_map_mask`, in turns. Mode compatible must equal the devkit at every cell where that raises
no error; where it does, its time counts up to there. Times are of the processor, which other work hardly changes. All
get the very same numbers, since the devkit truncates the corners of lines to whole cells, where the last bit of a pose
can matter.

Then it prints how much labels centred on LIDAR_TOP, like BEVFusion's, differ from ours, with the calibration of the
first sample that has a LiDAR; and what the cache saves when all labels of a root are read.
"""

from __future__ import annotations

import argparse
import datetime
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from machine import read_cpu_name
from nuscenes.map_expansion.map_api import NuScenesMap
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bridgeta_core.cli.common import find_table_version
from bridgeta_core.config.experiment import ImageConfig, LabelConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.label_cache import LabelCache
from bridgeta_core.data.maps.expansion import expansion_folder, expansion_path
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.sample import LIDAR, Scene
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, rigid, yaw

GRID = BevGrid()
EXACT = LabelConfig(mode="exact")
console = Console(width=140)


@dataclass
class City:
    """A city of a root, the poses to rasterise it at, and the results."""

    root: Path
    name: str
    poses: list[Matrix] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=dict)
    compared: int = 0
    equal: int = 0
    raised: int = 0

    def __post_init__(self) -> None:
        self.compatible = MapRaster.load(self.root, self.name)
        self.bevfusion = MapRaster.load(self.root, self.name, LabelConfig(mode="bevfusion"))
        self.exact = MapRaster.load(self.root, self.name, EXACT)
        self.devkit = NuScenesMap(str(self.root), self.name)

    def draw_poses(self, count: int) -> None:
        """Draw poses around random corners of the map, at any heading."""
        random = np.random.default_rng(0)
        nodes = np.array([(node["x"], node["y"]) for node in self.devkit.node])
        for x, y in nodes[random.integers(len(nodes), size=count)] + random.normal(0, 15, (count, 2)):
            half = random.uniform(-np.pi, np.pi) / 2
            self.poses.append(rigid((x, y, 0), (math.cos(half), 0, 0, math.sin(half))))

    def rasterise_by_devkit(self, pose: Matrix) -> list[np.ndarray | None]:
        """Rasterise a mask per class with the devkit, None where it raises."""
        patch, angle = (pose[0, 3], pose[1, 3], 100.0, 100.0), math.degrees(yaw(pose))
        result: list[np.ndarray | None] = []
        for c in CLASSES:
            try:
                masks = [self.devkit.get_map_mask(patch, angle, [name], GRID.shape)[0] for name in c.layers]
            except (TypeError, AttributeError):  # of several lines, or of an area and a line
                result.append(None)
            else:
                result.append(np.bitwise_or.reduce(masks))
        return result

    def compare(self, folder: Path) -> None:
        """Time all ways of making the labels of every pose, and compare them with the devkit's."""
        cache = LabelCache(folder, _Poses(self), {self.name: self.compatible}, GRID, LabelConfig())  # type: ignore[arg-type]
        cache.read(0)  # writes the file
        for number, pose in enumerate(track(self.poses, description=self.name, console=console)):
            ways: dict[str, Callable[[], Any]] = {
                "devkit": lambda p=pose: self.rasterise_by_devkit(p),
                "compatible": lambda p=pose: self.compatible.rasterise(p, GRID),
                "exact": lambda p=pose: self.exact.rasterise(p, GRID),
                "cached": lambda n=number: cache.read(n),
            }
            results: dict[str, Any] = {}
            for name, way in ways.items():
                start = time.process_time()
                results[name] = way()
                self.times.setdefault(name, []).append(1e3 * (time.process_time() - start))
            assert np.array_equal(results["cached"], results["compatible"])
            for ours, theirs in zip(results["compatible"], results["devkit"], strict=True):
                self.compared += theirs is not None
                self.equal += theirs is not None and np.array_equal(ours, theirs)
            self.raised += any(mask is None for mask in results["devkit"])


class _Poses:
    """The part of a NuScenesDataset that the cache needs: one scene with a city's poses."""

    def __init__(self, city: City) -> None:
        self.root, self._city = city.root, city

    def scene_of(self, position: int) -> Scene:
        return Scene(self._city.name, "", self._city.name, range(len(self._city.poses)))

    def global_T_ego(self, position: int) -> Matrix:
        return self._city.poses[position]

    def map_files(self, location: str) -> list[Path]:
        return [expansion_path(self.root, location)]


def show_speed(cities: list[City]) -> None:
    """Print the results of `City.compare`."""
    table = Table(title="Masks of 6 x 200 x 200: milliseconds of processor time, median (smallest - largest)")
    for column in ("city", "devkit", "compatible", "exact", "cached", "times the devkit's speed"):
        table.add_column(column, justify="left" if column == "city" else "right")
    rates = Table(title="Sets of six masks per second, and masks that equal the devkit's")
    for column in ("city", "devkit", "compatible", "exact", "cached", "equal", "of", "poses", "devkit raises at"):
        rates.add_column(column, justify="left" if column == "city" else "right")
    for city in cities:
        medians = {name: statistics.median(t) for name, t in city.times.items()}
        cells = [f"{medians[name]:.2f} ({min(t):.2f} - {max(t):.2f})" for name, t in city.times.items()]
        faster = [f"{medians['devkit'] / medians[name]:.0f}" for name in ("compatible", "exact", "cached")]
        table.add_row(city.name, *cells, " / ".join(faster))
        counts = (city.equal, city.compared, len(city.poses), city.raised)
        rates.add_row(city.name, *(f"{1e3 / m:,.0f}" for m in medians.values()), *map(str, counts))
    console.print(table)
    console.print(rates)


def show_lidar_centre(root: Path, version: str, cities: list[City]) -> None:
    """Print the IoU of ours with labels centred on LIDAR_TOP along its axes, over the root's poses and at one sample.

    Exact labels are compared with exact ones, the others with compatible ones.
    """
    sample = NuScenesDataset(root, version)[0]
    if LIDAR not in sample.records:
        return
    ego_T_lidar = sample.record(LIDAR).ego_T_sensor
    x, y, _ = ego_T_lidar[:3, 3]
    turn = math.degrees(yaw(ego_T_lidar)) + 90  # the LiDAR's x axis points to the right
    here = round(x, 2)
    shifted = BevGrid(GRID.x_min + here, GRID.x_max + here, GRID.y_min, GRID.y_max, GRID.resolution)
    table = Table(
        title=f"{root}: IoU in % with labels centred on LIDAR_TOP, which is {x:.2f} m ahead, {y:.2f} m to the left and "
        f"turned by {turn:+.2f} degrees"
    )
    table.add_column("places")
    table.add_column("mode, x of the grid")
    for name in (*CLASS_NAMES, "mean"):
        table.add_column(name, justify="right")
    own = [city for city in cities if city.name == sample.location]
    places = {
        f"{sum(len(c.poses) for c in cities)} poses": [(city, pose) for city in cities for pose in city.poses],
        "first sample": [(city, sample.global_T_ego) for city in own],
    }
    for place, poses in places.items():
        for mode in ("compatible", "bevfusion", "exact"):
            for grid in (GRID, shifted):
                both, either = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
                for city, pose in poses:
                    raster: MapRaster = getattr(city, mode)
                    reference = city.exact if mode == "exact" else city.compatible
                    theirs = to_our_layout(reference.rasterise(pose @ ego_T_lidar, GRID))
                    ours = raster.rasterise(pose, grid)
                    both += (ours & theirs).sum(axis=(1, 2))
                    either += (ours | theirs).sum(axis=(1, 2))
                iou = 100 * both[either > 0] / either[either > 0]
                shown = iter(f"{value:.1f}" for value in (*iou, iou.mean()))
                cells = [next(shown) if seen else "-" for seen in (*(either > 0), True)]
                table.add_row(place, f"{mode}, {grid.x_min:g} to {grid.x_max:g} m", *cells)
        table.add_section()
    console.print(table)


def to_our_layout(masks: np.ndarray) -> np.ndarray:
    """Turn labels with columns to the right and rows ahead, the LiDAR's axes, to columns ahead and rows to the left."""
    return masks.transpose(0, 2, 1)[:, ::-1]


def show_whole_roots(roots: list[tuple[Path, str]]) -> None:
    """Print the time that class balancing and the constant baseline spend on labels."""
    table = Table(title="Labels of all samples of a root, seconds of processor time")
    for column in ("root", "samples", "without cache", "making the cache", "from the cache", "size of the cache"):
        table.add_column(column, justify="left" if column == "root" else "right")
    for root, version in roots:
        for mode in ("compatible", "exact"):
            with tempfile.TemporaryDirectory() as folder:
                times = []
                for cache in (None, folder, folder):
                    settings = LabelConfig(mode=mode, cache=cache)
                    dataset = FrameDataset(
                        NuScenesDataset(root, version), "all", (), ImageConfig(), GRID, labels=settings
                    )
                    start = time.process_time()
                    for position in range(len(dataset)):
                        dataset.read_labels(position)
                    times.append(time.process_time() - start)
                size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
            cells = (f"{root}, {mode}", str(len(dataset)), *(f"{t:.2f}" for t in times), f"{size:.1f} MB")
            table.add_row(*cells)
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The label rasteriser against the nuScenes devkit.")
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="nuScenes-format folder")
    parser.add_argument("--poses", type=int, default=500, help="poses per city")
    parser.add_argument("--version", help="folder of the tables; found when there is one")
    options = parser.parse_args()
    cv2.setNumThreads(1)

    roots = [(root, find_table_version(root, options.version)) for root in options.roots]
    for root, version in roots:
        paths = sorted(expansion_folder(root).glob("*.json"))
        cities = [City(root, path.stem) for path in paths]
        with tempfile.TemporaryDirectory() as folder:
            for city in cities:
                city.draw_poses(options.poses)
                city.compare(Path(folder))
        console.print(f"\n{root}")
        show_speed(cities)
        show_lidar_centre(root, version, cities)
    show_whole_roots(roots)
    console.print(
        f"{read_cpu_name()}, 1 thread, OpenCV {cv2.__version__}, NumPy {np.__version__}, "
        f"Shapely {shapely.__version__}, {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
