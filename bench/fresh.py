"""Train for some time on frames that are rendered meanwhile: `python bench/fresh.py OUT [--minutes 6] [--config tiny]`.

The frames are those of `data.source=synthetic`; `bridgeta train` does the same for a given number of steps, resumably.
First the teacher is trained, then, on the same batches, a student alone and a student with the teacher. Learning rates
follow the share of the time that has passed, so that training is complete whenever the time is up. OUT receives
`teacher`, `alone` and `distilled` (.safetensors, averaged weights) and `fresh.json`; the mIoU at the end is that of
other towns, those of the split `val`.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from machine import name_device
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bridgeta_core.config import experiment as config
from bridgeta_core.config.experiment import AugmentConfig, Experiment
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.frames import Batch, collate
from bridgeta_core.data.loader import make_loader
from bridgeta_core.deploy.teacher_weights import save_teacher
from bridgeta_core.deploy.weights import save_weights
from bridgeta_core.distill.base import Context, Example, Labels
from bridgeta_core.distill.methods.registry import build_distiller
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.model.lift import PlanCache
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.training.distill_task import Ramp
from bridgeta_core.training.fresh import FreshBatches
from bridgeta_core.training.loop import MovingAverage
from bridgeta_core.training.processes import Processes
from bridgeta_synth.dataset.frames import FreshTowns

VALIDATION = 4  # towns
TEACHER_SHARE = 0.35  # of the time
RISE, EMA = 0.2, 0.998  # share of the time before the peak of the learning rate; decay of the averaged weights


class Trainee:
    """A network in training with its optimiser and averaged weights."""

    def __init__(self, network: nn.Module, experiment: Experiment, device: str, more: nn.Module | None = None) -> None:
        self.network, self.rate = network, experiment.train.learning_rate
        self.trained = [
            p for module in (network, more) if module is not None for p in module.parameters() if p.requires_grad
        ]
        self.optimiser = torch.optim.AdamW(self.trained, lr=self.rate, weight_decay=experiment.train.weight_decay)
        self.average = AveragedModel(network, avg_fn=MovingAverage(EMA).average, use_buffers=True)
        self.clip, self.steps = experiment.train.clip, 0

    def step(self, loss: Tensor, progress: float) -> None:
        """Take a step at a learning rate that rises to its peak and then falls as a cosine."""
        rise, fall = progress / RISE, (progress - RISE) / (1 - RISE)
        factor = max(0.05, rise) if progress < RISE else 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.steps += 1


class Run:
    """The three trainings."""

    def __init__(self, options: argparse.Namespace, experiment: Experiment) -> None:
        self.options, self.experiment, self.device = options, experiment, options.device
        augment = Augment(experiment.data.augment)
        towns = FreshTowns.build(experiment, experiment.teacher.lidar, Augment(AugmentConfig(flip=False, colour=0.0)))
        self.fresh = FreshBatches(towns, experiment, Processes(), augment)
        self.batches = self._endless()
        self.validation = list[Batch]()
        torch.manual_seed(0)
        self.students = [Student(experiment.model, experiment.grid, pretrained=False)]
        self.students.append(copy.deepcopy(self.students[0]))
        torch.manual_seed(1)
        self.teacher = Teacher(experiment.teacher, experiment.model, experiment.grid, pretrained=False)
        for network in (*self.students, self.teacher):
            network.to(self.device).train()
        self.plans = PlanCache(self.students[0].plan, 64)

    def _endless(self) -> Iterator[Batch]:
        for epoch in itertools.count():
            self.fresh.set_epoch(epoch)
            for batch in self.fresh:
                yield batch.to(self.device, non_blocking=True)

    def render_validation(self) -> None:
        """Render the frames of towns of the split `val`."""
        experiment = self.experiment
        towns = FreshTowns(experiment, experiment.teacher.lidar, Augment(AugmentConfig(flip=False, colour=0.0)), "val")
        for frames in make_loader(towns, experiment.data.workers, batch_size=None, sampler=range(VALIDATION)):
            self.validation += [collate(frames[i : i + 8]).to(self.device) for i in range(0, len(frames), 8)]

    def _autocast(self) -> Any:
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return focal_loss(logits.float(), batch.labels, batch.known, self.experiment.train.gamma)

    def _run_teacher(self, network: nn.Module, batch: Batch) -> Taps:
        return network(batch.images, self.plans(batch.intrinsics, batch.ego_T_cam), batch.points)

    def train_teacher(self, seconds: float) -> dict[str, Any]:
        """Train the teacher for some time."""
        trainee, start, losses = Trainee(self.teacher, self.experiment, self.device), time.monotonic(), []
        while (progress := (time.monotonic() - start) / seconds) < 1:
            batch = next(self.batches)
            with self._autocast():
                logits = self._run_teacher(self.teacher, batch).Z
            loss = self._loss(logits, batch)
            trainee.step(loss, progress)
            losses.append(loss.detach())
            self._report("teacher", trainee, progress, losses)
        self.teacher = trainee.average.module.eval().requires_grad_(False)
        return {
            "steps": trainee.steps,
            "seconds": seconds,
            **self.validate(lambda b: self._run_teacher(self.teacher, b).Z),
        }

    @torch.no_grad()
    def _taps(self, batch: Batch) -> Taps:
        with self._autocast():
            return Taps(*(tap.float() for tap in self._run_teacher(self.teacher, batch)))

    def train_students(self, seconds: float) -> dict[str, Any]:
        """Train the student alone and the distilled one, step by step on the same batches."""
        experiment, (alone, distilled) = self.experiment, self.students
        distill = experiment.distill
        distiller = build_distiller(distill, distilled, self.teacher).to(self.device)
        count = math.ceil(distill.statistics_frames / experiment.data.batch_size)
        seen = itertools.islice(self.batches, count)
        distiller.prepare((Example(self._taps(b), Labels(b.labels, b.known)) for b in seen), self.teacher)
        first, second = Trainee(alone, experiment, self.device), Trainee(distilled, experiment, self.device, distiller)
        # The ramp counts steps, whose number is not known; it is set by the share of the time in thousandths.
        ramp = Ramp(1000, 0, 50, distill.strength, distill.final)
        calibrated, start, losses = not distill.levels.calibrate, time.monotonic(), []
        while (progress := (time.monotonic() - start) / seconds) < 1:
            batch = next(self.batches)
            labels, plan, taps = (
                Labels(batch.labels, batch.known),
                self.plans(batch.intrinsics, batch.ego_T_cam),
                self._taps(batch),
            )
            with self._autocast():
                logits = alone(batch.images, plan).Z
            loss = self._loss(logits, batch)
            first.step(loss, progress)
            with self._autocast():
                own = distilled(batch.images, plan)
                label_loss = self._loss(own.Z, batch)
                done = int(1000 * progress)
                context = Context(
                    distilled, self.teacher, done, 1000, ramp.strength_at(done), False, experiment.train.gamma
                )
                if not calibrated and progress > 0.05:
                    full = Context(distilled, self.teacher, done, 1000, 1.0, False, experiment.train.gamma)
                    terms = distiller.compute_losses(taps, own, labels, full)
                    distiller.calibrate(label_loss, own, terms, distill.levels.calibrate)
                    calibrated = True
                terms = distiller.compute_losses(taps, own, labels, context)
            second.step(torch.stack([term.float() for term in (label_loss, *terms.values())]).sum(), progress)
            losses.append(torch.stack([loss.detach(), label_loss.detach().float()]))
            self._report("students", first, progress, losses)
        self.students = [trainee.average.module.eval() for trainee in (first, second)]
        return {
            name: {
                "steps": first.steps,
                "seconds": seconds,
                **self.validate(lambda b, s=student: s(b.images, self.plans(b.intrinsics, b.ego_T_cam)).Z),
            }
            for name, student in zip(("alone", "distilled"), self.students, strict=True)
        }

    def _report(self, what: str, trainee: Trainee, progress: float, losses: list[Tensor]) -> None:
        if trainee.steps % self.options.every == 0:
            mean = torch.stack(losses[-self.options.every :]).mean(0).tolist()
            print(
                f"{what}: step {trainee.steps}, {progress:.0%}, loss {mean}",
                flush=True,
            )

    @torch.no_grad()
    def validate(self, predict: Any) -> dict[str, Any]:
        """Score a network on the validation towns, in %."""
        metric = MapIoU(self.experiment.grid)
        for batch in self.validation:
            with self._autocast():
                logits = predict(batch)
            metric.update(logits.float().sigmoid(), batch.labels, batch.known)
        result = metric.result()
        return {
            "miou": round(100 * float(result.miou), 2),
            "frames": sum(len(batch.tokens) for batch in self.validation),
        }

    def save(self, results: dict[str, Any]) -> None:
        """Write weights and results."""
        out, cameras = self.options.out, self.experiment.data.cameras
        origin = {"bench": "fresh.py", "config": self.options.config, "set": self.options.set, **results}
        if "teacher" in results:
            save_teacher(out / "teacher.safetensors", self.teacher, cameras, origin)
        for name, student in zip(("alone", "distilled"), self.students, strict=True):
            if name in results:
                save_weights(out / f"{name}.safetensors", student, cameras, origin)
        (out / "fresh.json").write_text(json.dumps(origin, indent=1))


def main() -> None:
    """Render, train and print."""
    parser = argparse.ArgumentParser(description="Training on frames that are rendered meanwhile.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings on top of it")
    parser.add_argument("--minutes", type=float, default=6.0, help="for all, rendering and validation included")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=14, help="renderer processes")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--every", type=int, default=100, help="steps between reports")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    loading = [f"data.workers={options.workers}", f"data.batch_size={options.batch}", "data.steps_per_epoch=1000"]
    loading += ["data.fresh.uses=24"]  # a GPU trains much faster than processors render
    experiment = config.load(Experiment, options.config, ["teacher.lidar.sweeps=0", *loading, *options.set])
    run = Run(options, experiment)
    run.render_validation()
    waited = time.monotonic() - start
    print(f"{VALIDATION} towns to validate on after {waited:.0f} s", flush=True)
    left = max(10.0, 60 * options.minutes - waited - 20)  # the rest is for validation and writing
    results: dict[str, Any] = {"device": name_device(options.device), "date": str(datetime.date.today())}
    results["teacher"] = run.train_teacher(TEACHER_SHARE * left)
    print(f"teacher: {results['teacher']}", flush=True)
    run.save(results)
    results |= run.train_students((1 - TEACHER_SHARE) * left)
    results["seconds"] = round(time.monotonic() - start)
    run.save(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
