"""PyTorch itself: on CPUs and on CUDA, where the runtime records its calls as one graph."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bridgeta_core.deploy.backends.base import Network
from bridgeta_core.deploy.backends.graphs import BevPart, ImagePart, fuse_batch_norms


class TorchBackend:
    """The parts as PyTorch modules, with batch norms folded and weights in the precision."""

    name = "torch"

    def __init__(self, network: Network, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        self.recordable = device.type == "cuda"
        student = copy.deepcopy(network.student).to(device).eval().requires_grad_(False)
        fuse_batch_norms(student)
        student.cast(getattr(torch, precision))
        self._image, self._bev = ImagePart(student), BevPart(student)

    def encode(self, images: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
        depth, features = self._image(images, ground)
        return depth, features

    def decode(self, lifted: Tensor) -> Tensor:
        probabilities: Tensor = self._bev(lifted)
        return probabilities
