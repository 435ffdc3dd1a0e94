"""Settings of the related methods of distillation; docs/methods.md has a paragraph and a formula for each."""

from __future__ import annotations

from dataclasses import dataclass

from bridgeta_core.utils.settings import setting


@dataclass
class OfaKdConfig:
    """Features of the student as class logits (OFA-KD)."""

    output: float = setting(1.0, "weight of the student's own logits against the teacher's", ge=0)
    branches: float = setting(1.0, "weight of each branch's logits against the teacher's", ge=0)
    present: float = setting(1.2, "exponent that enhances what the label says, where a class is present", ge=1, le=4)
    absent: float = setting(1.0, "the same where a class is absent; above 1 the background swamps the rest", ge=1, le=4)


@dataclass
class DfaConfig:
    """Mixtures of the teacher's layers, whose weights are searched first (DFA)."""

    weight: float = setting(
        1.0, "weight of each group's distance; a share where distill.levels.calibrate sets it", ge=0
    )
    bridge: float = setting(1.0, "weight, in the search, of the student's label loss behind a mixture", ge=0)
    mixing: str = setting(
        "searched",
        "weights of a group's layers: searched, equal, all on the last, or random",
        among=("searched", "uniform", "last", "random"),
    )
    search: float = setting(0.13, "share of the steps after the warm-up that search the weights", ge=0, le=1)
    rate: float = setting(0.05, "learning rate of the weights' logits", ge=1e-6, le=1)
    decay: float = setting(1e-3, "decay of the weights' logits, towards equal weights", ge=0, le=1)
    cells: str = setting("balanced", "weights of the cells", among=("balanced", "foreground", "uniform", "correct"))
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class GpdConfig:
    """A wider network that learns beside the student and shares its weights (GPD)."""

    logits: float = setting(1.0, "weight of the teacher's logits, for the student and for the wider network", ge=0)
    tau: float = setting(2.0, "temperature of that", ge=0.1, le=20)
    kappa: float = setting(3.0, "weight of the wider network's probabilities for the student", ge=0)
    smoothing: float = setting(0.1, "how far these are drawn to one half", ge=0, le=1)
    widen: int = setting(2, "factor on the channels of the student's decoder and head", ge=1, le=8)
    branches: int = setting(3, "3x3 kernels alone (1), with 1x1 kernels (2), with identities too (3)", ge=1, le=3)
    noise: float = setting(1e-3, "noise on the copies of weights, as a share of their spread", ge=0, le=1)
    sharing: bool = setting(True, "the student's weights are a part of the wider network's")


@dataclass
class RddConfig:
    """Labels where the teacher says that they are easy, then where one network alone finds them hard (RDD)."""

    easy: float = setting(0.1, "share of the steps in which only easy cells count more", ge=0, le=1)
    turn: str = setting(
        "linear", "to hard cells after that: linear until the end, or at once", among=("linear", "once")
    )
    places: str = setting(
        "one",
        "hard cells that count: of one network alone, of either, of both, or of the student",
        among=("one", "either", "both", "student"),
    )
    threshold: float = setting(0.7, "probability of what the label says up to which a cell is hard", ge=0, le=1)
    hardest: float = setting(0.05, "share of a class's cells in a batch that is hard at least", ge=0, le=1)
    rescale: bool = setting(False, "divide the weights of easy cells by their mean, which is below 1: a control")
    fit_epochs: int = setting(2, "passes over the training frames that fit the teacher's auxiliary head", ge=1)
    fit_rate: float = setting(1e-3, "learning rate of that", ge=1e-6, le=1)
    logits: float = setting(1.0, "weight of logit distillation", ge=0)
    tau: float = setting(1.0, "its temperature", ge=0.1, le=20)


@dataclass
class Kd360Config:
    """Relations of cells, and where channels fire inside the decoder and in the output (KD360-VoxelBEV)."""

    affinity: float = setting(1.0, "weight of the similarities between the cells of F", ge=0)
    inner: float = setting(3.0, "weight of the channels of the decoder's last stage", ge=0)
    output: float = setting(3.0, "weight of the classes' logits as channels", ge=0)
    window: int = setting(16, "cells of F along each side of the windows within which cells are compared", ge=2)
    tau: float = setting(3.0, "temperature of the softmax over cells", ge=0.1, le=20)
    learned: bool = setting(False, "learn the weights by uncertainty; those above then only say which terms take part")
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class SskdConfig:
    """Logits on frames and on turned ones, and similarities between the regions of both (SSKD)."""

    logits: float = setting(1.0, "weight of logit distillation", ge=0)
    transformed: float = setting(1.0, "weight of logit distillation on turned frames", ge=0)
    similarity: float = setting(1.0, "weight of the regions' similarities", ge=0)
    tau: float = setting(2.0, "temperature of logits", ge=0.1, le=20)
    similarity_tau: float = setting(0.5, "temperature of similarities", ge=0.01, le=20)
    drop: float = setting(
        0.05, "share of a class's turned cells, where the teacher is worst, that is dropped", ge=0, le=1
    )
    keep: float = setting(
        0.75, "share of the regions that is kept of those whose source the teacher misses", ge=0, le=1
    )
    regions: int = setting(8, "regions of F along each side of the grid", ge=1)
    fit_epochs: int = setting(2, "passes over the training frames that train the teacher's head", ge=1)
    fit_rate: float = setting(1e-3, "learning rate of that", ge=1e-6, le=1)


@dataclass
class WcordConfig:
    """Contrast and optimal transport between cells (WCoRD)."""

    contrast: float = setting(0.8, "weight of the critic that tells cells of both networks apart", ge=0)
    transport: float = setting(0.05, "weight of the cost to transport the student's cells to the teacher's", ge=0)
    cells: int = setting(512, "cells that are drawn per frame", ge=2)
    size: int = setting(128, "length of an embedding, at most the teacher's channels", ge=1)
    queue: int = setting(8, "earlier batches whose cells are other inputs", ge=1)
    entropy: float = setting(0.05, "how much the transport is blurred", ge=0.001, le=10)
    iterations: int = setting(50, "of Sinkhorn's algorithm", ge=1)
    distance: float = setting(0.0, "price of transport over 10 m, and of its square beyond; cosines cost 0 to 2", ge=0)
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class TscmConfig:
    """Descriptors of the regions that have the same labels, across networks and frames (TSCM)."""

    level: str = setting("D", "level whose features are described", among=("F", "D"))
    groups: str = setting(
        "vectors", "cells of a region: those with the same classes, or all of one class", among=("vectors", "classes")
    )
    cells: int = setting(20, "cells of F that a region needs at least", ge=1)
    size: int = setting(128, "length of a descriptor; not more than the features' channels", ge=2)
    soft: float = setting(1.0, "weight of the distance to the teacher on the same region", ge=0)
    cross: float = setting(0.5, "weight of the distances to the teacher on such a region of another frame", ge=0)
    triplet: float = setting(0.5, "weight of the student's own triplets, which need labels", ge=0)
    released: float = setting(0.0, "weight of the squared sum of all distances, the form of the released code", ge=0)
    margin: float = setting(0.1, "of the triplets and of the released form", ge=0)
    negatives: int = setting(4, "regions of other labels for each triplet", ge=1)
    queue: int = setting(256, "teacher's descriptors of each kind of region that are kept of earlier frames", ge=1)
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class EliteConfig:
    """Classifiers at every stage of both networks, and a teacher that is tuned by additions of low rank (ELiTe)."""

    stages: list[str] = setting(
        ["F", "inner", "D"], "where classifiers are: F, the decoder's stages, and D", among=("F", "inner", "D")
    )
    rank: int = setting(8, "of what is added to the teacher's fuser and decoder; 0 leaves the teacher as it is", ge=0)
    matching: float = setting(1.0, "weight of the classifiers' agreement, shared by the stages", ge=0)
    teacher: float = setting(1.0, "weight of the label loss of the teacher's classifiers, shared by the stages", ge=0)
    student: float = setting(1.0, "weight of the label loss of each of the student's classifiers", ge=0)
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class MapDistillConfig:
    """Relations between cameras and LiDAR, features, and the map that comes out (MapDistill)."""

    relation: float = setting(1.0, "weight of the attention between cameras and LiDAR; needs a live teacher", ge=0)
    feature: float = setting(1.0, "weight of the squared difference of F and of D", ge=0)
    head: float = setting(1.0, "weight of the map's difference", ge=0)
    edges: float = setting(0.5, "of that, weight of the difference of the classes' outlines", ge=0)
    patch: int = setting(8, "cells of F along each side of a token", ge=1)
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class AptConfig:
    """Attention around the same centres in both networks, and prompts in the teacher (APT, URFM)."""

    attention: float = setting(1.0, "weight of the difference of attention", ge=0)
    fields: float = setting(1.0, "weight of the difference of the features around the centres", ge=0)
    centres: int = setting(14, "centres along each side of the grid", ge=2)
    cells: int = setting(64, "cells along each side to which F is averaged at most", ge=2)
    width: int = setting(64, "channels of the attention; a multiple of 4", ge=4)
    prompts: int = setting(16, "cells along each side of the map of prompts; 0: a teacher without prompts", ge=0)
    towards_student: float = setting(0.1, "weight with which the prompts bring the teacher to the student", ge=0)
    logits: float = setting(0.0, "weight of logit distillation, at distill.logits.tau", ge=0)


@dataclass
class MapKdConfig:
    """Patches of F and the map where there is something, from the teacher and a coach with simulated LiDAR (MapKD)."""

    feature: float = setting(0.5, "weight of F from the teacher", ge=0)
    response: float = setting(0.75, "weight of the map from the teacher", ge=0)
    coach: float = setting(0.01, "weight of F and of the map from the coach, which needs a live teacher; 0: none", ge=0)
    teaching: float = setting(0.8, "weight of F and of the map from the teacher to the coach", ge=0)
    difference: float = setting(1.0, "weight of the squared difference of F beside the relations of patches", ge=0)
    patch: int = setting(8, "cells of F along each side of a patch", ge=1)
    tau: float = setting(0.1, "temperature of the relations, which are cosines", ge=0.01, le=10)
    channels: int = setting(64, "of the layers that simulate LiDAR", ge=1)
    logits: float = setting(0.0, "weight of logit distillation on all cells, at distill.logits.tau", ge=0)
