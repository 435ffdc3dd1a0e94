"""Frames for training and evaluation: camera images with their calibration, map labels, and LiDAR points if wanted."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import get_worker_info

from bridgeta_core.config.experiment import ImageConfig, LabelConfig, LidarConfig
from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.dataset import Dataset
from bridgeta_core.data.label_cache import LabelCache
from bridgeta_core.data.loader import Packed
from bridgeta_core.data.pointcloud import merge_sweeps, move, read_lidar
from bridgeta_core.data.sample import Sample, SensorRecord
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image, fit_images, fit_intrinsics, to_planes
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.utils.arrays import Bytes, Flags
from bridgeta_core.utils.errors import BridgeTAError

logger = logging.getLogger(__name__)


@dataclass
class Frame(Packed):
    """A sample as the networks take it.

    `images` uint8 `[N, 3, h, w]` RGB; `intrinsics` float32 `[N, 3, 3]` of these images; `ego_T_cam` float32
    `[N, 4, 4]`; `labels` uint8 `[6, Y, X]`; `known` bool `[6]`, False for a class that the map knows nothing about;
    `points` float32 `[n, 5]` (x, y, z in metres in the ego frame, intensity 0-255, time lag in seconds).
    """

    images: Tensor
    intrinsics: Tensor
    ego_T_cam: Tensor
    labels: Tensor
    known: Tensor
    token: str
    points: Tensor | None = None

    def to(self, device: torch.device | str) -> Frame:
        """Copy all tensors to `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass
class Batch(Packed):
    """Frames stacked along a new first axis B; `tokens` and `points` stay lists, since points differ in number."""

    images: Tensor
    intrinsics: Tensor
    ego_T_cam: Tensor
    labels: Tensor
    known: Tensor
    tokens: list[str]
    points: list[Tensor] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy all tensors to `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy all tensors to page-locked memory; a DataLoader with pin_memory calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Any) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: function(v) for name, v in values.items() if isinstance(v, Tensor)}
        if self.points is not None:
            moved["points"] = [function(points) for points in self.points]
        return replace(self, **moved)


def collate(frames: Sequence[Frame]) -> Batch:
    """Stack frames; the `collate_fn` of a DataLoader over a FrameDataset."""
    points = [frame.points for frame in frames if frame.points is not None]
    return Batch(
        images=torch.stack([frame.images for frame in frames]),
        intrinsics=torch.stack([frame.intrinsics for frame in frames]),
        ego_T_cam=torch.stack([frame.ego_T_cam for frame in frames]),
        labels=torch.stack([frame.labels for frame in frames]),
        known=torch.stack([frame.known for frame in frames]),
        tokens=[frame.token for frame in frames],
        points=points if len(points) == len(frames) else None,
    )


class FrameDataset(TorchDataset[Frame]):
    """The samples of some scenes of a dataset as frames.

    `scenes` is what the dataset's `select` takes. `cameras` are channels in the order of the network's camera axis. All
    maps are read at once, so that a missing one shows before training. Without `augment` a frame depends on its
    position alone. With `lidar` frames have the points of the keyframe and of as many earlier sweeps as the settings
    ask for and the scene has. Images have `border` more pixels at each side than `image` says. Where a root was
    extracted without its sweeps, a warning says so and frames have the keyframe's points. `labels` are the settings of
    rasterising and caching labels.
    """

    def __init__(
        self,
        dataset: Dataset,
        scenes: str,
        cameras: Sequence[str],
        image: ImageConfig,
        grid: BevGrid,
        augment: Augment | None = None,
        lidar: LidarConfig | None = None,
        labels: LabelConfig | None = None,
    ) -> None:
        self.label_config = labels or LabelConfig()
        self.label_config.check(grid)
        self.dataset = dataset
        self.positions = self.dataset.select(scenes)
        if not self.positions:
            raise BridgeTAError(f"scenes {scenes!r} hold no samples", where=dataset.root, exit_code=2)
        self.cameras, self.image, self.grid = tuple(cameras), image, grid
        self.augment, self.lidar, self.border = augment, lidar, 0
        chosen = set(self.positions)
        cities = {scene.location for scene in self.dataset.scenes if any(i in chosen for i in scene.samples)}
        self.maps = {city: self.dataset.raster(city, self.label_config) for city in sorted(cities)}
        if self.cameras:
            self.sample(0).rig(self.cameras)  # a name that no sample has is said before long work
        folder = self.label_config.cache
        self._cache = LabelCache(folder, self.dataset, self.maps, grid, self.label_config) if folder else None
        self._epoch = torch.zeros(1, dtype=torch.int64)
        with suppress(RuntimeError):  # only loader processes that outlive an epoch need it shared; ours do not
            self._epoch.share_memory_()
        self._threads_are_set = False
        if lidar and lidar.sweeps:
            scene = self.dataset.scene(self.sample(0).scene)
            if len(self._lidar_records(len(scene.samples) - 1, lidar)) == 1:
                message = "%s: %s has no LiDAR sweeps between its keyframes; teacher.lidar.sweeps = %d adds nothing"
                logger.warning(message, self.dataset.root, scene.name, lidar.sweeps)

    def __len__(self) -> int:
        return len(self.positions)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that, with the seed and the position, decides the augmentation."""
        self._epoch.fill_(epoch)

    def scene_names(self) -> list[str]:
        """Name the scene of every position."""
        names = {i: scene.name for scene in self.dataset.scenes for i in scene.samples}
        return [names[i] for i in self.positions]

    def sample(self, position: int) -> Sample:
        """Return the sample at a position."""
        return self.dataset[self.positions[position]]

    def unaugmented(self) -> FrameDataset:
        """Return the same frames without augmentation."""
        plain = copy.copy(self)
        plain.augment = None
        return plain

    def fit(self, sample: Sample) -> dict[str, ImageFit]:
        """Fit the images of a sample without augmentation, by camera."""
        fits = fit_images(sample.rig(self.cameras), self.image.size, self.image.margin)
        return {name: fit.widen(self.border) for name, fit in fits.items()} if self.border else fits

    def draw(self, position: int, fits: dict[str, ImageFit]) -> tuple[Change, dict[str, ImageFit]]:
        """Draw the change of the world at a position in this epoch, and how its images are fitted, not by `fits`."""
        epoch = int(self._epoch)
        if self.augment is None:
            return Change(), fits
        return self.augment.draw(epoch, position), self.augment.draw_fits(fits, epoch, position)

    def read_labels(self, position: int) -> tuple[Bytes, Flags]:
        """Return labels `[6, Y, X]` and known `[6]` without augmentation; no image is read."""
        return self.read_changed_labels(position, Change())

    def read_changed_labels(self, position: int, change: Change) -> tuple[Bytes, Flags]:
        """Return labels `[6, Y, X]` of the changed world, and known `[6]`; no image is read."""
        position = self.positions[position]
        raster = self.maps[self.dataset.scene_of(position).location]
        if self._cache is not None and any(raster.known) and np.array_equal(change.world, np.eye(4)):
            labels = self._cache.read(position)
        else:
            labels = change.rasterise(raster, self.dataset.global_T_ego(position), self.grid)
        return labels, np.array(raster.known)

    def _lidar_records(self, position: int, lidar: LidarConfig) -> list[SensorRecord]:
        """Return the keyframe's record, then those of earlier sweeps.

        Sweeps are left out where their folder is absent. A single missing file is still an error when it is read.
        """
        keyframe, *earlier = self.dataset.lidar_sweeps(self.positions[position], lidar.sweeps)
        return [keyframe, *(record for record in earlier if record.is_keyframe or record.path.parent.is_dir())]

    def _read_points(self, position: int, lidar: LidarConfig) -> NDArray[np.float32]:
        """Return points `[n, 5]` as in `Frame`, without augmentation."""
        records = self._lidar_records(position, lidar)
        sweeps = [read_lidar(record.path) for record in records]
        return merge_sweeps(records, sweeps, lidar.ego_radius, lidar.mount, keep_close=lidar.close == "earlier")

    def __getitem__(self, position: int) -> Frame:
        if get_worker_info() is not None and not self._threads_are_set:
            cv2.setNumThreads(0)  # loader processes share the cores already
            self._threads_are_set = True
        sample = self.sample(position)
        change, fits = self.draw(position, self.fit(sample))
        images = [sample.record(name).read_image(fit=fit) for name, fit in fits.items()]
        points = self._read_points(position, self.lidar) if self.lidar else None
        labels, known = self.read_changed_labels(position, change)
        return make_frame(sample, fits, images, points, change, labels, known)


def make_frame(
    sample: Sample,
    fits: Mapping[str, ImageFit],
    images: Sequence[Image],
    points: NDArray[np.float32] | None,
    change: Change,
    labels: Bytes,
    known: Flags,
) -> Frame:
    """Assemble the frame of a sample and apply `change` to it.

    `images` are fitted, RGB, one `[h, w, 3]` per entry of `fits`; `points` `[n, 5]` are as `merge_sweeps` returns them.
    `labels` and `known` are those of the changed world already.
    """
    rig = sample.rig(tuple(fits))
    pixels = to_planes(change.images(np.stack(images)))
    intrinsics = fit_intrinsics(rig, fits.values())
    ego_T_cam = np.stack([camera.ego_T_cam for camera in rig.cameras])
    if points is not None:
        points = move(change.world, points)
    return Frame(
        images=torch.from_numpy(pixels),
        intrinsics=torch.from_numpy(change.intrinsics(intrinsics, pixels.shape[-1])).float(),
        ego_T_cam=torch.from_numpy(change.ego_T_cam(ego_T_cam)).float(),
        labels=torch.from_numpy(np.ascontiguousarray(labels)),
        known=torch.from_numpy(known),
        token=sample.token,
        points=None if points is None else torch.from_numpy(points),
    )
