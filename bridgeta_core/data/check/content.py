"""Find damaged files: decode every image and read every LiDAR file."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from bridgeta_core.data.pointcloud import read_lidar
from bridgeta_core.geometry.image_decoder import decode
from bridgeta_core.geometry.image_header import read_header
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import check_semaphores, end_with_parent, shield_from_interrupts

_CHUNK = 16  # files per task of a process
_AHEAD = 4  # chunks queued per process, so that none idles


@dataclass(frozen=True)
class Expected:
    """A file below the root and the size that the tables give its image in pixels; 0, 0 for a LiDAR file."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, and what to do about it where extracting it again may not help."""

    path: str
    what: str
    fix: str | None = None


def find_damaged(root: Path, files: Sequence[Expected], jobs: int) -> list[Fault]:
    """Find the damaged files, in order. Shows a progress bar.

    `jobs` processes share the work. Raises BridgeTAError when one of them dies.
    """
    check_semaphores()
    columns = (TextColumn("check"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), _Rate())
    damaged: list[Fault] = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(files))
        for count, faults in _check_chunks(root, files, jobs):
            damaged += faults
            bar.advance(task, count)
    return damaged


def check_files(root: Path, files: Sequence[Expected], jobs: int | None) -> list[Fault]:
    """Find the damaged ones of some files, as `find_damaged` does; with `jobs` None here, one after the other."""
    return find_damaged(root, files, jobs) if jobs else _find_faults(root, files)


class _Rate(ProgressColumn):
    """Files per second."""

    def render(self, task: Task) -> Text:
        """Render nothing until the first files are done."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _check_chunks(root: Path, files: Sequence[Expected], jobs: int) -> Iterator[tuple[int, list[Fault]]]:
    """Yield the sizes of chunks of files with their faults, in order."""
    chunks = iter([files[i : i + _CHUNK] for i in range(0, len(files), _CHUNK)])
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    waiting: deque[tuple[int, Future[list[Fault]]]] = deque()

    def submit(more: Iterable[Sequence[Expected]]) -> None:
        with shield_from_interrupts():  # a submission may start a process
            waiting.extend((len(chunk), pool.submit(_find_faults, root, chunk)) for chunk in more)

    try:
        submit(itertools.islice(chunks, _AHEAD * jobs))
        while waiting:
            count, future = waiting.popleft()
            faults = future.result()
            submit(itertools.islice(chunks, 1))
            yield count, faults
    except OSError as error:
        fix = "Allow more open files (ulimit -n 1024), or use fewer --jobs"
        what = f"processes cannot be started ({error.strerror or error})"
        raise BridgeTAError(what, where=root, fix=fix) from error
    except BrokenProcessPool as error:
        fix = "If memory ran short use fewer --jobs"
        raise BridgeTAError("a process that decodes files died", where=root, fix=fix) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _find_faults(root: Path, files: Sequence[Expected]) -> list[Fault]:
    faults = []
    for file in files:
        if not file.width:
            faults.append(find_lidar_fault(root, file.path))
        elif what := _find_image_fault(root, file):
            faults.append(Fault(file.path, what))
    return [fault for fault in faults if fault]


def find_lidar_fault(root: Path, path: str) -> Fault | None:
    """Find what is wrong with the LiDAR file at a path below the root."""
    try:
        read_lidar(root / path)
    except BridgeTAError as error:
        return Fault(path, error.what, error.fix)
    return None


def _find_image_fault(root: Path, file: Expected) -> str | None:
    try:
        data = (root / file.path).read_bytes()
        header = read_header(data)
        if (header.width, header.height) != (file.width, file.height):
            return f"is {header.width}x{header.height} pixels, in the tables {file.width}x{file.height}"
        decode(data)
    except BridgeTAError as error:
        return error.what
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _start_worker() -> None:
    end_with_parent()
    cv2.setNumThreads(1)
