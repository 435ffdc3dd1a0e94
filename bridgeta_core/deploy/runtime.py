"""Run the student as a vehicle does: load once, warm up, then images and calibration in, probabilities out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.config.experiment import ImageConfig
from bridgeta_core.deploy.backends.base import Network
from bridgeta_core.deploy.backends.choose import Choice, choose_backend
from bridgeta_core.deploy.backends.graphs import hash_student, lift_parts
from bridgeta_core.deploy.cuda_graph import GraphCache
from bridgeta_core.deploy.starts import choose_again
from bridgeta_core.deploy.weights import (
    WeightsInfo,
    find_weights,
    hash_stored_student,
    load_student,
    read_info,
    read_int8_graphs,
)
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import apply_fit, fit_images, fit_intrinsics
from bridgeta_core.geometry.lens import Undistortion
from bridgeta_core.geometry.rig import Camera, Rig
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

    `device` is "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...; `backend` is what computes the network,
    one of `backends.supported.NAMES`; "auto" is, the fastest that is installed; `precision` is "float32" or what
    `backends.supported.SUPPORTED` lists. `infer` may be called from one thread at a time. Raises BridgeTAError as
    `load_student` does, and for a device, back end or precision that is not there.

    The attributes `device`, `backend` and `precision` say what it runs on and with; "auto" is resolved by then, and
    `reason` says why so. `image` is the size of the network's inputs.
    """

    info: WeightsInfo
    grid: BevGrid
    image: ImageConfig
    device: torch.device
    backend: str
    precision: str
    reason: str

    def __init__(
        self,
        weights: str | Path,
        device: str | torch.device = "auto",
        precision: str = "float32",
        backend: str = "torch",
    ) -> None:
        path = find_weights(weights)
        info = read_info(path)
        digest = hash_stored_student(path, info)
        int8 = read_int8_graphs(path, digest) if precision == "int8" else None
        build = partial(_load, path, digest)
        network = Network(info.model, info.grid, digest, build, len(info.cameras) or 6, int8)
        self._set_up(network, choose_again(network, backend, resolve_device(device), precision), info)

    @classmethod
    def from_student(
        cls,
        student: Student,
        info: WeightsInfo,
        device: str | torch.device = "auto",
        precision: str = "float32",
        backend: str = "torch",
    ) -> Runtime:
        """Build a runtime from a copy of a student in memory."""
        runtime = cls.__new__(cls)
        network = Network.of(copy.deepcopy(student).cpu().eval(), len(info.cameras) or 6)
        runtime._set_up(network, choose_backend(network, backend, resolve_device(device), precision), info)
        return runtime

    def _set_up(self, network: Network, choice: Choice, info: WeightsInfo) -> None:
        self.info, self.grid, self.image = info, info.grid, info.model.image
        self._backend, self.reason = choice.backend, choice.reason
        self.backend, self.device, self.precision = choice.backend.name, choice.backend.device, choice.backend.precision
        self._graphs = GraphCache(_MAX_PLANS) if choice.backend.recordable else None
        self._feature_size, self._lift = network.feature_size, network.config.lift
        self._plans = PlanCache(self._build_plan, _MAX_PLANS)
        self._last_plan: tuple[Rig, LiftPlan] | None = None
        self._last_lenses: tuple[Rig, list[tuple[ImageFit, Undistortion | None]]] | None = None

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        """Return how each camera's image becomes a network input."""
        return tuple(fit_images(rig, self.image.size, self.image.margin).values())

    def plan(self, rig: Rig) -> LiftPlan:
        """Return the lift of a rig, made on first use and after each change of the calibration."""
        # Even the key of the cache takes a millisecond, and nearly always it is the rig of the set before.
        if self._last_plan is None or self._last_plan[0] is not rig:
            intrinsics, poses = fit_intrinsics(rig, self.fits(rig)), np.stack([c.ego_T_cam for c in rig.cameras])
            self._last_plan = rig, self.plan_cameras(torch.from_numpy(intrinsics), torch.from_numpy(poses))
        return self._last_plan[1]

    def plan_cameras(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        """Return the lift for `intrinsics` `[N, 3, 3]` of the network's inputs and `ego_T_cam` `[N, 4, 4]`."""
        return self._plans(intrinsics[None], ego_T_cam[None])

    def _build_plan(self, intrinsics: Tensor, ego_T_cam: Tensor) -> LiftPlan:
        size = (self.image.height, self.image.width)
        return LiftPlan.build(intrinsics, ego_T_cam, self._feature_size, size, self._lift, self.device)

    def __call__(
        self, images: Mapping[str, NDArray[np.uint8]] | Sequence[NDArray[np.uint8]], rig: Rig
    ) -> NDArray[np.float32]:
        """Compute class probabilities `[6, Y, X]` on `grid` from the cameras' images as they are.

        They are NaN for classes that the training data did not know (`info.learned`).
        `images` are uint8 RGB `[height, width, 3]` of the size that each camera is calibrated for, by its name or in
        the rig's order. They are undistorted, resized and cut as the network takes them. On a vehicle
        `bridgeta_ros.pipeline` does the same in several threads, and decodes at a reduced size. Raises BridgeTAError
        that names the camera whose image is missing or of another kind.
        """
        if isinstance(images, Mapping):
            missing = [name for name in rig.names if name not in images]
            if missing:
                raise BridgeTAError(f"no image of {', '.join(missing)}", fix="Give them, or rig.select the others")
            images = [images[name] for name in rig.names]
        if len(images) != len(rig.cameras):
            raise BridgeTAError(f"{len(images)} images for {len(rig.cameras)} cameras")
        for image, camera in zip(images, rig.cameras, strict=True):
            expected = (camera.height, camera.width, 3)
            if image.dtype != np.uint8 or image.shape != expected:
                what = f"its image is {image.dtype} {list(image.shape)}, not uint8 {list(expected)}"
                raise BridgeTAError(what, where=f"camera {camera.name}")
        if self._last_lenses is None or self._last_lenses[0] is not rig:
            lenses = [(fit, _undistort(camera, fit)) for camera, fit in zip(rig.cameras, self.fits(rig), strict=True)]
            self._last_lenses = rig, lenses
        inputs = [
            apply_fit(image, fit) if undistortion is None else undistortion.apply(image)
            for image, (fit, undistortion) in zip(images, self._last_lenses[1], strict=True)
        ]
        return self.infer(np.stack(inputs), rig)

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> NDArray[np.float32]:
        """Compute class probabilities `[6, Y, X]` on `grid` from inputs `[N, h, w, 3]` (RGB) in the rig's order.

        They are NaN for classes that the training data did not know (`info.learned`).
        """
        expected = (len(rig.cameras), self.image.height, self.image.width, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise BridgeTAError(f"images are {images.dtype} {list(images.shape)}, not uint8 {list(expected)}")
        found = self.predict(torch.from_numpy(np.ascontiguousarray(images)), self.plan(rig))
        probabilities: NDArray[np.float32] = found.numpy()
        if not all(self.info.learned):
            probabilities[~np.array(self.info.learned)] = np.nan
        return probabilities

    def predict(self, images: Tensor, plan: LiftPlan) -> Tensor:
        """Compute class probabilities `[6, Y, X]`, on the CPU, from inputs `[N, h, w, 3]` and their lift.

        Unlike those of `infer` they are numbers also for classes that the training data did not know.
        """
        with torch.inference_mode():
            x = images.contiguous().to(self.device)

            def compute(pixels: Tensor) -> Tensor:
                depth, features = self._backend.encode(pixels, plan.ground[0])
                return self._backend.decode(lift_parts(depth, features, plan))

            return (compute(x) if self._graphs is None else self._graphs(plan, compute, x)).cpu()

    def warm_up(self, rig: Rig) -> None:
        """Make the plan and run twice, so that the first real images do not pay for allocations."""
        black = np.zeros((len(rig.cameras), self.image.height, self.image.width, 3), dtype=np.uint8)
        for _ in range(2):
            self.infer(black, rig)


def _undistort(camera: Camera, fit: ImageFit) -> Undistortion | None:
    return Undistortion.build(camera, fit) if camera.is_distorted else None


def _load(path: Path, digest: str) -> Student:
    """Load the student with the digest that its file had before."""
    student, _ = load_student(path)
    if hash_student(student) != digest:
        raise BridgeTAError("was changed while it was read", where=path, fix="Start again")
    return student
