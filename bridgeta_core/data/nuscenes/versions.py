"""Find the table folders of a nuScenes root, and say where they are when they are not where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import LARGEST_TEXT, parse_json, read_limited
from bridgeta_core.utils.misplaced import find_misplaced
from bridgeta_core.utils.names import is_name

TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)
_LARGEST = "sample_data.json"  # a table that every version has, and of a name that nothing else has
_DOWNLOAD = "Download the metadata (v1.0-*_meta.tgz, or v1.0-mini.tgz) and extract it into this root"


def list_versions(root: Path) -> list[str]:
    """List the table folders v1.0-* of a nuScenes root, sorted; one without any table is none."""
    return sorted(path.name for path in root.glob("v1.0-*") if has_tables(path))


def has_tables(folder: Path) -> bool:
    """Tell whether a folder holds any table."""
    return any((folder / f"{name}.json").is_file() for name in TABLES)


def explain_missing_tables(root: Path, version: str | None) -> BridgeTAError:
    """Make the error for a root without the tables of `version`, or of any: where they are, and where they belong."""
    if not root.is_dir():
        fix = "Give the nuScenes root, which holds samples/ and maps/"
        return BridgeTAError("is not a folder", where=root, fix=fix, exit_code=2)
    if version is not None and not is_name(version):
        fix = "Give the name of a folder in the root, such as v1.0-trainval"
        return BridgeTAError(f"version {version!r} is not the name of a folder", where=root, fix=fix, exit_code=2)
    what = "has no table folder v1.0-*" if version is None else f"has no tables of version {version}"
    there = sorted(path.name for path in root.iterdir() if (path / _LARGEST).is_file())
    if there and version is not None:
        return BridgeTAError(what, where=root, fix=f"Use version {' or '.join(there)}", exit_code=2)
    found = find_misplaced(root, f"{version or 'v1.0-mini'}/{_LARGEST}")
    if found is None:
        archives = sorted(path.name for path in root.glob("v1.0-*.t*gz"))
        fix = f"Extract {archives[0]} there" if archives else _DOWNLOAD
        return BridgeTAError(what, where=root, fix=fix, exit_code=2)
    folder = found.parent
    what = f"{what}; tables lie in {folder}"
    return BridgeTAError(what, where=root, fix=_place_tables(root, folder, version), exit_code=2)


def _place_tables(root: Path, folder: Path, version: str | None) -> str:
    """Say how the tables in `folder` become those of a root: give another root, or move them."""
    has_files = any((root / name).is_dir() for name in ("samples", "sweeps"))
    is_version = folder.name.startswith("v1.0-")
    if is_version and not has_files and (folder.parent / "samples").is_dir() and folder.parent != root:
        return f"Give {folder.parent}"
    target = root / (version or (folder.name if is_version else "v1.0-mini"))
    if is_version and root == folder:
        return f"Give {folder.parent}"
    if is_version and not target.exists():
        return f"Move {folder} to {target}"
    example = "" if version or is_version else ", or the version that they are"
    return f"Move the .json files of {folder} to {target}{example}"


def read_synthetic_settings(root: str | Path) -> dict[str, Any] | None:
    """Return the settings of a root that `bridgeta synth` wrote, or None for a real one or a damaged file."""
    try:
        sheet = parse_json(read_limited(Path(root) / "synth.json", LARGEST_TEXT))
        return dict(sheet["settings"]) if sheet["generator"] == "bridgeta synth" else None
    except (OSError, ValueError, KeyError, TypeError, BridgeTAError):
        return None
