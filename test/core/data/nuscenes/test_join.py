"""What the tables name stays below their root."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridgeta_core.data.check.run import check
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.utils.errors import BridgeTAError

VERSION = "v1.0-mini"


def edit(root: Path, table: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the last record of a table."""
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows[-1])
    path.write_text(json.dumps(rows))


@pytest.mark.parametrize("filename", ["/etc/passwd", "../secret.jpg", "samples/../../secret.jpg", "..", "a\0b"])
def test_a_file_outside_of_the_root_is_refused(broken_root: Path, filename: str) -> None:
    edit(broken_root, "sample_data", lambda row: row.update(filename=filename))
    with pytest.raises(BridgeTAError, match=r"sample_data\.json: filename of the record .* leads out of the root"):
        NuScenesDataset(broken_root, VERSION)


@pytest.mark.parametrize("filename", ["samples/CAM_FRONT/a..b.jpg", "samples/./x.jpg", "samples/...jpg"])
def test_dots_in_names_are_no_way_out(broken_root: Path, filename: str) -> None:
    edit(broken_root, "sample_data", lambda row: row.update(filename=filename))
    NuScenesDataset(broken_root, VERSION)


@pytest.mark.parametrize("location", ["../../secret", "/etc/passwd", "..", "a/b"])
def test_a_location_is_the_name_of_one_map(broken_root: Path, location: str) -> None:
    edit(broken_root, "log", lambda row: row.update(location=location))
    with pytest.raises(BridgeTAError, match=r"is not the name of a city"):
        MapRaster.load(broken_root, location)
    assert check(broken_root, VERSION).problems


@pytest.mark.parametrize("version", ["../v1.0-mini", "/tmp", ".", "v1.0-mini/../v1.0-mini"])
def test_a_version_is_the_name_of_one_folder(small_root: Path, version: str) -> None:
    for use in (NuScenesDataset, check):
        with pytest.raises(BridgeTAError, match="is not the name of a folder"):
            use(small_root, version)
