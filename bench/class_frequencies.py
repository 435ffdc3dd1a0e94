"""Measure how frequent the map classes are: `python bench/class_frequencies.py [ROOT ...] [--lanes ROOT] [--towns 12]`.

Prints a Markdown table of the share of label cells (200 x 200 of 0.5 m) and of samples that have a class, for
- every ROOT: around its keyframes,
- every `--lanes ROOT`, a nuScenes root with few drives: around places on the lanes of its cities, drawn evenly over
  their area, heading along the lane (the long side of the smallest rectangle around its outline). A window of an
  extract counts only if at least 90 % of its drivable cells are within 10 m of a lane of the extract, so that no lanes
  or dividers are missing. A class counts only in cities whose map has it; in an extract it may still be incomplete,
- `--towns N`: around routes along lanes inside N synthetic towns of every split, without rendering.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from bridgeta_core.data.maps.expansion import expansion_folder, read_layers
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.nuscenes.versions import list_versions
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import rigid
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.map_expansion import build_expansion
from bridgeta_synth.world.town.builder import build_town

GRID = BevGrid()
NEAR_LANE, KNOWN = 10.0, 0.9
SPLITS = ("train", "val", "test")


class Tally:
    """Cells and samples with each class, over the samples whose city knows the class."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cells, self.present = np.zeros(len(CLASS_NAMES)), np.zeros(len(CLASS_NAMES))
        self.samples = np.zeros(len(CLASS_NAMES), dtype=int)

    def add(self, masks: NDArray[np.uint8], known: tuple[bool, ...]) -> None:
        """Count the `masks [6, Y, X]` of a window for the classes that are `known` there."""
        shares = masks.mean(axis=(1, 2))
        self.cells += shares
        self.present += shares > 0
        self.samples += np.array(known)

    def format_row(self, c: int) -> tuple[str, str, str]:
        """Format the cells and samples with class c in percent, and the samples counted."""
        count = self.samples[c]
        if not count:
            return "-", "-", "0"
        return f"{100 * self.cells[c] / count:.2f}", f"{100 * self.present[c] / count:.0f}", str(count)


def pose(x: float, y: float, yaw: float) -> NDArray[np.float64]:
    return rigid((x, y, 0.0), (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)))


def count_keyframes(root: Path) -> Tally:
    tally, rasters = Tally(root.name), {}
    version = list_versions(root)[0]
    for sample in NuScenesDataset(root, version):
        if sample.location not in rasters:
            rasters[sample.location] = MapRaster.load(root, sample.location)
        raster = rasters[sample.location]
        tally.add(raster.rasterise(sample.global_T_ego, GRID), raster.known)
    return tally


def count_lanes(root: Path, count: int, rng: np.random.Generator) -> Tally:
    tally = Tally(f"{root.name}, lanes")
    for path in sorted(expansion_folder(root).glob("*.json")):
        raster = MapRaster.load(root, path.stem)
        lanes = read_layers(json.loads(path.read_bytes()), ("lane",))["lane"]
        known = shapely.union_all(shapely.buffer(lanes, NEAR_LANE))
        shapely.prepare(known)
        area = shapely.area(lanes)
        for index in rng.choice(len(lanes), count, p=area / area.sum()):
            x, y = draw_place(lanes[index], rng)
            here = pose(x, y, find_heading(lanes[index]))
            masks = raster.rasterise(here, GRID)
            rows, columns = np.nonzero(masks[0])
            cells = np.stack((GRID.centres()[0][columns], GRID.centres()[1][rows]), axis=1) @ here[:2, :2].T + (x, y)
            if shapely.contains_xy(known, cells[:, 0], cells[:, 1]).mean() >= KNOWN:
                tally.add(masks, raster.known)
    return tally


def draw_place(area: shapely.Polygon, rng: np.random.Generator) -> tuple[float, float]:
    low_x, low_y, high_x, high_y = area.bounds
    while True:
        x, y = float(rng.uniform(low_x, high_x)), float(rng.uniform(low_y, high_y))
        if shapely.contains_xy(area, x, y):
            return x, y


def find_heading(area: shapely.Polygon) -> float:
    sides = np.diff(np.asarray(area.minimum_rotated_rectangle.exterior.coords), axis=0)
    x, y = sides[np.argmax(np.hypot(*sides.T))]
    return math.atan2(y, x)


def count_towns(split: int, count: int, rng: np.random.Generator) -> Tally:
    """Count along routes of 120 m from lanes inside towns, every 4 m: about 20 s at 6 m/s, 2 Hz."""
    tally = Tally(f"{SPLITS[split]} towns")
    for index in range(count):
        location, keep_right = facts.LOCATIONS[index % len(facts.LOCATIONS)]
        town = build_town((index // len(facts.LOCATIONS), split), index, location, keep_right)
        raster = MapRaster(location, read_layers(build_expansion(town, (0, split))))
        middles = np.array([lane[len(lane) // 2] for lane in town.lanes.lanes])
        length = [len(lane) for lane in town.lanes.lanes] * shapely.contains_xy(town.interior, *middles.T)
        for lane in rng.choice(len(middles), 8, p=length / length.sum()):
            route = town.lanes.draw_route(int(lane), 160.0, rng)[int(rng.integers(80)) :][:240:8]
            for (x, y), (ahead_x, ahead_y) in itertools.pairwise(route.tolist()):
                tally.add(raster.rasterise(pose(x, y, math.atan2(ahead_y - y, ahead_x - x)), GRID), raster.known)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="*", type=Path, metavar="ROOT", help="nuScenes roots with keyframes")
    parser.add_argument("--lanes", action="append", default=[], type=Path, metavar="ROOT", help="roots without drives")
    parser.add_argument("--towns", type=int, default=0, help="number of towns of every split")
    parser.add_argument("--windows", type=int, default=400, help="places per city for --lanes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tallies = [count_keyframes(root) for root in options.roots]
    tallies += [count_lanes(root, options.windows, np.random.default_rng(options.seed)) for root in options.lanes]
    if options.towns:
        for split in range(len(SPLITS)):
            tallies.append(count_towns(split, options.towns, np.random.default_rng(options.seed)))
    print("| class |" + "".join(f" {t.name}: % of cells | % of samples | samples |" for t in tallies))
    print("|---|" + "---:|---:|---:|" * len(tallies))
    for c, name in enumerate(CLASS_NAMES):
        rows = [t.format_row(c) for t in tallies]
        print(f"| {name} |" + "".join(f" {cells} | {share} | {n} |" for cells, share, n in rows))


if __name__ == "__main__":
    main()
