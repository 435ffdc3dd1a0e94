"""Synthetic frames straight as tensors: those that a FrameDataset gives of the written root, without writing it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from bridgeta_core.config.experiment import Experiment, ImageConfig, LabelConfig, LidarConfig
from bridgeta_core.data.augment import Augment, Change
from bridgeta_core.data.frames import Frame, make_frame
from bridgeta_core.data.pointcloud import merge_sweeps
from bridgeta_core.data.sample import Sample, SensorRecord
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import apply_fit, fit_images
from bridgeta_core.geometry.transforms import rigid
from bridgeta_core.utils.arrays import Ints
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import resolve_device
from bridgeta_synth import nuscenes as facts
from bridgeta_synth.dataset.records import Record, SceneRecords, SensorFile, make_calibrations
from bridgeta_synth.dataset.world import LruCache, World
from bridgeta_synth.render.renderer import SceneRenderer
from bridgeta_synth.settings import SynthSettings


@dataclass(frozen=True, eq=False)
class _OpenScene:
    """A scene ready to be rendered: its samples, and each sensor's times in seconds since the first keyframe."""

    renderer: SceneRenderer
    samples: list[Sample]
    times: list[dict[str, float]]
    tags: tuple[str, ...]


class SyntheticFrames(Dataset[Frame]):
    """The keyframes of a synthetic world as frames on a device, rendered on access.

    The frames equal those that a FrameDataset gives of the root that `write_dataset` writes from the same settings, in
    the same order, but for the losses of JPEG. `cameras` are channels in the order of the network's camera axis. With
    `lidar` frames have the keyframe's points; earlier sweeps, which are not rendered, must be off. The `open_scenes`
    scenes used last stay ready; `SceneShuffle` gives an order that makes use of it.
    """

    def __init__(
        self,
        settings: SynthSettings,
        image: ImageConfig,
        grid: BevGrid,
        cameras: Sequence[str] = tuple(facts.CAMERA_OF),
        device: str | torch.device = "cpu",
        lidar: LidarConfig | None = None,
        augment: Augment | None = None,
        open_scenes: int = 4,
        labels: LabelConfig | None = None,
    ) -> None:
        unknown = [name for name in cameras if name not in facts.CAMERA_OF]
        if unknown or not cameras:
            problem = f"there is no camera {', '.join(unknown)}" if unknown else "no cameras are chosen"
            raise BridgeTAError(problem, fix=f"Choose among {', '.join(facts.CAMERA_OF)}", exit_code=2)
        if lidar and not settings.lidar:
            raise BridgeTAError("points need settings with lidar", exit_code=2)
        if lidar and lidar.sweeps:
            raise BridgeTAError(
                f"frames rendered on access have keyframes only, not {lidar.sweeps} LiDAR sweeps",
                fix="Set teacher.lidar.sweeps=0, or write the dataset with `bridgeta synth` and train on it",
                exit_code=2,
            )
        self.settings, self.image, self.grid = settings, image, grid
        self.cameras, self.device = tuple(cameras), resolve_device(device)
        self.lidar, self.augment, self.open_scenes = lidar, augment, open_scenes
        self.world = World(settings, labels=labels)
        self._open_scene = LruCache(self._prepare, open_scenes)
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # seen by loader processes that live on

    def __len__(self) -> int:
        return self.settings.scenes * self.settings.keyframes

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that, with the seed and the position, decides the augmentation."""
        self._epoch.fill_(epoch)

    def build_towns(self) -> None:
        """Build all towns now rather than when one of their scenes is first opened; loader processes share them."""
        for city in range(len(self.world.locations)):
            self.world.raster(city)

    def scene_of(self, position: int) -> int:
        """Return the number of the scene that a position is in."""
        return position // self.settings.keyframes

    def tags(self, position: int) -> tuple[str, ...]:
        """Return which of the words `night` and `rain` describe the sample's scene, to split results by."""
        return self._open_scene(self.scene_of(position)).tags

    def sample(self, position: int) -> Sample:
        """Return the sample at a position; the paths of its records are those in the written root."""
        return self._open_scene(self.scene_of(position)).samples[position % self.settings.keyframes]

    def __getitem__(self, position: int) -> Frame:
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        scene, keyframe = divmod(position % len(self), self.settings.keyframes)
        opened = self._open_scene(scene)
        sample, times = opened.samples[keyframe], opened.times[keyframe]
        epoch, change = int(self._epoch), Change()
        fits = fit_images(sample.rig(self.cameras), self.image.size, self.image.margin)
        if self.augment:
            change, fits = self.augment.draw(epoch, position), self.augment.draw_fits(fits, epoch, position)
        views = opened.renderer.render_cameras([(facts.CAMERA_OF[name], times[name]) for name in self.cameras])
        images = [apply_fit(view.image, fit) for view, fit in zip(views, fits.values(), strict=True)]
        points = None
        if self.lidar:
            sweep = opened.renderer.render_sweep(times[facts.LIDAR_CHANNEL])
            lidar, record = self.lidar, sample.record(facts.LIDAR_CHANNEL)
            points = merge_sweeps([record], [sweep], lidar.ego_radius, lidar.mount, lidar.close == "earlier")
        raster = self.world.raster(self.world.city_of(scene))
        masks = change.rasterise(raster, sample.global_T_ego, self.grid)
        frame = make_frame(sample, fits, images, points, change, masks, np.array(raster.known))
        return frame.to(self.device)

    def _prepare(self, index: int) -> _OpenScene:
        scene = self.world.make_scene(index)
        records = self.world.make_records(scene)
        location = records.log.location
        mounts = dict(zip(self.settings.channels, make_calibrations(self.settings, location), strict=True))
        samples: list[dict[str, SensorRecord]] = [{} for _ in range(self.settings.keyframes)]
        times: list[dict[str, float]] = [{} for _ in samples]
        for channel in self.settings.channels:
            for file in records.iter_files(channel):
                if file.keyframe is not None:
                    samples[file.keyframe][channel] = self._record(records, file, mounts[channel])
                    times[file.keyframe][channel] = file.time
        description = scene.describe().lower()
        return _OpenScene(
            self.world.make_renderer(scene, self.device),
            [
                Sample(table["token"], records.name, location, table["timestamp"], sensors)
                for table, sensors in zip(records.make_samples(), samples, strict=True)
            ],
            times,
            tuple(word for word in ("night", "rain") if word in description),
        )

    def _record(self, records: SceneRecords, file: SensorFile, mount: Record) -> SensorRecord:
        """Make a sensor's record as reading the tables gives it, quaternions included."""
        is_camera = file.channel in facts.CAMERA_OF
        width, height = self.settings.image_size if is_camera else (0, 0)
        return SensorRecord(
            channel=file.channel,
            path=Path(file.path),
            stamp_us=file.stamp,
            is_keyframe=True,
            token=records.file_token(file),
            width=width,
            height=height,
            intrinsics=np.array(mount["camera_intrinsic"]) if is_camera else None,
            ego_T_sensor=rigid(mount["translation"], mount["rotation"]),
            global_T_ego=records.stored_ego_pose(file.time),
        )


class FreshTowns:
    """Ever new towns, each as a list of frames: what training takes with `data.source=synthetic`.

    A town has `fresh.drives` scenes of `fresh.frames` frames. It depends on `seed` and its number alone. Four towns are
    the cities of one synthetic dataset of a `split`, so none of them is in a dataset of another split.
    """

    def __init__(
        self, experiment: Experiment, lidar: LidarConfig | None, augment: Augment, split: str = "train"
    ) -> None:
        """Raise BridgeTAError (exit code 2) as `SyntheticFrames`."""
        self.experiment, self.lidar, self.augment, self.split = experiment, lidar, augment, split
        self._open(0)  # refuse settings before training starts

    @classmethod
    def build(cls, experiment: Experiment, lidar: LidarConfig | None, augment: Augment) -> FreshTowns:
        """Make the towns of an experiment, augmented as they are rendered."""
        return cls(experiment, lidar, augment)

    @property
    def size(self) -> int:
        """Number of frames of a town."""
        return self.experiment.data.fresh.drives * self.experiment.data.fresh.frames

    def __getitem__(self, town: int) -> list[Frame]:
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # loader processes share the cores already
        frames, fresh = self._open(town), self.experiment.data.fresh
        cities = len(frames.world.locations)
        keyframes = np.linspace(0, frames.settings.keyframes - 1, fresh.frames).round().astype(int).tolist()
        return [
            frames[scene * frames.settings.keyframes + keyframe].to("cpu")
            for scene in range(town % cities, frames.settings.scenes, cities)
            for keyframe in keyframes
        ]

    def _open(self, town: int) -> SyntheticFrames:
        experiment, fresh = self.experiment, self.experiment.data.fresh
        group, cities = town // len(facts.LOCATIONS), len(facts.LOCATIONS)
        # A stream of its own, so that these seeds are not those that people type.
        seed = np.random.SeedSequence((experiment.train.seed, group), spawn_key=(1,)).generate_state(1)[0]
        image = experiment.model.image
        settings = SynthSettings(
            scenes=cities * fresh.drives,
            seed=int(seed),
            split=self.split,
            duration=fresh.duration,
            image_scale=min(1.0, image.width * image.margin / facts.IMAGE_SIZE[0]),
        )
        frames = SyntheticFrames(
            settings,
            image,
            experiment.grid,
            experiment.data.cameras,
            fresh.device,
            self.lidar,
            self.augment,
            open_scenes=1,
            labels=experiment.labels,
        )
        frames.set_epoch(town)
        return frames


class SceneShuffle(Sampler[int]):
    """All positions of synthetic frames in a random order that prepares every scene once.

    Scenes come in random groups of `frames.open_scenes`, which stay ready together; the frames of a group are shuffled.
    With `workers` loader processes, which take turns in batches of `batch_size`, the scenes are divided so that every
    process has groups of its own. The order depends on the seed and the epoch alone.
    """

    def __init__(self, frames: SyntheticFrames, seed: int = 0, batch_size: int = 1, workers: int = 1) -> None:
        self.frames, self.seed, self.batch_size, self.workers = frames, seed, batch_size, max(1, workers)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that, with the seed, decides the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        scenes = rng.permutation(self.frames.settings.scenes)
        streams = deque(iter(self._positions(scenes[worker :: self.workers], rng)) for worker in range(self.workers))
        while streams:
            stream = streams.popleft()
            batch = list(islice(stream, self.batch_size))
            yield from batch
            if batch:
                streams.append(stream)

    def _positions(self, scenes: Ints, rng: np.random.Generator) -> list[int]:
        """Shuffle the positions of some scenes within groups."""
        keyframes, size = self.frames.settings.keyframes, self.frames.open_scenes
        result: list[int] = []
        for start in range(0, len(scenes), size):
            group = scenes[start : start + size]
            result += rng.permutation((group[:, None] * keyframes + np.arange(keyframes)).ravel()).tolist()
        return result
