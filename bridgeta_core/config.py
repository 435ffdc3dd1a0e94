"""Settings: typed dataclasses, read from YAML, changed by `key=value`, checked by name, type and range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bridgeta_core.errors import BridgeTAError
from bridgeta_core.grid import BevGrid

T = TypeVar("T")

CONFIG_FOLDER = Path(__file__).parent / "configs"


def setting(default: Any, help: str, *, ge: float | None = None, le: float | None = None, among: Sequence = ()) -> Any:
    """A dataclass field with its documentation and its range: `ge <= value <= le`, or one of `among`.

    A range on a list holds for each of its elements.
    """
    metadata = {"help": help, "ge": ge, "le": le, "among": tuple(among)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ImageConfig:
    """Network input images."""

    width: int = setting(704, "input width, pixels", ge=32)
    height: int = setting(256, "input height, pixels", ge=32)
    margin: float = setting(768 / 704, "resized width over input width; what is over is cut at both sides", ge=1, le=4)
    mean: list[float] = setting([0.485, 0.456, 0.406], "RGB mean of values in [0, 1] (ImageNet's)", ge=0, le=1)
    std: list[float] = setting([0.229, 0.224, 0.225], "RGB standard deviation (ImageNet's)", ge=1e-3, le=1)


@dataclass
class BackboneConfig:
    """Image encoder: a `transformers` backbone and a feature pyramid."""

    architecture: str = setting("swin", "model type known to transformers' AutoBackbone, e.g. swin, resnet, convnext")
    pretrained: str | None = setting(None, "hub name or folder of pretrained weights; none starts from random weights")
    options: dict[str, Any] = setting({}, "fields of the backbone's own configuration, e.g. depths")
    stages: list[int] = setting([2, 3, 4], "backbone stages that feed the pyramid, finest first, 1 = the first", ge=1)
    channels: int = setting(256, "channels of the pyramid", ge=8)


@dataclass
class LiftConfig:
    """Camera features to BEV features: a depth distribution per image cell, then a sparse product."""

    depth_min: float = setting(1.0, "near edge of the first depth bin, metres", ge=0.1)
    depth_max: float = setting(60.0, "far edge of the last depth bin, metres", ge=1)
    depth_step: float = setting(0.5, "depth of a bin, metres", ge=0.05)
    channels: int = setting(80, "feature channels that are lifted", ge=4)
    grid: BevGrid = field(
        default_factory=lambda: BevGrid(-51.2, 51.2, -51.2, 51.2, 0.4), metadata={"help": "cells that collect features"}
    )
    z_min: float = setting(-10.0, "lowest height above the ego origin that is lifted, metres")
    z_max: float = setting(10.0, "highest height above the ego origin that is lifted, metres")
    downsample: int = setting(2, "stride of the convolutions after the lift", among=(1, 2, 4))
    ground_prior: bool = setting(False, "start the depth of every image cell from where its ray meets the plane z = 0")


@dataclass
class DecoderConfig:
    """BEV encoder-decoder between the lifted features and the head."""

    width: int = setting(256, "channels of the BEV feature F (the teacher fuses to the same width)", ge=8)
    stages: list[int] = setting([128, 256], "channels of the residual stages, each after the first at half size", ge=8)
    blocks: int = setting(5, "convolutions per stage", ge=1, le=32)
    channels: int = setting(256, "output channels per stage; D has this times the number of stages", ge=8)


@dataclass
class HeadConfig:
    """Segmentation head on the label grid."""

    width: int = setting(256, "channels of its two 3x3 convolutions", ge=8)


@dataclass
class StudentConfig:
    """The camera-only network. It takes any number of cameras."""

    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    lift: LiftConfig = field(default_factory=LiftConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass
class DataConfig:
    """Where the samples come from."""

    train_root: str = setting("data/train", "nuScenes-format folder to train on")
    val_root: str = setting("data/val", "nuScenes-format folder to validate on (may equal train_root)")
    version: str = setting("v1.0-trainval", "folder of the tables in both roots")
    train_scenes: str = setting("all", "scenes of train_root: all, or an official split such as train")
    val_scenes: str = setting("all", "scenes of val_root: all, or an official split such as val")
    cameras: list[str] = setting(
        ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"],
        "camera channels, in the order of the network's camera axis",
    )
    batch_size: int = setting(8, "samples per step and process", ge=1)
    workers: int = setting(4, "loader processes; 0 loads in the training process", ge=0, le=256)
    flip: bool = setting(True, "train: mirror the world left-right half of the time (images, cameras and labels)")
    rotate: float = setting(0.0, "train: turn the BEV by up to this angle, degrees", ge=0, le=180)
    colour: float = setting(0.2, "train: random brightness, contrast and saturation, relative", ge=0, le=1)


@dataclass
class TrainConfig:
    """Optimisation. Defaults are BEVFusion's."""

    epochs: int = setting(20, "passes over the training samples", ge=1)
    learning_rate: float = setting(1e-3, "peak rate of the one-cycle schedule", ge=0)
    warmup: float = setting(0.4, "share of the steps before the peak", ge=0, le=1)
    weight_decay: float = setting(0.01, "AdamW's weight decay", ge=0)
    clip: float = setting(35.0, "largest gradient norm", ge=0)
    gamma: float = setting(2.0, "focusing exponent of the focal loss; 0 is cross-entropy", ge=0, le=10)
    precision: str = setting("32-true", "Lightning precision", among=("32-true", "16-mixed", "bf16-mixed"))
    ema: float = setting(0.0, "decay of the averaged weights that are validated and exported; 0 is off", ge=0, le=1)
    seed: int = setting(0, "seed of weights, order and augmentation", ge=0)


@dataclass
class Experiment:
    """Everything that decides what a training run does."""

    model: StudentConfig = field(default_factory=StudentConfig)
    grid: BevGrid = field(default_factory=BevGrid, metadata={"help": "label and output grid"})
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def _open_for_writing(node: DictConfig) -> None:
    """OmegaConf locks frozen dataclasses (BevGrid) against merging; the frozen object is made only at the end."""
    OmegaConf.set_readonly(node, False)
    for value in node.values():
        if isinstance(value, DictConfig):
            _open_for_writing(value)


def _check_ranges(value: Any, path: str, where: object) -> None:
    for f in dataclasses.fields(value):
        item, name, rule = getattr(value, f.name), f"{path}{f.name}", f.metadata
        if dataclasses.is_dataclass(item):
            _check_ranges(item, f"{name}.", where)
            continue
        for element in item if isinstance(item, list) else [item]:
            if element is None:
                continue
            low, high, among = rule.get("ge"), rule.get("le"), rule.get("among")
            if among and element not in among:
                raise BridgeTAError(
                    f"{name} = {element!r} is not one of {', '.join(map(str, among))}", where=where, exit_code=2
                )
            if (low is not None and not element >= low) or (high is not None and not element <= high):
                bounds = (
                    f"at least {low}" if high is None else f"between {low if low is not None else '-inf'} and {high}"
                )
                raise BridgeTAError(f"{name} = {element} must be {bounds}", where=where, exit_code=2)


def from_mapping(cls: type[T], content: Mapping[str, Any], overrides: Sequence[str] = (), where: object = None) -> T:
    """Build a settings dataclass from nested mappings and `a.b=value` overrides.

    Raises BridgeTAError (exit code 2) that names the key for an unknown key, a wrong type or a value out of range.
    """
    try:
        node = cast(DictConfig, OmegaConf.structured(cls))
        _open_for_writing(node)
        node = cast(DictConfig, OmegaConf.merge(node, OmegaConf.create(dict(content))))
        for override in overrides:
            if "=" not in override:
                raise BridgeTAError(f"{override!r} is not of the form key=value", where="command line", exit_code=2)
            where = "command line"
            node = cast(DictConfig, OmegaConf.merge(node, OmegaConf.from_dotlist([override])))
        result = cast(T, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None)
        reason = str(error.msg if hasattr(error, "msg") else error).splitlines()[0]
        raise BridgeTAError(f"setting {key}: {reason}", where=where, exit_code=2) from error
    _check_ranges(result, "", where)
    return result


def to_mapping(settings: Any) -> dict[str, Any]:
    """Nested plain dicts and lists of a settings dataclass; `from_mapping` is its inverse."""
    return dataclasses.asdict(settings)


def load(cls: type[T], name: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file, or one of the configurations that ship with the package when `name` has no suffix."""
    path = Path(name)
    if path.suffix == "" and not path.exists():
        path = CONFIG_FOLDER / f"{name}.yaml"
        if not path.exists():
            shipped = ", ".join(sorted(p.stem for p in CONFIG_FOLDER.glob("*.yaml")))
            raise BridgeTAError(f"no configuration {name}", fix=f"Give a YAML file or one of: {shipped}", exit_code=2)
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise BridgeTAError("does not exist", where=path, exit_code=2) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BridgeTAError(f"cannot be read ({error})", where=path, exit_code=2) from error
    except Exception as error:  # PyYAML raises a family of types that OmegaConf does not wrap
        if type(error).__module__.split(".")[0] != "yaml":
            raise
        raise BridgeTAError(f"is not YAML ({error})", where=path, exit_code=2) from error
    if not isinstance(content, DictConfig):
        raise BridgeTAError("must hold a mapping of settings", where=path, exit_code=2)
    return from_mapping(cls, cast("Mapping[str, Any]", OmegaConf.to_container(content)), overrides, path)
