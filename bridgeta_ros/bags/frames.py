"""Sets of images of a bag as frames without labels: what a network sees of a recording."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bridgeta_core.data.frames import Frame
from bridgeta_core.deploy.weights import WeightsInfo
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.images import fit_images, fit_intrinsics, to_planes
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_ros.bags.cameras import choose_cameras
from bridgeta_ros.bags.io import open_bag
from bridgeta_ros.bags.replay import ReplaySettings, replay


class _Recorder:
    """A runtime that keeps its inputs instead of computing anything; a `BevRuntime`."""

    def __init__(self, info: WeightsInfo) -> None:
        self.info, self.grid = info, info.grid
        self.frames: list[Frame] = []

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        image = self.info.model.image
        return tuple(fit_images(rig, image.size, image.margin).values())

    def infer(self, images: NDArray[np.uint8], rig: Rig) -> NDArray[np.float32]:
        shape = (len(CLASSES), *self.grid.shape)
        self.frames.append(
            Frame(
                images=torch.from_numpy(to_planes(images)),
                intrinsics=torch.from_numpy(fit_intrinsics(rig, self.fits(rig))).float(),
                ego_T_cam=torch.from_numpy(np.stack([camera.ego_T_cam for camera in rig.cameras])).float(),
                labels=torch.zeros(shape, dtype=torch.uint8),
                known=torch.zeros(len(CLASSES), dtype=torch.bool),
                token=str(len(self.frames)),
            )
        )
        return np.zeros(shape, np.float32)

    def warm_up(self, rig: Rig) -> None:
        """Do nothing."""


def read_bag_frames(bag: Path, info: WeightsInfo, sets: int) -> list[Frame]:
    """Read about `sets` sets of images, spread evenly over a bag, as a replay would hand them to the network.

    No class is known in them. Raises BridgeTAError as `replay` does.
    """
    with open_bag(bag) as source:
        cameras = choose_cameras(source, wanted=info.cameras).topics
        images = source.count([camera.image for camera in cameras]) or 0
    recorder = _Recorder(info)
    settings = ReplaySettings(every=max(1, images // len(cameras) // sets))
    with tempfile.TemporaryDirectory() as folder:
        replay(bag, Path(folder) / "out", recorder, settings, progress=False)
    return recorder.frames[:sets]
