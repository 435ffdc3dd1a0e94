from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view import contact_sheet
from bridgeta_core.view.bev import OPACITIES, tint
from bridgeta_core.view.contact_sheet import lay_out, write_contact_sheet
from bridgeta_core.view.sample import Scenery

VERSION = "v1.0-mini"


def camera():
    return Camera("front", 128, 64, np.array([[80.0, 0, 63.5], [0, 80, 31.5], [0, 0, 1]]), np.eye(4))


@pytest.fixture
def captions(monkeypatch):
    """The captions of the tiles that are drawn."""
    seen = []
    draw = contact_sheet._draw_tile

    def tile(scenery, caption):
        seen.append(caption)
        return draw(scenery, caption)

    monkeypatch.setattr(contact_sheet, "_draw_tile", tile)
    return seen


def test_a_sheet_has_every_chosen_sample_under_its_caption(small_root, tmp_path, captions):
    write_contact_sheet(small_root, VERSION, tmp_path / "sheet.png")
    assert captions == [
        "scene-0061, singapore-onenorth, day, scene-0061-0",
        "scene-0061, singapore-onenorth, day, scene-0061-1",
        "scene-0103, boston-seaport, night, rain, scene-0103-0",
        "scene-0103, boston-seaport, night, rain, scene-0103-1",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    picture = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    drivable = tint(CLASSES[CLASS_NAMES.index("drivable_area")].colour, OPACITIES[-1])
    assert (picture == drivable).all(axis=2).sum() > 10_000


def test_the_seed_decides_which_samples_are_shown(small_root, tmp_path, monkeypatch):
    seen = []
    plain = Scenery(Rig((camera(),)), [np.zeros((64, 128, 3), np.uint8)], BevGrid(), truth=np.zeros((6, 200, 200)))
    monkeypatch.setattr(contact_sheet, "read_scenery", lambda sample, *_: seen.append(sample.token) or plain)

    def shown(seed):
        seen.clear()
        write_contact_sheet(small_root, VERSION, tmp_path / "sheet.png", count=2, seed=seed)
        return tuple(seen)

    first = shown(3)
    assert len(first) == 2
    assert shown(3) == first
    assert len({shown(seed) for seed in range(6)}) > 1


def test_only_chosen_scenes_are_shown(small_root, tmp_path, captions):
    write_contact_sheet(small_root, VERSION, tmp_path / "sheet.png", scenes="mini_val")
    assert [caption[:10] for caption in captions] == ["scene-0103"] * 2


def test_points_above_the_ground_are_drawn_at_their_place():
    grid = BevGrid(-20, 40, -15, 15, 0.5)
    x, y = np.meshgrid(np.arange(-20, 40, 0.5), np.arange(-15, 15, 0.5))
    road = np.stack([x.ravel(), y.ravel(), 0.1 * x.ravel()], axis=1)
    points = np.concatenate([road, [(30.0, 10, 4.5), (30.0, -10, 9.0), (80.0, 0, 9.0)]])
    more = {"points": points, "ground": lambda xy: 0.1 * xy[:, 0], "truth": np.zeros((6, *grid.shape))}
    scenery = Scenery(Rig((camera(),)), [], grid, **more)
    bare, drawn = (contact_sheet._draw_labels(s, 240) for s in (replace(scenery, points=None), scenery))
    # 30 m ahead is 10 m below the top of 60 m; 10 m to the left is 5 m from the left of 30 m.
    assert np.argwhere((bare != drawn).any(axis=2)).tolist() == [[40, 20]]


def test_a_point_is_drawn_in_the_cell_of_the_label_below_it():
    grid = BevGrid(-20, 40, -15, 15, 0.5)
    x, y = grid.centres()
    for row, column in ((0, 0), (59, 119), (17, 101)):
        truth = np.zeros((6, *grid.shape))
        truth[0, row, column] = 1
        point = np.array([[x[column], y[row], 1.0]])
        scenery = Scenery(Rig((camera(),)), [], grid, points=point, ground=lambda xy: 0 * xy[:, 0], truth=truth)
        bare, drawn = (contact_sheet._draw_labels(s, 120) for s in (replace(scenery, points=None), scenery))
        ((v, u),) = np.argwhere((bare != drawn).any(axis=2))
        assert tuple(bare[v, u]) == CLASSES[0].colour


def test_unknown_classes_are_named_and_no_caption_is_cut(monkeypatch):
    captions = {}
    monkeypatch.setattr(contact_sheet, "add_caption", lambda picture, text: captions.update({text: picture.shape[1]}))
    grid = BevGrid()
    scenery = Scenery(
        Rig((camera(),)),
        [np.zeros((64, 128, 3), np.uint8)],
        grid,
        truth=np.zeros((6, *grid.shape)),
        known=tuple(name != "walkway" for name in CLASS_NAMES),
    )
    contact_sheet._draw_tile(scenery, "a caption that is " + "long " * 20)
    ((text, width),) = captions.items()
    assert text.endswith("; unknown: walkway")
    assert width > cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_page_of_any_number_of_tiles(count):
    tiles = [np.full((50, 300 + i, 3), 7, np.uint8) for i in range(count)]
    page = lay_out(tiles, "a title")
    assert (page == 7).all(axis=2).sum() == sum(tile.shape[0] * tile.shape[1] for tile in tiles)


@pytest.mark.parametrize("option", [["--sample", "0"], ["--weights", "tiny"], ["--boxes"]])
def test_a_sheet_goes_with_nothing_that_is_of_one_sample(small_root, tmp_path, option):
    arguments = ["view", str(small_root), str(tmp_path / "sheet.png"), "--check", *option]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2
    assert "--check shows random samples" in run.output
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_sheet(small_root, tmp_path):
    arguments = ["view", str(small_root), str(tmp_path / "sheet.jpg"), "--check", "--count", "1", "--seed", "5"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (tmp_path / "sheet.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("sheet.webm", {}, "is not a picture that can be written"),
        ("sheet.png", {"count": 0}, "count is 0, it must be 1 or more"),
        ("sheet.png", {"scenes": "nowhere"}, "no scene"),
    ],
)
def test_wrong_arguments_are_refused(small_root, tmp_path, out, more, message):
    with pytest.raises(BridgeTAError, match=message) as error:
        write_contact_sheet(small_root, VERSION, tmp_path / out, **more)
    assert error.value.exit_code == 2


def test_a_broken_file_is_named_and_leaves_no_sheet(broken_root, tmp_path):
    path = next((broken_root / "samples" / "LIDAR_TOP").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BridgeTAError, match=f"{path.name}: LiDAR file of 999 bytes is truncated"):
        write_contact_sheet(broken_root, VERSION, tmp_path / "out" / "sheet.png")
    assert not (tmp_path / "out").exists()


def test_a_root_without_lidar_has_a_sheet_all_the_same(broken_root, tmp_path):
    path = broken_root / VERSION / "sample_data.json"
    path.write_text(json.dumps([row for row in json.loads(path.read_text()) if "LIDAR" not in row["token"]]))
    shutil.rmtree(broken_root / "samples" / "LIDAR_TOP")
    write_contact_sheet(broken_root, VERSION, tmp_path / "sheet.png", count=1)
    assert (tmp_path / "sheet.png").is_file()
