"""Measure what loading training samples costs.

python bench/loader.py ROOT [--configs tiny nuscenes_swin_t] [--rounds 3] [--steps 20]

With `--steps` it trains `tiny` for as many steps a round, as it is augmented, with the files decoded anew and with
`data.cache`, in turn, and prints the seconds per step, and how fast `data.source=synthetic` renders on one core.
Otherwise, for a nuScenes-format root with LiDAR it prints, in a minute or two: samples per second with 0, 1 and 2
loader processes, with and without LiDAR, augmented as in each configuration; where the time of one sample goes; and
what decoding at reduced scale saves. It uses two cores, and files that are in the page cache after the first round. The
settings of the first table take turns, so that other load on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import torch
from machine import milliseconds, read_cpu_name
from rich.console import Console
from rich.table import Table
from torch.multiprocessing import SimpleQueue
from torch.utils.data import DataLoader

from bridgeta_core.config import experiment as config
from bridgeta_core.data import augment
from bridgeta_core.data import frames as data_frames
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.frames import FrameDataset, collate
from bridgeta_core.data.sample import SensorRecord
from bridgeta_core.geometry import images
from bridgeta_core.runs.record import read_record
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.train import train_distill, train_student
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.dataset.frames import FreshTowns

CORES, BATCH, SECONDS = 2, 4, 2.0  # cores used, samples per batch, least duration of one timing
WORKERS = (0, 1, 2)

Kind = tuple[str, bool]  # a configuration, and whether LiDAR is read

# The name of each stage in the table, and the callables that do it. None calls another stage's.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "read images": [(SensorRecord, "read_bytes")],
    "decode": [(images, "decode")],
    "resize, cut, turn": [(images, "apply_fit")],
    "colours, mirror of the world": [(augment.Change, "images")],
    "labels": [(augment.Change, "rasterise")],
    "read LiDAR": [(data_frames, "read_lidar")],
    "merge and move LiDAR": [(data_frames, "merge_sweeps"), (data_frames, "move")],
}
REST, COLLATE, TRANSFER = "the rest: calibration, tensors", "collate", "to the training process"


def load_training_frames(name: str, root: str, version: str, lidar: bool) -> FrameDataset:
    """Load the samples of a root as training with a shipped configuration does."""
    roots = [f"data.train_root={root}", f"data.val_root={root}", f"data.version={version}"]
    everything = ["data.train_scenes=all", "data.val_scenes=all", "data.balance=false"]
    experiment = config.load(config.Experiment, name, [*roots, *everything])
    return Frames(experiment, Processes(), experiment.teacher.lidar if lidar else None).training


def positions(frames: FrameDataset, count: int) -> list[int]:
    """Return `count` positions, cycling through the frames."""
    return [i % len(frames) for i in range(count)]


def rate(frames: FrameDataset, workers: int, batches: int) -> float:
    """Measure samples per second over `batches` batches per process, after the first of each process."""
    first = max(1, workers)
    order = positions(frames, BATCH * first * (1 + batches))
    loader = iter(DataLoader(frames, BATCH, sampler=order, num_workers=workers, collate_fn=collate))
    for _ in islice(loader, first):
        pass
    start = time.perf_counter()
    seen = sum(len(batch.tokens) for batch in loader)
    return seen / (time.perf_counter() - start)


class Clock:
    """Wall and processor time by stage, seconds."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.processor: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what happens inside to a stage."""
        wall, used = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] += time.perf_counter() - wall
            self.processor[name] += time.process_time() - used

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function, so that it is timed as a stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return call


def stages(frames: FrameDataset, batches: int) -> Clock:
    """Time the stages of `batches` batches, loaded as in a loader process, which has no threads."""
    clock = Clock()
    queue: SimpleQueue = SimpleQueue()
    with ExitStack() as patches:
        for name, callables in STAGES.items():
            for owner, attribute in callables:
                timed = clock.timed(name, getattr(owner, attribute))
                patches.enter_context(patch.object(owner, attribute, timed))
        for start in range(0, batches * BATCH, BATCH):
            with clock.stage("all"):
                samples = [frames[i] for i in positions(frames, start + BATCH)[start:]]
            with clock.stage(COLLATE):
                batch = collate(samples)
            with clock.stage(TRANSFER):
                queue.put(batch)
                queue.get()
    for times in (clock.wall, clock.processor):
        times[REST] = times.pop("all") - sum(times[name] for name in STAGES)
    return clock


def reductions(root: str, version: str) -> tuple[dict[str, list[float]], int]:
    """Measure milliseconds to turn an image into an input of 704x256, by the scale that it is decoded at."""
    frames = load_training_frames("nuscenes_swin_t", root, version, lidar=False)
    sample = frames.sample(0)
    data = {name: sample.record(name).read_bytes() for name in frames.cameras}
    fits = images.fit_images(sample.rig(frames.cameras), frames.image.size, frames.image.margin)
    chosen = images.choose_reduction(next(iter(fits.values())))
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(5):
        for name, fit in fits.items():
            for reduction in sorted({1, chosen}):
                make = lambda f=fit, n=name, r=reduction: images.apply_fit(images.decode(data[n], r), f)  # noqa: E731
                times[f"1/{reduction}"].append(milliseconds(make))
    return times, chosen


def rate_table(rates: dict[Kind, dict[int, list[float]]], rounds: int) -> Table:
    """Tabulate samples per second by number of loader processes."""
    table = Table(title=f"Samples per second, median (least to most) of {rounds}")
    table.add_column("configuration")
    for workers in WORKERS:
        table.add_column(f"{workers} loader processes", justify="right")
    for kind, timings in rates.items():
        cells = [f"{statistics.median(r):.1f} ({min(r):.1f} to {max(r):.1f})" for r in timings.values()]
        table.add_row(_name(kind), *cells)
    return table


def stage_table(clocks: dict[Kind, Clock], samples: dict[Kind, int]) -> Table:
    """Milliseconds per sample by stage, and the stage that is the next to be made faster."""
    table = Table(title="Milliseconds of a sample: wall time (of it on the processor)")
    table.add_column("stage")
    for kind in clocks:
        table.add_column(_name(kind), justify="right")
    for name in (*STAGES, REST, COLLATE, TRANSFER):
        cells = [(clock.wall[name], clock.processor[name], samples[kind]) for kind, clock in clocks.items()]
        table.add_row(name, *(f"{1e3 * wall / n:.1f} ({1e3 * used / n:.1f})" for wall, used, n in cells))
    table.add_section()
    totals = [(sum(c.wall.values()), sum(c.processor.values()), samples[kind]) for kind, c in clocks.items()]
    table.add_row("all", *(f"{1e3 * wall / n:.1f} ({1e3 * used / n:.1f})" for wall, used, n in totals))
    table.add_row("the largest", *(max(c.processor, key=c.processor.__getitem__) for c in clocks.values()))
    return table


def training_table(root: str, version: str, rounds: int, steps: int) -> Table:
    """Train with and without a cache, in turn, and tabulate seconds per step."""
    ways: dict[str, Callable[..., Path]] = {"labels alone": train_student, "distilled": train_distill}
    paces: dict[tuple[str, str], list[float]] = defaultdict(list)
    scenes = open_dataset("nuscenes", root, version).scenes
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"data.train_root={root}", f"data.val_root={root}", f"data.version={version}", "data.workers=1"]
        settings += [f"data.val_scenes={scenes[0].name}", "train.epochs=1", f"data.steps_per_epoch={steps}"]
        settings += ["distill.statistics_frames=4"]
        for number in range(-1, rounds):  # the first round builds the cache
            for how, cache in (("files", "null"), ("cache", f"{folder}/cache")):
                experiment = config.load(config.Experiment, "tiny", [*settings, f"data.cache={cache}"])
                for name, train in ways.items():
                    out = train(experiment, Path(folder) / f"{name} {how} {number}").parent
                    if number >= 0:
                        paces[name, how].append(read_record(out).seconds_per_step)
    table = Table(title=f"tiny: seconds per training step, median (least to most) of {rounds} runs of {steps} steps")
    for name in ("", "files decoded anew", "data.cache"):
        table.add_column(name, justify="right" if name else "left")
    for name in ways:
        runs = [paces[name, how] for how in ("files", "cache")]
        table.add_row(name, *(f"{statistics.median(r):.3f} ({min(r):.3f} to {max(r):.3f})" for r in runs))
    return table


def measure_rendering(towns: int) -> str:
    """Render towns as one loader process does for `data.source=synthetic`, and say how fast."""
    experiment = config.load(config.Experiment, "tiny", [])
    source = FreshTowns.build(experiment, experiment.teacher.lidar, augment.Augment(experiment.data.augment))
    seconds = [milliseconds(lambda t=town: source[t]) / 1e3 for town in range(towns)]
    rates = sorted(source.size / s for s in seconds)
    pace = f"{statistics.median(rates):.2f} ({rates[0]:.2f} to {rates[-1]:.2f}) frames/s"
    return f"rendered for data.source=synthetic, with LiDAR, the town included: {pace} of one process in {towns} towns"


def _name(kind: Kind) -> str:
    return f"{kind[0]}, LiDAR" if kind[1] else kind[0]


def describe_machine() -> str:
    """Describe what the figures depend on."""
    versions = f"OpenCV {cv2.__version__}, torch {torch.__version__}"
    return f"{read_cpu_name()}, {CORES} cores, load {os.getloadavg()[0]:.1f}, {versions}, {datetime.date.today()}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What loading training samples costs.")
    parser.add_argument("root", help="nuScenes-format folder with LiDAR; images of 1600x900 for the protocol's sizes")
    parser.add_argument("--version", default="v1.0-trainval", help="folder of the tables")
    parser.add_argument("--configs", nargs="+", default=["tiny", "nuscenes_swin_t"], help="shipped configurations")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each setting, interleaved")
    parser.add_argument("--steps", type=int, help="measure training steps instead, this many a round")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    console = Console(width=120)
    if options.steps:
        console.print(training_table(options.root, options.version, options.rounds, options.steps))
        console.print(measure_rendering(options.rounds))
        console.print(describe_machine())
        return

    kinds = [(name, lidar) for name in options.configs for lidar in (False, True)]
    frames = {kind: load_training_frames(kind[0], options.root, options.version, kind[1]) for kind in kinds}
    clocks, batches = {}, {}
    for kind in kinds:
        start = time.perf_counter()
        for i in positions(frames[kind], BATCH):
            frames[kind][i]
        batches[kind] = max(2, math.ceil(SECONDS / (time.perf_counter() - start)))
        clocks[kind] = stages(frames[kind], batches[kind])
    rates: dict[Kind, dict[int, list[float]]] = {kind: {workers: [] for workers in WORKERS} for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            for workers in WORKERS:
                rates[kind][workers].append(rate(frames[kind], workers, batches[kind]))
    times, used = reductions(options.root, options.version)
    medians = ", ".join(f"{statistics.median(t):.1f} ms from {scale}" for scale, t in times.items())

    console.print(rate_table(rates, options.rounds))
    console.print(stage_table(clocks, {kind: BATCH * count for kind, count in batches.items()}))
    console.print(f"704x256 without augmentation, decoded and fitted: {medians} of the size; 1/{used} is used")
    console.print(describe_machine())


if __name__ == "__main__":
    try:
        main()
    except BridgeTAError as error:
        raise SystemExit(f"error: {error}") from None
