"""A published checkpoint's network at full size: from its file through the replay of a real keyframe and the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from released import make_tensors, read_golden, read_json, save_checkpoint
from typer.testing import CliRunner

from bridgeta_core.deploy.weights import read_info
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.commands import app
from bridgeta_ros.pipeline import topics

VERSION, SCENE = "v1.0-mini", "scene-0061"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_a_checkpoint_becomes_grids_of_a_real_keyframe_and_graphs(real_root: Path, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "seg.pth", make_tensors(read_json(read_golden("camera_only"), "names")))
    weights, bag, out = tmp_path / "student.safetensors", tmp_path / "bag", tmp_path / "out"
    run("import", checkpoint, weights, "--as", "student")
    assert read_info(weights).grid == BevGrid(-49.06, 50.94, -50, 50, 0.5)
    assert read_info(weights).provenance["licence"] == "Apache-2.0"
    run("bag", real_root, bag, "--version", VERSION, "--scene", SCENE)
    run("replay", bag, out, "--weights", weights)
    with open_bag(out) as found:
        grids = [found.decode(connection, data) for connection, _, data in found.raw({f"{topics.BEV}/divider"})]
    (grid,) = grids
    assert (grid.info.width, grid.info.height) == (200, 200)
    assert (grid.info.origin.position.x, grid.info.origin.position.y) == pytest.approx((-49.06, -50))
    assert np.ptp(grid.data) > 0
    assert "no probability differs by more than" in run(
        "export", weights, tmp_path / "graphs", "--data", bag, "--sets", 1
    )
