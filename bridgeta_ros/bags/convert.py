"""Conversion of a nuScenes scene to a ROS 2 bag, without ROS.

It keeps what other converters lose: the original JPEG bytes of every sweep at their true stamps, a CameraInfo per
image, /tf_static for late subscribers, and the ground-truth grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.dataset import Dataset, open_dataset
from bridgeta_core.data.maps.expansion import expansion_path
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.data.pointcloud import read_lidar
from bridgeta_core.data.sample import LIDAR, SensorRecord
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.image_decoder import is_truncated
from bridgeta_core.geometry.image_header import NAMES, read_header, require_size
from bridgeta_core.geometry.rig import Camera
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.misplaced import find_misplaced
from bridgeta_ros.bags.io import BagWriter, Distro, Storage, create_bag, make_qos, progress_bar
from bridgeta_ros.pipeline import messages, topics

MAP_FRAME, BASE_FRAME = "map", "base_link"
LIDAR_TOPIC = f"/{LIDAR.lower()}/points"


@dataclass(frozen=True)
class SceneBagSettings:
    """What goes into the bag of a scene, and how it is stored."""

    storage: Storage = "mcap"
    distro: Distro = "jazzy"  # the oldest ROS 2 that has to read it
    keyframes_only: bool = False  # leave out the sweeps between keyframes
    lidar: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class BagContent:
    """What was written to a bag."""

    path: Path
    counts: dict[str, int]  # messages by topic
    seconds: float  # from the first message to the last
    remarks: tuple[str, ...]  # for the user


def write_scene_bag(
    root: Path,
    version: str,
    scene: str,
    out: Path,
    settings: SceneBagSettings | None = None,
    *,
    source: str = "nuscenes",
    progress: bool = True,
) -> BagContent:
    """Write a scene of a root, which `source` reads as in `open_dataset`, as the bag folder `out`.

    It holds all camera sweeps (12 Hz) with their CameraInfo, the LiDAR, map -> base_link from the ego poses, the
    sensors' poses on /tf_static, and at each keyframe the map classes on the default grid, if the city's map expansion
    is there. A class that the city's map lacks is unknown (-1).

    Raises BridgeTAError for an unknown scene, a missing or truncated file (named), and an output that exists.
    """
    settings = settings or SceneBagSettings()
    dataset = open_dataset(source, root, version)
    location = dataset.scene(scene).location
    records = [
        record
        for record in dataset.records(scene, keyframes_only=settings.keyframes_only)
        if record.intrinsics is not None or (settings.lidar and record.channel == LIDAR)
    ]
    if not records:
        raise BridgeTAError("has no camera or LiDAR files", where=f"scene {scene}")
    remarks = []
    raster = None
    if _has_map(dataset, location):
        raster = dataset.raster(location, LabelConfig())
        unknown = [cls.name for cls, known in zip(CLASSES, raster.known, strict=True) if not known]
        if unknown:
            remarks.append(f"{', '.join(unknown)}: nothing in the map of {location}, so unknown (-1)")
    else:
        remarks.append(f"no ground-truth grids: {dataset.root} has no map expansion of {location}")
    samples = [dataset[i] for i in dataset.scene(scene).samples] if raster else []
    stamps = [_ns(r.stamp_us) for r in records] + [_ns(s.stamp_us) for s in samples]
    with (
        create_bag(out, settings.storage, settings.distro, settings.overwrite, [dataset.root]) as (bag, _),
        progress_bar(progress) as bar,
    ):
        writer = _SceneWriter(bag, records, BevGrid())
        writer.write_static(min(stamps))
        jobs: list[tuple[int, int, SensorRecord | int]] = [(_ns(r.stamp_us), 0, r) for r in records]
        jobs += [(_ns(s.stamp_us), 1, i) for i, s in enumerate(samples)]
        for ns, _, job in bar.track(sorted(jobs, key=lambda j: j[:2]), description="bag"):
            if isinstance(job, SensorRecord):
                writer.write_record(ns, job)
            elif raster is not None:
                writer.write_ground_truth(ns, raster, samples[job].global_T_ego)
    return BagContent(Path(out), writer.counts, (max(stamps) - min(stamps)) / 1e9, tuple(remarks))


def _has_map(dataset: Dataset, location: str) -> bool:
    """Tell whether there is a map, in its place or in another one, which is an error that says so."""
    if not isinstance(dataset, NuScenesDataset):
        return True
    expansion = expansion_path(dataset.root, location)
    return expansion.exists() or find_misplaced(dataset.root, str(expansion.relative_to(dataset.root))) is not None


def _ns(stamp_us: int) -> int:
    return 1000 * stamp_us


class _SceneWriter:
    """Writes the records of one scene as messages of one bag."""

    def __init__(self, bag: BagWriter, records: Sequence[SensorRecord], grid: BevGrid) -> None:
        self._bag, self._grid = bag, grid
        self._sensors = {r.channel: r for r in reversed(records)}  # the first record of each channel
        self._last_pose: int | None = None  # stamp of the ego pose written last
        self.counts: dict[str, int] = {}

    def _write(self, topic: str, msgtype: str, ns: int, message: object, latched: bool = False) -> None:
        if topic not in self.counts:
            self._bag.add_topic(topic, msgtype, make_qos(latched=True, depth=1) if latched else None)
        self._bag.write(topic, ns, message)
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def write_static(self, ns: int) -> None:
        """Write the poses of the sensors in one message."""
        links = [
            (ns, BASE_FRAME, channel.lower(), record.ego_T_sensor) for channel, record in sorted(self._sensors.items())
        ]
        self._write(
            topics.TF_STATIC, topics.TF_MESSAGE, ns, messages.make_tf_message(self._bag.factory, links), latched=True
        )

    def write_record(self, ns: int, record: SensorRecord) -> None:
        """Write the ego pose at the record's stamp, then what the sensor saw."""
        make, frame = self._bag.factory, record.channel.lower()
        if ns != self._last_pose:
            pose = messages.make_tf_message(make, [(ns, MAP_FRAME, BASE_FRAME, record.global_T_ego)])
            self._write(topics.TF, topics.TF_MESSAGE, ns, pose)
            self._last_pose = ns
        if record.intrinsics is None:
            cloud = messages.make_point_cloud(make, read_lidar(record.path), ns, frame)
            self._write(LIDAR_TOPIC, topics.POINT_CLOUD, ns, cloud)
            return
        camera = Camera(record.channel, record.width, record.height, record.intrinsics, record.ego_T_sensor)
        info = messages.make_camera_info(make, camera, ns, frame)
        self._write(topics.to_info_topic(record.channel), topics.CAMERA_INFO, ns, info)
        data, kind = _read_image(record)
        image = messages.make_compressed_image(make, data, ns, frame, kind)
        self._write(topics.to_image_topic(record.channel), topics.COMPRESSED, ns, image)

    def write_ground_truth(self, ns: int, raster: MapRaster, global_T_ego: np.ndarray) -> None:
        """Write a grid per class: 100 where the map has it, 0 elsewhere; all -1 for a class that the map lacks."""
        for cls, mask, known in zip(CLASSES, raster.rasterise(global_T_ego, self._grid), raster.known, strict=True):
            values = mask.astype(np.int8) * 100 if known else np.full(mask.shape, messages.UNKNOWN, dtype=np.int8)
            grid = messages.make_occupancy_grid(self._bag.factory, values, self._grid, ns, BASE_FRAME)
            self._write(f"{topics.GROUND_TRUTH}/{cls.name}", topics.OCCUPANCY_GRID, ns, grid, latched=True)


def _read_image(record: SensorRecord) -> tuple[bytes, str]:
    """Return the bytes of an image file and their format; only its header and its end are looked at."""
    data = record.read_bytes()
    try:
        header = read_header(data)
        require_size((header.width, header.height), (record.width, record.height))
        if is_truncated(data, header):
            raise BridgeTAError(f"{NAMES[header.kind]} of {len(data)} bytes is truncated")
    except BridgeTAError as error:
        raise BridgeTAError(error.what, where=record.path, fix="Extract or write this file again") from None
    return data, header.kind
