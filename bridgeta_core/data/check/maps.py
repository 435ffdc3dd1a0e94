"""Checks of a root's maps: the basemap images that the tables name, and every city's map expansion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bridgeta_core.data.check.findings import Report, some
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.utils.errors import BridgeTAError


def read_cities(folder: Path) -> list[str]:
    """The cities that the logs name, sorted."""
    return sorted({log["location"] for log in _rows(folder, "log") if log.get("location")})


def check_basemaps(root: Path, folder: Path, report: Report) -> None:
    """Only the devkit wants the basemap images, so that they are missing is a note."""
    names = sorted({row["filename"] for row in _rows(folder, "map") if row.get("filename")})
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        fix = "Extract the metadata archive with its maps/ if you want to use the devkit"
        report.note("basemaps", f"{len(missing)} of {len(names)} images are missing: {some(missing, 3)}", fix)
    else:
        report.ok("basemaps", f"{len(names)} images in maps/")


def check_expansions(root: Path, cities: Iterable[str], report: Report) -> None:
    """The map expansion of every city must be there, be v1.3 and hold together.

    Classes without a single shape in a city are unknown there: they are neither trained nor scored, which is a note.
    """
    for city in cities:
        item = f"map of {city}"
        try:
            known = MapRaster.load(root, city).known
        except BridgeTAError as error:
            report.problem(item, f"maps/expansion/{city}.json: {error.what}", error.fix or "")
            continue
        unknown = [c.name for c, is_known in zip(CLASSES, known, strict=True) if not is_known]
        if not any(known):
            fix = "Download the map expansion v1.3 from nuscenes.org and extract it into maps/"
            report.problem(item, "holds no shape of any class", fix)
        elif unknown:
            report.note(item, f"has no {', '.join(unknown)}: unknown there, so neither trained nor scored")
        else:
            report.ok(item, "map expansion v1.3 with all classes")


def _rows(folder: Path, table: str) -> list[Mapping[str, Any]]:
    """The records of a small table that was found whole."""
    return [row for row in json.loads((folder / f"{table}.json").read_bytes()) if isinstance(row, dict)]
