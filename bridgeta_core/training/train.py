"""The three ways to train: the teacher, the student, and the student with a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.progress import track
from torch import nn

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.deploy.weights import resolve, save_weights
from bridgeta_core.model.teacher import TeacherOutput
from bridgeta_core.runs.curves import draw_curves
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.training.distill_task import DistillTask
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.frozen import FrozenTeacher
from bridgeta_core.training.loop import Loop
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.provenance import provenance, sha256
from bridgeta_core.training.record import write_record
from bridgeta_core.training.tasks import MapTask, StudentTask, TeacherTask
from bridgeta_core.training.teacher_weights import save_teacher

Save = Callable[[Path, dict[str, Any]], None]


def train_student(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the student on its labels and return the path of its exported weights, `folder`/student.safetensors.

    `RunFolder` says what the folder receives. The weights are those of the best validation. With `resume` the run goes
    on after the last finished epoch, and the settings must be those of the run. Raises BridgeTAError when the folder
    holds a run and `resume` is off, or the other way round.
    """
    run, processes = _start(experiment, folder, "student", resume)
    frames = Frames(experiment, processes)
    if experiment.data.cache:
        frames.keep(experiment.data.cache)
    task = StudentTask(experiment, frames.groups)
    _describe(run, experiment, processes)
    loop = Loop(run, experiment.train, processes, len(frames.batches), waits=False)
    loop.fit(task, frames, resume)
    return _finish(loop, task, frames, _student_saver(task), {"student": _count(task.student)})


def train_teacher(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the teacher on its labels and return the path of its weights, `folder`/teacher.safetensors.

    Otherwise as `train_student`.
    """
    run, processes = _start(experiment, folder, "teacher", resume)
    frames = Frames(experiment, processes, lidar=experiment.teacher.lidar)
    if experiment.data.cache:
        for kept in frames.keep(experiment.data.cache).values():
            kept.add_points(experiment.teacher.lidar)
    task = TeacherTask(experiment, frames.groups)
    _describe(run, experiment, processes)
    loop = Loop(run, experiment.train, processes, len(frames.batches), waits=False)
    loop.fit(task, frames, resume)

    def save(path: Path, origin: dict[str, Any]) -> None:
        save_teacher(path, task.teacher, experiment.data.cameras, origin)

    return _finish(loop, task, frames, save, {"teacher": _count(task.teacher)})


def train_distill(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the student with the teacher of `distill.teacher`; return the path of `folder`/student.safetensors.

    Otherwise as `train_student`. Frames without labels take part by `data.unlabelled`.
    """
    run, processes = _start(experiment, folder, "distill", resume)
    teacher = FrozenTeacher.load(experiment.distill.teacher, experiment)
    digest = sha256(resolve(experiment.distill.teacher))
    frames = Frames(experiment, processes, lidar=teacher.network.config.lidar, unlabelled=True)
    task = DistillTask(experiment, frames.groups, teacher)
    _describe(run, experiment, processes)
    loop = Loop(run, experiment.train, processes, len(frames.batches), waits=True)
    teacher.to(loop.device)
    if experiment.data.cache:
        for name, kept in frames.keep(experiment.data.cache).items():
            if name == "train" or task.scores_assistant:
                kept.add_taps(teacher, digest, teacher.network.config.lidar, experiment.data.batch_size)
    if not resume:  # what is prepared lies in buffers, which the checkpoint keeps
        task.distiller.to(loop.device)
        task.distiller.prepare(_outputs(teacher, frames, experiment.distill.statistics_frames))
    loop.fit(task, frames, resume)
    parameters = {"student": _count(task.student), "train_only": sum(p.numel() for p in task.train_only())}
    return _finish(loop, task, frames, _student_saver(task), parameters, digest)


def _start(experiment: Experiment, folder: Path, kind: str, resume: bool) -> tuple[RunFolder, Processes]:
    run, processes = RunFolder(folder, kind), Processes.found()
    run.check(experiment, resume)
    lightning.seed_everything(experiment.train.seed, workers=True, verbose=False)
    return run, processes


def _describe(run: RunFolder, experiment: Experiment, processes: Processes) -> None:
    """Begin the folder, once data and networks are known to be there: what fails before leaves nothing behind."""
    if processes.rank == 0:
        run.describe(experiment)


def _outputs(teacher: FrozenTeacher, frames: Frames, count: int) -> Iterator[TeacherOutput]:
    """The teacher's outputs on training frames, with a progress bar."""
    hidden = frames.processes.rank > 0
    for batch in track(frames.plain(count), description="Teacher's statistics", disable=hidden):
        yield teacher(batch)


def _student_saver(task: StudentTask) -> Save:
    def save(path: Path, origin: dict[str, Any]) -> None:
        save_weights(path, task.student, task.experiment.data.cameras, origin)

    return save


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _finish(
    loop: Loop, task: MapTask, frames: Frames, save: Save, parameters: dict[str, int], teacher: str | None = None
) -> Path:
    """Write what a run leaves, in the first process: weights, figures, and last of all the record."""
    if frames.processes.rank == 0:
        state = torch.load(loop.best.best_model_path, map_location="cpu", weights_only=True)
        task.load_state_dict(state["state_dict"])
        metrics = {"miou": float(loop.best.best_model_score or 0.0), "epoch": state["epoch"]}
        steps, seconds = loop.trainer.global_step, loop.stopwatch.seconds
        save(loop.run.weights, provenance(task.experiment, frames, metrics, steps, seconds, teacher))
        draw_curves(loop.run.logs, loop.run.curves)
        write_record(loop, task, frames, parameters)
    return loop.run.weights
