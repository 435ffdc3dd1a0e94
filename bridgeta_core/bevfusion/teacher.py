"""BEVFusion's LiDAR-only and fusion networks of map segmentation as our teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bridgeta_core.bevfusion.camera import (
    CONFIGURATION,
    HEAD,
    LAST,
    check_frustum,
    list_camera_entries,
    list_derived,
    load_camera,
)
from bridgeta_core.bevfusion.checkpoint import Checkpoint
from bridgeta_core.bevfusion.tensors import Entry, list_entries, mirror, take
from bridgeta_core.config.experiment import (
    DecoderConfig,
    Experiment,
    HeadConfig,
    LidarConfig,
    StudentConfig,
    TeacherConfig,
    load,
)
from bridgeta_core.deploy.teacher_weights import save_teacher
from bridgeta_core.model.teacher import Teacher

# The LiDAR of nuScenes is 0.94 m ahead of base_link and 1.84 m up; the network sees from 5 m below it to 3 m above. Of
# the keyframe upstream keeps the points that hit the vehicle.
_LIDAR = LidarConfig(
    sweeps=9,
    ego_radius=1.0,
    z_min=-3.16,
    z_max=4.84,
    width=256,
    encoder="voxels",
    mount=[0.94, 0.0, 1.84],
    close="earlier",
)
_DECODER = DecoderConfig(kind="plain", width=256, stages=[128, 256], blocks=6, channels=256)
_HEAD = HeadConfig(width=512)
_ENCODER = "encoders.lidar.backbone"


def import_teacher(checkpoint: Checkpoint, out: Path) -> None:
    """Write the LiDAR-only or the fusion network of a checkpoint as a teacher's weights file.

    Raises BridgeTAError for a checkpoint of other sizes, and as `take` does.
    """
    experiment = load(Experiment, CONFIGURATION)
    config, model = configure(experiment.model, checkpoint.network)
    with torch.device("meta"):  # shapes alone, until the checkpoint is known to fit
        draft = Teacher(config, model, experiment.grid, pretrained=False)
    taken = take_tensors(checkpoint, draft)
    teacher = Teacher(config, model, experiment.grid, pretrained=False)
    load_tensors(teacher, taken)
    save_teacher(out, teacher, experiment.data.cameras, checkpoint.describe_origin())


def configure(student: StudentConfig, sensors: str) -> tuple[TeacherConfig, StudentConfig]:
    """Return the settings of the published network of `sensors`, "lidar" or "fusion"; cameras are the student's."""
    lidar, decoder, head = copy.deepcopy((_LIDAR, _DECODER, _HEAD))  # settings of a caller's own, to change at will
    model = replace(student, backbone=replace(student.backbone, pretrained=None), decoder=decoder, head=head)
    return TeacherConfig(sensors, lidar, fuser=sensors == "fusion"), model


def take_tensors(checkpoint: Checkpoint, teacher: Teacher) -> dict[str, Tensor]:
    """Take from a checkpoint the tensors of a teacher, which needs no memory. Raises BridgeTAError as `take` does."""
    derived: set[str] = set()
    if teacher.camera is not None:
        check_frustum(checkpoint, teacher.camera)
        derived = list_derived(checkpoint)
    return take(checkpoint, list_teacher_entries(teacher), derived)


def load_tensors(teacher: Teacher, taken: dict[str, Tensor]) -> None:
    """Load the tensors that were taken into a teacher."""
    if teacher.camera is not None:
        load_camera(teacher.camera, taken)
    teacher.load_state_dict(taken, strict=False)


def list_teacher_entries(teacher: Teacher) -> list[Entry]:
    """List the entries of a teacher's tensors."""
    wanted = teacher.state_dict()
    entries = list_entries(wanted, _list_lidar(wanted))  # in the frame of the LiDAR on both sides
    modules = {**_list_decoder(wanted), **HEAD}
    if teacher.camera is not None:
        entries += list_camera_entries(wanted, teacher.camera)
        modules |= {f"camera_end.{name.rpartition('.')[2]}": source for name, source in LAST.items()}
        modules |= {f"fuser.{i}": f"fuser.{i}" for i in range(2)}
    return [*entries, *list_entries(wanted, modules, mirror)]


def _list_lidar(wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the modules of the sparse encoder to those of the checkpoint."""
    ours = "lidar.encoder"
    result: dict[str, str] = {}
    for name, source in (("input", "conv_input"), ("output", "conv_out")):
        result |= {
            f"{ours}.{name}.convolution": f"{_ENCODER}.{source}.0",
            f"{ours}.{name}.norm": f"{_ENCODER}.{source}.1",
        }
    for stage in _count(wanted, f"{ours}.stages."):
        theirs = f"{_ENCODER}.encoder_layers.encoder_layer{stage + 1}"
        blocks = _count(wanted, f"{ours}.stages.{stage}.")
        for block in blocks:
            names = {"first.convolution": "conv1", "first.norm": "bn1", "second": "conv2", "norm": "bn2"}
            result |= {f"{ours}.stages.{stage}.{block}.{a}": f"{theirs}.{block}.{b}" for a, b in names.items()}
        if stage in _count(wanted, f"{ours}.down."):
            names = {"convolution": "0", "norm": "1"}
            result |= {f"{ours}.down.{stage}.{a}": f"{theirs}.{len(blocks)}.{b}" for a, b in names.items()}
    return result


def _list_decoder(wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the modules of the decoder to those of the checkpoint."""
    result: dict[str, str] = {}
    for stage in _count(wanted, "decoder.stages."):
        for layer in _count(wanted, f"decoder.stages.{stage}."):
            result[f"decoder.stages.{stage}.{layer}"] = f"decoder.backbone.blocks.{stage}.{layer}"
        result |= {f"decoder.up.{stage}.{i}": f"decoder.neck.deblocks.{stage}.{i}" for i in range(2)}
    return result


def _count(wanted: Mapping[str, Tensor], prefix: str) -> list[int]:
    """List the numbers that follow `prefix` in the names of a network's tensors."""
    return sorted({int(name.removeprefix(prefix).split(".")[0]) for name in wanted if name.startswith(prefix)})
