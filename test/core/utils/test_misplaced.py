"""Tables, maps and sensor files that lie one folder off: every command says where they are and where they belong."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.common import find_table_version
from bridgeta_core.data.check.run import check
from bridgeta_core.data.maps.expansion import load_layers
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.misplaced import find_misplaced
from bridgeta_ros.commands import app

VERSION = "v1.0-mini"
CITY = "singapore-onenorth"


def move(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


MAP_PLACES = (
    "maps",
    "expansion",
    ".",
    "maps/maps/expansion",
    "maps/expansion/expansion",
    "maps/nuScenes-map-expansion-v1.3/expansion",
    "nuScenes-map-expansion-v1.3/expansion",
    "v1.0-mini/maps/expansion",
    "Maps/Expansion",
    "../maps/expansion",
    "../expansion",
    "../nuScenes-map-expansion-v1.3/expansion",
)


@pytest.mark.parametrize("place", MAP_PLACES)
def test_maps_in_another_folder_are_found_and_said(broken_root, place):
    folder = (broken_root / place).resolve()
    for path in sorted((broken_root / "maps" / "expansion").glob("*.json")):
        move(path, folder / path.name)
    belongs = broken_root / "maps" / "expansion"
    item = next(item for item in check(broken_root).problems if item.name == f"map of {CITY}")
    assert f"the map expansion is missing; it lies in {folder}" in item.what
    assert item.fix == f"Move the .json files of {folder} to {belongs}"
    with pytest.raises(BridgeTAError, match="it lies in") as error:
        load_layers(broken_root, CITY)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("command", ["train", "eval", "view", "bag"])
def test_every_command_says_where_the_maps_lie(broken_root, tmp_path, command):
    for path in sorted((broken_root / "maps" / "expansion").glob("*.json")):
        move(path, broken_root / "maps" / path.name)
    arguments = {
        "train": [
            *("train", "student", "tiny", f"data.train_root={broken_root}", f"data.val_root={broken_root}"),
            *(f"data.version={VERSION}", "data.cameras=[CAM_FRONT]", "--out", str(tmp_path / "run")),
        ],
        "eval": ["eval", "tiny", str(broken_root)],
        "view": ["view", str(broken_root), str(tmp_path / "x.png")],
        "bag": ["bag", str(broken_root), str(tmp_path / "bag"), "--scene", "scene-0061"],
    }[command]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert f"it lies in {broken_root / 'maps'}. Move the .json files of" in result.output


def test_maps_that_were_never_extracted_are_said_so(broken_root):
    shutil.rmtree(broken_root / "maps" / "expansion")
    with pytest.raises(BridgeTAError, match=r"only the basemap images.*Download the map expansion v1.3"):
        load_layers(broken_root, CITY)
    (broken_root / "maps" / "nuScenes-map-expansion-v1.3.zip").touch()
    with pytest.raises(BridgeTAError, match=r"not extracted from .*expansion-v1.3.zip. Extract it into .*maps"):
        load_layers(broken_root, CITY)


def test_maps_of_another_root_beside_this_one_are_left_there(broken_root):
    shutil.copytree(broken_root, broken_root.parent / "other")
    shutil.rmtree(broken_root / "maps" / "expansion")
    with pytest.raises(BridgeTAError, match="Download the map expansion"):
        load_layers(broken_root, CITY)


def assert_said(root, version, where, fix):
    """All that opens a root, with and without a version, says where the tables are and what to do."""
    with pytest.raises(BridgeTAError) as error:
        NuScenesDataset(root, version)
    assert f"tables lie in {where}" in error.value.what
    assert error.value.fix == fix
    with pytest.raises(BridgeTAError) as error:
        find_table_version(root, None)
    assert f"tables lie in {where}" in error.value.what
    item = next(item for item in check(root).problems if item.name == "version")
    assert f"tables lie in {where}" in item.what
    assert item.fix == error.value.fix


@pytest.mark.parametrize("place", ["v1.0-mini/v1.0-mini", "v1.0-mini_meta/v1.0-mini", "meta/v1.0-mini", "../v1.0-mini"])
def test_a_table_folder_elsewhere_is_found_and_said(broken_root, place):
    move(broken_root / VERSION, broken_root / "parked")
    folder = (broken_root / place).resolve()
    move(broken_root / "parked", folder)
    nested = place.startswith("v1.0-mini/")
    target = broken_root / VERSION
    fix = f"Move the .json files of {folder} to {target}" if nested else f"Move {folder} to {target}"
    assert_said(broken_root, VERSION, folder, fix)


@pytest.mark.parametrize("place", [".", "tables", "v1.0-mini/json", "samples", "maps"])
def test_flat_tables_are_found_and_said(broken_root, place):
    for path in sorted((broken_root / VERSION).iterdir()):
        move(path, broken_root / place / path.name)
    folder = (broken_root / place).resolve()
    fix = f"Move the .json files of {folder} to {broken_root / VERSION}"
    with pytest.raises(BridgeTAError) as error:
        NuScenesDataset(broken_root, VERSION)
    if place in ("tables", "samples", "maps"):  # a folder of tables, of another name
        assert error.value.fix == f"Use version {place}"
    else:
        assert (f"tables lie in {folder}" in error.value.what, error.value.fix) == (True, fix)
    assert check(broken_root).problems[0].fix.startswith(fix)


@pytest.mark.parametrize("inner", [".", VERSION, "maps", "samples"])
def test_a_folder_too_high_or_too_low_names_the_root(broken_root, inner):
    given = broken_root.parent if inner == "." else broken_root / inner
    folder = broken_root / VERSION
    assert_said(given, VERSION, folder, f"Give {broken_root}")


def test_archives_that_were_not_extracted_are_named(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "v1.0-mini.tgz").touch()
    assert check(tmp_path / "root").problems[0].fix == "Extract v1.0-mini.tgz there"


def test_a_folder_of_blobs_is_no_version(broken_root):
    (broken_root / "v1.0-trainval01_blobs").mkdir()
    assert find_table_version(broken_root, None) == VERSION


@pytest.mark.parametrize(
    ("source", "target"),
    [("samples", "samples/samples"), ("samples/CAM_FRONT", "CAM_FRONT"), ("samples", "../samples"), (".", "blobs")],
)
def test_sensor_files_elsewhere_are_found_and_said(broken_root, source, target):
    moved = [broken_root / name for name in ("samples", "sweeps")] if source == "." else [broken_root / source]
    for path in moved:
        move(path, broken_root / "parked")
        move(
            broken_root / "parked",
            (broken_root / target / path.name if source == "." else broken_root / target).resolve(),
        )
    found = (broken_root / target).resolve()
    report = check(broken_root)
    belongs = broken_root if source == "." else broken_root / source
    assert f"Move what is in {found} to {belongs}" in report.verdict


def test_a_search_ends_in_folders_that_cannot_be_read(tmp_path):
    assert find_misplaced(tmp_path / "none", "maps/expansion/x.json") is None
    (tmp_path / "file").touch()
    assert find_misplaced(tmp_path / "file", "maps/expansion/x.json") is None
