"""Read and write weights that describe themselves: settings, grid, classes and origin are in the file's metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from bridgeta_core.config.experiment import StudentConfig, from_mapping, to_mapping
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.outputs import replace_when_done

FORMAT = "bridgeta-student/1"
_FOLDER = Path(str(resources.files("bridgeta_core.deploy"))) / "pretrained"

SHIPPED: dict[str, Path] = {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}
"""Weights that come with the package: name to path."""


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


Info = TypeVar("Info", bound=WeightsInfo)


def find_weights(name_or_path: str | Path) -> Path:
    """Find a weights file by path or shipped weights by name. Raises BridgeTAError that lists the shipped names."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    if str(name_or_path) in SHIPPED:
        return SHIPPED[str(name_or_path)]
    raise BridgeTAError(
        "no such weights file",
        where=name_or_path,
        fix=f"Name a .safetensors file or one of the shipped weights: {', '.join(SHIPPED) or '(none)'}",
        exit_code=2,
    )


def save_weights(path: Path, student: Student, cameras: Sequence[str], provenance: Mapping[str, Any]) -> None:
    """Write the student to `path`, whole or not at all.

    `provenance` is any mapping that JSON can hold: command, date, revision, data seed, steps, metrics.
    """
    write_weights(
        path, FORMAT, student, WeightsInfo(student.config, student.grid, CLASS_NAMES, tuple(cameras), {**provenance})
    )


def write_weights(path: Path, version: str, network: nn.Module, info: WeightsInfo) -> None:
    """Write a network's tensors, with the format and every field of `info` as JSON in the metadata."""
    description = {f.name: json.dumps(_to_plain(getattr(info, f.name))) for f in dataclasses.fields(info)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replace_when_done(Path(path)) as temporary:
        # Not the library's own save_file, which hides the file from all but its owner and wraps the system's errors.
        temporary.write_bytes(save(tensors, {"format": version, **description}))


def _to_plain(value: Any) -> Any:
    return to_mapping(value) if dataclasses.is_dataclass(value) else value


def read_info(path: str | Path) -> WeightsInfo:
    """Read the description in a student's weights file.

    Raises BridgeTAError for a file that is no safetensors file, is truncated, was not written by `save_weights`, or has
    another format version or other classes.
    """
    return read_description(find_weights(path), FORMAT, WeightsInfo)


def read_description(path: Path, version: str, kind: type[Info]) -> Info:
    """Read and check, as `read_info` does, the description in a weights file of the format `version`."""
    metadata = _read_metadata(path)
    _check_format(path, metadata.get("format"), version)
    try:
        content = {f.name: json.loads(metadata[f.name]) for f in dataclasses.fields(kind)}
        content |= {name: from_mapping(cls, content[name]) for name, cls in kind.SETTINGS.items()}
        content |= {name: tuple(content[name]) for name in ("classes", "cameras")}
    except KeyError as error:
        raise BridgeTAError(f"lacks {error} in its description", where=path, fix=_TRAIN) from error
    except (ValueError, TypeError) as error:
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
    student = Student(info.model, info.grid, pretrained=False)
    load_tensors(student, path)
    return student.eval(), info


def load_tensors(network: nn.Module, path: Path) -> None:
    """Load the tensors of a weights file into the network that its description describes.

    Raises BridgeTAError when tensors are missing, unexpected or misshapen, or hold numbers that are not finite.
    """
    wanted = network.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise BridgeTAError(f"cannot be read ({error})", where=path) from error
    problems = [f"{name} is missing" for name in wanted.keys() - stored.keys()]
    problems += [f"{name} is unexpected" for name in stored.keys() - wanted.keys()]
    problems += [
        f"{name} is {_describe_tensor(stored[name])}, not {_describe_tensor(wanted[name])}"
        for name in wanted.keys() & stored.keys()
        if _describe_tensor(stored[name]) != _describe_tensor(wanted[name])
    ]
    if problems:
        shown = join_first(sorted(problems), separator="; ")
        raise BridgeTAError(f"does not fit its own description: {shown}", where=path, fix=_TRAIN)
    broken = [name for name, value in stored.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise BridgeTAError(f"holds numbers that are not finite, e.g. in {broken[0]}", where=path, fix=_TRAIN)
    network.load_state_dict(stored)


def _describe_tensor(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype}"


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BridgeTAError(
            f"is not a whole safetensors file ({error})", where=path, fix="Copy or download it again"
        ) from error
