"""What distillation costs: `python bench/distill_cost.py [--config tiny] [--root ROOT] [--repeats 7] [--threads 2]`.

Times a training step (forward, losses, backward, clipping, AdamW) of the student alone and with every method, on one
batch of the configuration: synthetic tensors, or the first frames of a nuScenes root. The methods take turns, so that
a machine that slows down slows all of them. Peak memory is that of two steps in a process of their own per method: the
resident set on a CPU, which includes the libraries, and what is allocated on a GPU. The last table compares what ships:
the forward passes of a plain and a distilled student in pairs, both read back from their exported files.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from lift import IMAGE_SIZE, ring
from machine import milliseconds, read_cpu_name
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import Experiment
from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.data.frames import Batch, FrameDataset, collate
from bridgeta_core.data.nuscenes.index_cache import list_versions
from bridgeta_core.deploy.weights import load_student, save_weights
from bridgeta_core.distill.base import Context, Distiller, Example, Labels, View
from bridgeta_core.distill.levels import freeze_running_statistics
from bridgeta_core.distill.methods.registry import METHODS, build_distiller
from bridgeta_core.distill.stages import record_fuser_input, record_stages
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.model.lift import LiftPlan
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher

ALONE = "student alone"
VARIANTS = {
    "direct, decoder reads the teacher": ["distill.method=direct", "distill.direct.read_teacher=1"],
    "bridgeta, frozen teacher's head": ["distill.method=bridgeta", "distill.bridgeta.reading=frozen"],
    "bridgeta, midpoint": ["distill.method=bridgeta", "distill.bridgeta.assistant=midpoint"],
}


def list_rows() -> dict[str, list[str]]:
    """List the settings by row: the student alone, every method, and variants of some."""
    return {ALONE: [], **{name: [f"distill.method={name}"] for name in METHODS}, **VARIANTS}


def make_synthetic_batch(experiment: Experiment, points: int = 30_000) -> Batch:
    """Make a batch of noise with the cameras of a car and `points` LiDAR points per sample."""
    generator = torch.Generator().manual_seed(0)
    size, image, grid = experiment.data.batch_size, experiment.model.image, experiment.grid
    intrinsics, poses = ring()
    scale = torch.diag(torch.tensor([image.width / IMAGE_SIZE[1], image.height / IMAGE_SIZE[0], 1.0])).double()
    spread = torch.tensor([25.0, 25.0, 1.0, 60.0, 0.2])
    masks = torch.rand(size, len(CLASSES), *grid.shape, generator=generator) < 0.2
    return Batch(
        images=torch.randint(256, (size, 6, 3, image.height, image.width), generator=generator, dtype=torch.uint8),
        intrinsics=(scale @ intrinsics).float().repeat(size, 1, 1, 1),
        ego_T_cam=poses.float().repeat(size, 1, 1, 1),
        labels=masks.to(torch.uint8),
        known=torch.ones(size, len(CLASSES), dtype=torch.bool),
        tokens=[str(i) for i in range(size)],
        points=[torch.randn(points, 5, generator=generator).abs_() * spread - spread / 4 for _ in range(size)],
    )


def load_batch(experiment: Experiment, root: Path | None) -> Batch:
    """Load the first frames of a root, or make noise without one."""
    if root is None:
        return make_synthetic_batch(experiment)
    version = list_versions(root)[0]
    data, model = experiment.data, experiment.model
    dataset = open_dataset("nuscenes", root, version)
    frames = FrameDataset(dataset, "all", data.cameras, model.image, experiment.grid, lidar=experiment.teacher.lidar)
    return collate([frames[i % len(frames)] for i in range(data.batch_size)])


class Step:
    """A training step of one row, to call repeatedly."""

    def __init__(self, experiment: Experiment, batch: Batch, teacher: Teacher, distilled: bool) -> None:
        torch.manual_seed(0)
        device = batch.images.device
        self.experiment, self.batch, self.teacher = experiment, batch, teacher
        self.student = Student(experiment.model, experiment.grid, pretrained=False).to(device).train()
        self.plan = self.student.plan(batch.intrinsics, batch.ego_T_cam)
        self.labels = Labels(batch.labels, batch.known)
        self.distiller: Distiller | None = None
        trained = list(self.student.parameters())
        if distilled:
            self.distiller = build_distiller(experiment.distill, self.student, teacher).to(device)
            taps, fused = self.run_teacher(batch)
            view = self.distiller.view(batch, 0)
            seen = None if view is None else self.run_teacher(view)[0]
            self.distiller.prepare([Example(taps, self.labels, fused, seen)], teacher)
            trained += [p for p in self.distiller.parameters() if p.requires_grad]
        self.trained = trained
        self.optimiser = torch.optim.AdamW(trained, lr=1e-4)

    @torch.no_grad()
    def run_teacher(self, batch: Batch) -> tuple[Taps, Tensor | None]:
        """Compute the teacher's taps, and the input of its fuser."""
        with record_fuser_input(self.teacher) as fused:
            taps = self.teacher(batch.images, self.plan_of(batch), batch.points)
        return taps, fused[0] if fused else None

    def plan_of(self, batch: Batch) -> LiftPlan:
        """Plan the lift of a batch; a transformed one has another than the batch itself."""
        return self.plan if batch is self.batch else self.student.plan(batch.intrinsics, batch.ego_T_cam)

    def view(self) -> View | None:
        """Run both networks on the batch as the method transforms it, if it does."""
        batch = self.distiller.view(self.batch, 500) if self.distiller else None
        if batch is None:
            return None
        with freeze_running_statistics(self.student):
            student = self.student(batch.images, self.plan_of(batch))
        return View(self.run_teacher(batch)[0], student, Labels(batch.labels, batch.known))

    def __call__(self) -> None:
        """Take the step."""
        gamma = self.experiment.train.gamma
        with record_stages(self.student.decoder) as stages:
            output = self.student(self.batch.images, self.plan)
        loss = focal_loss(output.Z, self.batch.labels, self.batch.known, gamma)
        if self.distiller:
            taps, fused = self.run_teacher(self.batch)
            inside = {"stages": tuple(stages), "fused": fused, "view": self.view()}
            context = Context(self.student, self.teacher, step=500, steps=1000, gamma=gamma, **inside)
            loss = loss + sum(self.distiller.compute_losses(taps, output, self.labels, context).values())
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.experiment.train.clip)
        self.optimiser.step()

    @property
    def train_only(self) -> int:
        """Number of parameters that are trained with the student and not shipped."""
        return sum(p.numel() for p in self.distiller.parameters() if p.requires_grad) if self.distiller else 0


def make_step(options: argparse.Namespace, name: str, batch: Batch, teacher: Teacher) -> Step:
    """Make the step of a row."""
    experiment = config.load(Experiment, options.config, [*options.set, *list_rows()[name]])
    return Step(experiment, batch, teacher, distilled=name != ALONE)


def make_teacher(options: argparse.Namespace) -> tuple[Batch, Teacher]:
    """Make a batch and a teacher with random weights on the device."""
    experiment = config.load(Experiment, options.config, options.set)
    teacher = Teacher(experiment.teacher, experiment.model, experiment.grid, pretrained=False)
    return load_batch(experiment, options.root).to(options.device), teacher.to(options.device).eval().requires_grad_(
        False
    )


def measure_peak_megabytes(options: argparse.Namespace, name: str) -> float:
    """Measure the peak memory of this process after two steps."""
    torch.set_num_threads(options.threads)
    step = make_step(options, name, *make_teacher(options))
    for _ in range(2):
        step()
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure_peak_apart(options: argparse.Namespace, name: str) -> float:
    """Measure the peak memory of a row alone: on a GPU here, on a CPU in a process of its own.

    Call it before this process grows: on Linux a child's peak starts at the size of its parent.
    """
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return measure_peak_megabytes(options, name)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(measure_peak_megabytes, (options, name)))


def time_call(options: argparse.Namespace, call: Callable[[], object]) -> float:
    """Time a call and its work on the GPU, in milliseconds."""

    def whole() -> None:
        call()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return milliseconds(whole)


def measure_training(options: argparse.Namespace) -> tuple[Table, dict[str, Step]]:
    """Measure the training steps. Return their table, and the steps."""
    peaks = {name: measure_peak_apart(options, name) for name in list_rows()}
    batch, teacher = make_teacher(options)
    steps = {name: make_step(options, name, batch, teacher) for name in list_rows()}
    calls: dict[str, Callable[[], object]] = {**steps, "the teacher's forward pass": steps[ALONE].run_teacher}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(options.repeats + 1):
        for name, call in calls.items():
            elapsed = time_call(options, call)
            if repeat:  # the first one warms up
                times[name].append(elapsed)
    table = Table(box=box.MARKDOWN)
    for column in ("way", "step ms: median", "min", "max", "to the student alone", "peak MB", "train-only parameters"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, values in times.items():
        paired = statistics.median(v / alone for v, alone in zip(values, times[ALONE], strict=True))
        row = [name, *(f"{value:,.0f}" for value in (statistics.median(values), min(values), max(values)))]
        row.append(f"{paired:.2f}x")
        if name in steps:
            row += [f"{peaks[name]:,.0f}", f"{steps[name].train_only:,}"]
        table.add_row(*row)
    return table, steps


def measure_latency(options: argparse.Namespace, steps: dict[str, Step]) -> Table:
    """Measure the exported students' forward passes on one sample."""
    table = Table(box=box.MARKDOWN)
    for column in (
        "exported student",
        "forward ms: median",
        "min",
        "max",
        "to the plain one, median of pairs",
        "bytes",
    ):
        table.add_column(column, justify="left" if column == "exported student" else "right")
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], object]] = {}
        sizes = {}
        for name in (ALONE, "bridgeta"):
            step, path = steps[name], Path(folder) / f"{len(calls)}.safetensors"
            save_weights(path, step.student, step.experiment.data.cameras, {})
            sizes[name] = path.stat().st_size
            exported = load_student(path)[0].to(options.device).eval()
            batch = step.batch
            plan = exported.plan(batch.intrinsics[:1], batch.ego_T_cam[:1])
            calls[name] = torch.inference_mode()(lambda s=exported, p=plan, b=batch: s(b.images[:1], p))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for repeat in range(-3, 10 * options.repeats):
            # The second one finds warmer caches, so the order alternates too.
            for name in sorted(calls, reverse=repeat % 2 == 0):
                elapsed = time_call(options, calls[name])
                if repeat >= 0:
                    times[name].append(elapsed)
    for name, values in times.items():
        paired = statistics.median(v / alone for v, alone in zip(values, times[ALONE], strict=True))
        shown = [f"{value:.1f}" for value in (statistics.median(values), min(values), max(values))]
        table.add_row(name, *shown, f"{paired:.3f}x", f"{sizes[name]:,}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What distillation costs.")
    parser.add_argument("--config", default="tiny", help="configuration of the networks and the batch size")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings on top of it")
    parser.add_argument("--root", type=Path, help="nuScenes-format folder to take the batch from")
    parser.add_argument("--repeats", type=int, default=7, help="steps timed per way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="PyTorch's threads")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=160)
    table, steps = measure_training(options)
    console.print(table)
    console.print()
    console.print(measure_latency(options, steps))
    size = next(iter(steps.values())).batch.images.shape[0]
    on = read_cpu_name() if options.device == "cpu" else torch.cuda.get_device_name()
    console.print(
        f"\n{options.config}, batch of {size}, {options.repeats} repeats; {on}, {options.threads} threads, "
        f"torch {torch.__version__}, {datetime.date.today()}"
    )


if __name__ == "__main__":
    main()
