"""The three ways to train: the teacher, the student, and the student with a teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import lightning
from rich.console import Console
from rich.progress import track

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.deploy.weights import find_weights
from bridgeta_core.distill.base import Distiller, Example, Labels
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.runs.log import draw_curves
from bridgeta_core.runs.record import RunOutcome, describe_origin, save_record
from bridgeta_core.runs.words import build_scores_table, describe_start
from bridgeta_core.training.distill_task import DistillTask
from bridgeta_core.training.frames import RunFrames
from bridgeta_core.training.fresh import open_frames
from bridgeta_core.training.frozen import FrozenTeacher
from bridgeta_core.training.loop import Loop, read_checkpoint
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.tasks import MapTask, StudentTask, TeacherTask
from bridgeta_core.utils.files import hash_file
from bridgeta_core.utils.machine import require_memory

_MEMORY = 512  # MiB; a network of a few thousand weights takes up to 250


def train_student(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the student on its labels and return the path of its exported weights, `folder`/student.safetensors.

    `RunFolder` lists what the folder receives. The weights are those of the best validation. With `resume` the run
    continues after the last finished epoch, with its own settings. Raises BridgeTAError when the folder holds a run and
    `resume` is off, or the other way round, and when another process trains there.
    """
    run, processes = _start(experiment, folder, "student", resume)
    # Points for the loss on depth alone: those that a teacher of keyframes takes, so that they share a cache.
    lidar = replace(experiment.teacher.lidar, sweeps=0) if experiment.train.depth_loss else None
    frames = open_frames(experiment, processes, lidar=lidar)
    if experiment.data.cache:
        for name, cached in frames.use_cache(experiment.data.cache).items():
            if lidar is not None and name == "train":
                cached.add_points(lidar)
    task = StudentTask(experiment, frames.groups)
    loop = Loop(run, experiment.train, processes, len(frames.batches), unused_parameters=False)
    with _claim(run, experiment, processes, resume):
        _announce(loop, task, frames)
        loop.fit(task, frames, resume)
        return _finish(loop, task, frames)


def train_teacher(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the teacher on its labels and return the path of its weights, `folder`/teacher.safetensors.

    Otherwise as `train_student`.
    """
    run, processes = _start(experiment, folder, "teacher", resume)
    frames = open_frames(experiment, processes, lidar=experiment.teacher.lidar)
    if experiment.data.cache:
        for cached in frames.use_cache(experiment.data.cache).values():
            cached.add_points(experiment.teacher.lidar)
    task = TeacherTask(experiment, frames.groups)
    loop = Loop(run, experiment.train, processes, len(frames.batches), unused_parameters=False)
    with _claim(run, experiment, processes, resume):
        _announce(loop, task, frames)
        loop.fit(task, frames, resume)
        return _finish(loop, task, frames)


def train_distill(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the student with the teacher of `distill.teacher`; return the path of `folder`/student.safetensors.

    Otherwise as `train_student`. Frames without labels take part by `data.unlabelled`.
    """
    run, processes = _start(experiment, folder, "distill", resume)
    teacher = FrozenTeacher.load(experiment.distill.teacher, experiment)
    teacher_sha256 = hash_file(find_weights(experiment.distill.teacher))
    frames = open_frames(experiment, processes, lidar=teacher.network.config.lidar, unlabelled=True)
    task = DistillTask(experiment, frames.groups, teacher)
    loop = Loop(run, experiment.train, processes, len(frames.batches), unused_parameters=True)
    with _claim(run, experiment, processes, resume):
        live = task.distiller.needs_live_teacher or not experiment.data.cache
        features = "computed in every step" if live else f"read from {experiment.data.cache}"
        _announce(loop, task, frames, f"{experiment.distill.teacher}, its features {features}")
        teacher.to(loop.device)
        if experiment.data.cache:
            mirrored = None if live else teacher.network.bev_grid
            for name, cached in frames.use_cache(experiment.data.cache, mirrored).items():
                if name == "train" and (live or experiment.train.depth_loss):
                    cached.add_points(teacher.network.config.lidar)
                if (name == "train" and not live) or (name == "val" and task.scores_assistant):
                    cached.add_taps(teacher, teacher_sha256, teacher.network.config.lidar, experiment.data.batch_size)
        if not resume:  # what `prepare` measures is in buffers, which the checkpoint has
            task.distiller.to(loop.device)
            examples = _Examples(teacher, task.distiller, frames, experiment.distill.statistics_frames)
            task.distiller.prepare(examples, teacher.network)
        loop.fit(task, frames, resume)
        return _finish(loop, task, frames, teacher_sha256)


def _start(experiment: Experiment, folder: Path, kind: str, resume: bool) -> tuple[RunFolder, Processes]:
    run, processes = RunFolder(folder, kind), Processes.detect()
    with run.hold() if processes.rank == 0 and run.lock.exists() else nullcontext():  # in use? Before much is loaded
        run.check(experiment, resume)
    lightning.seed_everything(experiment.train.seed, workers=True, verbose=False)
    return run, processes


@contextmanager
def _claim(run: RunFolder, experiment: Experiment, processes: Processes, resume: bool) -> Iterator[None]:
    """Create the folder and hold it until the run ends; the first process does it for all of them.

    Once data and networks are loaded, so that an earlier failure leaves nothing behind. Raises MemoryError when there
    is not even the memory for training a small network.
    """
    require_memory(_MEMORY, "training")
    if processes.rank > 0:
        yield
        return
    with run.hold():
        run.check(experiment, resume)  # again: a run that held the folder until now may have changed it
        run.save_settings(experiment)
        yield


class _Examples(Iterable[Example]):
    """The teacher on at most `count` training frames, with a progress bar every time that they are read."""

    def __init__(self, teacher: FrozenTeacher, distiller: Distiller, frames: RunFrames, count: int) -> None:
        self._teacher, self._distiller, self._frames, self._count = teacher, distiller, frames, count
        self._step = 0

    def __iter__(self) -> Iterator[Example]:
        batches = self._frames.sample_dataloader(self._count)
        hidden = self._frames.processes.rank > 0
        for batch in track(batches, description="Teacher's statistics", disable=hidden):
            taps, fused = self._teacher.run(batch)
            batch = batch.to(taps.Z.device)
            view = self._distiller.view(batch, self._step)
            seen = None if view is None else self._teacher(view)
            yield Example(taps, Labels(batch.labels, batch.known), fused, seen, self._step)
            self._step += 1


def _announce(loop: Loop, task: MapTask, frames: RunFrames, teacher: str | None = None) -> None:
    """Say on the screen of the first process what is trained."""
    if frames.processes.rank > 0:
        return
    description = describe_start(
        task.experiment,
        loop.run.kind,
        device=str(loop.device),
        processes=frames.processes.world,
        frames=frames.describe(),
        parameters=task.count_parameters(),
        batches=len(frames.batches),
        teacher=teacher,
    )
    print(description)


def _finish(loop: Loop, task: MapTask, frames: RunFrames, teacher: str | None = None) -> Path:
    """Write the results of a run in the first process: weights, curves, and last of all the record."""
    if frames.processes.rank == 0:
        state = read_checkpoint(loop.run.best)
        task.load_state_dict(state["state_dict"])
        outcome = RunOutcome(
            kind=loop.run.kind,
            experiment=task.experiment,
            frames={
                "labelled": len(frames.labelled),
                "unlabelled": len(frames.unlabelled),
                "validation": len(frames.validation),
            },
            processes=frames.processes.world,
            device=loop.device.type,
            epochs=loop.trainer.current_epoch,
            steps=loop.trainer.global_step,
            seconds=loop.stopwatch.seconds,
            seconds_per_step=loop.stopwatch.seconds_per_step,
            cache_seconds=frames.cache_seconds,
            parameters=task.count_parameters(),
            validation=task.scores,
            best={
                "miou": float(loop.best.best_model_score or 0.0),
                "epoch": state["epoch"],
                "thresholds": {name: c["threshold"] for name, c in task.scores["best"]["classes"].items()},
            },
            unknown_classes=frames.find_unknown_classes(),
            teacher_sha256=teacher,
        )
        task.export(loop.run.weights, describe_origin(outcome))
        draw_curves(loop.run.path, loop.run.curves)
        save_record(loop.run.record, outcome)
        Console().print(build_scores_table(task.scores["best"]))
    return loop.run.weights
