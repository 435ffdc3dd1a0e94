"""`ros2 launch` of the installed package, and live grids against those of the replay, cell by cell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[4]
PARTS = (
    "bridgeta_core",
    "bridgeta_ros",
    "config",
    "launch",
    "resource",
    "package.xml",
    "setup.py",
    "setup.cfg",
    "README.md",
)
CLASSES = ("drivable_area", "ped_crossing", "walkway", "stop_line", "carpark_area", "divider", "navigation")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Provide the environment of a workspace in which `colcon build` has installed the package."""
    workspace = tmp_path_factory.mktemp("workspace")
    source = workspace / "src" / "bridgeta_ros"
    source.mkdir(parents=True)
    for part in PARTS:
        path = REPOSITORY / part
        ignore = shutil.ignore_patterns("__pycache__")
        _ = shutil.copytree(path, source / part, ignore=ignore) if path.is_dir() else shutil.copy(path, source)
    build = subprocess.run(
        [sys.executable, "-m", "colcon", "build"],
        cwd=workspace,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert build.returncode == 0, build.stdout
    script = f"source {workspace}/install/setup.bash && env -0"
    listing = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode()
    return dict(line.split("=", 1) for line in listing.split("\0") if "=" in line)


@pytest.fixture
def launch(bench: Any, environment: dict[str, str]) -> Iterator[Any]:
    """Run `ros2 launch`; what it started ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            ["ros2", "launch", "bridgeta_ros", *words],
            env={**environment, **(env or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(child)
        return child

    yield run
    for child in started:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            try:
                child.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()


def replay_grids(bag: Path, out: Path) -> dict[tuple[str, int], np.ndarray]:
    """Return the grids of `bridgeta replay`, by topic and stamp."""
    from bridgeta_ros.bags.io import open_bag
    from bridgeta_ros.bags.replay import replay
    from bridgeta_ros.pipeline.messages import stamp_to_ns

    replay(bag, out, progress=False)
    grids = {}
    with open_bag(out) as source:
        for connection, _, data in source.raw({f"/bev/{name}" for name in CLASSES}):
            message = source.decode(connection, data)
            grids[connection.topic, stamp_to_ns(message.header)] = np.asarray(message.data)
    return grids


def collect_grids(bench: Any, child: subprocess.Popen[str]) -> dict[tuple[str, int], np.ndarray]:
    """Return the grids that come until a launch ends."""
    from bridgeta_ros.pipeline.messages import stamp_to_ns

    bench.until(lambda: child.poll() is not None, 120)
    bench.pause(0.5)
    return {
        (topic, stamp_to_ns(grid.header)): np.frombuffer(grid.data, np.int8)
        for topic, grids in bench.listener.grids.items()
        for grid in grids
    }


def compare(bench: Any, launch: Any, bag: Path, out: Path, share: float, *words: str) -> None:
    expected = replay_grids(bag, out)
    for name in CLASSES:
        bench.listener.listen(f"/bev/{name}")
    child = launch("replay.launch.py", f"bag:={bag}", "rviz:=false", *words)
    seen = collect_grids(bench, child)
    output = child.stdout.read()
    assert child.returncode == 0, output
    # A replay that goes well has nothing to warn of, neither at its start nor at its end.
    complaints = [line for line in output.splitlines() if "[bev_node]" in line and "[INFO]" not in line]
    assert not complaints, output
    assert set(seen) <= set(expected), output
    assert len(seen) >= share * len(expected), output
    for key, values in seen.items():
        np.testing.assert_array_equal(values, expected[key], err_msg=str(key))


def test_live_grids_of_a_synthetic_drive_equal_the_replayed_ones(
    bench: Any, launch: Any, synthetic_root: Path, tmp_path: Path
) -> None:
    from bridgeta_ros.bags.convert import write_scene_bag

    bag = tmp_path / "drive"
    write_scene_bag(synthetic_root, "v1.0-mini", "scene-0001", bag, progress=False)
    # Slowly, so that a loaded machine works on most of the sets, and by the replay's back end: others round otherwise.
    compare(bench, launch, bag, tmp_path / "bev", 0.5, "rate:=0.25", "backend:=torch")


def test_live_grids_of_the_real_keyframe_equal_the_replayed_ones(
    bench: Any, launch: Any, real_root: Path, tmp_path: Path
) -> None:
    from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
    from bridgeta_ros.bags.convert import write_scene_bag

    bag = tmp_path / "keyframe"
    scene = NuScenesDataset(real_root, "v1.0-mini").scenes[0].name
    write_scene_bag(real_root, "v1.0-mini", scene, bag, progress=False)
    compare(bench, launch, bag, tmp_path / "bev", 1.0, "backend:=torch")


def test_bev_launch_brings_the_node_up_with_its_arguments(bench: Any, launch: Any) -> None:
    launch("bev.launch.py", "namespace:=car", "min_cameras:=3")
    name = "/car/bev_node"
    bench.until(lambda: bench.listener.status("lifecycle", name)[1] == "active", 60)
    from rcl_interfaces.srv import GetParameters

    request = GetParameters.Request(names=["min_cameras"])
    assert bench.call(GetParameters, f"{name}/get_parameters", request).values[0].integer_value == 3
    assert bench.node.count_subscribers("/cam_front/image/compressed") == 1


@pytest.mark.parametrize("file", ["bev.launch.py", "replay.launch.py"])
def test_arguments_are_documented(launch: Any, file: str) -> None:
    output, _ = launch(file, "--show-args").communicate(timeout=60)
    assert "'namespace'" in output
    assert "No description given" not in output


def test_a_missing_bag_is_reported_before_anything_starts(launch: Any) -> None:
    child = launch("replay.launch.py", "bag:=/nowhere/drive", "rviz:=false")
    output, _ = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "/nowhere/drive" in output
    assert "process started" not in output


@pytest.mark.parametrize("file", ["bev.launch.py", "replay.launch.py"])
def test_without_rviz_nothing_starts_and_the_remedy_is_named(launch: Any, tmp_path: Path, file: str) -> None:
    from ament_index_python.packages import get_packages_with_prefixes

    if "rviz2" in get_packages_with_prefixes():
        pytest.skip("RViz is installed here")
    child = launch(file, "rviz:=true", *([f"bag:={write_small_bag(tmp_path)}"] if file.startswith("replay") else []))
    output, _ = child.communicate(timeout=60)
    assert child.returncode != 0
    assert "rviz:=false" in output
    assert "process started" not in output


def test_a_middleware_that_refuses_is_named_before_anything_starts(launch: Any) -> None:
    if "cyclone" not in os.environ.get("RMW_IMPLEMENTATION", "cyclone"):
        pytest.skip("this is not Cyclone DDS")
    output, _ = launch("bev.launch.py", env={"CYCLONEDDS_URI": "file:///nowhere.xml"}).communicate(timeout=60)
    assert "Check CYCLONEDDS_URI=file:///nowhere.xml" in output
    assert "process started" not in output


def write_small_bag(folder: Path) -> Path:
    from bag_fakes import write_bag

    return write_bag(folder / "bag")


def test_the_executable_is_where_ros2_run_looks(environment: dict[str, str]) -> None:
    listed = subprocess.run(
        ["ros2", "pkg", "executables", "bridgeta_ros"], env=environment, text=True, capture_output=True, check=True
    )
    assert "bridgeta_ros bev_node" in listed.stdout.splitlines()
