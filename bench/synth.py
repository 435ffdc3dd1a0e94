"""Measure the cost of the synthetic world.

`python bench/synth.py [--device cpu] [--scenes 4] [--duration 5] [--jobs N] [--tables writing tensors stages]`

Three Markdown tables: keyframes per second of writing (six images of 800x450 and a sweep) in every weather; frames per
second as tensors at the input of the configuration `tiny`; and how the time of writing divides. Unless a table says
otherwise it includes building towns and scenes, which weighs less with longer and more scenes. A CPU renders with as
many processes as it has cores, a GPU with one.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import torch
from machine import read_cpu_name
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from bridgeta_core.config import experiment as config
from bridgeta_core.data.frames import collate
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset import scene_writer, tasks, world
from bridgeta_synth.dataset.checkpoint import Checkpoint
from bridgeta_synth.dataset.frames import SceneShuffle, SyntheticFrames
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.render import renderer as render
from bridgeta_synth.render.radiance import Shader
from bridgeta_synth.settings import WEATHERS, SynthSettings

# The stages of writing as the table names them, and the callables that do the work; none calls another's.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "towns and their maps": [(world, "build_town"), (tasks, "write_maps"), (world.World, "_make_raster")],
    "scenes: who drives where": [(world, "build_scene")],
    "scenes: ground, shadows, tables": [(render.SceneRenderer, "__init__")],
    "images: rays": [(render, "trace_views")],
    "images: light and colour": [(Shader, "compute_radiance")],
    "images: camera": [(render, "develop")],
    "images: visibility of actors": [(render.SceneRenderer, "_visibility")],
    "images: JPEG": [(cv2, "imencode")],
    "LiDAR": [(render.SceneRenderer, "render_sweep")],
    "annotations": [(scene_writer, "count_points_in_boxes"), (scene_writer, "annotate")],
    "data sheet": [(scene_writer.SceneWriter, "_count_keyframe")],
    "putting it on the disk": [(Checkpoint, "save")],
}


def make_table(*columns: str) -> Table:
    """Make a Markdown table whose columns but the first are numbers."""
    result = Table(box=box.MARKDOWN)
    for i, column in enumerate(columns):
        result.add_column(column, justify="right" if i else "left")
    return result


def time_writing(settings: SynthSettings, device: str, jobs: int | None) -> float:
    """Measure the wall time of writing a root to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_dataset(Path(folder) / "root", settings, device=device, progress=False, jobs=jobs)
        return time.perf_counter() - start


def measure_writing(settings: SynthSettings, device: str, jobs: int) -> Table:
    """Measure keyframes per second by weather."""
    result = make_table("written, by weather", "keyframes", "s", "keyframes/s")
    for weather in WEATHERS:
        count = settings.scenes * settings.keyframes
        elapsed = time_writing(replace(settings, weather=weather), device, jobs)
        result.add_row(weather, str(count), f"{elapsed:.1f}", f"{count / elapsed:.2f}")
    return result


def measure_tensors(settings: SynthSettings, device: str, jobs: int) -> Table:
    """Measure frames per second as tensors, rendered at the width of the network's input: of new scenes, and of
    open ones.
    """
    experiment = config.load(config.Experiment, "tiny")
    image = experiment.model.image
    scale = image.width * image.margin / facts.IMAGE_SIZE[0]
    batch, workers = experiment.data.batch_size, jobs if device == "cpu" else 0
    result = make_table("as tensors", "frames", "frames/s, towns and scenes included", "frames/s of open scenes")
    for lidar in (None, config.LidarConfig(sweeps=0)):
        frames = SyntheticFrames(
            replace(settings, image_scale=scale),
            image,
            experiment.grid,
            device=device,
            lidar=lidar,
            open_scenes=settings.scenes,
        )
        shuffle = SceneShuffle(frames, batch_size=batch, workers=workers)
        loader = DataLoader(
            frames, batch, sampler=shuffle, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
        )
        rates = []
        for _ in range(2):
            start = time.perf_counter()
            frames.build_towns()
            for _ in loader:
                pass
            elapsed = (time.perf_counter() if device == "cpu" else read_synchronised_clock()) - start
            rates.append(f"{len(frames) / elapsed:.1f}")
        name = f"{image.width}x{image.height}{' with LiDAR' if lidar else ''}"
        result.add_row(name, str(len(frames)), *rates)
    return result


def read_synchronised_clock() -> float:
    """Read the wall clock once the GPU has finished its work."""
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def time_stages(device: str) -> Iterator[dict[str, float]]:
    """Sum up, per stage, the seconds spent in its callables."""
    spent: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = clock()
            try:
                return function(*arguments, **options)
            finally:
                spent[stage] += clock() - start

        return call

    # On a CPU, the working thread's own time: meanwhile another thread prepares the next scene.
    clock = time.thread_time if device == "cpu" else read_synchronised_clock

    with ExitStack() as stack:
        for stage, callables in STAGES.items():
            for owner, name in callables:
                stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield spent


def measure_stages(settings: SynthSettings, device: str, _: int = 1) -> Table:
    """Measure how the time of writing divides, in one process and thread."""
    with time_stages(device) as spent:
        start = time.process_time()
        wall = time_writing(settings, device, 1)
        total = time.process_time() - start if device == "cpu" else wall
    count = settings.scenes * settings.keyframes
    result = make_table("one core's time, mixed weather", "ms/keyframe", "share")
    for stage in STAGES:
        result.add_row(stage, f"{1e3 * spent[stage] / count:.0f}", f"{spent[stage] / total:.1%}")
    rest = total - sum(spent.values())
    result.add_row("the rest", f"{1e3 * rest / count:.0f}", f"{rest / total:.1%}")
    result.add_row("all", f"{1e3 * total / count:.0f}", "100 %")
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the cost of the synthetic world.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--scenes", type=int, default=4, help="scenes of each measurement")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of a scene; keyframes are 0.5 s apart")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files made at a time")
    parser.add_argument("--tables", nargs="*", default=["writing", "tensors", "stages"], help="what to measure")
    options = parser.parse_args()
    settings = SynthSettings(options.scenes, duration=options.duration, keyframes_only=True, image_scale=0.5)
    console = Console(width=120)
    tables = {"writing": measure_writing, "tensors": measure_tensors, "stages": measure_stages}
    for name in options.tables:
        console.print(tables[name](settings, options.device, options.jobs))
        console.print()
    on = read_cpu_name() if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    console.print(f"{on}, {options.jobs} jobs, torch {torch.__version__}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
