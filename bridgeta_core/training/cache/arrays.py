"""Arrays on disk: written once, row by row, into a folder that is whole or absent, and read as memory maps."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.errors import BridgeTAError

Arrays = dict[str, NDArray[Any]]


@contextmanager
def build_once(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` and rename it to that at the end.

    Any number of processes may build the same target: the first that is done wins, and the others' work is dropped.
    Raises BridgeTAError when it cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
    except OSError as error:
        fix = "Check the permissions and the free space, or name another data.cache"
        raise BridgeTAError(f"cannot be written ({error.strerror or error})", where=target, fix=fix) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class ArrayWriter:
    """Writes NAME.npy `[rows, ...]` for every name, one row after the other, into an existing folder.

    To plain files, not to memory maps, where a full disk would kill the process. Rows whose first axis varies in
    length are `ragged`: they are joined along it, and NAME_ends.npy `[rows]` tells where each one ends.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder, self._rows = folder, rows
        self._files: dict[str, BinaryIO] = {}
        self._ragged: dict[str, list[NDArray[Any]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ArrayWriter:
        return self

    def put(self, values: Mapping[str, NDArray[Any]]) -> None:
        """The next row of every array."""
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

    def put_ragged(self, name: str, value: NDArray[Any]) -> None:
        """The next row of a ragged array; they are kept in memory until the end."""
        self._ragged.setdefault(name, []).append(value)

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._stack.close()
        if kind is None:
            for name, values in self._ragged.items():
                np.save(self._folder / f"{name}.npy", np.concatenate(values))
                np.save(self._folder / f"{name}_ends.npy", np.cumsum([len(value) for value in values]))


def open_arrays(folder: Path) -> Arrays:
    """Every array of a folder by name, as read-only memory maps. Raises BridgeTAError for a damaged one."""
    try:
        return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    except (OSError, ValueError, EOFError) as error:
        raise BridgeTAError(f"cannot be read ({error})", where=folder, fix="Remove this folder") from error


def ragged_row(arrays: Arrays, name: str, row: int) -> NDArray[Any]:
    """One row of a ragged array, copied."""
    ends = arrays[f"{name}_ends"]
    return np.array(arrays[name][int(ends[row - 1]) if row else 0 : int(ends[row])])
