"""The parameters of the live node: names, defaults, ranges and meanings in one table, checked without ROS."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridgeta_core.config.experiment import from_mapping, setting, to_mapping
from bridgeta_core.deploy.backends.supported import NAMES, PRECISIONS
from bridgeta_core.geometry.local_map import GAIN
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.pipeline.sync import DEFAULT_SLOP

# When a changed value takes effect. The node refuses changes that would have no effect: of "configure" parameters while
# it is configured, and of those of its start at any time.
AT_ONCE, AT_RELOAD, AT_CALIBRATE, AT_CONFIGURE = "at once", "~/reload", "~/calibrate", "configure"
AT_START = "start of the node"


def _parameter(default: Any, help: str, effect: str = AT_CONFIGURE, **rules: Any) -> Any:
    plain = setting(default, help, **rules)
    metadata = {**plain.metadata, "effect": effect}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class LocalMapParameters:
    """Parameters of the local map: successive results fused in a fixed frame."""

    enabled: bool = _parameter(False, "publish bev/local_map/<class>")
    frame: str = _parameter("map", "frame that stands still, such as map or odom; TF must lead from it to base_frame")
    size: float = _parameter(120.0, "side of the map, metres; the vehicle is in its middle", ge=10, le=1000)
    gain: float = _parameter(
        GAIN, "least weight of a new result in the mean of log-odds; 0.1 remembers some ten results", ge=0.01, le=1
    )


@dataclass
class DiagnosticsParameters:
    """Parameters of diagnostics: what counts as healthy."""

    period: float = _parameter(1.0, "time between two messages on /diagnostics, seconds", AT_START, ge=0.05, le=60)
    expected_rate: float = _parameter(
        12.0,
        "images per second of each camera; below half of it is a warning, 0 expects nothing",
        AT_ONCE,
        ge=0,
        le=1000,
    )
    start_grace: float = _parameter(
        5.0, "seconds after activation in which what is missing may still come without a warning", AT_ONCE, ge=0, le=600
    )
    late_after: float = _parameter(
        0.5,
        "seconds from an image's stamp to its grid, or without any image, that are a warning",
        AT_ONCE,
        ge=0.01,
        le=60,
    )
    error_after: float = _parameter(
        2.0, "seconds for which that may last before it is an error", AT_ONCE, ge=0.01, le=600
    )


@dataclass
class NodeParameters:
    """All parameters of the node, as it declares them."""

    autostart: bool = _parameter(False, "configure and activate by itself, without a lifecycle manager", AT_START)
    weights: str = _parameter("tiny", "a .safetensors file, or the name of weights that ship", AT_RELOAD)
    device: str = _parameter("auto", "auto (CUDA where there is one), cpu, cuda, cuda:1, ...", AT_RELOAD)
    backend: str = _parameter(
        "auto", "what computes the network; auto: the fastest that is installed and agrees", AT_RELOAD, among=NAMES
    )
    precision: str = _parameter(
        "float32", "of the network; which there are depends on backend and device", AT_RELOAD, among=PRECISIONS
    )
    cameras: list[str] = _parameter(
        [""], "names of the cameras, which name the topics ~/input/<camera>/...; empty: those the weights learned with"
    )
    transport: str = _parameter("compressed", "type of the images", among=("compressed", "raw"))
    reliability: str = _parameter(
        "best_effort", "QoS of the camera topics; best_effort takes any publisher", among=("best_effort", "reliable")
    )
    depth: int = _parameter(5, "messages that are kept for each camera topic", ge=1, le=100)
    slop: float = _parameter(DEFAULT_SLOP, "longest time between the images of a set, seconds", ge=0, le=10)
    min_cameras: int = _parameter(
        0, "fewest cameras that a set is run with; the cells that the others alone see are -1. 0: all", ge=0, le=100
    )
    patience: float = _parameter(
        DEFAULT_SLOP,
        "seconds that a set with enough cameras waits for later images of the others; with min_cameras",
        ge=0,
        le=2,
    )
    base_frame: str = _parameter("base_link", "frame of the vehicle and of the grids: x forward, y left")
    calibration_file: str = _parameter("", "a rig.yaml that replaces CameraInfo and TF", AT_CALIBRATE)
    calibration_tolerance: float = _parameter(
        0.5,
        "pixels by which a new calibration may move an image and the one in use still stays",
        AT_CALIBRATE,
        ge=0,
        le=100,
    )
    threshold: float = _parameter(
        0.5, "probability from which bev/navigation calls a cell drivable", AT_ONCE, ge=0, le=1
    )
    max_rate: float = _parameter(
        0.0, "sets per second that are run at most; 0: as many as come", AT_ONCE, ge=0, le=1000
    )
    lazy: bool = _parameter(True, "run the network only while somebody subscribes to an output", AT_ONCE)
    local_map: LocalMapParameters = field(default_factory=LocalMapParameters)
    diagnostics: DiagnosticsParameters = field(default_factory=DiagnosticsParameters)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> NodeParameters:
        """Make parameters from values by dotted name. Raises BridgeTAError that names the parameter at fault."""
        nested: dict[str, Any] = {}
        for name, value in values.items():
            group, _, last = name.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[last] = value
        return from_mapping(cls, nested)

    def to_flat(self) -> dict[str, Any]:
        """Return the values by dotted name."""
        mapping = to_mapping(self)
        return {p.name: _look_up(mapping, p.name) for p in list_parameters()}

    def choose_cameras(self, of_weights: tuple[str, ...]) -> tuple[str, ...]:
        """Return the cameras to subscribe to: those of the parameter, or those of the weights in lower case.

        Raises BridgeTAError for names that cannot be part of a topic, for duplicates, and for fewer than min_cameras.
        """
        chosen = tuple(name for name in self.cameras if name) or tuple(name.lower() for name in of_weights)
        wrong = [name for name in chosen if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII)]
        if wrong or len(set(chosen)) < len(chosen):
            raise BridgeTAError(
                f"cameras {', '.join(chosen)}",
                where="parameter cameras",
                fix="Each needs a name of its own, of letters, digits and _, as a topic does",
                exit_code=2,
            )
        if self.min_cameras > len(chosen):
            raise BridgeTAError(f"is {self.min_cameras}, the cameras are {', '.join(chosen)}", where="min_cameras")
        return chosen


def _look_up(mapping: Mapping[str, Any], name: str) -> Any:
    for key in name.split("."):
        mapping = mapping[key]
    return mapping


@dataclass(frozen=True)
class Parameter:
    """One parameter of the table."""

    name: str
    default: Any
    help: str
    effect: str
    low: float | None
    high: float | None
    among: tuple[str, ...]

    @property
    def constraints(self) -> str:
        """The allowed values in words; empty if any of its type is allowed."""
        if self.among:
            return ", ".join(self.among)
        return "" if self.low is None else f"{self.low:g} to {self.high:g}"


def list_parameters(of: Any = NodeParameters, prefix: str = "") -> Iterator[Parameter]:
    """List every parameter, in the order of the table."""
    for f, value in ((f, getattr(of(), f.name)) for f in dataclasses.fields(of)):
        name = f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from list_parameters(type(value), f"{name}.")
        else:
            m = f.metadata
            yield Parameter(name, value, m["help"], m["effect"], m["ge"], m["le"], m["among"])
