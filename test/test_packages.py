"""How the packages lean on each other: a vehicle loads the runtime and the replay, and nothing that trains."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING_ONLY = {"lightning", "nuscenes", "shapely", "matplotlib", "tensorboard"}


@pytest.mark.parametrize(
    "module", ["bridgeta_core.deploy.runtime", "bridgeta_ros.bags.replay", "bridgeta_ros.bags.report"]
)
def test_what_runs_on_a_vehicle_loads_nothing_of_the_training(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = result.stdout.split()
    assert module in loaded
    assert not TRAINING_ONLY & set(loaded)
    parts = ("data", "training", "evaluation.evaluate", "distill", "model.teacher")
    unwanted = ("bridgeta_synth", *(f"bridgeta_core.{part}" for part in parts))
    assert not [name for name in loaded if name.startswith(unwanted)]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_core_does_not_know_ros():
    names = {path.name: imports(path) for path in (ROOT / "bridgeta_core").rglob("*.py")}
    assert len(names) > 30
    assert not [
        n for n, found in names.items() if any(f.startswith(("bridgeta_ros", "rclpy", "rosbags")) for f in found)
    ]


def test_only_the_node_needs_a_ros_installation():
    node = ROOT / "bridgeta_ros" / "node"
    files = [path for path in (ROOT / "bridgeta_ros").rglob("*.py") if node not in path.parents]
    assert len(files) > 10
    ros = ("rclpy", "rosidl", "cv_bridge", "message_filters", "tf2_ros", "sensor_msgs", "nav_msgs", "std_msgs")
    assert not [path.name for path in files if any(f.startswith(ros) for f in imports(path))]


def test_without_ros_the_node_says_what_it_needs():
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "bridgeta_ros.node.main"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "source" in done.stderr
    assert "Traceback" not in done.stderr
