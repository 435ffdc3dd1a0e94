"""What every back end is: something that computes the two graphs of a student on one device with one precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bridgeta_core.deploy.backends.graphs import BevPart, ImagePart
from bridgeta_core.deploy.backends.store import load_graphs
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError


class Backend(Protocol):
    """Computes the image part and the BEV part of one student (`deploy.graphs`); the lift between them is not its own.

    Tensors lie on `device`. The next call may overwrite what `encode` returned. One thread at a time.
    """

    name: str
    device: torch.device
    precision: str

    recordable: bool
    """Whether CUDA can record its calls as a graph."""

    def encode(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        """Compute depth `[N, h, w, D]` and features `[N, h, w, C]` of images `[N, H, W, 3]`, ground `[N, h, w]`."""
        ...

    def decode(self, lifted: Tensor) -> Tensor:
        """Compute the probabilities `[6, Y, X]`, float32, of lifted features `[Y', X', C]`."""
        ...


@dataclass
class Network:
    """A student as the back ends need it: `student` in eval mode on the CPU, and its int8 graphs, if there are any."""

    student: Student
    cameras: int
    """How many cameras it is usually run with."""

    int8: Mapping[str, bytes] | None = None

    @cached_property
    def graphs(self) -> Mapping[str, bytes]:
        """The two parts as ONNX, by name."""
        return load_graphs(self.student)

    def find_graphs(self, precision: str) -> Mapping[str, bytes]:
        """Return the graphs to compute with a precision. Raises BridgeTAError without int8 graphs."""
        if precision != "int8":
            return self.graphs
        if self.int8 is None:
            fix = "Make weights that hold them: bridgeta quantise WEIGHTS ROOT OUT"
            raise BridgeTAError("these weights hold no int8 graphs", fix=fix, exit_code=2)
        return self.int8


Builder = Callable[[Network, torch.device, str], Backend]


def check_shapes(network: Network, backend: Backend) -> None:
    """Run a back end once, and raise BridgeTAError where its graphs are not those of this network."""
    student, device = network.student, backend.device
    size, lift = student.camera.feature_size, student.camera.lift
    expected = [(1, *size, len(student.camera.bins)), (1, *size, lift.channels), (len(CLASSES), *student.grid.shape)]
    images, ground = (x.to(device) for x in ImagePart(student).example(1))
    (lifted,) = (x.to(device) for x in BevPart(student).example())
    try:
        found = [tuple(x.shape) for x in (*backend.encode(images, ground), backend.decode(lifted))]
    except BridgeTAError:
        raise
    except Exception as error:  # what names and shapes that do not fit lead to is up to the library
        raise explain_failure(backend.name, "run the network", error) from error
    if found != expected:
        what = f"its graphs compute {found}, not the {expected} of these weights"
        raise BridgeTAError(what, where=f"backend {backend.name}", fix="Make them again: bridgeta quantise")


def explain_failure(name: str, what: str, error: BaseException) -> BridgeTAError:
    """Make the one-line error for what a back end's library raised."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[-1].strip()[:200]
    return BridgeTAError(f"cannot {what} ({reason})", where=f"backend {name}", fix="Use the backend auto or torch")


def explain_missing(name: str, package: str, error: ImportError) -> BridgeTAError:
    """Make the error for a back end whose package is absent or broken."""
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    state = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({reason})"
    fix = f"pip install {package}, or use the backend auto or torch"
    return BridgeTAError(f"the package {package} {state}", where=f"backend {name}", fix=fix, exit_code=2)
