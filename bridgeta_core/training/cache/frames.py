"""Decoded frames on disk, so that loading a batch costs next to nothing, and a teacher's taps beside them."""

from __future__ import annotations

import copy
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
from bridgeta_core.training.cache.arrays import Arrays, ArrayWriter, open_arrays, read_ragged
from bridgeta_core.training.cache.key import hash_frames, hash_points, hash_taps
from bridgeta_core.training.cache.taps import FrameWithTaps, collate_with_taps
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.names import make_name
from bridgeta_core.utils.outputs import build_once


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
    that breaks off resumes. `add_points` and `add_taps` give frames their points or a teacher's taps.
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
        self._open: dict[int, Arrays] = {}
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
        missing = [scene for scene in self._scenes if not scene.folders[kind].is_dir()]
        # Every process starts at another scene and goes round, so that they meet only at the end.
        start = self._rank * len(missing) // self._world
        with Progress(transient=True, disable=self._rank > 0 or not missing) as bar:
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
            opened = (open_arrays(folder) for folder in self._scenes[number].folders.values())
            self._open[number] = {name: array for arrays in opened for name, array in arrays.items()}
        arrays = self._open[number]
        shape = (arrays["known"].shape[1], *self._frames.grid.shape)
        masks = np.unpackbits(arrays["masks"][row], count=int(np.prod(shape))).reshape(shape)
        frame = Frame(
            **{name: _read_row(arrays, name, row) for name in ("images", "intrinsics", "ego_T_cam", "known")},
            labels=torch.from_numpy(masks),
            token=self._tokens[position],
            points=torch.from_numpy(read_ragged(arrays, "points", row)) if "points" in arrays else None,
        )
        if "F" not in arrays:
            return frame
        taps = Taps(*(_read_row(arrays, name, row) for name in Taps._fields))
        return FrameWithTaps(**{f.name: getattr(frame, f.name) for f in fields(frame)}, taps=taps)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open arrays: a loader process that is not forked opens them itself, instead of receiving them."""
        return {**self.__dict__, "_open": {}}


def _read_row(arrays: Arrays, name: str, row: int) -> torch.Tensor:
    return torch.from_numpy(np.array(arrays[name][row]))


def _to_half(tap: torch.Tensor) -> NDArray[np.float16]:
    half = tap.to(torch.float16)
    if not torch.isfinite(half).all():
        raise BridgeTAError("the teacher's taps are not finite in float16", fix="Leave out data.cache")
    return half.cpu().numpy()
