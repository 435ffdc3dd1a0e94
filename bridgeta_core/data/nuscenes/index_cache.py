"""The index of a nuScenes root in the cache: a folder of .npy files that all processes map into their memory."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.data.nuscenes.join import COLUMNS, join_tables
from bridgeta_core.data.nuscenes.json_table import AGAIN, Columns
from bridgeta_core.data.nuscenes.versions import TABLES, explain_missing_tables, has_tables
from bridgeta_core.data.nuscenes.versions import list_versions as list_versions  # its users know it from here
from bridgeta_core.utils.arrays import save_array
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import cache_folder, hash_json, hold_lock
from bridgeta_core.utils.names import is_name
from bridgeta_core.utils.outputs import replace_when_done

logger = logging.getLogger(__name__)

_LAYOUT = 4  # of the columns and of what is checked when they are built; raise it when either changes
_MAPPED = 1 << 20  # bytes beyond which a column is mapped
_ABOUT = "about.json"  # what the columns of a folder were built from


class CachedColumns(Columns):
    """The columns in a folder of the cache, mapped read-only. Pickling sends the name of the folder alone."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """Map the columns. Raises BridgeTAError when the folder is not whole or was not built from `about`."""
        try:
            if json.loads((folder / _ABOUT).read_bytes()) != about:
                raise BridgeTAError("was built from other tables", where=folder)
            columns = {name: _load(folder / f"{name}.npy") for name in COLUMNS}
        except (OSError, ValueError, EOFError) as error:
            raise BridgeTAError(f"is broken ({error})", where=folder) from error
        lengths: dict[str, set[int]] = {}
        for name, column in columns.items():
            lengths.setdefault(name.partition("_")[0], set()).add(len(column))
        if any(len(values) > 1 for values in lengths.values()):
            raise BridgeTAError("is broken: its columns differ in length", where=folder)
        super().__init__(columns)
        self.folder, self._about = folder, about

    def __reduce__(self) -> tuple[type[CachedColumns], tuple[Path, dict[str, Any]]]:
        return CachedColumns, (self.folder, self._about)


def _load(path: Path) -> NDArray[Any]:
    """Map a column; read a small one, since each mapping keeps a file open."""
    # As a plain array: every access to a np.memmap costs a microsecond more.
    column = np.asarray(np.load(path, mmap_mode="r" if path.stat().st_size > _MAPPED else None))
    column.flags.writeable = False
    return column


def load_columns(root: Path, version: str) -> Columns:
    """Load the columns of `root`: from the cache, or from its tables when the root is new or a table changed.

    Where the cache cannot be written they are a plain dict of arrays in memory.
    """
    about = _about(root, version)
    folder = _folder(about)
    cached = _load_cached(folder, about)
    if cached is not None:
        return cached
    with ExitStack() as stack:
        # One process at a time builds an index: the processes of one training would all build the same. Where the cache
        # cannot be written, they do.
        with suppress(BridgeTAError):
            stack.enter_context(hold_lock(folder.with_name(f".{folder.name}.lock"), wait=True))
        cached = _load_cached(folder, about, warn=True)  # another process may have built it meanwhile
        if cached is not None:
            return cached
        columns = join_tables(root, version)
        try:
            with replace_when_done(folder, folder=True) as temporary:
                temporary.mkdir()
                for name, column in columns.items():
                    save_array(temporary / f"{name}.npy", column)
                (temporary / _ABOUT).write_text(json.dumps(about))
        except BridgeTAError as error:
            logger.warning("the index cannot be cached, so the next start is as slow as this one: %s", error)
            return columns
    del columns
    return CachedColumns(folder, about)


def is_cached(root: Path, version: str) -> bool:
    """Tell whether the cache holds the columns of `root` as its tables are now."""
    about = _about(root, version)
    return _load_cached(_folder(about), about) is not None


def _about(root: Path, version: str) -> dict[str, Any]:
    """Describe what an index depends on: root, version, and the size and time of each table. All must be there."""
    folder = root / version
    if not (is_name(version) and has_tables(folder)):
        raise explain_missing_tables(root, version)
    missing = [f"{name}.json" for name in TABLES if not (folder / f"{name}.json").is_file()]
    if missing:
        raise BridgeTAError(f"lacks {', '.join(missing)}", where=folder, fix=AGAIN)
    states = {name: (folder / f"{name}.json").stat() for name in TABLES}
    tables = {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}
    return {"layout": _LAYOUT, "root": str(root), "version": version, "tables": tables}


def _folder(about: dict[str, Any]) -> Path:
    return cache_folder() / "index" / hash_json(about)


def _load_cached(folder: Path, about: dict[str, Any], warn: bool = False) -> CachedColumns | None:
    """Return the columns in a folder; None when there are none that can be used."""
    if not folder.exists():
        return None
    try:
        return CachedColumns(folder, about)
    except BridgeTAError as error:
        if warn:
            logger.warning("the index is built again: %s", error)
        return None
