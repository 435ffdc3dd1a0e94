"""The student as two static graphs: images to depth and features, and lifted features to probabilities.

Between them lies the lift, the only step that a calibration touches, so a change of a camera's pose never changes a
graph. All arrays lie in memory as the lift reads them: the features of an image cell, and of a BEV cell, side by side.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bridgeta_core.config.experiment import ImageConfig, LiftConfig, StudentConfig, to_mapping
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.lift import LiftPlan, lift
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError, describe_lack_of_memory, read_message
from bridgeta_core.utils.machine import require_memory

OPSET = 18  # of ONNX: what PyTorch's exporter writes best; ONNX Runtime 1.14 and later read it
_FEW_PRODUCTS = 10**7  # of a depth and a feature, in a lift that one thread computes in a few milliseconds
_MOST_CAMERAS = 64  # that an exported graph takes
_EXPORT_MEMORY = 256  # MiB; that of the shipped student takes 180


class ImagePart(nn.Module):
    """Images to depth distributions and features, for any number of cameras N.

    `images` `[N, H, W, 3]` (uint8, RGB) and the `ground` `[N, h, w]` of a `LiftPlan` become `depth` `[N, h, w, D]`,
    which sums to 1 over the D bins (float32), and `features` `[N, h, w, C]`.
    """

    NAME: ClassVar = "image"
    INPUTS: ClassVar = ("images", "ground")
    OUTPUTS: ClassVar = ("depth", "features")
    PER_CAMERA: ClassVar = True
    """Whether the first axis of all inputs and outputs is that of the cameras."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.camera = student.camera

    def forward(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the images of all cameras."""
        depth, features = self.camera.encode(images.permute(0, 3, 1, 2)[None], ground[None])
        return depth[0].permute(0, 2, 3, 1), features[0].permute(0, 2, 3, 1)

    def example(self) -> tuple[Tensor, Tensor]:
        """Return inputs of the right shapes, of two cameras with random images."""
        images, ground = self.draw_inputs(self.camera.image, self.camera.feature_size, 2)
        return images.to(self.camera.bins.device), ground.to(self.camera.bins.device)

    @staticmethod
    def draw_inputs(image: ImageConfig, feature_size: tuple[int, int], cameras: int) -> tuple[Tensor, Tensor]:
        """Draw the images of some cameras, and a ground of one value."""
        shape, generator = (cameras, image.height, image.width, 3), torch.Generator().manual_seed(0)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return images, torch.full((cameras, *feature_size), 0.1)


class BevPart(nn.Module):
    """Features `lifted` `[Y', X', C]` on the grid of the lift to `probabilities` `[6, Y, X]`, float32."""

    NAME: ClassVar = "bev"
    INPUTS: ClassVar = ("lifted",)
    OUTPUTS: ClassVar = ("probabilities",)
    PER_CAMERA: ClassVar = False

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.downsample, self.neck = student.camera.downsample, student.neck
        self.decoder, self.head = student.decoder, student.head
        self.lift = student.camera.lift

    def forward(self, lifted: Tensor) -> Tensor:
        """Decode and classify the cells."""
        features = self.neck(self.downsample(lifted.permute(2, 0, 1)[None]))
        logits: Tensor = self.head(self.decoder(features.relu()))
        return logits[0].float().sigmoid()

    def example(self) -> tuple[Tensor]:
        """Return an input of the right shape, with random features."""
        return (self.draw_inputs(self.lift)[0].to(next(self.head.parameters())),)

    @staticmethod
    def draw_inputs(lift: LiftConfig) -> tuple[Tensor]:
        """Draw lifted features."""
        generator = torch.Generator().manual_seed(0)
        return (torch.rand((*lift.grid.shape, lift.channels), generator=generator),)


Part = ImagePart | BevPart


def split(student: Student) -> tuple[ImagePart, BevPart]:
    """Split a copy of a student into its two parts, in eval mode and with its batch norms folded."""
    student = copy.deepcopy(student).eval().requires_grad_(False)
    fuse_batch_norms(student)
    return ImagePart(student), BevPart(student)


def lift_parts(depth: Tensor, features: Tensor, plan: LiftPlan) -> Tensor:
    """Lift the outputs of the image part to the input of the BEV part, `[Y', X', C]`."""
    few = plan.entries * features.shape[-1] < _FEW_PRODUCTS and depth.device.type == "cpu"
    with _use_one_thread() if few else nullcontext():
        bev = lift(depth.permute(0, 3, 1, 2)[None], features.permute(0, 3, 1, 2)[None], plan)
    return bev[0].permute(1, 2, 0)


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread.

    A second one would save a fraction of a millisecond, and has to be waited for while others use its core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def free_cameras(part: Part) -> dict[str, Any]:
    """Return, as `torch.export` takes it, that the number of cameras of a part is free."""
    cameras = torch.export.Dim("cameras", min=1, max=_MOST_CAMERAS)
    return {name: {0: cameras} if part.PER_CAMERA else None for name in part.INPUTS}


def export_onnx(part: Part, path: Path) -> None:
    """Write a part as one ONNX file with its named inputs and outputs; the number of cameras is free.

    Raises BridgeTAError (exit code 2) without the packages onnx and onnxscript, and when the exporter cannot translate
    the network.
    """
    try:
        import onnxscript  # noqa: F401 (which PyTorch's exporter needs)
    except ImportError as error:
        what = "writing ONNX graphs needs the packages onnx and onnxscript"
        raise BridgeTAError(what, fix="pip install onnx onnxscript", exit_code=2) from error
    require_memory(_EXPORT_MEMORY, "writing ONNX graphs")
    with _quiet_exporter():
        try:
            torch.onnx.export(
                part,
                part.example(),
                str(path),
                dynamo=True,
                verbose=False,
                input_names=list(part.INPUTS),
                output_names=list(part.OUTPUTS),
                dynamic_shapes=free_cameras(part),
                external_data=False,
                opset_version=OPSET,
            )
        except Exception as error:  # the exporter has errors of many kinds, for what it cannot translate
            if describe_lack_of_memory(error):
                raise
            reason = read_message(error)[:200]
            raise BridgeTAError(f"the {part.NAME} part cannot be written as ONNX ({reason})") from error


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says about operators of other packages and about its own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def hash_student(student: Student) -> str:
    """Hash a student's settings and weights to 64 hexadecimal digits."""
    return hash_weights(student.config, student.grid, sorted(student.state_dict().items()))


def hash_weights(config: StudentConfig, grid: BevGrid, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash a student's settings and its tensors, sorted by name, to 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([to_mapping(config), to_mapping(grid)]).encode())
    for name, value in tensors:
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fuse_batch_norms(network: nn.Module) -> int:
    """Fold every batch norm that directly follows a convolution into it, in place, and return how many.

    The order is certain among the children of an nn.Sequential (our layers) and for the pair `convolution`,
    `normalization` of the convolutional backbones of transformers; nothing else is touched. Only for eval mode.
    """
    fused = 0
    for module in network.modules():
        children = list(module.named_children())
        for (name, layer), (next_name, following) in itertools.pairwise(children):
            ordered = isinstance(module, nn.Sequential) or (name, next_name) == ("convolution", "normalization")
            if ordered and isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, following))
                setattr(module, next_name, nn.Identity())
                fused += 1
    return fused
