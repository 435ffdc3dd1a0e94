"""A small vehicle, its bags, and a network that can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mcap.reader import make_reader
from mcap.writer import Writer

from bridgeta_core.config.experiment import StudentConfig, from_mapping
from bridgeta_core.deploy.weights import WeightsInfo
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import fit_images
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.geometry.transforms import ImageFit, rigid
from bridgeta_ros.bags.io import create_bag, make_qos
from bridgeta_ros.pipeline import messages, topics

GRID = BevGrid(-10, 10, -8, 8, 1.0)
SIZE = (160, 90)
# A camera that looks ahead, level, 1.5 m above the ground: optical z is x, optical x is -y.
AHEAD = rigid((0.0, 0.0, 1.5), (0.5, -0.5, 0.5, -0.5))
BACK = rigid((0.0, 0.0, 1.5), (0.5, -0.5, -0.5, 0.5))
K = np.array([[80.0, 0, 79.5], [0, 80.0, 44.5], [0, 0, 1]])
RIG = Rig((Camera("cam_front", *SIZE, K, AHEAD), Camera("cam_back", *SIZE, K, BACK)))
START = 1_700_000_000_000_000_000
MS = 1_000_000


class FakeRuntime:
    """Gives every cell of class c the mean brightness of image c modulo N as its probability."""

    name = "fake"

    def __init__(self, cameras: Sequence[str] = ("CAM_FRONT", "CAM_BACK"), grid: BevGrid = GRID) -> None:
        model = from_mapping(StudentConfig, {"image": {"width": 64, "height": 32, "margin": 1.0}})
        self.info = WeightsInfo(model, grid, CLASS_NAMES, tuple(cameras))
        self.grid = grid
        self.rigs: list[Rig] = []

    def fits(self, rig: Rig) -> tuple[ImageFit, ...]:
        return tuple(fit_images(rig, (64, 32), 1.0).values())

    def warm_up(self, rig: Rig) -> None:
        self.rigs.append(rig)

    def infer(self, images: np.ndarray, rig: Rig) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.shape == (len(rig.cameras), 32, 64, 3)
        self.rigs.append(rig)
        means = images.mean(axis=(1, 2, 3)) / 255
        levels = np.resize(means, 6).astype(np.float32)
        return np.broadcast_to(levels[:, None, None], (6, *self.grid.shape)).copy()


def jpeg(brightness: int, size: tuple[int, int] = SIZE) -> bytes:
    return cv2.imencode(".jpg", np.full((size[1], size[0], 3), brightness, np.uint8))[1].tobytes()


def write_bag(
    path: Path,
    cycles: int = 6,
    *,
    rig: Rig = RIG,
    period: int = 83 * MS,
    start: int = START,
    image: Callable[[int, str], bytes | None] = lambda cycle, name: jpeg(100),
    make_image: Callable[..., Any] = messages.make_compressed_image,
    image_type: str = topics.COMPRESSED,
    suffix: str = "image/compressed",
    info: bool = True,
    tf: bool = True,
    truth: np.ndarray | None = None,
    truth_grid: BevGrid = GRID,
    **options: Any,
) -> Path:
    """Write a bag. Cameras fire 20 ms apart in each cycle; the newest stamp is a multiple of `period` after `start`.

    `image(cycle, camera)` gives the bytes, None for a lost image. `truth` [6, Y, X] is written once per cycle.
    """
    with create_bag(path, **options) as (bag, _):
        make = bag.factory
        bag.add_topic("/tf_static", topics.TF_MESSAGE, make_qos(latched=True, depth=1))
        bag.add_topic("/tf", topics.TF_MESSAGE)
        for camera in rig.cameras:
            bag.add_topic(f"/{camera.name}/{suffix}", image_type)
            bag.add_topic(f"/{camera.name}/camera_info", topics.CAMERA_INFO)
        for cls in messages.CLASSES if truth is not None else ():
            bag.add_topic(f"{topics.GROUND_TRUTH}/{cls.name}", topics.OCCUPANCY_GRID)
        first = start - 20 * MS * (len(rig.cameras) - 1)
        if tf:
            links = [(first, "base_link", c.name, c.ego_T_cam) for c in rig.cameras]
            bag.write("/tf_static", first, messages.make_tf_message(make, links))
        for cycle in range(cycles):
            end = start + cycle * period
            for i, camera in enumerate(rig.cameras):
                ns = end - 20 * MS * (len(rig.cameras) - 1 - i)
                data = image(cycle, camera.name)
                if data is None:
                    continue
                if info:
                    message = messages.make_camera_info(make, camera, ns, camera.name)
                    bag.write(f"/{camera.name}/camera_info", ns, message)
                bag.write(f"/{camera.name}/{suffix}", ns, make_image(make, data, ns, camera.name))
            pose = rigid((cycle, 0, 0), (1, 0, 0, 0))
            bag.write("/tf", end, messages.make_tf_message(make, [(end, "map", "base_link", pose)]))
            if truth is not None:
                for cls, values in zip(messages.CLASSES, truth, strict=True):
                    grid = messages.make_occupancy_grid(make, values, truth_grid, end, "base_link")
                    bag.write(f"{topics.GROUND_TRUTH}/{cls.name}", end, grid)
    return path


def rewrite(
    bag: Path,
    out: Path,
    schema: Callable[[str, str, bytes], tuple[str, str, bytes]] = lambda *schema: schema,
    extra: tuple[str, str, bytes, str] | None = None,
    metadata: dict[str, str] | None = None,
    **options,
) -> Path:
    """Write the messages of a bag's file anew; `schema` edits name, encoding and text, `extra` is one more topic."""
    schemas: dict[int, int] = {}
    channels: dict[int, int] = {}
    with next(bag.glob("*.mcap")).open("rb") as source, out.open("wb") as target:
        writer = Writer(target, **options)
        writer.start("ros2", "test")
        if extra is not None:
            name, encoding, text, message_encoding = extra
            channel = writer.register_channel("/extra", message_encoding, writer.register_schema(name, encoding, text))
            writer.add_message(channel, 1, b"\0\1\0\0\0", 1)
        for s, c, m in make_reader(source).iter_messages():
            if s.id not in schemas:
                schemas[s.id] = writer.register_schema(*schema(s.name, s.encoding, s.data))
            if c.id not in channels:
                channels[c.id] = writer.register_channel(c.topic, "cdr", schemas[s.id], metadata or {})
            writer.add_message(channels[c.id], m.log_time, m.data, m.publish_time)
        writer.finish()
    return out
