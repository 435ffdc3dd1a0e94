"""Every back end computes what PyTorch computes; what is missing or damaged is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import GRID, pictures, rig, small_student, trained_student

from bridgeta_core.deploy.backends import onnxruntime as of_onnxruntime
from bridgeta_core.deploy.backends.base import Network
from bridgeta_core.deploy.backends.choose import BACKENDS
from bridgeta_core.deploy.backends.graphs import hash_student
from bridgeta_core.deploy.backends.onnxruntime import OnnxRuntimeBackend, TensorRtBackend
from bridgeta_core.deploy.backends.store import find_folder
from bridgeta_core.deploy.backends.supported import SUPPORTED
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import WeightsInfo, save_weights
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

# Two networks that end in the order in which they began, and then a signal, as Ctrl-C is one.
TWO_NETWORKS = """
import faulthandler, gc, os, signal, sys
faulthandler.enable()
from bridgeta_core.deploy.runtime import Runtime
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
first, second = (Runtime(sys.argv[2], "cpu", backend=sys.argv[1]) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
OTHERS = [name for name, device in SUPPORTED if device == "cpu" and name != "torch"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def student() -> Student:
    return trained_student()


def load(student: Student, backend: str, precision: str = "float32") -> Runtime:
    info = WeightsInfo(student.config, GRID, CLASS_NAMES, ("a", "b"))
    return Runtime.from_student(student, info, "cpu", precision, backend)


def test_the_table_of_precisions_knows_every_back_end() -> None:
    assert {name for name, _ in SUPPORTED} == BACKENDS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_a_back_end_computes_what_pytorch_computes(student: Student, name: str) -> None:
    runtime, reference = load(student, name), load(student, "torch")
    assert (runtime.backend, runtime.reason) == (name, "as asked for")
    # Other numbers of cameras, and the first again: a camera that drops out and comes back.
    for cameras in (2, 1, 3, 2):
        expected = reference.infer(pictures(cameras), rig(cameras))
        np.testing.assert_allclose(runtime.infer(pictures(cameras), rig(cameras)), expected, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_signals_can_be_handled_after_a_network_ends(student: Student, name: str, tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    save_weights(weights, student, ("a", "b"), {})
    command = [sys.executable, "-c", TWO_NETWORKS, name, weights]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("name", OTHERS)
def test_a_network_without_a_ground_prior_runs_as_well(name: str) -> None:
    torch.manual_seed(0)
    student = Student(small_student(), GRID).eval()
    expected = load(student, "torch").infer(pictures(2), rig(2))
    np.testing.assert_allclose(load(student, name).infer(pictures(2), rig(2)), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_a_result_outlives_the_next_call(student: Student, name: str) -> None:
    runtime = load(student, name)
    first = runtime.infer(pictures(2), rig(2))
    before = first.copy()
    runtime.infer(255 - pictures(2), rig(2))
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("broken", [False, True])
def test_a_package_that_is_missing_or_broken_is_named(
    student: Student, name: str, broken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if broken:
        (tmp_path / f"{name}.py").write_text("raise ImportError('libfast.so.2: cannot open shared object file')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
    else:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BridgeTAError) as caught:
        load(student, name)
    message = str(caught.value)
    state = "cannot be loaded (libfast.so.2" if broken else "is not installed"
    assert f"backend {name}: the package {name} {state}" in message
    assert f"pip install {name}" in message
    assert "\n" not in message


def test_a_gpu_that_the_package_has_no_provider_for_is_one_line(student: Student) -> None:
    network = Network.of(student, 2)
    for name, make in (("CUDA", OnnxRuntimeBackend), ("Tensorrt", TensorRtBackend)):
        with pytest.raises(BridgeTAError, match=rf"no {name}ExecutionProvider here.*onnxruntime-gpu"):
            make(network, torch.device("cuda"), "float32")


def test_a_graph_that_cannot_be_compiled_is_one_line(student: Student) -> None:
    network = Network.of(student, 2)
    network.__dict__["graphs"] = {"image": b"no graph", "bev": b"no graph"}
    for name in OTHERS:
        with pytest.raises(BridgeTAError, match=rf"^backend {name}: cannot \w+ the network \(.*Use the backend auto"):
            BACKENDS[name](network, CPU, "float32")


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("fault", ["swapped", "of another grid"])
def test_graphs_of_another_network_are_one_line(student: Student, name: str, fault: str) -> None:
    graphs = Network.of(student, 2).graphs
    other = Network.of(Student(small_student(), BevGrid(-10, 10, -6, 6, 1.0)).eval(), 2).graphs
    network = Network.of(student, 2, {"image": graphs["bev"], "bev": graphs["image"]} if fault == "swapped" else other)
    with pytest.raises(BridgeTAError, match=f"^backend {name}: ") as caught:
        BACKENDS[name](network, CPU, "int8")
    assert "\n" not in str(caught.value)


def test_damaged_engines_are_built_anew(
    student: Student, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engines = find_folder(hash_student(student)) / "tensorrt-float32"
    engines.mkdir(parents=True)
    (engines / "engine.trt").write_bytes(b"damaged")

    def start(backend: Any, network: Network, device: torch.device, precision: str) -> None:
        if engines.exists():
            raise BridgeTAError("cannot load the network (Failed to deserialize the engine)")
        backend.started = True

    monkeypatch.setattr(of_onnxruntime.OnnxRuntimeBackend, "__init__", start)
    backend: Any = TensorRtBackend(Network.of(student, 2), torch.device("cuda"), "float32")
    assert backend.started
    assert not engines.exists()
    assert "built anew" in caplog.text
