"""Write a synthetic world as a nuScenes v1.0 root: tables, maps, images and sweeps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import cv2
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import flush
from bridgeta_core.utils.machine import resolve_device
from bridgeta_core.utils.outputs import check_output
from bridgeta_synth.dataset.checkpoint import Checkpoint
from bridgeta_synth.dataset.datasheet import DATA_SHEET, DataSheet, Tally
from bridgeta_synth.dataset.records import Record, make_map_record, make_vocabulary, name_scene
from bridgeta_synth.dataset.tasks import Task, TaskWriter
from bridgeta_synth.dataset.workers import Workers
from bridgeta_synth.dataset.world import World
from bridgeta_synth.settings import SynthSettings

_SCENE_TABLES = ("scene", "sample", "sample_data", "ego_pose", "instance", "sample_annotation")


def write_dataset(
    out: Path,
    settings: SynthSettings,
    device: str | torch.device = "cpu",
    progress: bool = True,
    overwrite: bool = False,
    jobs: int | None = None,
) -> DataSheet:
    """Write the root `out`, whole or not at all, and return its data sheet.

    Until it is complete it is `<out>.partial`; the same call after an interruption resumes it. `overwrite` replaces an
    earlier root that this function wrote, and discards the remains of an interrupted run with other settings. `jobs`
    files are made at a time, by default one per core: scenes are distributed to processes, which a script must allow
    for by `if __name__ == "__main__":`. A single scene, one job and a GPU need no processes.

    Raises BridgeTAError when `out` or `<out>.partial` holds something else, the device does not exist, the disk is
    full, or the run is interrupted.
    """
    out = check_output(Path(out).absolute(), folder=True, inputs=[Path(settings.maps)] if settings.maps else [])
    jobs = _count_cores() if jobs is None else jobs
    if jobs < 1:
        raise BridgeTAError(f"jobs is {jobs}, it must be 1 or more", exit_code=2)
    checkpoint = Checkpoint(out)
    checkpoint.clear_published()
    _check_target(out, overwrite)
    device = resolve_device(device)
    world = World(settings)
    try:
        with checkpoint.opened(settings, device.type, discard=overwrite):
            _run_tasks(checkpoint, world, str(device), jobs, progress)
            sheet = _write_tables(checkpoint, world)
            checkpoint.publish()
    except KeyboardInterrupt:
        raise BridgeTAError(
            "was interrupted", where=checkpoint.folder, fix="Repeat the command to go on with it"
        ) from None
    except OSError as error:
        raise BridgeTAError(
            f"cannot be written ({error.strerror or error})",
            where=error.filename or checkpoint.folder,
            fix="Check the free space and the permissions of that folder, then repeat the command to go on",
        ) from error
    return sheet


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / DATA_SHEET).is_file():
        fix = "Name an empty or new folder"
        raise BridgeTAError("exists and was not written by synth", where=out, fix=fix, exit_code=2)
    if not overwrite:
        fix = "Name another folder, or replace it with --overwrite"
        raise BridgeTAError("holds an earlier synthetic dataset", where=out, fix=fix, exit_code=2)


def _count_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _run_tasks(checkpoint: Checkpoint, world: World, device: str, jobs: int, progress: bool) -> None:
    """Carry out all tasks that an earlier run has not finished."""
    settings = world.settings
    tasks = [task for task in Task.all(world) if not checkpoint.has(task.name)]
    scenes = sum(task.scene is not None for task in tasks)
    processes = min(jobs, max(1, scenes)) if torch.device(device).type == "cpu" else 1
    writer: TaskWriter | Workers
    if processes == 1:
        writer = TaskWriter(checkpoint, settings, device, jobs)
    else:
        writer = Workers(checkpoint, settings, processes, jobs // processes)
    columns = (TextColumn("synth"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, disable=not progress, transient=False) as bar:
        total = settings.files_per_scene
        shown = bar.add_task("", total=settings.scenes * total, completed=(settings.scenes - scenes) * total)
        with _limit_threads():
            if tasks:
                writer.write(tasks, lambda: bar.advance(shown))


@contextmanager
def _limit_threads() -> Iterator[None]:
    """Use one thread per image.

    Rendering as many images at a time as there are cores is faster than several threads per image.
    """
    of_torch, of_cv2 = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_cv2)


class _TableFile:
    """A table that is written record by record: the tables of many scenes need not fit into memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self._count = 0

    def add(self, records: Sequence[Record]) -> None:
        for record in records:
            self._file.write((",\n" if self._count else "[\n") + json.dumps(record, indent=0))
            self._count += 1

    def close(self) -> None:
        self._file.write("\n]\n" if self._count else "[]\n")
        self._file.close()


def _write_tables(checkpoint: Checkpoint, world: World) -> DataSheet:
    """Assemble the tables and the data sheet from the finished tasks."""
    settings, tally = world.settings, Tally()
    tables = checkpoint.root / settings.version
    tables.mkdir(exist_ok=True)
    logs: dict[str, Record] = {}
    with ExitStack() as stack:
        files = {name: stack.enter_context(closing(_TableFile(tables / f"{name}.json"))) for name in _SCENE_TABLES}
        for index in range(settings.scenes):
            content = checkpoint.load(name_scene(index))
            for name, file in files.items():
                file.add(content["tables"][name])
            logs |= {record["token"]: record for record in content["tables"]["log"]}
            tally.add(Tally(**content["tally"]))
    rest = make_vocabulary(settings, world.locations)
    rest["log"] = list(logs.values())
    rest["map"] = [make_map_record(settings, location, rest["log"]) for location in world.locations]
    for name, records in rest.items():
        with closing(_TableFile(tables / f"{name}.json")) as file:
            file.add(records)
    sheet = DataSheet(settings, world.locations, tally)
    (checkpoint.root / DATA_SHEET).write_text(json.dumps(sheet.to_mapping(), indent=2) + "\n")
    flush(checkpoint.root / DATA_SHEET, *tables.iterdir(), tables)
    return sheet
