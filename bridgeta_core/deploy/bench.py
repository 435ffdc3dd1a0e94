"""Measure a student on this machine by every back end that is installed, stage by stage, in one paired run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from bridgeta_core.deploy.backends.base import Backend, Network
from bridgeta_core.deploy.backends.choose import choose_backend, list_backends
from bridgeta_core.deploy.backends.graphs import hash_student, lift_parts
from bridgeta_core.deploy.backends.supported import PRECISIONS
from bridgeta_core.deploy.weights import find_weights, load_student, read_int8_graphs
from bridgeta_core.geometry.images import decode_and_fit, fit_images, fit_intrinsics
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.model.lift import LiftPlan
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import read_cpu_name, resolve_device

STAGES = ("image part", "lift", "BEV part")
_SIZE, _FOCAL, _HEIGHT = (800, 450), 500.0, 1.5  # of the cameras: pixels, pixels, metres above the ground
_WARM_UPS = 3


@dataclass
class Timing:
    """What one back end took with one precision: `stages` by name, milliseconds of each round."""

    backend: str
    precision: str
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    difference: float = 0.0
    """The largest difference of a probability to PyTorch's at float32."""

    @property
    def totals(self) -> list[float]:
        """The sum of the stages, milliseconds of each round."""
        return [sum(values) for values in zip(*self.stages.values(), strict=True)]


@dataclass
class Measurement:
    """The timings of a run, PyTorch's at float32 first; `decoding` of all images; what was left out, and why."""

    weights: str
    device: str
    threads: int
    cameras: int
    decoding: list[float]
    timings: list[Timing]
    omitted: dict[str, str]

    def build_table(self) -> Table:
        """Build a table: the stages, the total, the gain over the first, and the largest difference."""
        caption = [
            f"{self.device}, {self.threads} threads; milliseconds, the minimum of {len(self.decoding)} rounds.",
            f"Decode and resize {self.cameras} JPEGs of {_SIZE[0]}x{_SIZE[1]}: {_format(self.decoding)}",
        ]
        caption += [f"Without {name}: {reason}" for name, reason in self.omitted.items()]
        table = Table(
            title=f"{self.weights}, {self.cameras} cameras",
            caption="\n".join(caption),
            caption_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        heads = (
            "back end",
            "image\npart",
            "\nlift",
            "BEV\npart",
            "total:\nmin / median",
            "faster\nby",
            "differs\nby",
        )
        for head in heads:
            table.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=True)
        first = min(self.timings[0].totals)
        for timing in self.timings:
            stages = [f"{min(values):.1f}" for values in timing.stages.values()]
            gain, name = f"{first / min(timing.totals):.1f} x", f"{timing.backend} {timing.precision}"
            table.add_row(name, *stages, _format(timing.totals), gain, f"{timing.difference:.1e}")
        return table


def _format(values: list[float]) -> str:
    return f"{min(values):.1f} / {statistics.median(values):.1f}"


def measure_weights(weights: str | Path, device: str = "auto", repeats: int = 40) -> Measurement:
    """Measure every back end and precision that works here, in turn within each round, on pictures of random shapes.

    The cameras look evenly around, as many as the weights were trained with. Raises BridgeTAError as `load_student`.
    """
    student, info = load_student(weights)
    int8 = read_int8_graphs(weights, hash_student(student))
    cameras = len(info.cameras) or 6
    network, on, rig = Network.of(student, cameras, int8), resolve_device(device), ring(cameras)
    fits = list(fit_images(rig, info.model.image.size, info.model.image.margin).values())
    intrinsics = torch.from_numpy(fit_intrinsics(rig, fits))
    poses = torch.from_numpy(np.stack([camera.ego_T_cam for camera in rig.cameras]))
    plan = student.to(on).plan(intrinsics[None], poses[None])
    student.cpu()
    backends, omitted = _build(network, on)
    timings = [Timing(backend.name, backend.precision) for backend in backends]
    files, decoding = [draw_jpeg(seed) for seed in range(cameras)], []
    expected: Tensor | None = None
    with ThreadPoolExecutor(min(cameras, os.cpu_count() or 1)) as pool, torch.inference_mode():
        for number in range(-_WARM_UPS, repeats):
            elapsed, decoded = _clock(on, lambda: list(pool.map(decode_and_fit, files, fits)))
            images = torch.from_numpy(np.stack(decoded)).to(on)
            decoding.append(elapsed)
            for backend, timing in zip(backends, timings, strict=True):
                found = _run(backend, images, plan, timing.stages)
                expected = found if expected is None else expected
                timing.difference = float((found - expected).abs().max())
            if number < 0:
                decoding.clear()
                for timing in timings:
                    for values in timing.stages.values():
                        values.clear()
    name = read_cpu_name() if on.type == "cpu" else torch.cuda.get_device_name(on)
    return Measurement(find_weights(weights).stem, name, torch.get_num_threads(), cameras, decoding, timings, omitted)


def _build(network: Network, device: torch.device) -> tuple[list[Backend], dict[str, str]]:
    """Build all back ends with all precisions, PyTorch at float32 first, and say why the others are left out."""
    backends: list[Backend] = []
    omitted: dict[str, str] = {}
    for precision in PRECISIONS:
        try:
            names = list_backends(device, precision)
        except BridgeTAError as error:
            omitted[precision] = error.what
            continue
        for name in names:
            try:
                backends.append(choose_backend(network, name, device, precision).backend)
            except BridgeTAError as error:
                omitted[f"{name}, {precision}"] = error.what
    return backends, omitted


def _run(backend: Backend, images: Tensor, plan: LiftPlan, stages: dict[str, list[float]]) -> Tensor:
    """Run the network once, add the milliseconds of each stage, and return a copy of the probabilities."""
    first, (depth, features) = _clock(backend.device, lambda: backend.encode(images, plan.ground[0]))
    second, lifted = _clock(backend.device, lambda: lift_parts(depth, features, plan))
    third, found = _clock(backend.device, lambda: backend.decode(lifted))
    for stage, value in zip(STAGES, (first, second, third), strict=True):
        stages[stage].append(value)
    copy: Tensor = found.clone()
    return copy


def _clock(device: torch.device, call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the milliseconds of a call, with what it leaves to a GPU, and its result."""
    start = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start), result


def ring(cameras: int) -> Rig:
    """Build a rig of cameras that look evenly around."""
    width, height = _SIZE
    intrinsics = np.array([[_FOCAL, 0, width / 2], [0, _FOCAL, height / 2], [0, 0, 1]])
    return Rig(
        tuple(Camera(f"camera_{i}", width, height, intrinsics, _look(2 * np.pi * i / cameras)) for i in range(cameras))
    )


def _look(yaw: float) -> Any:
    """Return the `ego_T_cam` of a camera that looks in a direction, radians to the left of ahead."""
    turn = rigid((0, 0, _HEIGHT), (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)))
    return turn @ rigid((0, 0, 0), (0.5, -0.5, 0.5, -0.5))


def draw_jpeg(seed: int) -> bytes:
    """Draw a picture with about as much detail as a street, as a JPEG."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (36, 64, 3), dtype=np.uint8), _SIZE, interpolation=cv2.INTER_CUBIC)
    picture = np.clip(coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", picture)[1])
