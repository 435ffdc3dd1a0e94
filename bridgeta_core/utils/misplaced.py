"""Find files that lie one folder too high or too low: the usual fault of archives extracted by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_DEPTH_BELOW, _DEPTH_BESIDE = 3, 2  # levels of folders that are searched in a root, and in its parent
_MOST = 2000  # folders


def find_misplaced(root: Path, wanted: str) -> Path | None:
    """Find the file that should be `root`/`wanted` elsewhere in the root or near it; None when it is not there.

    `wanted` is a path with slashes. Its last parts are tried in every near folder, so a folder may be missing, be too
    many or have another name. The nearest is taken.
    """
    parts, place = wanted.split("/"), root / wanted
    endings = ["/".join(parts[i:]) for i in range(len(parts))]
    candidates = (folder / ending for folder in _list_near(root) for ending in endings)
    return next((path for path in candidates if path != place and path.is_file()), None)


def _list_near(root: Path) -> Iterator[Path]:
    """Yield folders by their distance: those in the root, then those beside it, except in other nuScenes roots."""
    seen: set[Path] = set()
    for start, depth in ((root, _DEPTH_BELOW), (root.parent, _DEPTH_BESIDE)):
        level = [start]
        for remaining in range(depth, -1, -1):
            level = [folder for folder in level if folder not in seen]
            if len(seen) > _MOST:
                return
            seen.update(level)
            yield from level
            inner = (path for folder in level for path in _list_folders(folder)) if remaining else ()
            level = [path for path in inner if start == root or not (path / "samples").is_dir()]


def _list_folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []
