"""A student beside lift-splat-shoot's own network on the same six images: `python bench/lift_splat_shoot.py CHECKOUT`.

    git clone https://github.com/nv-tlabs/lift-splat-shoot
    pip install --no-deps --target lift-splat-shoot efficientnet_pytorch torchvision
    python bench/lift_splat_shoot.py lift-splat-shoot [--config small] [--repeats 20]

CHECKOUT is a clone of that repository, whose code runs as it is, with random weights (times do not depend on them), its
own settings (41 depth bins, 200 x 200 cells of 0.5 m) and six classes. Both see six 352x128 images, in turn. The
student runs by every back end that is installed.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from lift import ring
from machine import milliseconds, read_cpu_name
from torch import Tensor, nn

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment
from bridgeta_core.deploy.backends.base import Backend, Network
from bridgeta_core.deploy.backends.choose import choose_backend
from bridgeta_core.deploy.backends.graphs import lift_parts
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.model.lift import LiftPlan
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

WIDTH, HEIGHT, CAMERAS = 352, 128, 6
GRID = {"xbound": [-50.0, 50.0, 0.5], "ybound": [-50.0, 50.0, 0.5], "zbound": [-10.0, 10.0, 20.0]}
DEPTHS = {"dbound": [4.0, 45.0, 1.0]}


def load_classic(checkout: Path) -> nn.Module:
    """Build lift-splat-shoot's network from a clone of its repository, without downloading its backbone's weights."""
    package = ModuleType("src")  # whose own __init__ imports the training too, and what that needs
    package.__path__ = [str(checkout / "src")]
    sys.modules["src"] = package
    sys.path.append(str(checkout))
    from efficientnet_pytorch import EfficientNet  # type: ignore[import-not-found]

    EfficientNet.from_pretrained = EfficientNet.from_name
    from src.models import compile_model  # type: ignore[import-not-found]

    network: nn.Module = compile_model({**GRID, **DEPTHS}, {"final_dim": (HEIGHT, WIDTH)}, outC=len(CLASSES))
    return network.eval().requires_grad_(False)


def run_classic(network: nn.Module, intrinsics: Tensor, poses: Tensor) -> Callable[[], Any]:
    images = torch.rand(1, CAMERAS, 3, HEIGHT, WIDTH)
    k, pose = intrinsics.float(), poses.float()
    turns, shifts = torch.eye(3).expand(1, CAMERAS, 3, 3), torch.zeros(1, CAMERAS, 3)
    return lambda: network(images, pose[..., :3, :3], pose[..., :3, 3], k, turns, shifts).sigmoid()


def run_student(backend: Backend, plan: LiftPlan) -> Callable[[], Any]:
    images = torch.randint(256, (CAMERAS, HEIGHT, WIDTH, 3), dtype=torch.uint8)

    def run() -> Tensor:
        depth, features = backend.encode(images, plan.ground[0])
        return backend.decode(lift_parts(depth, features, plan))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--config", default="small")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    experiment = config.load(Experiment, options.config)
    student = Student(experiment.model, experiment.grid, pretrained=False).eval()
    classic = load_classic(options.checkout.resolve())  # after the student: transformers would use its torchvision
    image = student.config.image
    if image.size != (WIDTH, HEIGHT):
        parser.error(f"{options.config} takes images of {image.width}x{image.height}, not of {WIDTH}x{HEIGHT}")
    intrinsics, poses = ring()
    intrinsics = intrinsics * torch.tensor([[WIDTH / 704], [HEIGHT / 256], [1.0]])
    plan = student.plan(intrinsics, poses)
    ways = {"lift-splat-shoot": run_classic(classic, intrinsics, poses)}
    for name in ("torch", "openvino", "onnxruntime"):
        try:
            backend = choose_backend(Network.of(student, CAMERAS), name, torch.device("cpu"), "float32").backend
            ways[f"{options.config}, {name}"] = run_student(backend, plan)
        except BridgeTAError as error:
            print(f"left out: {error}")
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for number in range(-2, options.repeats):
            for name, way in ways.items():
                elapsed = milliseconds(way)
                if number >= 0:
                    times[name].append(elapsed)
    print("| network | minimum, ms | median | faster by |\n|---|---|---|---|")
    first = min(times["lift-splat-shoot"])
    for name, values in times.items():
        print(f"| {name} | {min(values):.1f} | {statistics.median(values):.1f} | {first / min(values):.1f} x |")
    own = sum(p.numel() for name, p in classic.named_parameters() if name not in ("dx", "bx", "nx", "frustum"))
    print(f"\nparameters: lift-splat-shoot {own / 1e6:.1f} M, {options.config} {student.parameter_count / 1e6:.1f} M")
    print(f"{read_cpu_name()}, {options.threads} threads, {options.repeats} rounds, torch {torch.__version__}")
    print(datetime.date.today())


if __name__ == "__main__":
    main()
