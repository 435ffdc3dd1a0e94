"""How the packages lean on each other, read from their imports: arrows run one way, and a vehicle loads little."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bridgeta_core", "bridgeta_synth", "bridgeta_ros")
TRAINING_ONLY = {"lightning", "nuscenes", "shapely", "matplotlib", "tensorboard"}
ROS = ("rclpy", "rosidl", "cv_bridge", "message_filters", "tf2_ros", "sensor_msgs", "nav_msgs", "std_msgs", "launch")
MOST_ENTRIES = 12
LARGER_FOLDERS = {
    "bridgeta_core": "its folders are the stops on the way of the data, which CONTRIBUTING.md lists in order",
    "test/core": "it mirrors bridgeta_core",
    "bench": "each script prints the figures of one page in docs/",
    "docs": "each page is about one subject, and pictures lie beside the pages that show them",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports anywhere, for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports. Faces, which only hand names on, are left out."""
    faces = {name for name, path in FILES.items() if path.name == "__init__.py"}
    return {
        name: {target for target in imports(path) if target in FILES and target not in faces}
        for name, path in FILES.items()
        if name not in faces
    }


def folders(modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the folders that the modules of each folder import from; a module flat in a package stands for itself."""

    def folder(name: str) -> str:
        above = name.rpartition(".")[0]
        return name if above in PACKAGES else above

    result: dict[str, set[str]] = {}
    for name, targets in modules.items():
        result.setdefault(folder(name), set()).update({folder(target) for target in targets} - {folder(name)})
    return result


def find_circle(arrows: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_would_be_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_no_modules_import_each_other_in_a_circle():
    arrows = graph()
    assert sum(map(len, arrows.values())) > 500
    assert find_circle(arrows) == []


def test_no_folders_import_each_other_in_a_circle():
    assert find_circle(folders(graph())) == []


def test_arrows_run_from_ros_to_synth_to_core():
    lower = {"bridgeta_core": ("bridgeta_synth", "bridgeta_ros"), "bridgeta_synth": ("bridgeta_ros",)}
    for name, path in FILES.items():
        assert not [t for t in imports(path) if t.startswith(lower.get(name.partition(".")[0], "-"))], name


def test_only_the_demo_and_the_command_line_use_the_synthetic_world():
    users = {name for name, path in FILES.items() if any(t.startswith("bridgeta_synth") for t in imports(path))}
    assert {name for name in users if name.startswith("bridgeta_ros")} == {
        "bridgeta_ros.commands",
        "bridgeta_ros.bags.demo",
    }


def test_only_the_node_needs_a_ros_installation():
    users = {name for name, path in FILES.items() if any(t.startswith(ROS) for t in imports(path))}
    assert users
    assert not [name for name in users if not name.startswith("bridgeta_ros.node.")]


def test_at_most_four_modules_lie_flat_in_a_package():
    for package in PACKAGES:
        assert len([p for p in (ROOT / package).glob("*.py") if p.name != "__init__.py"]) <= 4, package


def test_a_folder_has_twelve_entries_or_a_reason_for_more():
    folders = {path.parent for path in FILES.values()} | {
        ROOT / "bench",
        ROOT / "docs",
        ROOT / "launch",
        ROOT / "config",
    }
    folders |= {path.parent for path in (ROOT / "test").rglob("*.py")}
    ignored = {"__init__.py", "__pycache__", "py.typed"}
    large = {f for f in folders if len([p for p in f.iterdir() if p.name not in ignored]) > MOST_ENTRIES}
    assert {str(folder.relative_to(ROOT)) for folder in large} == LARGER_FOLDERS.keys()


def test_every_folder_says_what_it_is():
    for path in FILES.values():
        face = path.with_name("__init__.py")
        assert ast.get_docstring(ast.parse(face.read_text())), face


@pytest.mark.parametrize(
    "module", ["bridgeta_core.deploy.runtime", "bridgeta_ros.bags.replay", "bridgeta_ros.bags.report"]
)
def test_a_vehicle_loads_nothing_of_the_training(module: str):
    loaded = load(f"import {module}")
    assert module in loaded
    assert not TRAINING_ONLY & loaded
    training = ("data", "training", "evaluation.evaluate", "distill", "model.teacher", "study")
    unwanted = ("bridgeta_synth", *(f"bridgeta_core.{part}" for part in training))
    assert not [name for name in loaded if name.startswith(unwanted)]


@pytest.mark.parametrize(
    "module", ["bridgeta_core", "bridgeta_synth", "bridgeta_ros.commands", "bridgeta_core.cli.commands"]
)
def test_help_loads_neither_torch_nor_numpy(module: str):
    loaded = load(f"import {module}")
    assert module in loaded
    assert not {"torch", "numpy", "cv2", "omegaconf", *TRAINING_ONLY} & loaded


@pytest.mark.parametrize("module", ["bridgeta_ros.cli", "bridgeta_core.__main__"])
def test_an_entry_point_loads_only_what_is_needed_to_end_on_a_signal(module: str):
    loaded = load(f"import {module}")
    assert module in loaded
    assert not {"typer", "rich", "asyncio", "inspect", "re"} & (loaded - load("pass"))


def load(code: str) -> set[str]:
    """Run code in an interpreter of its own and return the modules that it loaded."""
    code = f"import sys; {code}; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_without_ros_the_node_says_what_it_needs():
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "bridgeta_ros.node.main"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "source" in done.stderr
    assert "Traceback" not in done.stderr
