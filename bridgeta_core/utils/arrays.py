"""Types of NumPy arrays that signatures share, and arrays on disk. Importing it makes sure of OpenBLAS's memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.errors import find_system_error
from bridgeta_core.utils.machine import require_memory

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Objects = NDArray[np.object_]

_BLAS_BUFFER = 48  # MiB; OpenBLAS takes 32


def _reserve_blas_memory() -> None:
    """Let NumPy's OpenBLAS take the buffer of its first call. Raises MemoryError where there is none.

    OpenBLAS of NumPy 1 asks for it again and again, for ever, in a loop that no signal handler of Python interrupts.
    Asked early, it has its buffer before a command's own data fill the memory. Children that are forked inherit it.
    """
    require_memory(_BLAS_BUFFER, "matrices")
    np.linalg.inv(np.eye(2))


_reserve_blas_memory()


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file. Raises OSError when it cannot be written whole.

    `np.save` says nothing when the last bytes, or all of a small array, find no room: it hands a file of its own to C,
    and does not look at what closing it returns. It does so for files open for writing alone; this one may be read too.
    """
    with path.open("w+b") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def map_array(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory, read-only. Raises OSError or ValueError for one that is damaged.

    Unlike `np.load` with `mmap_mode` it keeps no file open: caches of hundreds of scenes have thousands of arrays, and
    1,024 open files are a common limit.
    """
    import torch  # here: types of arrays are needed without it

    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        start, size = file.tell(), path.stat().st_size
    if dtype.hasobject or is_fortran or start + dtype.itemsize * int(np.prod(shape)) != size:
        raise ValueError(f"{path.name} is truncated or no plain array")
    try:
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:
        if (number := find_system_error(error)) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    array = content[start:].view(dtype).reshape(shape)
    array.flags.writeable = False
    return array
