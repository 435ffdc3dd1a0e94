"""The moments of a replay that are shown: its grids, the images they were made of, and the ground truth."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES, THRESHOLD
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import Image
from bridgeta_core.geometry.rig import Camera, Rig
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.clocks import read_stamp
from bridgeta_ros.bags.io import BagReader, open_bag, progress_bar
from bridgeta_ros.bags.replay import RIG_NAME
from bridgeta_ros.bags.storage.topic import RecordedTopic
from bridgeta_ros.bags.summary import FILE_NAME, ReplaySummary, read_grid
from bridgeta_ros.pipeline import messages, topics
from bridgeta_ros.pipeline.images import EncodedImage, RawImage, decode_image, image_from_message
from bridgeta_ros.pipeline.sync import Synchroniser

_TOLERANCE = 60_000_000  # ns by which a ground truth may be younger than the moment beside which it is shown
_QUALITY = 80  # of the JPEGs in which images are kept

Values = NDArray[np.int8]  # occupancy `[6, Y, X]`: 0 to 100 %, -1 unknown


@dataclass(frozen=True, eq=False)
class Moment:
    """One set: its place among all sets, its values, and an image per camera of the rig, as JPEG.

    `truth` is the newest ground truth, and `age` its seconds; None where there is none so far.
    """

    stamp_ns: int
    position: int
    values: Values
    images: Sequence[bytes]
    truth: int | None = None
    age: float = 0.0

    @property
    def is_scored(self) -> bool:
        """Whether the ground truth is of this moment, and not of one before."""
        return self.truth is not None and abs(self.age) <= _TOLERANCE / 1e9


@dataclass(frozen=True, eq=False)
class ShownReplay:
    """What is shown of a replay. `truths` `[6, Y, X]` are those that the moments name, by stamp in nanoseconds."""

    summary: ReplaySummary
    rig: Rig
    grid: BevGrid
    moments: Sequence[Moment]
    truths: Mapping[int, Values]

    @property
    def thresholds(self) -> list[float]:
        """The probability of each class from which it shows."""
        return [self.summary.thresholds.get(name, THRESHOLD) for name in CLASS_NAMES]


def read_moments(replayed: Path, source: Path, most: int, width: int, *, progress: bool = True) -> ShownReplay:
    """Read at most `most` moments, evenly spread, of the bag `replayed` that was made of the bag `source`.

    Images are resized to `width` pixels. Raises BridgeTAError when one of the bags is missing, and when they do not
    belong together.
    """
    summary = ReplaySummary.load(replayed / FILE_NAME)
    rig = Rig.load(replayed / RIG_NAME)
    if set(rig.names) != summary.cameras.keys():
        raise BridgeTAError(
            f"has the cameras {', '.join(rig.names)}, {FILE_NAME} has {', '.join(summary.cameras)}",
            where=replayed / RIG_NAME,
            fix="Replay the bag again",
        )
    grid = BevGrid(**summary.grid)
    places = np.unique(np.linspace(0, summary.used - 1, min(most, summary.used)).round().astype(int))
    parts = {summary.stamps[i]: _Parts(int(i)) for i in places}
    truths = _Truths(list(parts))
    with open_bag(replayed) as results, open_bag(source) as inputs, progress_bar(progress) as bar:
        grid_topics = {f"{topics.BEV}/{name}" for name in CLASS_NAMES}
        image_topics = {topic: name for name, topic in summary.cameras.items()}
        source_topics = {*inputs.find_truths(), *image_topics}
        grids, images = results.count(grid_topics), inputs.count(source_topics)
        task = bar.add_task("report", total=None if grids is None or images is None else grids + images)
        for topic, _, data in results.raw(grid_topics):
            bar.advance(task)
            message = results.decode(topic, data)
            found = parts.get(messages.stamp_to_ns(message.header))
            values = read_grid(message, grid) if found is not None else None
            if found is not None and values is not None:
                found.values[topic.topic.rpartition("/")[2]] = values
        sync: Synchroniser[EncodedImage | RawImage] = Synchroniser(list(summary.cameras), round(summary.slop * 1e9))
        for topic, time, data in inputs.raw(source_topics):
            bar.advance(task)
            if topic.topic in image_topics:
                for stamp, pictures in _add_image(inputs, topic, time, data, image_topics, sync, parts.keys()):
                    parts[stamp].images = [_shrink(pictures[camera.name], camera, width) for camera in rig.cameras]
                continue
            try:
                message = inputs.decode(topic, data)
                stamp = messages.stamp_to_ns(message.header)
            except BridgeTAError:  # counted by the replay
                continue
            values = read_grid(message, grid)
            if values is not None:
                truths.add(stamp, topic.topic.rpartition("/")[2], values)
    complete = {stamp: part for stamp, part in parts.items() if part.images and len(part.values) == len(CLASSES)}
    if not complete:
        raise BridgeTAError(
            f"has none of the images of {replayed}", where=source, fix="Give the bag that was replayed", exit_code=2
        )
    moments = [_make_moment(stamp, part, grid, truths) for stamp, part in sorted(complete.items())]
    named = {moment.truth for moment in moments}
    shown = {stamp: _stack(layers, grid) for stamp, layers in truths.grids.items() if stamp in named}
    return ShownReplay(summary, rig, grid, moments, shown)


@dataclass
class _Parts:
    """What is known of a moment so far."""

    position: int
    values: dict[str, Values] = field(default_factory=dict)  # by class, [Y, X]
    images: list[bytes] = field(default_factory=list)


class _Truths:
    """Keeps, of a recording's ground-truth grids, the newest for each of some stamps in nanoseconds."""

    def __init__(self, stamps: Sequence[int]) -> None:
        self.grids: dict[int, dict[str, Values]] = {}  # by stamp and class
        self._newest = dict.fromkeys(stamps, -1)

    def add(self, ns: int, name: str, values: Values) -> None:
        """Take one class's values `[Y, X]`, unless a newer grid is there for every stamp."""
        for stamp, newest in self._newest.items():
            if newest <= ns <= stamp + _TOLERANCE:
                self._newest[stamp] = ns
        if ns in self._newest.values():
            self.grids.setdefault(ns, {})[name] = values.copy()
            self.grids = {stamp: grid for stamp, grid in self.grids.items() if stamp in self._newest.values()}


def _make_moment(stamp: int, part: _Parts, grid: BevGrid, truths: _Truths) -> Moment:
    truth = max((ns for ns in truths.grids if ns <= stamp + _TOLERANCE), default=None)
    age = 0.0 if truth is None else (stamp - truth) / 1e9
    return Moment(stamp, part.position, _stack(part.values, grid), part.images, truth, age)


def _stack(layers: Mapping[str, Values], grid: BevGrid) -> Values:
    unknown = np.full(grid.shape, messages.UNKNOWN, dtype=np.int8)
    return np.stack([layers.get(name, unknown) for name in CLASS_NAMES])


def _add_image(
    source: BagReader,
    topic: RecordedTopic,
    time: int,
    data: bytes,
    names: Mapping[str, str],
    sync: Synchroniser[EncodedImage | RawImage],
    wanted: Container[int],
) -> list[tuple[int, Mapping[str, EncodedImage | RawImage]]]:
    """Add an image to its set; return the complete sets, by stamp, that are wanted."""
    try:
        message = source.decode(topic, data)
        stamp = read_stamp(message, time)
    except BridgeTAError:  # counted by the replay
        return []
    complete = sync.add(names[topic.topic], stamp, image_from_message(message))
    return [(images.newest_ns, images.items) for images in complete if images.newest_ns in wanted]


def _shrink(image: EncodedImage | RawImage, camera: Camera, width: int) -> bytes:
    reduction = next(r for r in (4, 2, 1) if r == 1 or camera.width // r >= width)
    picture: Image = decode_image(image, (camera.width, camera.height), reduction)
    size = (width, max(1, round(width * picture.shape[0] / picture.shape[1])))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
