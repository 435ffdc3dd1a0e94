"""The student's forward pass by back end: `python bench/forward.py [CONFIG ...] [--device cpu] [--compile]`.

One sample of six cameras, random weights, batch norms folded, inputs on the device. Image part: images to depth
distributions and features; then the lift; BEV part: lifted features to probabilities. `materialised` has the volume of
depth times features summed by index_add_, as BEVFusion's code without its own kernel does. `Runtime.infer` is the whole
call that the node makes. A row is printed as soon as it is measured; all are compared with eager float32.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lift import IMAGE_SIZE, Classic, ring
from machine import milliseconds, milliseconds_on, name_device
from torch import Tensor

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment
from bridgeta_core.deploy.backends.graphs import BevPart, ImagePart, fuse_batch_norms, lift_parts
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import WeightsInfo
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.model.lift import LiftPlan
from bridgeta_core.model.student import Student

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Way:
    """One way to compute the network: its parts, and whether the call is recorded as a CUDA graph."""

    image: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    lift: Callable[[Tensor, Tensor], Tensor]
    bev: Callable[[Tensor], Tensor]
    autocast: torch.dtype | None = None
    graph: bool = False

    def __call__(self, images: Tensor, ground: Tensor) -> Tensor:
        return self.bev(self.lift(*self.image(images, ground)))


def make_ways(
    student: Student, plan: LiftPlan, classic: Classic, options: argparse.Namespace
) -> Iterator[tuple[str, Way]]:
    """Yield the ways that the device has, by name; eager float32 first."""
    cuda = options.device != "cpu"

    def ours(depth: Tensor, features: Tensor) -> Tensor:
        return lift_parts(depth, features, plan)

    def materialised(depth: Tensor, features: Tensor) -> Tensor:
        volume, matrix = (x.permute(0, 3, 1, 2)[None] for x in (depth, features))
        return classic.index_add(volume.to(features.dtype), matrix)[0].permute(1, 2, 0)

    image, bev = ImagePart(student), BevPart(student)
    yield "eager float32", Way(image, ours, bev)
    yield "eager float32, materialised", Way(image, materialised, bev)
    for name in ("float16", "bfloat16") if cuda else ("bfloat16",):
        yield f"autocast {name}", Way(image, ours, bev, autocast=PRECISIONS[name])
    if not cuda:
        return
    yield "float32, CUDA graph", Way(image, ours, bev, graph=True)
    for name in ("float16", "bfloat16"):
        cast = copy.deepcopy(student)
        cast.cast(PRECISIONS[name])
        image, bev = ImagePart(cast), BevPart(cast)
        yield f"{name} weights", Way(image, ours, bev)
        yield f"{name} weights, materialised", Way(image, materialised, bev)
        yield f"{name} weights, CUDA graph", Way(image, ours, bev, graph=True)
        if options.compile and name == "float16":
            fast = Way(torch.compile(image, dynamic=False), ours, torch.compile(bev, dynamic=False))
            yield f"{name} weights, compiled", fast
            yield f"{name} weights, compiled, CUDA graph", Way(fast.image, ours, fast.bev, graph=True)


def record_graph(way: Way, images: Tensor, ground: Tensor) -> Callable[[], Tensor]:
    """Record a call as a CUDA graph, and return what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            way(images, ground)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = way(images, ground)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def measure(way: Way, images: Tensor, ground: Tensor, options: argparse.Namespace) -> tuple[list[list[float]], Tensor]:
    """Measure the whole and the three stages in milliseconds, and return the probabilities with the times."""
    context: Any = torch.autocast(images.device.type, dtype=way.autocast) if way.autocast else nullcontext()
    with torch.no_grad(), context:
        whole = record_graph(way, images, ground) if way.graph else lambda: way(images, ground)
        probabilities = whole().float()
        depth, features = way.image(images, ground)
        lifted = way.lift(depth, features)
        calls = [whole]
        if not way.graph:
            calls += [lambda: way.image(images, ground), lambda: way.lift(depth, features), lambda: way.bev(lifted)]
        times: list[list[float]] = [[] for _ in calls]
        for repeat in range(-3, options.repeats):
            for call, values in zip(calls, times, strict=True):
                elapsed = milliseconds_on(options.device, call)
                if repeat >= 0:
                    values.append(elapsed)
    return times, probabilities


def measure_network(name: str, options: argparse.Namespace) -> None:
    """Print the rows of one configuration."""
    experiment = config.load(Experiment, name)
    model, device = experiment.model, options.device
    torch.manual_seed(0)
    student = Student(model, experiment.grid, pretrained=False)
    measure_runtime(name, experiment, student, options)
    student = student.to(device).eval().requires_grad_(False)
    fuse_batch_norms(student)
    intrinsics, poses = ring()
    scale = np.diag([model.image.width / IMAGE_SIZE[1], model.image.height / IMAGE_SIZE[0], 1.0])
    intrinsics = torch.from_numpy(scale) @ intrinsics
    plan = student.plan(intrinsics, poses)
    size = (model.image.height, model.image.width)
    classic = Classic(intrinsics, poses, model.lift, device, student.camera.feature_size, size)
    images = torch.randint(256, (6, *size, 3), dtype=torch.uint8).to(device)
    reference: Tensor | None = None
    base = 0.0
    for title, way in make_ways(student, plan, classic, options):
        try:
            times, probabilities = measure(way, images, plan.ground[0], options)
        except Exception as error:  # a back end that fails is a row, and the others go on
            print(f"| {name} | {title} | fails: {str(error).splitlines()[0][:200]} |", flush=True)
            continue
        medians = [statistics.median(values) for values in times]
        if reference is None:
            reference, base = probabilities, medians[0]
        cells = [f"{medians[0]:.2f} ({min(times[0]):.2f} to {max(times[0]):.2f})", f"{base / medians[0]:.1f} x"]
        cells += [f"{value:.2f}" for value in medians[1:]] or ["", "", ""]
        cells.append(f"{float((probabilities - reference).abs().max()):.1e}")
        print(f"| {name} | {title} | {' | '.join(cells)} |", flush=True)


def measure_runtime(name: str, experiment: Experiment, student: Student, options: argparse.Namespace) -> None:
    """Print the time from images in main memory to probabilities in main memory, as the node calls it."""
    image, (intrinsics, poses) = experiment.model.image, ring()
    to_camera = np.diag([image.width / IMAGE_SIZE[1], image.height / IMAGE_SIZE[0], 1.0])
    cameras = [
        Camera(str(i), image.width, image.height, to_camera @ k, pose)
        for i, (k, pose) in enumerate(zip(intrinsics[0].numpy(), poses[0].numpy(), strict=True))
    ]
    rig, info = Rig(tuple(cameras)), WeightsInfo(student.config, experiment.grid, CLASS_NAMES, ())
    images = np.random.default_rng(0).integers(0, 256, (6, image.height, image.width, 3), dtype=np.uint8)
    for precision in PRECISIONS if options.device != "cpu" else ["float32"]:
        runtime = Runtime.from_student(student, info, options.device, precision)
        runtime.warm_up(rig)
        times = [milliseconds(lambda r=runtime: r.infer(images, rig)) for _ in range(options.repeats)]
        cells = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        print(f"| {name} | Runtime.infer, {precision} | {cells} | | | | | |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The student's forward pass by back end and precision.")
    parser.add_argument("configs", nargs="*", default=["tiny", "small", "nuscenes_swin_t"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=30, help="timed calls of each way")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes its time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| network | way | ms: median (min to max) | faster by | image part | lift | BEV part | max difference |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.configs:
        measure_network(name, options)
    print(
        f"\n{name_device(options.device)}, {options.threads} threads, {options.repeats} repeats, "
        f"torch {torch.__version__}, {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
