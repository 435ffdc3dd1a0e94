"""Fall back to half precision, then to the CPU, when the GPU runs out of memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bridgeta_core.deploy.backends.memory import is_out_of_memory
from bridgeta_core.deploy.backends.supported import SUPPORTED
from bridgeta_core.deploy.runtime import Runtime
from bridgeta_core.deploy.weights import WeightsInfo
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import choose_device

T = TypeVar("T")


class FallbackRuntime:
    """A `Runtime` that steps down when its device runs out of memory, while loading, warming up or inferring.

    From CUDA at float32 it goes to float16 and then to the CPU; from float16 and bfloat16 to the CPU. The runtime that
    failed is freed before the next is loaded, the rig of the last `warm_up` is warmed up again, and the call that
    failed is repeated: its caller only sees it take longer. It never steps up again, since another process that takes
    and frees memory would make it load again and again. `remarks` has a sentence for each step.

    A back end that CUDA alone has gives way to `auto` on the CPU. Arguments are those of `Runtime`; `make` builds it
    from them. Calls wait for each other, so any thread may call.
    Raises BridgeTAError as `Runtime` does, and when there is nothing left to step down to; the next call then tries
    again. An exhausted main memory is not caught: there is nothing smaller.
    """

    info: WeightsInfo
    grid: BevGrid
    backend: str
    reason: str
    remarks: tuple[str, ...]

    def __init__(
        self,
        weights: str | Path,
        device: str | torch.device = "auto",
        precision: str = "float32",
        backend: str = "torch",
        make: Callable[[str | Path, str, str, str], Runtime] = Runtime,
    ) -> None:
        self._weights, self._asked, self._make = weights, backend, make
        self._steps = _list_steps(str(device), precision, backend)
        self.remarks = ()
        self._runtime: Runtime | None = None
        self._rig: Rig | None = None
        self._lock = threading.Lock()
        self._attempt(lambda runtime: None)

    @property
    def device(self) -> torch.device:
        """The device it runs on now."""
        return torch.device(self._steps[0][0])

    @property
    def precision(self) -> str:
        """The precision it computes with now: float32, float16 or bfloat16."""
        return self._steps[0][1]

    @property
    def degraded(self) -> bool:
        """Whether it has stepped down."""
        return bool(self.remarks)

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        """Return how each camera's image becomes a network input."""
        return self._attempt(lambda runtime: runtime.fits(rig))

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> NDArray[np.float32]:
        """Compute class probabilities `[6, Y, X]` on `grid` from inputs `[N, h, w, 3]` (RGB) in the rig's order."""
        return self._attempt(lambda runtime: runtime.infer(images, rig))

    def warm_up(self, rig: Rig) -> None:
        """Do now, and after each step down, what would make the first call of `infer` slow."""
        self._rig = None  # a step on the way warms up for this rig alone, not for the one before
        self._attempt(lambda runtime: runtime.warm_up(rig))
        self._rig = rig

    def _attempt(self, use: Callable[[Runtime], T]) -> T:
        """Return the result of `use` on the first runtime, from the present one down, whose memory suffices."""
        with self._lock:
            while True:
                try:
                    return use(self._runtime or self._load())
                except (RuntimeError, BridgeTAError) as error:
                    if not is_out_of_memory(error):
                        raise
                # Only after the handler is the error gone, and with its traceback the frames that hold tensors.
                self._step_down()

    def _load(self) -> Runtime:
        device, precision = self._steps[0]
        of_gpu_alone = bool(self.remarks) and device == "cpu" and (self._asked, "cpu") not in SUPPORTED
        runtime = self._make(self._weights, device, precision, "auto" if of_gpu_alone else self._asked)
        if (rig := self._rig) is not None:
            runtime.warm_up(rig)
        self.info, self.grid, self.backend, self.reason = runtime.info, runtime.grid, runtime.backend, runtime.reason
        self._runtime = runtime
        return runtime

    def _step_down(self) -> None:
        (device, precision), *left = self._steps
        if not left:
            raise BridgeTAError(
                f"{device} ran out of memory at {precision}, and nothing smaller is left to run on",
                fix="Free memory on it, or use smaller weights or fewer cameras",
            )
        place = "" if left[0][0] == device else f"on {left[0][0]} "
        self.remarks += (f"{device} ran out of memory at {precision}; runs {place}at {left[0][1]} now",)
        self._steps = left
        self._runtime = None
        gc.collect()  # objects in a reference cycle hold device memory too
        torch.cuda.empty_cache()


def _list_steps(device: str, precision: str, backend: str) -> list[tuple[str, str]]:
    """List the device and precision to begin with, and those to step down to."""
    device = choose_device(device)
    kind = device.partition(":")[0]
    has_half = backend == "auto" or "float16" in SUPPORTED.get((backend, kind), ())
    half = [(device, "float16")] if kind == "cuda" and precision == "float32" and has_half else []
    last = [("cpu", "float32")] if kind != "cpu" else []
    return [(device, precision), *half, *last]
