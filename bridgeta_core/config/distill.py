"""Settings of distillation; docs/distillation.md explains them and the ablations that they make."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridgeta_core.config.related import (
    AptConfig,
    DfaConfig,
    EliteConfig,
    GpdConfig,
    Kd360Config,
    MapDistillConfig,
    MapKdConfig,
    OfaKdConfig,
    RddConfig,
    SskdConfig,
    TscmConfig,
    WcordConfig,
)
from bridgeta_core.utils.settings import setting


@dataclass
class LevelsConfig:
    """Where and how distillation compares two networks: features F and D, logits Z (kd_methods 0.2 to 0.4)."""

    levels: list[str] = setting(["F", "D", "Z"], "levels that are compared", among=("F", "D", "Z"))
    weight: dict[str, float] = setting({"F": 1.0, "D": 0.5, "Z": 1.0}, "weight of each level")
    normalise: str = setting(
        "teacher",
        "of F and D: by the teacher's statistics, each network's own, unit length, or none",
        among=("teacher", "instance", "unit", "none"),
    )
    cells: str = setting(
        "balanced",
        "weights of the cells: classes and background alike, foreground, uniform, or where the teacher is right",
        among=("balanced", "foreground", "uniform", "correct"),
    )
    distance: str = setting("brier", "of Z: squared probability difference, or divergence", among=("brier", "js", "kl"))
    tau: float = setting(2.0, "temperature of Z", ge=0.1, le=20)
    calibrate: float = setting(
        1.0,
        "set the weights once so that each level's gradient at F has this share of the label loss's; 0: no",
        ge=0,
    )


@dataclass
class AssistantConfig:
    """The teacher assistant (kd_methods 1.2)."""

    channels: int = setting(128, "channels of the shared latent space", ge=8)
    skip: bool = setting(True, "add the midpoint of teacher and student, so that it starts there")
    inputs: str = setting("both", "what it sees", among=("both", "teacher", "student"))
    open: bool = setting(False, "let its label loss train the student through its input")


@dataclass
class BridgeTAConfig:
    """Teacher, assistant, student by Young's inequality (kd_methods 1.3 to 1.7)."""

    assistant: str = setting("learned", "learned, or the parameter-free midpoint", among=("learned", "midpoint"))
    reading: str = setting(
        "shared",
        "what turns the assistant's F into D and Z: the student's decoder and head, trained with it; the "
        "teacher's, frozen; a small head of its own; or none, each level's midpoint",
        among=("shared", "frozen", "own", "none"),
    )
    network: AssistantConfig = field(default_factory=AssistantConfig)
    label_weight: float = setting(1.0, "weight of the assistant's label loss", ge=0)
    eps: float = setting(1.0, "of Young's inequality: large values put the assistant near the teacher", ge=0.01, le=100)
    eps_of: dict[str, float] = setting({}, "eps of single levels")
    eps_rule: str = setting(
        "constant",
        "constant; adaptive: the tightest bound, by running means; or curriculum, from 1/3 to 3",
        among=("constant", "adaptive", "curriculum"),
    )
    kappa: float = setting(
        1.0, "share of the assistant-student distance's gradient that trains the assistant", ge=0, le=1
    )
    direct: float = setting(0.0, "weight of an additional direct teacher-student term", ge=0)


@dataclass
class DirectConfig:
    """Direct teacher-student distillation, the control of BridgeTA (A1)."""

    read_teacher: float = setting(
        0.0, "weight of the label loss of the student's decoder on the teacher's F (sdec)", ge=0
    )


@dataclass
class LogitsConfig:
    """Logit distillation after Hinton (R1)."""

    tau: float = setting(2.0, "temperature", ge=0.1, le=20)
    weight: float = setting(1.0, "weight of the divergence", ge=0)
    balanced: bool = setting(False, "weigh cells so that classes and background count alike")
    correct_only: bool = setting(False, "only cells where the teacher is right")


@dataclass
class FitNetConfig:
    """Feature hints (R2)."""

    levels: list[str] = setting(["F"], "levels that are compared", among=("F", "D"))
    weight: float = setting(1.0, "weight of each level", ge=0)
    adapter: bool = setting(True, "a 1x1 convolution on the student's side; off compares the features themselves")
    cells: str = setting("uniform", "weights of the cells", among=("balanced", "foreground", "uniform", "correct"))
    normalise: str = setting("teacher", "as in levels", among=("teacher", "instance", "unit", "none"))


@dataclass
class ChannelWiseConfig:
    """Channel-wise distillation (R3)."""

    levels: list[str] = setting(["Z"], "levels that are compared", among=("F", "D", "Z"))
    weight: dict[str, float] = setting({"F": 3.0, "D": 3.0, "Z": 3.0}, "weight of each level")
    tau: float = setting(4.0, "temperature of the softmax over cells", ge=0.1, le=20)
    presence: bool = setting(True, "of Z: only classes that the teacher or the label sees")


@dataclass
class BevFeatureConfig:
    """BEV-feature distillation after UniDistill and BEVDistill (R4)."""

    points: int = setting(128, "points drawn on the boundary, inside, and on the background, per class", ge=1)
    feature: float = setting(1.0, "weight of the features' difference at the points", ge=0)
    relation: float = setting(1.0, "weight of the points' mutual relations", ge=0)
    response: float = setting(1.0, "weight of the probabilities' difference around the foreground", ge=0)
    dense: float = setting(0.0, "weight of the foreground's squared difference (R4b)", ge=0)


@dataclass
class DistillConfig:
    """How a trained teacher helps to train the student."""

    teacher: str = setting("runs/teacher/teacher.safetensors", "weights of the teacher")
    method: str = setting("bridgeta", "one of those in docs/distillation.md, such as direct or ofa_kd")
    strength: float = setting(1.0, "factor on all distillation terms", ge=0)
    warmup_steps: int = setting(1000, "steps that train only what the method adds; the student waits", ge=0)
    ramp_steps: int = setting(1000, "steps after that over which the distillation terms grow to full strength", ge=0)
    final: float = setting(1.0, "strength at the end of a cosine over the last 20 % of the steps", ge=0, le=1)
    calibrate_steps: int = setting(200, "steps after the warm-up at which the levels' weights are set, if at all", ge=0)
    statistics_frames: int = setting(2000, "training frames for the statistics of the teacher's features", ge=1)
    decoder_from_teacher: bool = setting(False, "start the student's decoder and head from the teacher's")
    levels: LevelsConfig = field(default_factory=LevelsConfig)
    bridgeta: BridgeTAConfig = field(default_factory=BridgeTAConfig)
    direct: DirectConfig = field(default_factory=DirectConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)
    fitnet: FitNetConfig = field(default_factory=FitNetConfig)
    channelwise: ChannelWiseConfig = field(default_factory=ChannelWiseConfig)
    bevfeature: BevFeatureConfig = field(default_factory=BevFeatureConfig)
    ofa_kd: OfaKdConfig = field(default_factory=OfaKdConfig)
    dfa: DfaConfig = field(default_factory=DfaConfig)
    gpd: GpdConfig = field(default_factory=GpdConfig)
    rdd: RddConfig = field(default_factory=RddConfig)
    kd360: Kd360Config = field(default_factory=Kd360Config)
    sskd: SskdConfig = field(default_factory=SskdConfig)
    wcord: WcordConfig = field(default_factory=WcordConfig)
    tscm: TscmConfig = field(default_factory=TscmConfig)
    elite: EliteConfig = field(default_factory=EliteConfig)
    mapdistill: MapDistillConfig = field(default_factory=MapDistillConfig)
    apt: AptConfig = field(default_factory=AptConfig)
    mapkd: MapKdConfig = field(default_factory=MapKdConfig)
