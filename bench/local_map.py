"""Cost of the local map per frame: `python bench/local_map.py [--size 120] [--repeats 200] [--threads 1]`.

Six classes on the default grid of 200 x 200 cells, all of them seen, along a bend at 10 m/s and 12 frames a second, so
that every frame moves the window by a cell or two. The same frames are also fused for an ego at rest; the difference is
the cost of the move. `values` makes the six grids to be published, `look_up` what the map says around the ego.
"""

from __future__ import annotations

import argparse
import datetime
import statistics

import cv2
import numpy as np
from machine import milliseconds, read_cpu_name
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.local_map import LocalMap
from bridgeta_ros.pipeline.messages import to_percent

SPEED, RATE, TURN = 10.0, 12.0, 0.15  # m/s, frames per second, rad/s


def make_pose(frame: int) -> NDArray[np.float64]:
    """Return map_T_base of a frame of the drive, at coordinates like those of nuScenes' maps."""
    yaw = 0.3 + TURN * frame / RATE
    result = np.eye(4)
    result[:2, :2] = ((np.cos(yaw), -np.sin(yaw)), (np.sin(yaw), np.cos(yaw)))
    result[:2, 3] = (1847.3 + SPEED / TURN * np.sin(yaw), 911.7 - SPEED / TURN * np.cos(yaw))
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The local map's cost per frame.")
    parser.add_argument("--size", type=float, default=120.0, help="side of the map in metres")
    parser.add_argument("--repeats", type=int, default=200, help="frames timed")
    parser.add_argument("--threads", type=int, default=1, help="OpenCV's threads")
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)

    grid = BevGrid()
    rng = np.random.default_rng(0)
    results = [rng.random((len(CLASSES), *grid.shape), dtype=np.float32) for _ in range(4)]
    everywhere = np.ones(grid.shape, dtype=bool)
    moving, resting = LocalMap(grid, options.size), LocalMap(grid, options.size)
    there, moves = make_pose(0), 0
    times: dict[str, list[float]] = {"update, ego moves": [], "update, ego at rest": [], "values": [], "look_up": []}
    for frame in range(-10, options.repeats):
        here, result, before = make_pose(frame), results[frame % len(results)], moving.grid
        taken = (
            milliseconds(lambda r=result, p=here: moving.update(r, everywhere, p)),
            milliseconds(lambda r=result: resting.update(r, everywhere, there)),
            milliseconds(lambda: [to_percent(layer) for layer in moving.probabilities()]),
            milliseconds(lambda p=here: moving.look_up(p)),
        )
        if frame >= 0:  # the first ones fill the map and warm up
            moves += moving.grid != before
            for name, value in zip(times, taken, strict=True):
                times[name].append(value)

    rows, columns = moving.grid.shape
    table = Table(title=f"Local map of {len(CLASSES)} x {rows} x {columns}")
    for column in ("step", "ms: median", "min", "max"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, t in times.items():
        table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(t), min(t), max(t))))
    console = Console(width=120)
    console.print(table)
    frames = f"{options.repeats} frames of {len(CLASSES)} x {grid.shape[0]} x {grid.shape[1]}"
    console.print(f"{frames}; the window of the moving ego moved {moves} times")
    console.print(
        f"{read_cpu_name()}, {options.threads} threads, OpenCV {cv2.__version__}, NumPy {np.__version__}, "
        f"{datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
