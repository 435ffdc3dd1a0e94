"""Arrays on disk: written once, row by row, and read as memory maps."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.arrays import map_array, save_array
from bridgeta_core.utils.errors import BridgeTAError

_ENDS, _SUMS = "_ends", "_crc32"  # what is added to a name
_SECONDS = "seconds"


class ArrayWriter:
    """Writes NAME.npy `[rows, ...]` for every name, row by row, into an existing folder.

    To plain files, not to memory maps, where a full disk would kill the process. Rows that vary in length along their
    first axis are `ragged`: they are joined along it, and NAME_ends.npy `[rows]` holds where each one ends.
    NAME_crc32.npy `[rows]` holds the rows' checksums. seconds.npy `[1]` says how long it all took.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._files: dict[str, BinaryIO] = {}
        self._sums: dict[str, list[int]] = {}
        self._ragged: dict[str, list[NDArray[Any]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ArrayWriter:
        self._start = time.monotonic()
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
            self._sums.setdefault(name, []).append(_sum(value))
            self._files[name].write(value.tobytes())

    def write_ragged(self, name: str, value: NDArray[Any]) -> None:
        """Add the next row of a ragged array; rows stay in memory until the end."""
        self._ragged.setdefault(name, []).append(value)
        self._sums.setdefault(name, []).append(_sum(value))

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._stack.close()
        if kind is None:
            for name, values in self._ragged.items():
                save_array(self._folder / f"{name}.npy", np.concatenate(values))
                save_array(self._folder / f"{name}{_ENDS}.npy", np.cumsum([len(value) for value in values]))
            seconds = np.array([time.monotonic() - self._start])
            save_array(self._folder / f"{_SECONDS}.npy", seconds)
            self._sums[_SECONDS] = [_sum(seconds[0])]
            for name, sums in self._sums.items():
                save_array(self._folder / f"{name}{_SUMS}.npy", np.array(sums, np.uint32))


class Arrays:
    """The arrays of a folder, as read-only memory maps; every row is compared with its checksum when it is read."""

    def __init__(self, folder: Path) -> None:
        """Raise BridgeTAError for a file that is damaged or that the system does not let be read."""
        self._folder = folder
        try:
            self._values = {path.stem: map_array(path) for path in folder.glob("*.npy")}
        except OSError as error:
            raise BridgeTAError(f"cannot be read: {error.strerror}", where=error.filename or folder) from error
        except (ValueError, EOFError) as error:
            raise BridgeTAError(f"cannot be read ({error})", where=folder, fix="Remove this folder") from error

    def check(self, names: Sequence[str], rows: int) -> None:
        """Raise BridgeTAError when an array is missing or has another number of rows."""
        for name in names:
            if name not in self._values:
                raise self._describe(name, "is missing")
            is_ragged = f"{name}{_ENDS}" in self._values
            for part in (f"{name}{_ENDS}" if is_ragged else name, f"{name}{_SUMS}"):
                if np.shape(self._values.get(part, ()))[:1] != (rows,):
                    raise self._describe(part, f"is missing or has not {rows} rows")

    def read(self, name: str, row: int) -> NDArray[Any]:
        """Copy one row of an array. Raises BridgeTAError when it is damaged."""
        try:
            values = self._values[name]
            if f"{name}{_ENDS}" in self._values:
                ends = self._values[f"{name}{_ENDS}"]
                value = np.array(values[int(ends[row - 1]) if row else 0 : int(ends[row])])
            else:
                value = np.array(values[row])
            is_whole = _sum(value) == int(self._values[f"{name}{_SUMS}"][row])
        except (KeyError, IndexError):  # a file that is missing, or has fewer rows than it had
            is_whole = False
        if not is_whole:
            raise self._describe(name, f"is damaged in row {row}")
        return value

    def _describe(self, name: str, what: str) -> BridgeTAError:
        where = self._folder / f"{name}.npy"
        return BridgeTAError(what, where=where, fix=f"Remove {self._folder} to have it built again")


def read_seconds(folder: Path) -> float:
    """Read how long the arrays of a folder took to write; NaN where that is damaged, or older than its record."""
    try:
        return float(Arrays(folder).read(_SECONDS, 0))
    except BridgeTAError:
        return math.nan


def _sum(row: NDArray[Any]) -> int:
    """Compute the checksum of a row, its type and its shape."""
    return zlib.crc32(np.ascontiguousarray(row).data, zlib.crc32(f"{row.dtype.str} {row.shape}".encode()))
