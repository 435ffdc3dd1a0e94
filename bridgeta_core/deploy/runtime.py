"""Run the student as a vehicle does: load once, warm up, then images and calibration in, probabilities out."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.config.experiment import ImageConfig
from bridgeta_core.deploy.cuda_graph import GraphCache
from bridgeta_core.deploy.graphs import fuse_batch_norms
from bridgeta_core.deploy.weights import WeightsInfo, load_student
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import fit_images, fit_intrinsics
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.model.lift import LiftPlan, PlanCache
from bridgeta_core.model.student import Student
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import resolve_device

# Making a plan takes about 100 ms. A vehicle with six cameras needs one for all and one for each that may fail; an
# eighth leaves room for a changed calibration.
_MAX_PLANS = 8


class Runtime:
    """One student, ready to run on one device.

    `device` is "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...; `precision` is "float32", or "float16"
    or "bfloat16" on CUDA. `infer` may be called from one thread at a time. Raises BridgeTAError as `load_student` does,
    and for a device that is not there.

    The attributes `device` and `precision` say what it runs on and with; "auto" is resolved by then. `image` is the
    size of the network's inputs.
    """

    info: WeightsInfo
    grid: BevGrid
    image: ImageConfig
    device: torch.device
    precision: str

    def __init__(self, weights: str | Path, device: str | torch.device = "auto", precision: str = "float32") -> None:
        student, info = load_student(weights)
        self._set_up(student, info, device, precision)

    @classmethod
    def from_student(
        cls, student: Student, info: WeightsInfo, device: str | torch.device = "auto", precision: str = "float32"
    ) -> Runtime:
        """Build a runtime from a copy of a student in memory."""
        runtime = cls.__new__(cls)
        runtime._set_up(copy.deepcopy(student), info, device, precision)
        return runtime

    def _set_up(self, student: Student, info: WeightsInfo, device: str | torch.device, precision: str) -> None:
        self.info, self.grid, self.image = info, info.grid, info.model.image
        self.device = resolve_device(device)
        if precision not in ("float32", "float16", "bfloat16"):
            raise BridgeTAError(f"precision {precision!r} is not one of float32, float16, bfloat16", exit_code=2)
        if precision != "float32" and self.device.type != "cuda":
            raise BridgeTAError(f"precision {precision} needs a CUDA device", fix="Use float32 here", exit_code=2)
        self.precision = precision
        self._student = student.to(self.device).eval().requires_grad_(False)
        fuse_batch_norms(self._student)
        self._student.cast(getattr(torch, precision))
        self._graphs = GraphCache(_MAX_PLANS) if self.device.type == "cuda" else None
        self._plans = PlanCache(self._student.plan, _MAX_PLANS)

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        """Return how each camera's image becomes a network input."""
        return tuple(fit_images(rig, self.image.size, self.image.margin).values())

    def plan(self, rig: Rig) -> LiftPlan:
        """Return the lift of a rig, made on first use and after each change of the calibration."""
        intrinsics = fit_intrinsics(rig, self.fits(rig))
        poses = [c.ego_T_cam for c in rig.cameras]
        return self._plans(torch.from_numpy(intrinsics)[None], torch.from_numpy(np.stack(poses))[None])

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> NDArray[np.float32]:
        """Compute class probabilities `[6, Y, X]` on `grid` from inputs `[N, h, w, 3]` (RGB) in the rig's order."""
        expected = (len(rig.cameras), self.image.height, self.image.width, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise BridgeTAError(f"images are {images.dtype} {list(images.shape)}, not uint8 {list(expected)}")
        with torch.inference_mode():
            plan, x = self.plan(rig), torch.from_numpy(np.ascontiguousarray(images)).to(self.device)

            def predict(pixels: Tensor) -> Tensor:
                logits: Tensor = self._student(pixels.permute(0, 3, 1, 2)[None], plan).Z
                return logits[0].float().sigmoid().contiguous()

            result = predict(x) if self._graphs is None else self._graphs(plan, predict, x)
            probabilities: NDArray[np.float32] = result.cpu().numpy()
            return probabilities

    def warm_up(self, rig: Rig) -> None:
        """Make the plan and run twice, so that the first real images do not pay for allocations."""
        black = np.zeros((len(rig.cameras), self.image.height, self.image.width, 3), dtype=np.uint8)
        for _ in range(2):
            self.infer(black, rig)
