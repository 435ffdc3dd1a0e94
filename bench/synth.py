"""What the synthetic world costs: `python bench/synth.py [--device cpu] [--scenes 4] [--duration 5] [--jobs N]`.

Three Markdown tables: keyframes per second of writing (six images of 800x450 and a sweep) in every weather; frames per
second as tensors at the input of the configuration `tiny`; and where the time of writing goes. Unless a table says
otherwise it includes the making of towns and scenes, which weighs the less the longer and the more the scenes are. A
CPU renders with as many processes as it has cores, a GPU with one.
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
from bridgeta_synth.dataset import part as parts
from bridgeta_synth.dataset import scene_files, world
from bridgeta_synth.dataset.checkpoint import PartialRoot
from bridgeta_synth.dataset.frames import SceneShuffle, SyntheticFrames
from bridgeta_synth.dataset.writer import write_dataset
from bridgeta_synth.render import renderer as render
from bridgeta_synth.render.radiance import Painter
from bridgeta_synth.settings import SynthSettings
from bridgeta_synth.world.light import WEATHERS

# What each stage of writing is called in the table, and the callables that do it. None calls another one's.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "towns and their maps": [(world, "build_town"), (parts, "write_maps"), (world.World, "_raster")],
    "scenes: who drives where": [(world, "build_scene")],
    "scenes: ground, shadows, tables": [(render.SceneRenderer, "__init__")],
    "images: rays": [(render, "trace")],
    "images: light and colour": [(Painter, "radiance")],
    "images: camera": [(render, "develop")],
    "images: visibility of actors": [(render.SceneRenderer, "_visibility")],
    "images: JPEG": [(cv2, "imencode")],
    "LiDAR": [(render.SceneRenderer, "lidar")],
    "annotations": [(scene_files, "points_in_boxes"), (scene_files, "annotate")],
    "data sheet": [(scene_files.SceneFiles, "_finish")],
    "putting it on the disk": [(PartialRoot, "save")],
}


def markdown(*columns: str) -> Table:
    """A Markdown table whose columns but the first are numbers."""
    result = Table(box=box.MARKDOWN)
    for i, column in enumerate(columns):
        result.add_column(column, justify="right" if i else "left")
    return result


def seconds_to_write(settings: SynthSettings, device: str, jobs: int | None) -> float:
    """Wall time of writing a root to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_dataset(Path(folder) / "root", settings, device=device, progress=False, jobs=jobs)
        return time.perf_counter() - start


def writing(settings: SynthSettings, device: str, jobs: int) -> Table:
    """Keyframes per second by weather."""
    result = markdown("written, by weather", "keyframes", "s", "keyframes/s")
    for weather in WEATHERS:
        count = settings.scenes * settings.keyframes
        elapsed = seconds_to_write(replace(settings, weather=weather), device, jobs)
        result.add_row(weather, str(count), f"{elapsed:.1f}", f"{count / elapsed:.2f}")
    return result


def tensors(settings: SynthSettings, device: str, jobs: int) -> Table:
    """Frames per second as tensors, rendered just as wide as the network's input: of new scenes, and once more."""
    experiment = config.load(config.Experiment, "tiny")
    image = experiment.model.image
    scale = image.width * image.margin / facts.IMAGE_SIZE[0]
    batch, workers = experiment.data.batch_size, jobs if device == "cpu" else 0
    result = markdown("as tensors", "frames", "frames/s, towns and scenes included", "frames/s of open scenes")
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
            elapsed = (time.perf_counter() if device == "cpu" else synchronised()) - start
            rates.append(f"{len(frames) / elapsed:.1f}")
        name = f"{image.width}x{image.height}{' with LiDAR' if lidar else ''}"
        result.add_row(name, str(len(frames)), *rates)
    return result


def synchronised() -> float:
    """The wall clock once the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def timed_stages(device: str) -> Iterator[dict[str, float]]:
    """Sums up, per stage, the seconds spent in its callables."""
    spent: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            start = clock()
            try:
                return function(*arguments, **options)
            finally:
                spent[stage] += clock() - start

        return call

    # A thread's own time, where it does the work: the next scene is prepared by another one meanwhile.
    clock = time.thread_time if device == "cpu" else synchronised

    with ExitStack() as stack:
        for stage, callables in STAGES.items():
            for owner, name in callables:
                stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield spent


def stages(settings: SynthSettings, device: str) -> Table:
    """Where the time of writing goes, in one process and thread."""
    with timed_stages(device) as spent:
        start = time.process_time()
        wall = seconds_to_write(settings, device, 1)
        total = time.process_time() - start if device == "cpu" else wall
    count = settings.scenes * settings.keyframes
    result = markdown("one core's time, mixed weather", "ms/keyframe", "share")
    for stage in STAGES:
        result.add_row(stage, f"{1e3 * spent[stage] / count:.0f}", f"{spent[stage] / total:.1%}")
    rest = total - sum(spent.values())
    result.add_row("the rest", f"{1e3 * rest / count:.0f}", f"{rest / total:.1%}")
    result.add_row("all", f"{1e3 * total / count:.0f}", "100 %")
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the synthetic world costs.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--scenes", type=int, default=4, help="scenes of each measurement")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of a scene; keyframes are 0.5 s apart")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files made at a time")
    options = parser.parse_args()
    settings = SynthSettings(options.scenes, duration=options.duration, keyframes_only=True, image_scale=0.5)
    console = Console(width=120)
    for table in (writing, tensors):
        console.print(table(settings, options.device, options.jobs))
        console.print()
    console.print(stages(settings, options.device))
    on = read_cpu_name() if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    console.print(f"\n{on}, {options.jobs} jobs, torch {torch.__version__}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
