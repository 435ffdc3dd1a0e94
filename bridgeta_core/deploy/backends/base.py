"""What every back end is: something that computes the two graphs of a student on one device with one precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bridgeta_core.config.experiment import StudentConfig
from bridgeta_core.deploy.backends.graphs import BevPart, ImagePart, hash_student
from bridgeta_core.deploy.backends.store import load_graphs
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import depth_bins
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError, read_message


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
    """A student by its settings and the `digest` of `hash_weights`; `build` makes it, in eval mode on the CPU.

    Building imports the library of the backbones, which takes seconds, so it is put off until a back end needs layers
    and not graphs.
    """

    config: StudentConfig
    grid: BevGrid
    digest: str
    build: Callable[[], Student]

    cameras: int
    """How many cameras it is usually run with."""

    int8: Mapping[str, bytes] | None = None
    """Its int8 graphs by name, if there are any."""

    known_feature_size: tuple[int, int] | None = None
    """`feature_size`, where it is known from an earlier start."""

    @classmethod
    def of(cls, student: Student, cameras: int, int8: Mapping[str, bytes] | None = None) -> Network:
        """Describe a student that is there already."""
        return cls(student.config, student.grid, hash_student(student), lambda: student, cameras, int8)

    @cached_property
    def student(self) -> Student:
        """The network itself."""
        return self.build()

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the image features; it depends on the layers of the backbone."""
        return self.known_feature_size or self.student.camera.feature_size

    @cached_property
    def graphs(self) -> Mapping[str, bytes]:
        """The two parts as ONNX, by name."""
        return load_graphs(self.digest, lambda: self.student)

    def find_graphs(self, precision: str) -> Mapping[str, bytes]:
        """Return the graphs to compute with a precision. Raises BridgeTAError without int8 graphs."""
        if precision != "int8":
            return self.graphs
        if self.int8 is None:
            fix = "Make weights that hold them: bridgeta quantise WEIGHTS ROOT OUT"
            raise BridgeTAError("these weights hold no int8 graphs", fix=fix, exit_code=2)
        return self.int8

    def draw_inputs(self, cameras: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Draw inputs of the right shapes, float32: images and ground of the image part, features of the BEV part."""
        image = ImagePart.draw_inputs(self.config.image, self.feature_size, cameras)
        images, ground, lifted = (x.to(device) for x in (*image, *BevPart.draw_inputs(self.config.lift)))
        return images, ground, lifted

    def list_shapes(self, cameras: int) -> list[tuple[int, ...]]:
        """List the shapes of the depth distributions, the features and the probabilities."""
        image, lift = (cameras, *self.feature_size), self.config.lift
        return [(*image, len(depth_bins(lift))), (*image, lift.channels), (len(CLASSES), *self.grid.shape)]


Builder = Callable[[Network, torch.device, str], Backend]


def check_shapes(network: Network, backend: Backend) -> None:
    """Run a back end once, and raise BridgeTAError where its graphs are not those of this network."""
    images, ground, lifted = network.draw_inputs(1, backend.device)
    expected = network.list_shapes(1)
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
    reason = read_message(error)[:200]
    state = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({reason})"
    fix = f"pip install {package}, or use the backend auto or torch"
    return BridgeTAError(f"the package {package} {state}", where=f"backend {name}", fix=fix, exit_code=2)
