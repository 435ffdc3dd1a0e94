"""Out of memory costs a step down, not the vehicle's eyes: what is freed, what is repeated, and what is said."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import GRID, small_student

from bridgeta_core.deploy.backends.memory import is_out_of_memory
from bridgeta_core.deploy.fallback import FallbackRuntime
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import WeightsInfo
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError

AHEAD = rigid((0, 0, 1.5), (0.5, -0.5, 0.5, -0.5))
RIG = Rig((Camera("only", 800, 450, np.array([[500.0, 0, 400], [0, 500, 225], [0, 0, 1]]), AHEAD),))
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)

FULL, HALF, CPU = ("cuda", "float32"), ("cuda", "float16"), ("cpu", "float32")
TO_HALF = "cuda ran out of memory at float32; runs at float16 now"
TO_CPU = "cuda ran out of memory at float16; runs on cpu at float32 now"


def exhausted() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Machine:
    """Makes fake runtimes. `full` are calls ("load", "warm_up", "infer", "fits") with device and precision that fail
    with `error()`; `log` tells all calls in turn.
    """

    def __init__(self, *full: tuple[str, str, str], error: Callable[[], BaseException] = exhausted) -> None:
        self.full, self.error = set(full), error
        self.log: list[tuple[str, str, str]] = []
        self.rigs: list[Rig] = []
        self.backends: list[str] = []
        self.made: list[weakref.ref] = []

    def __call__(self, weights: Any, device: str, precision: str, backend: str) -> Any:
        assert weights == "weights"
        self.backends.append(backend)
        assert not [ref for ref in self.made if ref() is not None], "an earlier runtime still holds its memory"
        self.call("load", (device, precision))
        runtime = FakeRuntime(self, (device, precision))
        self.made.append(weakref.ref(runtime))
        return runtime

    def call(self, name: str, step: tuple[str, str]) -> None:
        self.log.append((name, *step))
        if (name, *step) in self.full:
            raise self.error()


class FakeRuntime:
    def __init__(self, machine: Machine, step: tuple[str, str]) -> None:
        self.machine, self.step = machine, step
        self.info, self.grid = SimpleNamespace(name="info"), GRID
        self.backend, self.reason = "fake", "as asked for"

    def fits(self, rig: Rig) -> Any:
        self.machine.call("fits", self.step)
        return ("fit",) * len(rig.cameras)

    def warm_up(self, rig: Rig) -> None:
        self.machine.rigs.append(rig)
        self.machine.call("warm_up", self.step)

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> Any:
        self.machine.call("infer", self.step)
        return (self.step, images, rig)


def fallback(
    machine: Machine, device: str = "cuda", precision: str = "float32", backend: str = "torch"
) -> FallbackRuntime:
    return FallbackRuntime("weights", device, precision, backend, make=machine)


def state(runtime: FallbackRuntime) -> tuple[str, str, bool, tuple[str, ...]]:
    return (str(runtime.device), runtime.precision, runtime.degraded, runtime.remarks)


def test_with_enough_memory_it_is_the_runtime_itself() -> None:
    machine = Machine()
    runtime = fallback(machine)
    assert runtime.infer(IMAGES, RIG) == (FULL, IMAGES, RIG)
    assert runtime.fits(RIG) == ("fit",)
    assert (runtime.info.name, runtime.grid) == ("info", GRID)
    assert state(runtime) == (*FULL, False, ())
    assert machine.log == [("load", *FULL), ("infer", *FULL), ("fits", *FULL)]


@pytest.mark.parametrize("call", ["load", "warm_up", "infer"])
def test_it_steps_down_wherever_the_memory_runs_out(call: str) -> None:
    machine = Machine((call, *FULL))
    runtime = fallback(machine)
    runtime.warm_up(RIG)
    assert runtime.infer(IMAGES, RIG) == (HALF, IMAGES, RIG)
    assert state(runtime) == (*HALF, True, (TO_HALF,))
    assert (runtime.info.name, runtime.grid) == ("info", GRID)


@pytest.mark.parametrize("call", ["load", "warm_up", "infer"])
def test_it_steps_down_to_the_cpu_in_the_end(call: str) -> None:
    runtime = fallback(Machine((call, *FULL), (call, *HALF)))
    runtime.warm_up(RIG)
    assert runtime.infer(IMAGES, RIG) == (CPU, IMAGES, RIG)
    assert state(runtime) == (*CPU, True, (TO_HALF, TO_CPU))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_falls_back_to_the_cpu(precision: str) -> None:
    runtime = fallback(Machine(("infer", "cuda", precision)), precision=precision)
    assert runtime.infer(IMAGES, RIG) == (CPU, IMAGES, RIG)
    assert runtime.remarks == (f"cuda ran out of memory at {precision}; runs on cpu at float32 now",)


@pytest.mark.parametrize(
    ("backend", "steps"),
    [
        ("torch", [(*FULL, "torch"), (*HALF, "torch"), (*CPU, "torch")]),
        ("auto", [(*FULL, "auto"), (*HALF, "auto"), (*CPU, "auto")]),
        ("tensorrt", [(*FULL, "tensorrt"), (*HALF, "tensorrt"), (*CPU, "auto")]),
        ("onnxruntime", [(*FULL, "onnxruntime"), (*CPU, "onnxruntime")]),
    ],
)
def test_every_step_is_one_that_the_back_end_has(backend: str, steps: list[tuple[str, str, str]]) -> None:
    machine = Machine(("infer", *FULL), ("infer", *HALF))
    runtime = fallback(machine, backend=backend)
    runtime.infer(IMAGES, RIG)
    loads = [entry[1:] for entry in machine.log if entry[0] == "load"]
    assert [(*step, used) for step, used in zip(loads, machine.backends, strict=True)] == steps
    assert (runtime.backend, runtime.reason) == ("fake", "as asked for")


def test_a_numbered_gpu_keeps_its_number() -> None:
    runtime = fallback(Machine(("infer", "cuda:1", "float32")), "cuda:1")
    assert runtime.infer(IMAGES, RIG)[0] == ("cuda:1", "float16")
    assert runtime.remarks == ("cuda:1 ran out of memory at float32; runs at float16 now",)
    assert runtime.device == torch.device("cuda", 1)


def test_auto_is_the_gpu_where_there_is_one() -> None:
    machine = Machine()
    runtime = fallback(machine, "auto")
    assert runtime.device.type == machine.log[0][1] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_step_down_warms_up_before_it_repeats_the_call() -> None:
    machine = Machine(("infer", *FULL))
    runtime = fallback(machine)
    runtime.warm_up(RIG)
    part = Rig(RIG.cameras)
    runtime.infer(IMAGES, part)
    after = [("load", *HALF), ("warm_up", *HALF), ("infer", *HALF)]
    assert machine.log == [("load", *FULL), ("warm_up", *FULL), ("infer", *FULL), *after]
    assert machine.rigs == [RIG, RIG]


def test_a_step_while_warming_up_warms_up_once() -> None:
    machine = Machine(("warm_up", *FULL))
    fallback(machine).warm_up(RIG)
    assert machine.log == [("load", *FULL), ("warm_up", *FULL), ("load", *HALF), ("warm_up", *HALF)]


def test_a_step_while_warming_up_forgets_the_earlier_rig() -> None:
    machine = Machine()
    runtime = fallback(machine)
    runtime.warm_up(RIG)
    machine.full.add(("warm_up", *FULL))
    other = Rig(RIG.cameras)
    runtime.warm_up(other)
    assert machine.rigs == [RIG, other, other]


def test_a_step_that_cannot_warm_up_is_skipped() -> None:
    machine = Machine(("infer", *FULL), ("warm_up", *HALF))
    runtime = fallback(machine)
    runtime.warm_up(RIG)
    assert runtime.infer(IMAGES, RIG)[0] == CPU
    assert [entry for entry in machine.log if entry[0] == "infer"] == [("infer", *FULL), ("infer", *CPU)]


def test_it_never_steps_up_again() -> None:
    machine = Machine(("infer", *FULL))
    runtime = fallback(machine)
    runtime.infer(IMAGES, RIG)
    machine.full.clear()
    for _ in range(3):
        runtime.infer(IMAGES, RIG)
    assert [entry[0] for entry in machine.log].count("load") == 2
    assert runtime.remarks == (TO_HALF,)


@pytest.mark.parametrize("call", ["load", "infer"])
def test_when_nothing_is_left_it_says_what_to_do(call: str) -> None:
    machine = Machine((call, *FULL), (call, *HALF), (call, *CPU))
    with pytest.raises(BridgeTAError, match=r"cpu ran out of memory at float32.*Free memory"):
        fallback(machine).infer(IMAGES, RIG)


def test_after_nothing_was_left_the_next_call_tries_again() -> None:
    machine = Machine(("infer", *CPU))
    runtime = fallback(machine, "cpu")
    for _ in range(2):
        with pytest.raises(BridgeTAError, match="nothing smaller"):
            runtime.infer(IMAGES, RIG)
    machine.full.clear()
    assert runtime.infer(IMAGES, RIG)[0] == CPU
    assert (runtime.degraded, machine.log.count(("load", *CPU))) == (False, 1)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        BridgeTAError("images are float32"),
        ValueError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("call", ["load", "warm_up", "infer"])
def test_any_other_error_passes_and_costs_no_step(call: str, error: Exception) -> None:
    machine = Machine((call, *FULL), error=lambda: error)

    def run() -> None:
        runtime = fallback(machine)
        runtime.warm_up(RIG)
        runtime.infer(IMAGES, RIG)

    with pytest.raises(type(error), match=re.escape(str(error))):
        run()
    assert not [entry for entry in machine.log if entry[1:] != FULL]


def test_a_step_that_fails_otherwise_is_retried_at_the_next_call() -> None:
    machine = Machine(("infer", *FULL), ("load", *HALF))
    runtime = fallback(machine)
    errors = iter([exhausted, lambda: BridgeTAError("no such weights file")])
    machine.error = lambda: next(errors)()
    with pytest.raises(BridgeTAError, match="no such weights file"):
        runtime.infer(IMAGES, RIG)
    machine.full.clear()
    assert runtime.infer(IMAGES, RIG)[0] == HALF


def raised_from(cause: Exception) -> BridgeTAError:
    error = BridgeTAError("device cuda is not usable")
    error.__cause__ = cause
    return error


class FailOfOnnxRuntime(Exception):
    __module__ = "onnxruntime.capi.onnxruntime_pybind11_state"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised_from(FailOfOnnxRuntime("CUDA failure 2: out of memory ; GPU=0")), True),
        (raised_from(FailOfOnnxRuntime("Failed to allocate memory for requested buffer of size 73728")), True),
        (raised_from(FailOfOnnxRuntime("CUDA failure 700: an illegal memory access was encountered")), False),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (raised_from(RuntimeError("CUDA error: out of memory")), True),
        (raised_from(RuntimeError("CUDA error: no device")), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), False),
        (MemoryError("out of memory"), False),
        (None, False),
    ],
)
def test_an_exhausted_gpu_is_distinguished_from_other_failures(error: Exception | None, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def tiny_student() -> Student:
    torch.manual_seed(0)
    config = small_student({"margin": 1.25}, {"downsample": 2})
    return Student(config, GRID).eval()


class Exhausted(torch.nn.Module):
    """A student's head on a device without memory; what its frame holds when it fails is kept as weak references."""

    def __init__(self, held: list[weakref.ref]) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activation = x + 1
        self.held.append(weakref.ref(activation))
        raise exhausted()


def test_a_real_runtime_is_freed_before_the_next_gives_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = tiny_student()
    info = WeightsInfo(student.config, GRID, CLASS_NAMES, ("only",))
    held: list[weakref.ref] = []
    alive_at_emptying: list[int] = []
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive_at_emptying.append(sum(ref() is not None for ref in held))
    )

    def make(weights: Any, device: str, precision: str, backend: str) -> Runtime:
        runtime = Runtime.from_student(student, info, "cpu")
        if device == "cuda":
            parts: Any = runtime._backend
            parts._bev.head = Exhausted(held)
            held.extend(weakref.ref(p) for part in (parts._image, parts._bev) for p in part.parameters())
        return runtime

    runtime = FallbackRuntime("weights", "cuda", make=make)
    found = runtime.infer(IMAGES, RIG)
    assert alive_at_emptying == [0, 0]
    assert len(held) > 20
    np.testing.assert_array_equal(found, Runtime.from_student(student, info, "cpu").infer(IMAGES, RIG))
    assert runtime.remarks == (TO_HALF, TO_CPU)
    assert runtime.info is info
    assert runtime.fits(RIG) == Runtime.from_student(student, info, "cpu").fits(RIG)


@pytest.mark.cuda
def test_a_full_gpu_leads_to_the_cpu() -> None:
    student = tiny_student()
    info = WeightsInfo(student.config, GRID, CLASS_NAMES, ("only",))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        runtime = FallbackRuntime("", "cuda", make=lambda _, *step: Runtime.from_student(student, info, *step))
        found = runtime.infer(IMAGES, RIG)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert runtime.device.type == "cpu"
    np.testing.assert_array_equal(found, Runtime.from_student(student, info, "cpu").infer(IMAGES, RIG))
