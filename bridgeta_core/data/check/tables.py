"""Check the tables and maps of a root: which versions there are, and whether tables and map expansions are whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bridgeta_core.data.check.report import Report
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.versions import TABLES, explain_missing_tables, has_tables, list_versions
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.limits import parse_json
from bridgeta_core.utils.names import is_name

OFFICIAL = ("v1.0-trainval", "v1.0-mini", "v1.0-test")

_SMALL = 4_000_000  # bytes up to which a table is parsed; of larger ones only both ends are read
_END = 4096  # bytes of each end
_AGAIN = "Extract the metadata archive of {} again"


def find_version(root: Path, version: str | None, report: Report) -> str | None:
    """Choose the table folder to check; return None, with a problem in the report, when the root has none.

    Raises BridgeTAError (exit code 2) when the root is not a folder, when it lacks `version`, and when it has several
    table folders and none was chosen.
    """
    versions = list_versions(root)
    if not root.is_dir() or (version is not None and not (is_name(version) and has_tables(root / version))):
        raise explain_missing_tables(root, version)
    if version is None and len(versions) > 1:
        fix = "Choose one with --version"
        raise BridgeTAError(f"has the table folders {', '.join(versions)}", where=root, fix=fix, exit_code=2)
    if version is None and not versions:
        error = explain_missing_tables(root, None)
        report.add_problem("version", error.what, error.fix or "")
        return None
    chosen = version or versions[0]
    others = [name for name in versions if name != chosen]
    beside = f"; also there: {', '.join(others)}" if others else ""
    if chosen in OFFICIAL:
        report.add_ok("version", f"{chosen}{beside}")
    else:
        report.add_note("version", f"{chosen} is none of {', '.join(OFFICIAL)}{beside}", "Give it in data.version")
    return chosen


def check_tables(folder: Path, report: Report) -> set[str]:
    """Return the tables of a folder that are there and look whole, and report the others."""
    faults = {name: fault for name in TABLES if (fault := _find_fault(folder / f"{name}.json"))}
    for name, fault in faults.items():
        report.add_problem(f"table {name}", fault, _AGAIN.format(folder.name))
    if not faults:
        size = sum((folder / f"{name}.json").stat().st_size for name in TABLES)
        report.add_ok("tables", f"all {len(TABLES)} are there, {size / 1e6:,.1f} MB")
    return set(TABLES) - set(faults)


def _find_fault(path: Path) -> str | None:
    """Describe what is wrong with a table, which must be a JSON list; None when it looks whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= _SMALL:
                rows = parse_json(file.read())
                return None if isinstance(rows, list) else "is not a list of records"
            start = file.read(_END)
            file.seek(size - _END)
            end = file.read(_END)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return f"is not JSON, perhaps truncated ({error})" if size else "is empty"
    if not start.lstrip().startswith(b"["):
        return "is not a list of records"
    return None if end.rstrip().endswith(b"]") else f"is truncated: its {size:,} bytes do not end a JSON list"


def read_cities(folder: Path) -> list[str]:
    """Return the cities that the logs name, sorted."""
    return sorted({city for log in _rows(folder, "log") if isinstance(city := log.get("location"), str) and city})


def check_basemaps(root: Path, folder: Path, report: Report) -> None:
    """Check the basemap images. Only the devkit needs them, so missing ones are a note."""
    names = sorted({name for row in _rows(folder, "map") if isinstance(name := row.get("filename"), str) and name})
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        fix = "Extract the metadata archive with its maps/ if you want to use the devkit"
        report.add_note("basemaps", f"{len(missing)} of {len(names)} images are missing: {join_first(missing, 3)}", fix)
    else:
        report.add_ok("basemaps", f"{len(names)} images in maps/")


def check_expansions(root: Path, cities: Iterable[str], report: Report) -> None:
    """Check that the map expansion of every city is there, is v1.3 and is consistent.

    A class without any shape in a city is unknown there, so neither trained nor scored: a note.
    """
    for city in cities:
        item = f"map of {city}"
        try:
            known = MapRaster.load(root, city).known
        except BridgeTAError as error:
            report.add_problem(item, f"maps/expansion/{city}.json: {error.what}", error.fix or "")
            continue
        unknown = [c.name for c, is_known in zip(CLASSES, known, strict=True) if not is_known]
        if not any(known):
            fix = "Download the map expansion v1.3 from nuscenes.org and extract it into maps/"
            report.add_problem(item, "holds no shape of any class", fix)
        elif unknown:
            report.add_note(item, f"has no {', '.join(unknown)}: unknown there, so neither trained nor scored")
        else:
            report.add_ok(item, "map expansion v1.3 with all classes")


def _rows(folder: Path, table: str) -> list[Mapping[str, Any]]:
    """Read the records of a small table that `check_tables` accepted."""
    return [row for row in parse_json((folder / f"{table}.json").read_bytes()) if isinstance(row, dict)]
