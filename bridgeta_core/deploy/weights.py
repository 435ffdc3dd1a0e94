"""Weights that describe themselves: one safetensors file with settings, grid, classes and origin in its metadata."""

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
from bridgeta_core.utils.files import replace_when_done

FORMAT = "bridgeta-student/1"
_FOLDER = Path(str(resources.files("bridgeta_core.deploy"))) / "pretrained"

SHIPPED: dict[str, Path] = {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}
"""Weights that come with the package: name to path."""


@dataclass
class WeightsInfo:
    """What a weights file says about itself; `grid` is the output grid, `cameras` the order it was trained with."""

    model: StudentConfig
    grid: BevGrid
    classes: tuple[str, ...]
    cameras: tuple[str, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    SETTINGS: ClassVar[dict[str, type]] = {"model": StudentConfig, "grid": BevGrid}
    """The fields that are settings."""


Info = TypeVar("Info", bound=WeightsInfo)


def resolve(name_or_path: str | Path) -> Path:
    """The path of shipped weights given by name, or of a file. Raises BridgeTAError that lists the shipped names."""
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
    write(path, FORMAT, student, WeightsInfo(student.config, student.grid, CLASS_NAMES, tuple(cameras), {**provenance}))


def write(path: Path, version: str, network: nn.Module, info: WeightsInfo) -> None:
    """Write a network's tensors, with its format and every field of `info` as JSON in the metadata."""
    description = {f.name: json.dumps(_plain(getattr(info, f.name))) for f in dataclasses.fields(info)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replace_when_done(Path(path)) as temporary:
        # Not the library's own save_file, which hides the file from all but its owner and wraps the system's errors.
        temporary.write_bytes(save(tensors, {"format": version, **description}))


def _plain(value: Any) -> Any:
    return to_mapping(value) if dataclasses.is_dataclass(value) else value


def read_info(path: str | Path) -> WeightsInfo:
    """The description inside a student's weights file.

    Raises BridgeTAError for a file that is no safetensors file, is truncated, was not written by `save_weights`, has
    another format version or other classes.
    """
    return read_description(resolve(path), FORMAT, WeightsInfo)


def read_description(path: Path, version: str, kind: type[Info]) -> Info:
    """The description inside a weights file of the format `version`, checked as `read_info` tells."""
    metadata = _metadata(path)
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


def _check_format(path: Path, found: str | None, wanted: str) -> None:
    if found is None:
        raise BridgeTAError("holds weights without BridgeTA's description", where=path, fix=_TRAIN)
    kind, wanted_kind = (text.partition("/")[0].removeprefix("bridgeta-") for text in (found, wanted))
    if kind != wanted_kind:
        raise BridgeTAError(
            f"holds the weights of a {kind}, not of a {wanted_kind}", where=path, fix=f"Name those of a {wanted_kind}"
        )
    if found != wanted:
        raise BridgeTAError(
            f"has format {found}, this version reads {wanted}", where=path, fix="Use the version that wrote it"
        )


def load_student(path: str | Path, grid: BevGrid | None = None) -> tuple[Student, WeightsInfo]:
    """The student of a weights file or shipped name, in eval mode on the CPU, and its description.

    Asks no hub. With `grid` given, weights for another output grid are refused. Raises BridgeTAError as `read_info`
    does, and when tensors are missing, unexpected or misshapen.
    """
    path = resolve(path)
    info = read_info(path)
    if grid is not None and grid != info.grid:
        differences = [
            f"{f.name} is {getattr(info.grid, f.name):g}, not {getattr(grid, f.name):g}"
            for f in dataclasses.fields(BevGrid)
            if getattr(info.grid, f.name) != getattr(grid, f.name)
        ]
        raise BridgeTAError(
            f"was trained for another grid: {', '.join(differences)}", where=path, fix="Set the same grid or train anew"
        )
    student = Student(info.model, info.grid, pretrained=False)
    fill(student, path)
    return student.eval(), info


def fill(network: nn.Module, path: Path) -> None:
    """Load the tensors of a weights file into the network that its description tells of.

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
        f"{name} is {_kind(stored[name])}, not {_kind(wanted[name])}"
        for name in wanted.keys() & stored.keys()
        if _kind(stored[name]) != _kind(wanted[name])
    ]
    if problems:
        shown = join_first(sorted(problems), separator="; ")
        raise BridgeTAError(f"does not fit its own description: {shown}", where=path, fix=_TRAIN)
    broken = [name for name, value in stored.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise BridgeTAError(f"holds numbers that are not finite, e.g. in {broken[0]}", where=path, fix=_TRAIN)
    network.load_state_dict(stored)


def _kind(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype}"


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BridgeTAError(
            f"is not a whole safetensors file ({error})", where=path, fix="Copy or download it again"
        ) from error
