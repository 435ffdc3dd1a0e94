"""Decoded frames on disk, so that loading a batch costs next to nothing, and a teacher's taps beside them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch.utils.data import Dataset, Subset

from bridgeta_core.config.experiment import LidarConfig
from bridgeta_core.data.frames import Frame, FrameDataset
from bridgeta_core.data.loader import make_loader
from bridgeta_core.model.student import Taps
from bridgeta_core.training.cache.arrays import Arrays, ArrayWriter
from bridgeta_core.training.cache.key import hash_frames, hash_points, hash_taps
from bridgeta_core.training.cache.taps import FrameWithTaps, collate_with_taps
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.names import make_name
from bridgeta_core.utils.outputs import build_once, discard

logger = logging.getLogger(__name__)

_ARRAYS = {
    "frames": ("images", "intrinsics", "ego_T_cam", "known", "masks"),
    "points": ("points",),
    "taps": Taps._fields,
}
"""The arrays in the folders of each kind."""


@dataclass
class _Scene:
    """Positions of a scene's frames in the dataset, and its folders by kind: frames, points, taps."""

    name: str
    positions: range
    folders: dict[str, Path] = field(default_factory=dict)


class CachedFrames(Dataset[Frame]):
    """The unaugmented frames of a dataset from memory-mapped arrays in `folder`, which are built on first use.

    There is one folder of arrays per scene and kind, named by a hash of all that they depend on. So runs on other
    scenes, label budgets or teachers share what they have in common, several processes may build at once, and a build
    that breaks off resumes. A folder that lacks something is built again. `add_points` and `add_taps` give frames their
    points or a teacher's taps.
    """

    def __init__(
        self, frames: FrameDataset, folder: str | Path, *, workers: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self._frames, self._folder = copy.copy(frames), Path(folder)
        self._frames.augment = self._frames.lidar = None
        self._workers, self._rank, self._world = workers, rank, world
        self._scenes: list[_Scene] = []
        for position, name in enumerate(frames.scene_names()):
            if not self._scenes or self._scenes[-1].name != name:
                self._scenes.append(_Scene(name, range(position, position)))
            scene = self._scenes[-1]
            scene.positions = range(scene.positions.start, position + 1)
        self._place = [(s, row) for s, scene in enumerate(self._scenes) for row in range(len(scene.positions))]
        self._tokens = [frames.dataset.tokens[i].decode() for i in frames.positions]
        self._open: dict[int, dict[str, Arrays]] = {}
        self._keys = [hash_frames(self._frames, scene.positions) for scene in self._scenes]
        self._build("frames", self._keys, self._write_frames)

    def add_points(self, lidar: LidarConfig) -> None:
        """Give frames the points that a dataset with `lidar` gives them."""
        keys = [hash_points(self._frames, scene.positions, lidar) for scene in self._scenes]

        def write(scene: _Scene, writer: ArrayWriter) -> None:
            for frame in self._decode(scene, lidar, batch_size=None):
                writer.write_ragged("points", frame.points.numpy())

        self._build("points", keys, write)

    def add_taps(self, teacher: Callable[[Any], Taps], sha256: str, lidar: LidarConfig, size: int) -> None:
        """Give frames the taps of a teacher in float16, computed in batches of `size`.

        `teacher` takes a batch with points; `sha256` is the hash of its file.
        """
        keys = [
            hash_taps(frames, hash_points(self._frames, scene.positions, lidar), sha256)
            for frames, scene in zip(self._keys, self._scenes, strict=True)
        ]

        def write(scene: _Scene, writer: ArrayWriter) -> None:
            for batch in self._decode(scene, lidar, batch_size=size, collate_fn=collate_with_taps):
                taps = teacher(batch)
                for row in range(len(batch.tokens)):
                    writer.write({name: _to_half(tap[row]) for name, tap in taps._asdict().items()})

        self._build("taps", keys, write)

    def _write_frames(self, scene: _Scene, writer: ArrayWriter) -> None:
        for frame in self._decode(scene, None, batch_size=None):
            values = {name: getattr(frame, name).numpy() for name in ("images", "intrinsics", "ego_T_cam", "known")}
            writer.write({**values, "masks": np.packbits(frame.labels.numpy())})

    def _decode(self, scene: _Scene, lidar: LidarConfig | None, **options: Any) -> Iterator[Any]:
        frames = copy.copy(self._frames)
        frames.lidar = lidar
        subset = Subset(frames, scene.positions)
        yield from make_loader(subset, min(self._workers, len(scene.positions)), **options)

    def _build(self, kind: str, keys: list[str], write: Callable[[_Scene, ArrayWriter], None]) -> None:
        """Build the missing folders of a kind."""
        for scene, key in zip(self._scenes, keys, strict=True):
            scene.folders[kind] = self._folder / f"{make_name(scene.name)}-{kind}-{key}"
        self._open.clear()
        missing = [scene for scene in self._scenes if not _is_whole(scene, kind)]
        # Every process starts at another scene and goes round, so that they meet only at the end.
        start = self._rank * len(missing) // self._world
        # Loaders draw random numbers: a run whose cache is there already must begin with the same ones as this.
        with (
            torch.random.fork_rng(devices=[]),
            Progress(transient=True, disable=self._rank > 0 or not missing) as bar,
        ):
            for scene in bar.track(missing[start:] + missing[:start], description=f"Caching {kind}"):
                if not scene.folders[kind].is_dir():
                    with (
                        build_once(scene.folders[kind]) as folder,
                        ArrayWriter(folder, len(scene.positions)) as writer,
                    ):
                        write(scene, writer)

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, position: int) -> Frame:
        number, row = self._place[position]
        if number not in self._open:
            self._open[number] = {kind: Arrays(folder) for kind, folder in self._scenes[number].folders.items()}
        opened = self._open[number]
        parts = {name: torch.from_numpy(opened["frames"].read(name, row)) for name in _ARRAYS["frames"]}
        shape = (len(parts["known"]), *self._frames.grid.shape)
        masks = np.unpackbits(parts.pop("masks").numpy(), count=int(np.prod(shape))).reshape(shape)
        frame = Frame(
            **parts,
            labels=torch.from_numpy(masks),
            token=self._tokens[position],
            points=torch.from_numpy(opened["points"].read("points", row)) if "points" in opened else None,
        )
        if "taps" not in opened:
            return frame
        taps = Taps(*(torch.from_numpy(opened["taps"].read(name, row)) for name in Taps._fields))
        return FrameWithTaps(**{f.name: getattr(frame, f.name) for f in fields(frame)}, taps=taps)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open arrays: a loader process that is not forked opens them itself, instead of receiving them."""
        return {**self.__dict__, "_open": {}}


def _is_whole(scene: _Scene, kind: str) -> bool:
    """Tell whether a scene's folder of a kind is there and whole; remove it if it is not whole."""
    folder = scene.folders[kind]
    if not folder.is_dir():
        return False
    try:
        Arrays(folder).check(_ARRAYS[kind], len(scene.positions))
    except BridgeTAError as error:
        logger.warning("%s. It is built again", error)
        discard(folder)
        return False
    return True


def _to_half(tap: torch.Tensor) -> NDArray[np.float16]:
    half = tap.to(torch.float16)
    if not torch.isfinite(half).all():
        raise BridgeTAError("the teacher's taps are not finite in float16", fix="Leave out data.cache")
    return half.cpu().numpy()
