"""The choice of a back end: the fastest of those that work and agree, and why."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_networks import GRID, small_student, trained_student
from torch import Tensor

from bridgeta_core.deploy.backends import choose
from bridgeta_core.deploy.backends.base import Network
from bridgeta_core.deploy.backends.choose import BACKENDS, TOLERANCE, choose_backend
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

CPU = torch.device("cpu")
CLOCK = SimpleNamespace(now=0.0)


class Fake:
    """A back end that takes `seconds` by the fake clock, whose results are `value`."""

    recordable = False

    def __init__(self, name: str, seconds: float, value: float = 0.5, error: Exception | None = None) -> None:
        self.name, self.seconds, self.value, self.error = name, seconds, value, error
        self.device, self.precision = CPU, "float32"

    def encode(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        if self.error is not None:
            raise self.error
        CLOCK.now += self.seconds
        return torch.full((2, 3), self.value), torch.zeros(2, 3)

    def decode(self, lifted: Tensor) -> Tensor:
        return torch.full((6, 4, 4), self.value)


@pytest.fixture
def network() -> Network:
    return Network.of(Student(small_student(), GRID).eval(), 2)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put fakes, or what building one raises, in the place of the back ends."""
    monkeypatch.setattr(choose.time, "perf_counter", lambda: CLOCK.now)

    def set_up(**backends: Fake | Exception) -> None:
        def make(name: str) -> Any:
            def build(*_: Any) -> Any:
                found = backends[name]
                if isinstance(found, Exception):
                    raise found
                return found

            return build

        for name in ("torch", "openvino", "onnxruntime"):
            monkeypatch.setitem(BACKENDS, name, make(name))

    return set_up


def test_the_fastest_is_chosen_and_the_reason_has_the_times(network: Network, fakes: Callable[..., None]) -> None:
    fakes(torch=Fake("torch", 0.025), openvino=Fake("openvino", 0.012), onnxruntime=Fake("onnxruntime", 0.02))
    choice = choose_backend(network, "auto", CPU, "float32")
    assert choice.backend.name == "openvino"
    assert choice.reason == "torch 25.0 ms, openvino 12.0 ms, onnxruntime 20.0 ms"


def test_pytorch_stays_where_others_are_hardly_faster(network: Network, fakes: Callable[..., None]) -> None:
    fakes(torch=Fake("torch", 0.020), openvino=Fake("openvino", 0.0195), onnxruntime=Fake("onnxruntime", 0.03))
    assert choose_backend(network, "auto", CPU, "float32").backend.name == "torch"


@pytest.mark.parametrize("value", [0.5 + 2 * TOLERANCE, float("nan")])
def test_one_that_disagrees_is_not_chosen(network: Network, fakes: Callable[..., None], value: float) -> None:
    fakes(torch=Fake("torch", 0.025), openvino=Fake("openvino", 0.001, value), onnxruntime=Fake("onnxruntime", 0.02))
    choice = choose_backend(network, "auto", CPU, "float32")
    assert choice.backend.name == "onnxruntime"
    assert "not openvino: differs from torch by" in choice.reason


EXHAUSTED = torch.cuda.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BridgeTAError("the package openvino is not installed"), "not openvino: the package openvino is not installed"),
        (EXHAUSTED, "not openvino: the GPU ran out of memory"),
    ],
    ids=["missing", "exhausted"],
)
@pytest.mark.parametrize("late", [False, True])
def test_one_that_fails_is_named_and_the_next_is_used(
    network: Network, fakes: Callable[..., None], error: Exception, reason: str, late: bool
) -> None:
    failing = Fake("openvino", 0.0, error=error) if late else error
    fakes(torch=Fake("torch", 0.025), openvino=failing, onnxruntime=Fake("onnxruntime", 0.02))
    choice = choose_backend(network, "auto", CPU, "float32")
    assert choice.backend.name == "onnxruntime"
    assert reason in choice.reason


def test_where_none_works_the_first_error_passes(network: Network, fakes: Callable[..., None]) -> None:
    missing = BridgeTAError("not installed")
    fakes(torch=EXHAUSTED, openvino=missing, onnxruntime=missing)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        choose_backend(network, "auto", CPU, "float32")


def test_a_fault_of_our_own_is_not_hidden(network: Network, fakes: Callable[..., None]) -> None:
    fakes(torch=Fake("torch", 0.025), openvino=RuntimeError("a bug"), onnxruntime=Fake("onnxruntime", 0.02))
    with pytest.raises(RuntimeError, match="a bug"):
        choose_backend(network, "auto", CPU, "float32")


def test_without_other_packages_it_is_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    choice = choose_backend(Network.of(trained_student(), 2), "auto", CPU, "float32")
    assert choice.backend.name == "torch"
    assert choice.reason.startswith("the only one usable here; not openvino: the package openvino is not installed")


@pytest.mark.parametrize(
    ("name", "device", "precision", "message"),
    [
        ("fastest", "cpu", "float32", "backend 'fastest' is not one of auto, torch"),
        ("torch", "cpu", "int3", "precision 'int3' is not one of float32"),
        ("torch", "cpu", "int8", "backend torch has no int8 on cpu. It has float32, bfloat16 there"),
        ("tensorrt", "cpu", "float32", "backend tensorrt has no float32 on cpu. Use one of torch, openvino"),
        ("auto", "cpu", "float16", "no backend has the precision float16 on cpu"),
        ("openvino", "cpu", "int8", "hold no int8 graphs. Make weights that hold them: bridgeta quantise"),
    ],
)
def test_what_is_not_there_is_one_line(network: Network, name: str, device: str, precision: str, message: str) -> None:
    with pytest.raises(BridgeTAError) as caught:
        choose_backend(network, name, torch.device(device), precision)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_bfloat16_needs_a_processor_that_has_it(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda: False)
    with pytest.raises(BridgeTAError, match="no instructions for bfloat16"):
        choose_backend(network, "torch", CPU, "bfloat16")
    monkeypatch.setattr(choose, "has_bfloat16", lambda: True)
    backend = choose_backend(network, "torch", CPU, "bfloat16").backend
    bev = torch.rand(32, 48, 8, dtype=torch.bfloat16)
    assert backend.decode(bev).dtype == torch.float32
    assert list(itertools.islice(backend.decode(bev).shape, 3)) == [6, 24, 40]
