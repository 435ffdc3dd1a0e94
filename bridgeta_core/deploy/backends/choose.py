"""Choose a back end: the one that is asked for, or the fastest of those that are installed and compute the same."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bridgeta_core.deploy.backends.base import Backend, Builder, Network
from bridgeta_core.deploy.backends.eager import TorchBackend
from bridgeta_core.deploy.backends.memory import is_out_of_memory
from bridgeta_core.deploy.backends.onnxruntime import OnnxRuntimeBackend, TensorRtBackend
from bridgeta_core.deploy.backends.openvino import OpenVinoBackend
from bridgeta_core.deploy.backends.supported import NAMES, PRECISIONS, SUPPORTED
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import has_bfloat16

BACKENDS: dict[str, Builder] = {
    "torch": TorchBackend,
    "openvino": OpenVinoBackend,
    "onnxruntime": OnnxRuntimeBackend,
    "tensorrt": TensorRtBackend,
}

TOLERANCE = 1e-3
"""The largest difference of a depth distribution or a probability to PyTorch's that `auto` accepts at float32."""

_WARM_UPS, _ROUNDS = 1, 6  # calls of each back end in a trial
_MARGIN = 0.95  # of the first one's time: what is hardly faster would change from start to start


@dataclass(frozen=True)
class Choice:
    """A back end, and in one sentence why it is this one."""

    backend: Backend
    reason: str


def choose_backend(network: Network, name: str, device: torch.device, precision: str) -> Choice:
    """Build the back end `name`; for "auto" the fastest one here, by a short trial of all that are installed.

    A trial takes seven calls of each, in turn, on random images. At float32 a back end must also agree with PyTorch
    within `TOLERANCE`, so that the choice changes the time and nothing else. One that fails is named in the reason, and
    the others go on. Raises BridgeTAError (exit code 2) for a name or precision that is not there on this device, and
    as the back end does; when its memory is used up that error is `is_out_of_memory`.
    """
    able = list_backends(device, precision)
    if name != "auto":
        if name not in BACKENDS:
            raise BridgeTAError(f"backend {name!r} is not one of {', '.join(NAMES)}", exit_code=2)
        if name not in able:
            offered = SUPPORTED.get((name, device.type))
            fix = f"It has {', '.join(offered)} there" if offered else f"Use one of {', '.join(able)} or auto"
            raise BridgeTAError(f"backend {name} has no {precision} on {device.type}", fix=fix, exit_code=2)
        return Choice(BACKENDS[name](network, device, precision), "as asked for")
    backends, problems = _build_all(network, able, device, precision)
    if len(backends) == 1:
        return Choice(backends[0], "; ".join(["the only one usable here", *problems]))
    times, strange = _try(network, backends, precision)
    problems += strange
    first = next(iter(times))
    fastest = min(times, key=lambda backend: times[backend])
    if times[fastest] > _MARGIN * times[first]:
        fastest = first
    figures = ", ".join(f"{backend.name} {1e3 * times[backend]:.1f} ms" for backend in times)
    return Choice(fastest, "; ".join([figures, *problems]))


def list_backends(device: torch.device, precision: str) -> list[str]:
    """List the back ends that know a precision on a device. Raises BridgeTAError (exit code 2) when none does."""
    if precision not in PRECISIONS:
        raise BridgeTAError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}", exit_code=2)
    able = [name for name in BACKENDS if precision in SUPPORTED.get((name, device.type), ())]
    if not able:
        raise BridgeTAError(
            f"no backend has the precision {precision} on {device.type}", fix="Use float32 here", exit_code=2
        )
    if precision == "bfloat16" and device.type == "cpu" and not has_bfloat16():
        what = "this processor has no instructions for bfloat16, which would be slower than float32"
        raise BridgeTAError(what, fix="Use float32 or int8 here", exit_code=2)
    return able


def _build_all(
    network: Network, names: list[str], device: torch.device, precision: str
) -> tuple[list[Backend], list[str]]:
    """Build the back ends that can be built, and say of the others why not. Raises the first error when none can."""
    backends: list[Backend] = []
    problems: list[str] = []
    errors: list[Exception] = []
    for name in names:
        try:
            backends.append(BACKENDS[name](network, device, precision))
        except (BridgeTAError, RuntimeError) as error:
            problems.append(_excuse(name, error))
            errors.append(error)
    if not backends:
        raise errors[0]
    return backends, problems


def _try(network: Network, backends: list[Backend], precision: str) -> tuple[dict[Backend, float], list[str]]:
    """Measure back ends in turn. Return the shortest seconds of each that works and agrees; of the others, why not.

    Raises the first error when none works.
    """
    times: dict[Backend, float] = {}
    problems: list[str] = []
    errors: list[Exception] = []
    expected: list[Tensor] | None = None
    for _ in range(_WARM_UPS + _ROUNDS):
        for backend in list(backends):
            inputs = network.draw_inputs(network.cameras, backend.device)
            try:
                elapsed, results = _measure(backend, *inputs)
            except (BridgeTAError, RuntimeError) as error:
                problems.append(_excuse(backend.name, error))
                errors.append(error)
                backends.remove(backend)
                times.pop(backend, None)
                continue
            if backend not in times and precision == "float32":
                expected = expected or results
                difference = max(float((a - b).abs().max()) for a, b in zip(results, expected, strict=True))
                if not difference <= TOLERANCE:
                    problems.append(f"not {backend.name}: differs from {backends[0].name} by {difference:.1e}")
                    backends.remove(backend)
                    continue
            times[backend] = min(times.get(backend, math.inf), elapsed)
    if not times:
        raise errors[0]
    return times, problems


def _measure(backend: Backend, images: Tensor, ground: Tensor, lifted: Tensor) -> tuple[float, list[Tensor]]:
    """Return the seconds of one call of both parts, and copies of the depth distributions and probabilities."""
    with torch.inference_mode():
        start = time.perf_counter()
        depth, _ = backend.encode(images, ground)
        probabilities = backend.decode(lifted)
        if backend.device.type == "cuda":
            torch.cuda.synchronize(backend.device)
        elapsed = time.perf_counter() - start
        return elapsed, [depth.clone(), probabilities.clone()]


def _excuse(name: str, error: Exception) -> str:
    """Say in one line why a back end is out. Raises the error again when it is none of a back end or of its memory."""
    if isinstance(error, BridgeTAError):
        return f"not {name}: {error.what}"
    if is_out_of_memory(error):
        return f"not {name}: the GPU ran out of memory"
    raise error
