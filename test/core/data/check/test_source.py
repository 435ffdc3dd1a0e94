"""The check of data that a class of one's own reads finds what would stop a training, and says it in plain words."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from own_drives import CAMERAS, DOCS, SOURCE, write_drives
from rich.console import Console
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.cli.common import say
from bridgeta_core.data.check.report import Severity
from bridgeta_core.data.check.run import check
from bridgeta_core.utils.errors import BridgeTAError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_drives(tmp_path_factory.mktemp("own"))


@pytest.fixture
def root(whole, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return shutil.copytree(whole, tmp_path / "own")


def look(root, **options):
    return check(root, source=SOURCE, **options)


def problems(report):
    return {item.name: f"{item.what} {item.fix}" for item in report.items if item.severity is Severity.PROBLEM}


def notes(report):
    return {item.name: f"{item.what} {item.fix}" for item in report.items if item.severity is Severity.NOTE}


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_root_can_be_trained_on_by_the_command_that_is_given(root, deep):
    report = look(root, deep=deep, jobs=1)
    assert problems(report) == {}
    assert report.bad_files == []
    assert "bridgeta train student tiny data.source=drives:Drives" in report.verdict
    assert f'"data.cameras=[{", ".join(CAMERAS)}]"' in report.verdict
    names = [item.name for item in report.items]
    assert {"front", "rear", "bumper", "LIDAR_TOP", "content", "calibration", "map world"} <= set(names)
    assert notes(report)["LIDAR_TOP"].startswith("3 of 6 samples")
    assert "does not know ped_crossing, walkway, stop_line, carpark_area" in notes(report)["map world"]
    Console(width=80).print(report.render())


def test_missing_and_empty_files_are_listed(root):
    first, second = sorted((root / "monday" / "front").iterdir())[:2]
    first.unlink()
    second.write_bytes(b"")
    report = look(root)
    names = [f"monday/front/{path.name}" for path in (first, second)]
    assert names[0] in problems(report)["missing files"]
    assert names[1] in problems(report)["empty files"]
    assert report.bad_files == names
    assert report.verdict.startswith("Training cannot start yet. First: missing files: 1: monday/front/")


def test_a_damaged_image_is_found_by_a_deep_check_and_the_first_of_a_camera_by_any(root):
    first, *_, last = sorted((root / "monday" / "front").iterdir())
    last.write_bytes(last.read_bytes()[:-200])
    assert "damaged" not in problems(look(root))
    assert f"monday/front/{last.name}" in problems(look(root, deep=True, jobs=1))["damaged"]
    cv2.imwrite(str(first), np.zeros((10, 12, 3), np.uint8))
    assert "is 12x10 pixels, by the record 96x64" in problems(look(root))["damaged"]


def test_a_lidar_file_of_another_kind_is_found(root):
    first = min((root / "monday" / "LIDAR_TOP").iterdir())
    np.zeros((7, 4), "<f4").tofile(first)
    assert f"monday/LIDAR_TOP/{first.name}" in problems(look(root))["damaged"]


def test_poses_that_lie_off_the_map_are_a_problem(root):
    for drive in ("monday", "tuesday"):
        rows = (root / drive / "poses.csv").read_text().splitlines()
        moved = [",".join([row.split(",")[0], "5000", *row.split(",")[2:]]) for row in rows]
        (root / drive / "poses.csv").write_text("\n".join(moved))
    assert "nothing of it lies within 50 m of the vehicle in 6 of 6" in problems(look(root))["map world"]


def test_a_map_that_cannot_be_read_or_knows_nothing_is_a_problem(root):
    (root / "map.geojson").write_text(json.dumps({"features": []}))
    assert "none of the six classes" in problems(look(root))["map world"]
    (root / "map.geojson").write_text("{")
    assert "read_map" in problems(look(root))["map world"]


def test_a_camera_at_an_impossible_place_is_noted(root):
    text = (root / "rig.yaml").read_text()
    (root / "rig.yaml").write_text(text.replace("1.5", "150.0", 1))
    remarks = [item.what for item in look(root).items if item.name == "calibration"]
    assert any(remark.startswith("front ") and "150" in remark for remark in remarks)


def test_a_source_that_cannot_be_opened_is_a_problem(root):
    (root / "rig.yaml").unlink()
    report = look(root)
    assert set(problems(report)) == {"source"}
    assert "Training cannot start yet" in report.verdict


def test_a_source_or_a_root_that_is_not_there_is_one_line(root, tmp_path):
    for place, source, message in ((root, "no.such:Class", "no.such:Class"), (tmp_path / "x", SOURCE, "not a folder")):
        with pytest.raises(BridgeTAError, match=message) as caught:
            check(place, source=source)
        assert caught.value.exit_code == 2


def test_what_looks_like_an_emoji_is_printed_as_it_is(capsys):
    say("module:x:")
    assert capsys.readouterr().out == "module:x:\n"


def test_the_command_takes_a_source(root):
    result = CliRunner().invoke(app, ["data", "check", str(root), "--source", SOURCE])
    assert result.exit_code == 0
    assert "Training can start" in result.output
    (root / "map.geojson").unlink()
    assert CliRunner().invoke(app, ["data", "check", str(root), "--source", SOURCE]).exit_code == 1
