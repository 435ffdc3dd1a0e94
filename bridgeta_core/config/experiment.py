"""Settings of networks, data and training: read from YAML, changed by `key=value`, checked by name, type and range."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import LARGEST_TEXT, SettingsLoader, check_plain, read_limited
from bridgeta_core.utils.settings import from_mapping as from_mapping
from bridgeta_core.utils.settings import list_texts, setting, texts
from bridgeta_core.utils.settings import to_mapping as to_mapping

T = TypeVar("T")

CONFIG_FOLDER = Path(__file__).parent
MOST_CHANNELS = 16384

LARGEST_SEED = 2**32 - 1
"""NumPy's generators take no larger one."""


@dataclass
class ImageConfig:
    """The images that the network takes."""

    width: int = setting(704, "input width, pixels", ge=32, le=4096)
    height: int = setting(256, "input height, pixels", ge=32, le=4096)
    margin: float = setting(768 / 704, "resized width over input width; the excess is cut at both sides", ge=1, le=4)
    mean: list[float] = setting([0.485, 0.456, 0.406], "RGB mean of values in [0, 1] (ImageNet's)", ge=0, le=1)
    std: list[float] = setting([0.229, 0.224, 0.225], "RGB standard deviation (ImageNet's)", ge=1e-3, le=1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.width, self.height


@dataclass
class BackboneConfig:
    """Image encoder: a `transformers` backbone and a feature pyramid."""

    architecture: str = setting("swin", "model type known to transformers' AutoBackbone, e.g. swin, resnet, convnext")
    pretrained: str | None = setting(None, "hub name or folder of pretrained weights; none starts from random weights")
    options: dict[str, Any] = setting({}, "fields of the backbone's own configuration, e.g. depths")
    stages: list[int] = setting([2, 3, 4], "backbone stages that feed the pyramid, finest first, 1 = the first", ge=1)
    channels: int = setting(256, "channels of the pyramid", ge=8, le=MOST_CHANNELS)
    pyramid: str = setting(
        "sum",
        "how a finer stage meets the coarser ones: sum, or concatenation with two convolutions as in BEVFusion",
        among=("sum", "concatenation"),
        added=True,
    )


@dataclass
class LiftConfig:
    """The lift from camera to BEV features: a depth distribution per image cell, then a sparse product."""

    depth_min: float = setting(1.0, "near edge of the first depth bin, metres", ge=0.1)
    depth_max: float = setting(60.0, "far edge of the last depth bin, metres", ge=1, le=1000)
    depth_step: float = setting(0.5, "depth of a bin, metres", ge=0.05)
    channels: int = setting(80, "feature channels that are lifted", ge=4, le=MOST_CHANNELS)
    grid: BevGrid = field(
        default_factory=lambda: BevGrid(-51.2, 51.2, -51.2, 51.2, 0.4), metadata={"help": "cells that collect features"}
    )
    z_min: float = setting(-10.0, "lowest height above the ego origin that is lifted, metres")
    z_max: float = setting(10.0, "highest height above the ego origin that is lifted, metres")
    downsample: int = setting(2, "stride of the convolutions after the lift", among=(1, 2, 4))
    ground_prior: bool = setting(False, "start the depth of every image cell from where its ray meets the plane z = 0")
    depth_place: str = setting(
        "centre",
        "the depth that stands for a bin: its centre, or near, its near edge",
        among=("centre", "near"),
        added=True,
    )
    pixel_place: str = setting(
        "centre",
        "where the ray of an image cell runs: through its centre, or spread, evenly from the first pixel to the last",
        among=("centre", "spread"),
        added=True,
    )
    edge: str = setting(
        "cut",
        "what lies up to a cell beyond the grid: cut, or widen, it counts to the cells at the rear and left edges",
        among=("cut", "widen"),
        added=True,
    )
    kernel: int = setting(
        2,
        "size of the strided convolutions after the lift: 2 covers whole cells; 3, without one behind, is BEVFusion's",
        among=(2, 3),
        added=True,
    )


@dataclass
class DecoderConfig:
    """The BEV encoder-decoder between the lifted features and the head."""

    width: int = setting(
        256, "channels of the BEV feature F (the teacher fuses to the same width)", ge=8, le=MOST_CHANNELS
    )
    stages: list[int] = setting(
        [128, 256], "channels of the residual stages, each after the first at half size", ge=8, le=MOST_CHANNELS
    )
    blocks: int = setting(5, "convolutions per stage", ge=1, le=32)
    channels: int = setting(
        256,
        "output channels per stage; D has this times the number of stages, or of resnet just this",
        ge=8,
        le=MOST_CHANNELS,
    )
    kind: str = setting(
        "second",
        "second; plain: BEVFusion's of LiDAR, the same without skips and with transposed convolutions; or resnet: "
        "BEVFusion's of cameras, residual stages of strides 2, 2, 1, and the first and last joined",
        among=("second", "plain", "resnet"),
        added=True,
    )


@dataclass
class HeadConfig:
    """The segmentation head on the label grid."""

    width: int = setting(256, "channels of its two 3x3 convolutions", ge=8, le=MOST_CHANNELS)


@dataclass
class StudentConfig:
    """The camera-only network. It takes any number of cameras."""

    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    lift: LiftConfig = field(default_factory=LiftConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass
class SparseConfig:
    """Voxels of the LiDAR's points, and the sparse 3D convolutions that encode them; defaults are BEVFusion's."""

    voxel: float = setting(0.1, "edge of a voxel along x and y, metres", ge=0.01, le=10)
    height: float = setting(0.2, "edge of a voxel along z, metres", ge=0.01, le=10)
    points: int = setting(10, "points of a voxel, the first ones, whose mean counts", ge=1, le=1000)
    most: int = setting(120000, "voxels of a sample, the first ones", ge=1, le=2**24)
    channels: list[int] = setting([16, 32, 64, 128], "channels of the stages, each at half the size", ge=8, le=1024)
    blocks: int = setting(2, "residual blocks per stage", ge=0, le=32)
    output: int = setting(128, "channels of each of the heights that are left at the end", ge=8, le=1024)


@dataclass
class LidarConfig:
    """The teacher's LiDAR branch: dynamic pillars on the lift's grid, then convolutions to the grid of F.

    Or, as in BEVFusion, voxels and sparse convolutions. Then `subdivide`, `channels` and `blocks` mean nothing.
    """

    sweeps: int = setting(9, "earlier sweeps that are added to the keyframe's, as many as there are", ge=0, le=9)
    ego_radius: float = setting(
        1.0, "points closer to the LiDAR than this in both x and y hit the vehicle and are dropped, metres", ge=0
    )
    z_min: float = setting(-5.0, "lowest point above the ego origin that is used, metres")
    z_max: float = setting(3.0, "highest point above the ego origin that is used, metres")
    subdivide: int = setting(1, "pillars per side of a cell of model.lift.grid", among=(1, 2, 4))
    channels: int = setting(64, "channels of the pillars", ge=8, le=MOST_CHANNELS)
    width: int = setting(256, "channels of the LiDAR's BEV features, the fuser's input", ge=8, le=MOST_CHANNELS)
    blocks: int = setting(2, "residual convolutions on the grid of F", ge=0, le=32)
    encoder: str = setting(
        "pillars", "pillars, or voxels with sparse 3D convolutions", among=("pillars", "voxels"), added=True
    )
    sparse: SparseConfig = field(default_factory=SparseConfig, metadata={"added": True})
    mount: list[float] | None = setting(
        None,
        "where the LiDAR is taken to be, x, y, z on the vehicle in metres, level and with its x axis to the right, "
        "whatever its calibration says; none: where it is",
        added=True,
    )
    close: str = setting(
        "all",
        "sweeps from which points within ego_radius are dropped: all, or earlier ones",
        among=("all", "earlier"),
        added=True,
    )


@dataclass
class TeacherConfig:
    """The teacher: the student's kind of camera branch, decoder and head with weights of its own, and LiDAR."""

    sensors: str = setting("fusion", "fusion, or lidar for a teacher without cameras", among=("fusion", "lidar"))
    lidar: LidarConfig = field(default_factory=LidarConfig)
    fuser: bool = setting(
        True, "a 3x3 convolution before F; lidar can do without, where its width is that of model.decoder", added=True
    )


@dataclass
class AugmentConfig:
    """Random changes of training frames: of the world with all cameras, points and labels, and of single images."""

    flip: bool = setting(True, "mirror the world left-right half of the time")
    flip_x: bool = setting(False, "mirror the world front-back half of the time too")
    rotate: float = setting(0.0, "turn the world about the ego origin by up to this angle, degrees", ge=0, le=180)
    scale: float = setting(0.0, "make the world larger or smaller by up to this share", ge=0, le=0.5)
    translate: float = setting(
        0.0, "shift the world in x and in y by a normal deviate of this size, metres", ge=0, le=10
    )
    colour: float = setting(0.2, "change brightness, contrast and saturation by up to this share", ge=0, le=1)
    image_resize: list[float] = setting(
        [],
        "resize each image by a factor in this range [low, high], relative to the scale of model.image, and cut it "
        "at a random horizontal place; empty: neither",
        ge=0.1,
        le=10,
    )
    image_flip: bool = setting(False, "mirror each image alone left-right half of the time")
    image_rotate: float = setting(0.0, "turn each image by up to this angle, degrees", ge=0, le=180)
    image_shift: int = setting(
        0,
        "cut the images of a sample this many pixels further left, right, up or down, or where they are: one of nine "
        "places, alike in all cameras",
        ge=0,
        le=512,
        added=True,
    )

    def overrides_to_disable(self, names: Sequence[str]) -> list[str]:
        """List the `key=value` overrides of an experiment that turn off those of the settings `names` that are on."""
        off = {bool: "false", float: "0", int: "0", list: "[]"}
        values = {name: getattr(self, name) for name in names}
        return [f"data.augment.{name}={off[type(value)]}" for name, value in values.items() if value]


@dataclass
class FreshConfig:
    """Frames that are rendered while training, in ever new towns, where `data.source` is synthetic."""

    drives: int = setting(12, "drives through each town", ge=1, le=999)
    frames: int = setting(2, "frames of a drive, evenly spaced", ge=1, le=121)
    duration: float = setting(8.0, "seconds from the first to the last of them", ge=0, le=60)
    uses: int = setting(8, "how often each frame is used, mirrored and recoloured anew", ge=1)
    pool: int = setting(8, "towns whose frames are in memory, to draw batches from", ge=1)
    device: str = setting("cpu", "where the loader processes render: cpu, or cuda")


@dataclass
class DataConfig:
    """Where the samples come from."""

    RENAMED: ClassVar[Mapping[str, str]] = {f.name: f"augment.{f.name}" for f in fields(AugmentConfig)}
    """Keys of older files, and what they are called now."""

    source: str = setting(
        "nuscenes",
        "what reads both roots: nuscenes, or module:Class for your own data, see docs/own_data.md; or synthetic, which "
        "renders frames to train on, and validates on a nuScenes-format root",
    )
    train_root: Any = texts("data/train", "nuScenes-format folder to train on, or a list of such folders")
    unlabelled_root: Any = texts(
        None,
        "folder, or a list, of drives whose labels are never read: distillation takes their scenes of train_scenes "
        "among the unlabelled frames; training without a teacher leaves them out",
        added=True,
    )
    root_weights: list[float] = setting(
        [],
        "how often the samples of each root of train_root, then of unlabelled_root, are drawn, relative to one "
        "another; empty: every sample equally often",
        ge=1e-3,
        le=1e3,
        added=True,
    )
    val_root: Any = texts("data/val", "nuScenes-format folder to validate on (may equal train_root), or a list")
    version: str = setting("v1.0-trainval", "folder of the tables in all roots")
    train_scenes: str = setting(
        "all", "scenes of train_root and unlabelled_root: all, or an official split such as train"
    )
    val_scenes: str = setting("all", "scenes of val_root: all, or an official split such as val")
    labelled: float = setting(
        1.0,
        "share of the scenes of train_scenes in train_root whose labels are used, evenly spread; at least one scene",
        ge=0,
        le=1,
    )
    unlabelled: str = setting(
        "rest", "frames that are distilled without labels: rest (of train_scenes), none, or scenes"
    )
    unlabelled_share: float = setting(
        0.5, "share of every batch drawn from the unlabelled frames, if there are any", ge=0, le=0.95
    )
    steps_per_epoch: int = setting(
        0, "batches of an epoch; 0: as many as one pass over the labelled frames needs", ge=0
    )
    cache: str | None = setting(
        None,
        "folder that caches decoded frames and the teacher's features between runs; some augmentation needs them anew",
    )
    cameras: list[str] = setting(
        ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"],
        "camera channels, in the order of the network's camera axis",
    )
    batch_size: int = setting(8, "samples per step and process", ge=1)
    workers: int = setting(4, "loader processes; 0 loads in the training process", ge=0, le=256)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    fresh: FreshConfig = field(default_factory=FreshConfig, metadata={"added": True})
    balance: bool = setting(False, "train: draw samples with rare classes more often")

    @property
    def train_roots(self) -> list[str]:
        """The folders to train on."""
        return list_texts(self.train_root)

    @property
    def unlabelled_roots(self) -> list[str]:
        """The folders of drives without labels."""
        return list_texts(self.unlabelled_root)

    @property
    def val_roots(self) -> list[str]:
        """The folders to validate on."""
        return list_texts(self.val_root)


@dataclass
class LabelConfig:
    """How the map becomes labels."""

    mode: str = setting(
        "compatible",
        "compatible: equal to the nuScenes devkit's masks, lines 2 cells wide; bevfusion: the same, drawn along the "
        "LiDAR's axes; exact: cells at least half covered",
        among=("compatible", "bevfusion", "exact"),
    )
    line_width: float = setting(1.0, "exact: width of dividers, metres; at least grid.resolution", ge=0.01, le=10)
    cache: str | None = setting(None, "folder that caches the labels of frames that are not augmented, bit-packed")

    def key(self) -> list[Any]:
        """Return what labels depend on, as plain values."""
        return [self.mode, self.line_width] if self.mode == "exact" else [self.mode]

    def check(self, grid: BevGrid) -> None:
        """Raise BridgeTAError (exit code 2) when lines are narrower than the cells of the label grid.

        Most such lines would not cover half of any cell.
        """
        if self.mode == "exact" and self.line_width < grid.resolution:
            raise BridgeTAError(
                f"labels.line_width = {self.line_width:g} m is less than a cell, grid.resolution = "
                f"{grid.resolution:g} m: dividers would vanish",
                fix="Widen the lines, make the cells smaller, or set labels.mode=compatible",
                exit_code=2,
            )


@dataclass
class TrainConfig:
    """How networks are optimised. Defaults are BEVFusion's."""

    initial: str | None = setting(
        None, "weights to start from: a file or a shipped name, of the same architecture, on any label grid"
    )
    epochs: int = setting(20, "passes over the training samples", ge=1)
    learning_rate: float = setting(1e-3, "peak rate of the one-cycle schedule", ge=0)
    warmup: float = setting(0.4, "share of the steps before the peak", ge=0, le=1)
    weight_decay: float = setting(0.01, "AdamW's weight decay", ge=0)
    undecayed: list[str] = setting([], "how names of weights end that do not decay", added=True)
    momentum: list[float] = setting(
        [0.95, 0.85], "AdamW's first beta at both ends of the schedule and at the peak", ge=0, le=0.999, added=True
    )
    clip: float = setting(35.0, "largest gradient norm", ge=0)
    gamma: float = setting(2.0, "focusing exponent of the focal loss; 0 is cross-entropy", ge=0, le=10)
    depth_loss: float = setting(
        0.0,
        "weight of the cross-entropy of the cameras' depth with what the LiDAR measures, for training alone; 0: off",
        ge=0,
        added=True,
    )
    precision: str = setting("32-true", "Lightning precision", among=("32-true", "16-mixed", "bf16-mixed"))
    accumulate: int = setting(1, "batches whose gradients are summed for one step", ge=1)
    ema: float = setting(0.0, "decay of the averaged weights that are validated and exported; 0: off", ge=0, le=1)
    seed: int = setting(0, "seed of weights, order and augmentation", ge=0, le=LARGEST_SEED)
    logger: str | None = setting(
        None,
        "a Lightning logger beside the files and TensorBoard, as module:Class, e.g. "
        "lightning.pytorch.loggers:WandbLogger or lightning.pytorch.loggers:MLFlowLogger",
        added=True,
    )
    logger_options: dict[str, Any] = setting({}, "arguments of train.logger, e.g. {project: bridgeta}", added=True)


@dataclass
class Experiment:
    """All settings of a training run."""

    model: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    grid: BevGrid = field(default_factory=BevGrid, metadata={"help": "label and output grid"})
    labels: LabelConfig = field(default_factory=LabelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def load(cls: type[T], name: str | Path, overrides: Sequence[str] = (), folder: Path = CONFIG_FOLDER) -> T:
    """Read a YAML file, or one of the configurations that ship in `folder` when `name` has no suffix.

    Raises BridgeTAError (exit code 2) that names the file or the key at fault.
    """
    path = Path(name)
    if path.is_dir():
        fix = f"A configuration comes first, then settings: tiny data.train_root={name}"
        raise BridgeTAError("is a folder, and no configuration", where=path, fix=fix, exit_code=2)
    if path.suffix == "" and not path.exists():
        path = folder / f"{name}.yaml"
        if not path.exists():
            shipped = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
            raise BridgeTAError(f"no configuration {name}", fix=f"Give a YAML file or one of: {shipped}", exit_code=2)
    try:
        text = read_limited(path, LARGEST_TEXT).decode()
        yaml.compose(text, SettingsLoader)  # measured first: OmegaConf copies what aliases stand for
        content = OmegaConf.load(io.StringIO(text))
        plain = OmegaConf.to_container(content)
        check_plain(plain)
    except FileNotFoundError as error:
        raise BridgeTAError("does not exist", where=path, exit_code=2) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BridgeTAError(f"cannot be read ({error})", where=path, exit_code=2) from error
    except Exception as error:  # PyYAML raises a family of types that OmegaConf does not wrap
        if type(error).__module__.split(".")[0] not in ("yaml", "omegaconf"):
            raise
        raise BridgeTAError(f"is not YAML of settings ({error})", where=path, exit_code=2) from error
    if not isinstance(content, DictConfig):
        raise BridgeTAError("must hold a mapping of settings", where=path, exit_code=2)
    return from_mapping(cls, cast("Mapping[str, Any]", plain), overrides, path)
