"""The picture of a rig shows the cells of each camera where they are, and the command says what is not plausible."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.geometry.coverage import measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import fit_images
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.view.coverage import draw_coverage, write_rig_picture
from bridgeta_core.view.drawing import PAPER
from bridgeta_synth import nuscenes

AHEAD, LEFT = (0.5, -0.5, 0.5, -0.5), (0.5**0.5, -(0.5**0.5), 0.0, 0.0)
K = np.array([[800.0, 0, 799.5], [0, 800, 449.5], [0, 0, 1]])


def camera(name, rotation):
    return Camera(name, 1600, 900, K, rigid((0, 0, 1.5), rotation))


def test_each_camera_colours_the_cells_ahead_of_it():
    grid, rig = BevGrid(), Rig((camera("front", AHEAD), camera("left", LEFT)))
    fits = list(fit_images(rig, (704, 256), 768 / 704).values())
    picture = draw_coverage(measure_coverage(rig, fits, grid, 1.0, 60.0), grid)

    def colour(x, y):
        u, v = grid.to_pixels(np.array([[x, y]]), (720, 720))[0].round().astype(int)
        return tuple(picture[v, u].tolist())

    assert colour(25, 3) == colour(30, -12)
    assert colour(3, 25) == colour(-12, 30)
    assert len({colour(25, 3), colour(3, 25), PAPER}) == 3
    assert colour(-25, 3) == colour(3, -25) == PAPER


def test_the_picture_of_a_good_rig_comes_without_remarks(tmp_path):
    rig = Rig(tuple(Camera(c.channel, 1600, 900, c.intrinsics(1600, 900), c.ego_T_cam) for c in nuscenes.CAMERAS))
    rig.save(tmp_path / "rig.yaml")
    assert write_rig_picture(tmp_path / "rig.yaml", tmp_path / "rig.png", weights="tiny") == []
    assert cv2.imread(str(tmp_path / "rig.png")).shape == (720, 1280, 3)


def test_the_command_says_what_is_not_plausible(tmp_path):
    sky = replace(camera("up", AHEAD), ego_T_cam=rigid((0, 0, 1.5), (1, 0, 0, 0)))
    Rig((camera("front", AHEAD), sky)).save(tmp_path / "rig.yaml")
    result = CliRunner().invoke(app, ["view", str(tmp_path / "rig.yaml"), str(tmp_path / "rig.png")])
    assert result.exit_code == 0
    assert "note: up sees 0 of the 40000 cells: it looks 90 degrees up" in result.output
    assert (tmp_path / "rig.png").exists()


def test_a_rig_has_no_samples(tmp_path):
    Rig((camera("front", AHEAD),)).save(tmp_path / "rig.yaml")
    result = CliRunner().invoke(app, ["view", str(tmp_path / "rig.yaml"), str(tmp_path / "rig.png"), "--check"])
    assert result.exit_code == 2
    with pytest.raises(BridgeTAError, match=r"\.png or \.jpg"):
        write_rig_picture(tmp_path / "rig.yaml", tmp_path / "rig.txt")
