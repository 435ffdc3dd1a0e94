"""The formats of exported graphs: how each is written, and how it runs again to be compared with the original."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bridgeta_core.deploy.backends.graphs import export_onnx, free_cameras, split
from bridgeta_core.deploy.backends.packages import import_onnxruntime, import_openvino, load_openvino_core
from bridgeta_core.deploy.export.lift_graph import write_lift_graph
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory, read_message

Arrays = Mapping[str, NDArray[Any]]
Graph = Callable[[Arrays], list[NDArray[Any]]]
"""Takes the inputs of a graph by name, and returns its outputs in order."""


@dataclass(frozen=True)
class Format:
    """A format: the ending of its files, what has to be installed to write and run them, and the graphs that it has."""

    suffix: str
    packages: tuple[str, ...]
    extra: str
    graphs: tuple[str, ...]
    write: Callable[[Student, Path], None]
    load: Callable[[Path], Graph]
    compiler: str | None = None

    def read_versions(self) -> dict[str, str]:
        """Return the versions of what wrote the files."""
        return {package: version(package) for package in ("torch", *self.packages)}

    def check(self) -> None:
        """Raise BridgeTAError (exit code 2) when what writes or runs the format is not installed."""
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            what = f"this format needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}"
            raise BridgeTAError(what, fix=f"pip install '.[{self.extra}]'", exit_code=2)
        if self.compiler is not None and shutil.which(self.compiler) is None:
            what = f"this format compiles with {self.compiler}, which is not there"
            raise BridgeTAError(what, fix="On Debian or Ubuntu: sudo apt install g++", exit_code=2)


@contextmanager
def explain_failures(what: str) -> Iterator[None]:
    """Turn what libraries raise, of whatever type, into a BridgeTAError of one line."""
    try:
        yield
    except BridgeTAError:
        raise
    except Exception as error:
        if describe_lack_of_memory(error):
            raise
        raise BridgeTAError(f"{what} ({read_message(error)[:200]})") from error


def _write_onnx(student: Student, folder: Path) -> None:
    for part in split(student):
        export_onnx(part, folder / f"{part.NAME}.onnx")
    write_lift_graph(student, folder / "lift.onnx")


def _load_onnx(path: Path) -> Graph:
    session = import_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, dict(inputs)))


def _write_openvino(student: Student, folder: Path) -> None:
    openvino = import_openvino()
    with TemporaryDirectory() as temporary:
        _write_onnx(student, Path(temporary))
        for path in sorted(Path(temporary).iterdir()):
            with explain_failures(f"OpenVINO cannot convert the graph {path.stem}"):
                openvino.save_model(openvino.convert_model(path), folder / f"{path.stem}.xml", compress_to_fp16=False)


def _load_openvino(path: Path) -> Graph:
    # On CPUs that have bfloat16 it would compute with that unless told otherwise.
    model = load_openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: [np.array(value) for value in model(dict(inputs)).values()]


def _write_aoti(student: Student, folder: Path) -> None:
    for part in split(student):
        what = f"AOTInductor cannot compile the {part.NAME} part"
        with explain_failures(what), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(part, part.example(), dynamic_shapes=free_cameras(part))
            torch._inductor.aoti_compile_and_package(program, package_path=str(folder / f"{part.NAME}.pt2"))


def _load_aoti(path: Path) -> Graph:
    model = torch._inductor.aoti_load_package(str(path))

    def run(inputs: Arrays) -> list[NDArray[Any]]:
        result = model(*map(torch.from_numpy, inputs.values()))
        return [value.numpy() for value in (result if isinstance(result, (list, tuple)) else [result])]

    return run


_ALL, _ONNX = ("image", "lift", "bev"), ("onnx", "onnxscript")

FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", (*_ONNX, "onnxruntime"), "onnxruntime", _ALL, _write_onnx, _load_onnx),
    "openvino": Format(".xml", (*_ONNX, "openvino"), "openvino", _ALL, _write_openvino, _load_openvino),
    "aoti": Format(".pt2", (), "", ("image", "bev"), _write_aoti, _load_aoti, os.environ.get("CXX", "g++")),
}
"""The formats that a student can be exported to, by name."""


def find_format(name: str) -> Format:
    """Return the format of a name. Raises BridgeTAError (exit code 2) that lists the names, and as `Format.check`."""
    if name not in FORMATS:
        raise BridgeTAError(f"format {name!r} is not one of {', '.join(FORMATS)}", exit_code=2)
    FORMATS[name].check()
    return FORMATS[name]
