"""Read and write weights that describe themselves: settings, grid, classes and origin are in the file's metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bridgeta_core.config.experiment import StudentConfig, from_mapping, to_mapping
from bridgeta_core.deploy.backends.graphs import hash_student, hash_weights
from bridgeta_core.deploy.draft import draft
from bridgeta_core.geometry.classes import CLASS_NAMES, THRESHOLD
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory, join_first, read_message
from bridgeta_core.utils.hub import fetch_file, is_hub_place
from bridgeta_core.utils.limits import MOST_CAMERAS, check_plain, parse_json
from bridgeta_core.utils.machine import require_memory
from bridgeta_core.utils.outputs import replace_when_done

FORMAT = "bridgeta-student/1"
_FOLDER = Path(str(resources.files("bridgeta_core.deploy"))) / "pretrained"

SHIPPED: dict[str, Path] = {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}
"""Weights that come with the package: name to path."""

_MEMORY = (
    384  # MiB; a network of a few thousand weights takes up to 250, and convolutions can end in a segmentation fault
)
_INT8 = "int8/"  # begins the names of what is no tensor of the network, but its quantised graphs
_INT8_OF = f"{_INT8}of"  # the hash of the student that they were made of


@dataclass
class WeightsInfo:
    """The description in a weights file: `grid` is the output grid, `cameras` are in the order of the training."""

    model: StudentConfig
    grid: BevGrid
    classes: tuple[str, ...]
    cameras: tuple[str, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    SETTINGS: ClassVar[dict[str, type]] = {"model": StudentConfig, "grid": BevGrid}
    """The fields that are settings."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The probability of each class from which a picture shows it: the best of its validation, or `THRESHOLD`."""
        validation = self.provenance.get("validation")
        stored = validation.get("thresholds") if isinstance(validation, dict) else None
        values = [stored.get(name) if isinstance(stored, dict) else None for name in self.classes]
        return tuple(v if isinstance(v, float) and 0 < v < 1 else THRESHOLD for v in values)

    @property
    def learned(self) -> tuple[bool, ...]:
        """Which classes the training data knew; of the others a network says nothing that could be relied on."""
        unknown = self.provenance.get("unknown_classes")
        return tuple(not (isinstance(unknown, list) and name in unknown) for name in self.classes)


Info = TypeVar("Info", bound=WeightsInfo)
Network = TypeVar("Network", bound=nn.Module)


def find_weights(name_or_path: str | Path) -> Path:
    """Find a weights file by path, shipped weights by name, or a hub's by `hf://owner/name[@revision][/path]`.

    Raises BridgeTAError that lists the shipped names, and as `hub.fetch_file`.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if is_hub_place(name_or_path):
        return fetch_file(name_or_path, ".safetensors")
    if str(name_or_path) in SHIPPED:
        return SHIPPED[str(name_or_path)]
    raise BridgeTAError(
        "no such weights file",
        where=name_or_path,
        fix=f"Name a .safetensors file, hf://owner/name, or shipped weights: {', '.join(SHIPPED) or '(none)'}",
        exit_code=2,
    )


def save_weights(
    path: Path,
    student: Student,
    cameras: Sequence[str],
    provenance: Mapping[str, Any],
    int8: Mapping[str, bytes] | None = None,
) -> None:
    """Write the student to `path`, whole or not at all.

    `provenance` is any mapping that JSON can hold: command, date, revision, data seed, steps, metrics. `int8` are the
    student's parts as quantised ONNX graphs by name, which the file then holds beside the float32 weights.
    """
    info = WeightsInfo(student.config, student.grid, CLASS_NAMES, tuple(cameras), {**provenance})
    graphs = {
        f"{_INT8}{name}": torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in (int8 or {}).items()
    }
    if graphs:
        graphs[_INT8_OF] = torch.tensor(list(bytes.fromhex(hash_student(student))), dtype=torch.uint8)
    write_weights(path, FORMAT, student, info, graphs)


def write_weights(
    path: Path, version: str, network: nn.Module, info: WeightsInfo, more: Mapping[str, Tensor] | None = None
) -> None:
    """Write a network's tensors and `more`, with the format and every field of `info` as JSON in the metadata."""
    description = {f.name: json.dumps(_to_plain(getattr(info, f.name))) for f in dataclasses.fields(info)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    tensors |= more or {}
    with replace_when_done(Path(path)) as temporary:
        # Not the library's own save_file, which hides the file from all but its owner and wraps the system's errors.
        temporary.write_bytes(serialise_tensors(tensors, {"format": version, **description}))


def serialise_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Make a safetensors file with its metadata in order: the library's order is another one in every process."""
    file = save(dict(tensors), dict(metadata))
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors, which follow, stay aligned
    return len(text).to_bytes(8, "little") + text + file[end:]


def _to_plain(value: Any) -> Any:
    return to_mapping(value) if dataclasses.is_dataclass(value) else value


def read_info(path: str | Path) -> WeightsInfo:
    """Read the description in a student's weights file.

    Raises BridgeTAError for a file that is no safetensors file, is truncated, was not written by `save_weights`, or has
    another format version or other classes.
    """
    return read_description(find_weights(path), FORMAT, WeightsInfo)


def read_format(path: Path) -> str | None:
    """Read which format a weights file is of. Raises BridgeTAError for a file that is no safetensors file."""
    return _read_metadata(path).get("format")


def read_description(path: Path, version: str, kind: type[Info]) -> Info:
    """Read and check, as `read_info` does, the description in a weights file of the format `version`."""
    metadata = _read_metadata(path)
    _check_format(path, metadata.get("format"), version)
    try:
        content = {f.name: parse_json(metadata[f.name]) for f in dataclasses.fields(kind)}
        for name, cls in kind.SETTINGS.items():
            check_plain(content[name])
            content[name] = from_mapping(cls, content[name])
        content |= {name: _read_names(name, content[name]) for name in ("classes", "cameras")}
        content["provenance"] = dict(content["provenance"])
    except KeyError as error:
        raise BridgeTAError(f"lacks {error} in its description", where=path, fix=_TRAIN) from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BridgeTAError(f"has a damaged description ({error})", where=path, fix=_TRAIN) from error
    except BridgeTAError as error:
        raise BridgeTAError(f"has settings that this version does not know: {error.what}", where=path) from error
    info = kind(**content)
    if info.classes != CLASS_NAMES:
        odd = sorted(set(info.classes) ^ set(CLASS_NAMES))
        difference = f"they differ in {', '.join(odd)}" if odd else "their order differs"
        raise BridgeTAError(
            f"was trained for the classes {', '.join(info.classes)}; {difference}",
            where=path,
            fix=f"This version has {', '.join(CLASS_NAMES)}",
        )
    return info


def _read_names(key: str, value: Any) -> tuple[str, ...]:
    """Return the names in a description. Raises ValueError for none, for too many and for what are no names."""
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_CAMERAS:
        raise ValueError(f"{key} are no list of 1 to {MOST_CAMERAS}")
    if not all(isinstance(name, str) and name for name in value) or len(set(value)) < len(value):
        raise ValueError(f"{key} are no different names")
    return tuple(value)


_TRAIN = "Export it with `bridgeta train`"


def _check_format(path: Path, stored: str | None, wanted: str) -> None:
    if stored is None:
        raise BridgeTAError("holds weights without BridgeTA's description", where=path, fix=_TRAIN)
    kind, wanted_kind = (text.partition("/")[0].removeprefix("bridgeta-") for text in (stored, wanted))
    if kind != wanted_kind:
        raise BridgeTAError(
            f"holds the weights of a {kind}, not of a {wanted_kind}", where=path, fix=f"Name those of a {wanted_kind}"
        )
    if stored != wanted:
        raise BridgeTAError(
            f"has format {stored}, this version reads {wanted}", where=path, fix="Use the version that wrote it"
        )


def load_student(path: str | Path) -> tuple[Student, WeightsInfo]:
    """Load a student and its description from a weights file or by a shipped name, in eval mode on the CPU.

    Nothing is downloaded. Raises BridgeTAError as `read_info` does, and when tensors are missing, unexpected or
    misshapen.
    """
    path = find_weights(path)
    info = read_info(path)
    student = load_network(lambda: Student(info.model, info.grid, pretrained=False), path)
    return student.eval(), info


def hash_stored_student(path: Path, info: WeightsInfo) -> str:
    """Hash the student in a weights file as `hash_student` does, without building it. Raises as `load_student` does."""
    with _open(path) as file:
        names = sorted(name for name in file.keys() if not name.startswith(_INT8))  # noqa: SIM118 (no mapping)
        return hash_weights(info.model, info.grid, ((name, file.get_tensor(name)) for name in names))


def read_int8_graphs(weights: str | Path, digest: str) -> dict[str, bytes] | None:
    """Read the quantised parts, by name, from the weights file of the student with this digest; None without any.

    Raises BridgeTAError when the file cannot be read, and when the graphs were made of other weights.
    """
    path = find_weights(weights)
    with _open(path) as file:
        tensors = {n: file.get_tensor(n) for n in file.keys() if n.startswith(_INT8)}  # noqa: SIM118 (no mapping)
    if not tensors:
        return None
    stored = {name: bytes(value.numpy()) for name, value in tensors.items() if value.dtype == torch.uint8}
    if stored.keys() != {_INT8_OF, f"{_INT8}image", f"{_INT8}bev"}:
        raise BridgeTAError("holds damaged int8 graphs", where=path, fix="Make them again: bridgeta quantise")
    if stored.pop(_INT8_OF).hex() != digest:
        raise BridgeTAError("holds int8 graphs of other weights", where=path, fix="Make them again: bridgeta quantise")
    return {name.removeprefix(_INT8): data for name, data in stored.items()}


def load_network(build: Callable[[], Network], path: Path) -> Network:
    """Build the network that a weights file describes, and load the file's tensors into it.

    Nothing is allocated before the file is known to hold what the description asks for. Raises BridgeTAError when the
    network cannot be built, and when tensors are missing, unexpected or misshapen, or hold numbers that are not finite;
    and MemoryError without the memory to run it.
    """
    with _open(path) as file:
        names = [name for name in file.keys() if not name.startswith(_INT8)]  # noqa: SIM118 (no mapping)
        _require_fit(build, {name: _describe_slice(file.get_slice(name)) for name in names}, path)
        stored = {name: file.get_tensor(name) for name in names}
    require_memory(_MEMORY, "the network's layers")
    network = build()
    broken = [name for name, value in stored.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise BridgeTAError(f"holds numbers that are not finite, e.g. in {broken[0]}", where=path, fix=_TRAIN)
    network.load_state_dict(stored)
    return network


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a safetensors file for PyTorch. Raises BridgeTAError for what is none, and where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError) as error:  # the last when PyTorch cannot map it
        if describe_lack_of_memory(error):
            raise
        raise BridgeTAError(f"cannot be read ({read_message(error)})", where=path) from error


def _require_fit(build: Callable[[], nn.Module], stored: Mapping[str, Tensor], path: Path) -> None:
    """Compare a file's tensors, as shapes alone, with those of the network; raise BridgeTAError where they differ."""
    try:
        wanted = draft(build, stored)
        problems = [f"{name} is missing" for name in wanted.keys() - stored.keys()]
        problems += [f"{name} is unexpected" for name in stored.keys() - wanted.keys()]
        problems += [
            f"{name} is {_describe_tensor(stored[name])}, not {_describe_tensor(wanted[name])}"
            for name in wanted.keys() & stored.keys()
            if _describe_tensor(stored[name]) != _describe_tensor(wanted[name])
        ]
        if problems:
            raise BridgeTAError(join_first(sorted(problems), separator="; "))
    except BridgeTAError as error:
        raise BridgeTAError(f"does not fit its own description: {error.what}", where=path, fix=_TRAIN) from error
    except Exception as error:  # of settings that make no network the libraries raise whatever they stumble over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BridgeTAError(f"describes no network that can be built ({reason})", where=path, fix=_TRAIN) from error


# Types of numbers in safetensors files, by their names there.
_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}


def _describe_slice(stored: Any) -> Tensor:
    """Return the shape and type of a stored tensor, as one without memory."""
    kind = _TYPES.get(stored.get_dtype())
    if kind is None:
        raise SafetensorError(f"numbers of the type {stored.get_dtype()}")
    return torch.empty(stored.get_shape(), dtype=kind, device="meta")


def _describe_tensor(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype}"


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BridgeTAError(
            f"is not a whole safetensors file ({error})", where=path, fix="Copy or download it again"
        ) from error
