"""The measurement of all back ends: its rows, its stages, and what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from small_networks import trained_student
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.deploy.bench import STAGES, Measurement, measure_weights, ring
from bridgeta_core.deploy.weights import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "small.safetensors"
    save_weights(path, trained_student(), ("a", "b"), {})
    return path


@pytest.fixture(scope="module")
def measurement(weights: Path) -> Measurement:
    return measure_weights(weights, "cpu", repeats=3)


def test_every_back_end_is_a_row_after_pytorch(measurement: Measurement) -> None:
    rows = [(timing.backend, timing.precision) for timing in measurement.timings]
    assert rows[0] == ("torch", "float32")
    assert {("openvino", "float32"), ("onnxruntime", "float32")} <= {*rows}
    assert measurement.cameras == 2


def test_every_round_has_all_stages_and_the_total_is_their_sum(measurement: Measurement) -> None:
    assert len(measurement.decoding) == 3
    for timing in measurement.timings:
        assert list(timing.stages) == list(STAGES)
        assert all(len(values) == 3 for values in timing.stages.values())
        assert timing.totals[1] == pytest.approx(sum(values[1] for values in timing.stages.values()))


def test_float32_agrees_and_the_difference_says_so(measurement: Measurement) -> None:
    differences = {t.backend: t.difference for t in measurement.timings if t.precision == "float32"}
    assert differences.pop("torch") == 0
    assert all(0 < value < 1e-4 for value in differences.values())


def test_what_is_left_out_has_its_reason(measurement: Measurement) -> None:
    assert "no int8 graphs" in measurement.omitted["openvino, int8"]
    assert "float16" in measurement.omitted
    console = Console(width=200, record=True)
    console.print(measurement.build_table())
    text = " ".join(console.export_text().split())
    assert "Decode and resize 2 JPEGs of 800x450" in text
    assert all(reason in text for reason in measurement.omitted.values())


def test_the_command_prints_the_table(weights: Path) -> None:
    result = CliRunner().invoke(app, ["bench", str(weights), "--device", "cpu", "--repeats", "1"])
    assert result.exit_code == 0, result.output
    assert "onnxruntime float32" in result.output


def test_the_cameras_look_evenly_around_from_the_front() -> None:
    ahead = [camera.ego_T_cam[:2, 2].round(6).tolist() for camera in ring(4).cameras]
    assert ahead == [[1, 0], [0, 1], [-1, 0], [0, -1]]
