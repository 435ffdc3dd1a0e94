"""The examples run as they are written, and so does the notebook.

Two are tested beside what they need: core/data/test_dataset has data of one's own, ros/test_cli exported graphs.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import cv2

from bridgeta_core.data.dataset import open_dataset
from bridgeta_core.geometry.classes import CLASS_NAMES

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*map(str, arguments))


def test_images_of_a_folder_become_a_map(synthetic_root, tmp_path, capsys):
    sample = open_dataset("nuscenes", synthetic_root, "v1.0-mini")[0]
    rig = sample.rig(sample.camera_names)
    (tmp_path / "images").mkdir()
    for name in rig.names:
        shutil.copy(sample.record(name).path, tmp_path / "images" / f"{name}.jpg")
    rig.save(tmp_path / "rig.yaml")
    run("infer_images", tmp_path / "images", tmp_path / "rig.yaml", tmp_path / "map.png")
    text = capsys.readouterr().out
    assert all(name in text for name in CLASS_NAMES)
    assert cv2.imread(str(tmp_path / "map.png")).shape == (800, 800, 3)


def test_a_result_bag_is_read(synthetic_root, tmp_path, capsys):
    from bridgeta_ros.bags.convert import SceneBagSettings, write_scene_bag
    from bridgeta_ros.bags.replay import ReplaySettings, replay

    settings = SceneBagSettings(keyframes_only=True)
    write_scene_bag(synthetic_root, "v1.0-mini", "scene-0001", tmp_path / "drive", settings)
    summary = replay(tmp_path / "drive", tmp_path / "bev", "tiny", ReplaySettings(every=2), progress=False)
    run("read_result_bag", tmp_path / "bev")
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == summary.used
    assert all("m2 drivable" in line for line in lines)


def test_the_probabilities_of_a_sample_are_plotted(synthetic_root, tmp_path):
    run("plot_grid", synthetic_root, tmp_path / "grid.png", 1)
    assert cv2.imread(str(tmp_path / "grid.png")).shape == (800, 1200, 3)


def test_two_weights_are_compared(synthetic_root, capsys):
    run("compare_weights", synthetic_root, "tiny", "tiny_labels")
    text = capsys.readouterr().out
    assert "against" in text
    assert all(name in text for name in (*CLASS_NAMES, "mean average precision"))


def test_the_notebook_runs_from_its_first_cell_to_its_last():
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    names: dict[str, object] = {}
    for number, source in enumerate(code):
        exec(compile(source, f"cell {number}", "exec"), names)
    metric = names["metric"]
    assert metric.result().miou > 0  # type: ignore[attr-defined]
