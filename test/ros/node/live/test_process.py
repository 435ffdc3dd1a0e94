"""The node as a process of its own, with the network that ships: arguments, signals, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CYCLES = 200
WARM_UP = 40  # cycles until allocators and caches are full


def command(*arguments: str, **parameters: object) -> list[str]:
    settings = [word for name, value in parameters.items() for word in ("-p", f"{name.replace('__', '.')}:={value}")]
    return [sys.executable, "-m", "bridgeta_ros.node.main", "--ros-args", *settings, *arguments]


@pytest.fixture
def process(bench: Any) -> Iterator[Any]:
    """Start node processes that do not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, env: dict[str, str] | None = None, **parameters: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            command(*arguments, **parameters),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()


def resources(pid: int) -> tuple[int, float]:
    """Return threads and resident memory in MiB of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    threads, kib = (int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1]) for key in ("Threads", "VmRSS"))
    return threads, kib / 1024


class Remote:
    """As much of a node as `Bench.change` and `Bench.state` ask for."""

    def get_fully_qualified_name(self) -> str:
        return "/bev_node"


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "at work"])
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_two_seconds_without_an_error(
    bench: Any, process: Any, which: signal.Signals, busy: bool, tmp_path: Path
) -> None:
    from ros_bench import RIG

    RIG.save(tmp_path / "rig.yaml")
    child = process(
        autostart="true", lazy="false", cameras="[cam_front, cam_back]", calibration_file=tmp_path / "rig.yaml"
    )
    bench.until(lambda: bench.state(Remote()) == "active", 60)
    if busy:
        bench.listener.listen()
        vehicle = bench.vehicle(calibrated=False)
        bench.drive(vehicle, lambda: len(bench.listener.stamps()) > 3)
        vehicle.publish_cycle()
    child.send_signal(which)
    output, _ = child.communicate(timeout=2)
    assert child.returncode == 0, output
    assert "Traceback" not in output


def test_a_second_signal_does_not_cut_the_end_short(bench: Any, process: Any) -> None:
    child = process(autostart="true")
    bench.until(lambda: bench.state(Remote()) == "active", 60)
    for _ in range(5):
        child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=2)
    assert child.returncode == 0, output


def test_a_parameter_that_is_out_of_range_ends_it_with_one_line(process: Any, bench: Any) -> None:
    child = process(slop="-1.0")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "slop" in output
    assert "Traceback" not in output


def test_a_parameter_of_the_wrong_type_ends_it_with_one_line(process: Any, bench: Any) -> None:
    child = process(threshold="high")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "threshold" in output
    assert "Traceback" not in output


def test_a_missing_parameters_file_ends_it_with_one_line(process: Any, bench: Any) -> None:
    child = process("--params-file", "/nowhere.yaml")
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "/nowhere.yaml" in output
    assert "Traceback" not in output


def test_a_misspelt_parameter_is_reported(process: Any, bench: Any) -> None:
    child = process(trheshold="0.3")
    bench.until(lambda: bench.listener.status("lifecycle")[1] == "unconfigured", 60)
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=2)
    assert "no such parameter" in output
    assert "trheshold" in output


def test_ros_arguments_name_place_and_remap_it(bench: Any, process: Any, tmp_path: Path) -> None:
    from ros_bench import RIG

    RIG.save(tmp_path / "rig.yaml")
    process(
        *("-r", "__ns:=/car", "-r", "__node:=bev", "-r", "~/input/cam_front/image/compressed:=/front/jpeg"),
        autostart="true",
        cameras="[cam_front, cam_back]",
        calibration_file=tmp_path / "rig.yaml",
    )
    bench.until(lambda: bench.node.count_subscribers("/front/jpeg") == 1, 60)
    assert bench.node.count_subscribers("/car/bev/input/cam_back/image/compressed") == 1
    assert bench.node.count_publishers("/car/bev/divider") == 1


def test_an_empty_list_of_cameras_means_those_of_the_weights(bench: Any, process: Any) -> None:
    process(autostart="true", cameras="[]")
    bench.until(lambda: bench.listener.status("lifecycle")[1] == "active", 60)
    assert bench.node.count_subscribers("/bev_node/input/cam_front/image/compressed") == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RMW_IMPLEMENTATION", "rmw_nowhere_cpp"),
        ("CYCLONEDDS_URI", "file:///nowhere/cyclonedds.xml"),
        ("CYCLONEDDS_URI", "<CycloneDDS><Domain><General><Nonsense>1</Nonsense></General></Domain></CycloneDDS>"),
        ("ROS_DOMAIN_ID", "seven"),
    ],
)
def test_a_middleware_that_refuses_is_answered_in_one_line(process: Any, variable: str, value: str) -> None:
    if variable == "CYCLONEDDS_URI" and "cyclone" not in os.environ.get("RMW_IMPLEMENTATION", "cyclone"):
        pytest.skip("this is not Cyclone DDS")
    child = process(env={variable: value})
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 2
    (line,) = [line for line in output.splitlines() if line.startswith("bev_node: ")]
    assert variable in line
    assert "Traceback" not in output


def test_the_file_for_cyclone_dds_is_accepted(bench: Any, process: Any) -> None:
    file = Path(__file__).resolve().parents[4] / "config" / "cyclonedds.xml"
    child = process(env={"CYCLONEDDS_URI": f"file://{file}"})
    bench.until(lambda: bench.listener.status("lifecycle")[1] == "unconfigured", 60)
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=10)
    assert "cyclonedds.xml" not in output  # where Cyclone DDS would name what it does not know


def test_autostart_without_weights_stays_to_be_configured(bench: Any, process: Any) -> None:
    child = process(autostart="true", weights="/nowhere.safetensors")
    bench.until(lambda: bench.listener.status("lifecycle")[1].startswith("unconfigured"), 60)
    assert "/nowhere.safetensors" in bench.listener.status("lifecycle")[1]
    assert child.poll() is None
    assert bench.state(Remote()) == "unconfigured"


def test_200_lifecycle_cycles_leave_no_threads_and_no_memory(bench: Any, process: Any, tmp_path: Path) -> None:
    from ros_bench import RIG

    RIG.save(tmp_path / "rig.yaml")
    # One back end: a trial of all of them at each of so many starts would take minutes.
    child = process(
        lazy="false", backend="torch", cameras="[cam_front, cam_back]", calibration_file=tmp_path / "rig.yaml"
    )
    node, seen = Remote(), {}
    for cycle in range(1, CYCLES + 1):
        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert bench.change(node, transition), (cycle, transition)
        if cycle % 5 == 0:
            seen[cycle] = resources(child.pid)
    early, late = (
        [seen[cycle] for cycle in seen if start < cycle <= start + WARM_UP] for start in (WARM_UP, CYCLES - WARM_UP)
    )
    assert min(threads for threads, _ in late) <= min(threads for threads, _ in early), seen
    # The allocator's fragments come and go by tens of MiB, so the least of many is what is kept. 64 MiB are ten of the
    # 120 networks that were loaded in between.
    assert min(memory for _, memory in late) - min(memory for _, memory in early) < 64, seen
    child.send_signal(signal.SIGINT)
    assert child.wait(2) == 0
