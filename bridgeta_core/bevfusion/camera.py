"""BEVFusion's camera-only network of map segmentation as our student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bridgeta_core.bevfusion.checkpoint import Checkpoint
from bridgeta_core.bevfusion.swin import is_derived, list_swin_entries, load_swin
from bridgeta_core.bevfusion.tensors import Entry, list_entries, mirror, take
from bridgeta_core.config.experiment import Experiment, load
from bridgeta_core.deploy.weights import save_weights
from bridgeta_core.model.lift import cell_pixels, depth_bins
from bridgeta_core.model.student import CameraBranch, Student
from bridgeta_core.utils.errors import BridgeTAError

CONFIGURATION = "nuscenes_bevfusion"
_ENCODER = "encoders.camera"

# Modules of ours, and those of the checkpoint that they are.
_IMAGES = {
    "camera.encoder.joined.merge.0.0.0": f"{_ENCODER}.neck.lateral_convs.0.conv",
    "camera.encoder.joined.merge.0.0.1": f"{_ENCODER}.neck.lateral_convs.0.bn",
    "camera.encoder.joined.merge.0.1.0": f"{_ENCODER}.neck.fpn_convs.0.conv",
    "camera.encoder.joined.merge.0.1.1": f"{_ENCODER}.neck.fpn_convs.0.bn",
    "camera.encoder.joined.merge.1.0.0": f"{_ENCODER}.neck.lateral_convs.1.conv",
    "camera.encoder.joined.merge.1.0.1": f"{_ENCODER}.neck.lateral_convs.1.bn",
    "camera.encoder.joined.merge.1.1.0": f"{_ENCODER}.neck.fpn_convs.1.conv",
    "camera.encoder.joined.merge.1.1.1": f"{_ENCODER}.neck.fpn_convs.1.bn",
    "camera.depth": f"{_ENCODER}.vtransform.depthnet",
}
_AFTER_LIFT = {
    "camera.downsample.0.0": f"{_ENCODER}.vtransform.downsample.0",
    "camera.downsample.0.1": f"{_ENCODER}.vtransform.downsample.1",
    "camera.downsample.1.0": f"{_ENCODER}.vtransform.downsample.3",
    "camera.downsample.1.1": f"{_ENCODER}.vtransform.downsample.4",
}
LAST = {
    "neck.layers.0": f"{_ENCODER}.vtransform.downsample.6",
    "neck.layers.1": f"{_ENCODER}.vtransform.downsample.7",
}
_FUSE = {
    "decoder.fuse.0.0": "decoder.neck.fuse.0",
    "decoder.fuse.0.1": "decoder.neck.fuse.1",
    "decoder.fuse.1.0": "decoder.neck.fuse.3",
    "decoder.fuse.1.1": "decoder.neck.fuse.4",
    "decoder.output.0": "decoder.neck.upsample.1",
    "decoder.output.1": "decoder.neck.upsample.2",
}
HEAD = {
    "head.layers.0.0": "heads.map.classifier.0",
    "head.layers.0.1": "heads.map.classifier.1",
    "head.layers.1.0": "heads.map.classifier.3",
    "head.layers.1.1": "heads.map.classifier.4",
    "head.classify": "heads.map.classifier.6",
}


def import_student(checkpoint: Checkpoint, out: Path) -> None:
    """Write the camera-only network of a checkpoint as a student's weights file.

    Raises BridgeTAError for a checkpoint of other sizes, and as `take` does.
    """
    experiment = load(Experiment, CONFIGURATION)
    experiment.model.backbone.pretrained = None
    with torch.device("meta"):  # shapes alone, until the checkpoint is known to fit
        draft = Student(experiment.model, experiment.grid)
    check_frustum(checkpoint, draft.camera)
    wanted = draft.state_dict()
    entries = list_camera_entries(wanted, draft.camera)
    entries += list_entries(wanted, {**LAST, **_list_blocks(experiment.model.decoder.stages), **_FUSE, **HEAD}, mirror)
    taken = take(checkpoint, entries, list_derived(checkpoint))
    student = Student(experiment.model, experiment.grid)
    load_camera(student.camera, taken)
    student.load_state_dict(taken, strict=False)
    save_weights(out, student, experiment.data.cameras, checkpoint.describe_origin())


def list_camera_entries(wanted: Mapping[str, Tensor], camera: CameraBranch) -> list[Entry]:
    """List the entries of a camera branch named `camera` in the network's tensors `wanted`."""
    config = camera.encoder.backbone.config
    norms = {f"stage{stage}": f"norm{stage - 1}" for stage in camera.encoder.config.stages}
    swin = list_swin_entries(config, f"{_ENCODER}.backbone.", mmdet=True, norms=norms)
    return [*swin, *list_entries(wanted, _IMAGES), *list_entries(wanted, _AFTER_LIFT, mirror)]


def load_camera(camera: CameraBranch, taken: dict[str, Tensor]) -> None:
    """Load the backbone's tensors into a camera branch, and remove them from `taken`."""
    names = [name for name in taken if name.startswith(("embeddings.", "encoder.", "hidden_states_norms."))]
    load_swin(camera.encoder.backbone, {name: taken.pop(name) for name in names})


def list_derived(checkpoint: Checkpoint) -> set[str]:
    """List the tensors of a checkpoint that follow from its sizes: indices, and the geometry of the lift."""
    geometry = {f"{_ENCODER}.vtransform.{name}" for name in ("dx", "bx", "nx", "frustum")}
    return geometry | {name for name in checkpoint.tensors if is_derived(name)}


def check_frustum(checkpoint: Checkpoint, camera: CameraBranch) -> None:
    """Raise BridgeTAError when a checkpoint's lift is for other images, depths or cells than the branch's."""
    found = checkpoint.tensors.get(f"{_ENCODER}.vtransform.frustum")
    if found is None or found.ndim != 4 or found.shape[-1] != 3:
        raise BridgeTAError(f"lacks {_ENCODER}.vtransform.frustum", where=checkpoint.path)
    frustum = found.double()
    (bins, h, w), last = frustum.shape[:3], frustum[-1, -1, -1]
    size = (camera.image.height, camera.image.width)
    u, v = cell_pixels(camera.feature_size, size, camera.lift.pixel_place)
    depths = depth_bins(camera.lift)
    if (h, w) != camera.feature_size or not _near(last[:2], torch.stack([u[-1], v[-1]])):
        raise BridgeTAError(
            f"was trained for images of {round(float(last[0])) + 1}x{round(float(last[1])) + 1}, "
            f"not of {size[1]}x{size[0]}",
            where=checkpoint.path,
            fix="Name a checkpoint of the published configuration",
        )
    cell = torch.tensor([camera.lift.grid.resolution] * 2)
    half = torch.tensor(camera.lift.grid.shape[::-1]) * cell / 2
    step = checkpoint.tensors.get(f"{_ENCODER}.vtransform.dx", cell)
    start = checkpoint.tensors.get(f"{_ENCODER}.vtransform.bx", cell / 2 - half)
    same = bins == len(depths) and _near(frustum[:, 0, 0, 2], depths)
    if not (same and _near(step[:2], cell) and _near(start[:2], cell / 2 - half)):
        raise BridgeTAError(
            f"lifts to other depths or cells than {camera.lift.depth_min:g} to {camera.lift.depth_max:g} m by "
            f"{camera.lift.depth_step:g} m, and cells of {camera.lift.grid.resolution:g} m",
            where=checkpoint.path,
            fix="Name a checkpoint of the published configuration",
        )


def _near(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found.double(), wanted.double(), atol=1e-3)


def _list_blocks(stages: list[int]) -> dict[str, str]:
    """Map the modules of the decoder's residual stages, two blocks each, to those of the checkpoint."""
    result = {}
    for stage in range(len(stages)):
        for block in range(2):
            ours, theirs = f"decoder.stages.{stage}.{block}", f"decoder.backbone.{stage}.{block}"
            for i in range(2):
                result[f"{ours}.layers.{i}.0"] = f"{theirs}.conv{i + 1}"
                result[f"{ours}.layers.{i}.1"] = f"{theirs}.bn{i + 1}"
        result[f"decoder.stages.{stage}.0.skip.0"] = f"decoder.backbone.{stage}.0.downsample.0"
        result[f"decoder.stages.{stage}.0.skip.1"] = f"decoder.backbone.{stage}.0.downsample.1"
    return result
