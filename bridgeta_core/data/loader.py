"""Loader processes: start them within the machine's limits, and send what they load without ever hanging."""

from __future__ import annotations

import logging
import math
import multiprocessing.queues
import multiprocessing.util
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import SHARED_MEMORY, check_semaphores, end_with_parent, shield_from_interrupts

logger = logging.getLogger(__name__)

_SPARE = 4  # shared memory has room for a batch while this many per loader process would fit
_ALIGNMENT = 64  # bytes
_FILES_OF_A_LOADER, _SPARE_FILES = 4, 8  # open files of this process per loader process, and for all else
_MOST_FILES = 1 << 16  # a limit of open files that is enough for anything
# The name of a socket ends at 107 bytes, and multiprocessing adds /pymp-xxxxxxxx/listener-xxxxxxxx.
_LONGEST_SOCKET_FOLDER = 107 - 32
_MANY_FILES = 256  # a limit of open files below which none is used for a batch


def make_loader(dataset: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
    """Make a DataLoader with `workers` loader processes; the other options are PyTorch's.

    A process that cannot send what it loaded ends. Raises BridgeTAError as `check_loaders` does.
    """
    check_loaders(workers)
    return _Loader(dataset, num_workers=workers, worker_init_fn=_set_up_process, **options)


class _Loader(DataLoader[Any]):
    """A DataLoader whose processes do not hear of Ctrl-C: this process ends them."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not self.num_workers:
            return super().__iter__()
        with shield_from_interrupts():  # here the processes start
            return super().__iter__()


def check_loaders(workers: int) -> None:
    """Check that the machine lets us start loader processes, before hours of work.

    Raises the limit of open files as far as this process may. Raises BridgeTAError where that is not enough, where
    there is no room for what processes share, and where there is no place for their sockets.
    """
    if workers:
        check_semaphores()
        _allow_open_files(workers)
        _place_sockets()


@cache
def _allow_open_files(workers: int) -> None:
    # Once, since later there are the loaders of before. Two must fit: validation starts before those of the epoch end.
    soft, hard = (_MOST_FILES if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft < min(hard, _MOST_FILES):
        soft = min(hard, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    needed = len(os.listdir("/proc/self/fd")) + 2 * _FILES_OF_A_LOADER * workers + _SPARE_FILES
    if needed > soft:
        raise BridgeTAError(
            f"{workers} loader processes need {needed} open files, but the limit is {soft}",
            fix="Allow more (ulimit -n 1024), or use fewer data.workers, or none (data.workers=0)",
            exit_code=2,
        )


def _place_sockets() -> None:
    """Let the sockets by which loader processes send their batches lie elsewhere where TMPDIR is too long for them."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER:
        return
    before = tempfile.tempdir
    for tempfile.tempdir in ("/tmp", "/var/tmp", SHARED_MEMORY):
        try:
            multiprocessing.util.get_temp_dir()  # made once, kept for all processes, and removed at the exit
            return
        except OSError:
            continue
        finally:
            tempfile.tempdir = before
    raise BridgeTAError(
        f"its path is too long for the sockets of loader processes, more than {_LONGEST_SOCKET_FOLDER} bytes",
        where=folder,
        fix="Set TMPDIR to a shorter one, or use no loader processes (data.workers=0)",
        exit_code=2,
    )


def _set_up_process(_: int) -> None:
    """Let this loader process end with its parent, at once when it is asked to, and when it cannot send a batch.

    Python's queue drops what it cannot send, and all would wait for ever.
    """
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has the handler of its parent

    def end(error: Exception, _: object) -> None:
        print(f"bridgeta: a loader process cannot send what it loaded ({error})", file=sys.stderr, flush=True)
        os._exit(1)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


class Packed:
    """A dataclass of tensors that is pickled as one block of bytes, so that sending it takes one open file.

    From a loader process the block goes through shared memory as long as that has ample room, as PyTorch does with
    every tensor, and otherwise through the process's pipe: containers often have 64 MB of shared memory, and a write
    beyond it kills the process or loses the batch.
    """

    def __getstate__(self) -> dict[str, Any]:
        tensors: list[Tensor] = []
        values = {name: _take_tensors(value, tensors) for name, value in self.__dict__.items()}
        ends = list(accumulate(-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors))
        starts = [0, *ends]
        block = _allocate(starts[-1])
        for start, tensor in zip(starts, tensors):  # noqa: B905 (the last start is the end)
            block[start : start + tensor.nbytes] = tensor.contiguous().view(-1).view(torch.uint8)
        layout = [(start, tensor.shape, tensor.dtype) for start, tensor in zip(starts, tensors)]  # noqa: B905
        through_pipe = get_worker_info() is not None and not block.is_shared()
        return {"values": values, "layout": layout, "block": block.numpy() if through_pipe else block}

    def __setstate__(self, state: dict[str, Any]) -> None:
        block = state["block"]
        if isinstance(block, np.ndarray):
            block = torch.from_numpy(block)
            _warn_of_pipes()
        tensors = []
        for start, shape, dtype in state["layout"]:
            size = math.prod(shape) * dtype.itemsize
            tensors.append(block[start : start + size].view(dtype).view(shape))
        self.__dict__.update({name: _put_tensors(value, tensors) for name, value in state["values"].items()})


class _Place(int):
    """Where a tensor was taken from: its number."""


def _take_tensors(value: Any, tensors: list[Tensor]) -> Any:
    """Replace the tensors in a value, in lists and named tuples too, by their places, and append them to `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Place(len(tensors) - 1)
    return _rebuild(value, lambda item: _take_tensors(item, tensors))


def _put_tensors(value: Any, tensors: Sequence[Tensor]) -> Any:
    """Put tensors back to their places."""
    return tensors[value] if isinstance(value, _Place) else _rebuild(value, lambda item: _put_tensors(item, tensors))


def _rebuild(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change the items of a list or a named tuple; any other value stays."""
    if isinstance(value, list):
        return [change(item) for item in value]
    return type(value)(*map(change, value)) if isinstance(value, tuple) and hasattr(value, "_fields") else value


def _allocate(size: int) -> Tensor:
    """Allocate bytes, in a loader process in shared memory where that has ample room."""
    info = get_worker_info()
    if size and info is not None and _has_room(size * _SPARE * info.num_workers):
        with suppress(RuntimeError, OSError):  # another process may have filled it meanwhile
            storage = torch.UntypedStorage._new_shared(size)
            return torch.empty(0, dtype=torch.uint8).set_(storage)
    return torch.empty(size, dtype=torch.uint8)


def _has_room(size: int) -> bool:
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:
        return False
    return size <= state.f_bavail * state.f_frsize and resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= _MANY_FILES


@cache
def _warn_of_pipes() -> None:
    """Warn once."""
    logger.warning(
        "%s or the limit of open files is small: batches go through pipes, which is slower for large ones. "
        "Give it more room with docker run --shm-size=8g",
        SHARED_MEMORY,
    )
