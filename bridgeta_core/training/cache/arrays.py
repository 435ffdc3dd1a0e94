"""Arrays on disk: written once, row by row, and read as memory maps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.arrays import map_array
from bridgeta_core.utils.errors import BridgeTAError

Arrays = dict[str, NDArray[Any]]


class ArrayWriter:
    """Writes NAME.npy `[rows, ...]` for every name, row by row, into an existing folder.

    To plain files, not to memory maps, where a full disk would kill the process. Rows that vary in length along their
    first axis are `ragged`: they are joined along it, and NAME_ends.npy `[rows]` holds where each one ends.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._files: dict[str, BinaryIO] = {}
        self._ragged: dict[str, list[NDArray[Any]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ArrayWriter:
        return self

    def write(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Write the next row of every array."""
        for name, value in values.items():
            value = np.ascontiguousarray(value)
            if name not in self._files:
                file = open(self._folder / f"{name}.npy", "wb")  # noqa: SIM115 (the stack closes it)
                self._stack.enter_context(file)
                descr = np.lib.format.dtype_to_descr(value.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": (self._rows, *value.shape)}
                np.lib.format.write_array_header_1_0(file, header)
                self._files[name] = file
            self._files[name].write(value.tobytes())

    def write_ragged(self, name: str, value: NDArray[Any]) -> None:
        """Add the next row of a ragged array; rows stay in memory until the end."""
        self._ragged.setdefault(name, []).append(value)

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._stack.close()
        if kind is None:
            for name, values in self._ragged.items():
                np.save(self._folder / f"{name}.npy", np.concatenate(values))
                np.save(self._folder / f"{name}_ends.npy", np.cumsum([len(value) for value in values]))


def open_arrays(folder: Path) -> Arrays:
    """Open every array of a folder by name, as read-only memory maps. Raises BridgeTAError for a damaged one."""
    try:
        return {path.stem: map_array(path) for path in folder.glob("*.npy")}
    except (OSError, ValueError, EOFError) as error:
        raise BridgeTAError(f"cannot be read ({error})", where=folder, fix="Remove this folder") from error


def read_ragged(arrays: Arrays, name: str, row: int) -> NDArray[Any]:
    """Copy one row of a ragged array."""
    ends = arrays[f"{name}_ends"]
    return np.array(arrays[name][int(ends[row - 1]) if row else 0 : int(ends[row])])
