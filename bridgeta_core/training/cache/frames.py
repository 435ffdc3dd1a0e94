"""Decoded frames on disk, so that loading a batch costs next to nothing, and a teacher's taps beside them."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch.utils.data import Dataset, Subset

from bridgeta_core.config.experiment import AugmentConfig, LidarConfig
from bridgeta_core.data.augment import Change
from bridgeta_core.data.frames import Frame, FrameDataset, make_frame
from bridgeta_core.data.loader import make_loader
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import from_planes
from bridgeta_core.geometry.transforms import ImageFit
from bridgeta_core.model.student import Taps
from bridgeta_core.training.cache.arrays import Arrays, ArrayWriter
from bridgeta_core.training.cache.key import hash_frames, hash_points, hash_taps
from bridgeta_core.training.cache.taps import FrameWithTaps, collate_with_taps, mirror_taps
from bridgeta_core.utils.arrays import Bytes
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.names import make_name
from bridgeta_core.utils.outputs import build_once, discard

logger = logging.getLogger(__name__)

_ARRAYS = {
    "frames": ("images", "known", "masks"),
    "points": ("points",),
    "taps": Taps._fields,
}
"""The arrays in the folders of each kind."""


@dataclass
class _Scene:
    """The name of a scene in its root, positions of its frames in the dataset, and its folders by kind: frames,
    points, taps.
    """

    name: str
    positions: range
    folders: dict[str, Path] = field(default_factory=dict)


class CachedFrames(Dataset[Frame]):
    """The frames of a dataset from memory-mapped arrays in `folder`, which are built on first use.

    The arrays hold frames as they are, and what the dataset augments is changed after reading: frames equal the
    dataset's byte for byte. Raises BridgeTAError (exit code 2) for changes that need the image files.

    There is one folder of arrays per scene and kind, named by a hash of all that they depend on. So runs on other
    scenes, label budgets or teachers share what they have in common, several processes may build at once, and a build
    that breaks off resumes. A folder that lacks something is built again. `add_points` and `add_taps` give frames their
    points or a teacher's taps.
    """

    def __init__(
        self, frames: FrameDataset, folder: str | Path, *, workers: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self._frames, self._plain, self._folder = copy.copy(frames), frames.unaugmented(), Path(folder)
        self._frames.lidar = self._plain.lidar = None
        self._border = 0
        if frames.augment is not None:
            check_augment(frames.augment.settings)
            self._border = frames.augment.settings.image_shift
        self._workers, self._rank, self._world = workers, rank, world
        self._scenes: list[_Scene] = []
        before = ""
        for position, name in enumerate(frames.scene_names()):
            if name != before:
                dataset, own = frames.dataset.find_origin(frames.positions[position])
                self._scenes.append(_Scene(dataset.scene_of(own).name, range(position, position)))
            scene, before = self._scenes[-1], name
            scene.positions = range(scene.positions.start, position + 1)
        self._place = [(s, row) for s, scene in enumerate(self._scenes) for row in range(len(scene.positions))]
        self._open: dict[int, dict[str, Arrays]] = {}
        wide = copy.copy(self._plain)
        wide.border = self._border
        keys = [hash_frames(wide, scene.positions) for scene in self._scenes]

        def write(scene: _Scene, writer: ArrayWriter) -> None:
            for frame in self._decode(wide, scene, batch_size=None):
                values = {name: getattr(frame, name).numpy() for name in ("images", "known")}
                writer.write({**values, "masks": np.packbits(frame.labels.numpy())})

        self._build("frames", keys, write)

    @property
    def folders(self) -> list[Path]:
        """The folders that the frames, their points and taps are read from."""
        return [folder for scene in self._scenes for folder in scene.folders.values()]

    def unaugmented(self) -> CachedFrames:
        """Return the same frames without augmentation."""
        plain = copy.copy(self)
        plain._frames = self._plain
        return plain

    def add_points(self, lidar: LidarConfig) -> None:
        """Give frames the points that a dataset with `lidar` gives them."""
        keys = [hash_points(self._plain, scene.positions, lidar) for scene in self._scenes]

        def write(scene: _Scene, writer: ArrayWriter) -> None:
            for frame in self._decode(self._with_points(lidar), scene, batch_size=None):
                writer.write_ragged("points", frame.points.numpy())

        self._build("points", keys, write)

    def add_taps(self, teacher: Callable[[Any], Taps], sha256: str, lidar: LidarConfig, size: int) -> None:
        """Give frames the taps of a teacher in float16, computed in batches of `size`.

        `teacher` takes a batch with points; `sha256` is the hash of its file. Call `check_augment` before.
        """
        keys = [
            hash_taps(hash_frames(self._plain, positions), hash_points(self._plain, positions, lidar), sha256)
            for positions in (scene.positions for scene in self._scenes)
        ]

        def write(scene: _Scene, writer: ArrayWriter) -> None:
            for batch in self._decode(self._with_points(lidar), scene, batch_size=size, collate_fn=collate_with_taps):
                taps = teacher(batch)
                for row in range(len(batch.tokens)):
                    writer.write({name: _to_half(tap[row]) for name, tap in taps._asdict().items()})

        self._build("taps", keys, write)

    def _with_points(self, lidar: LidarConfig) -> FrameDataset:
        frames = copy.copy(self._plain)
        frames.lidar = lidar
        return frames

    def _decode(self, frames: FrameDataset, scene: _Scene, **options: Any) -> Iterator[Any]:
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
        sample = self._frames.sample(position)
        plain = self._frames.fit(sample)
        change, fits = self._frames.draw(position, plain)
        planes, known, masks = (opened["frames"].read(name, row) for name in _ARRAYS["frames"])
        frame = make_frame(
            sample,
            fits,
            self._cut(planes, fits, plain),
            opened["points"].read("points", row) if "points" in opened else None,
            change,
            self._change_labels(position, change, masks, len(known)),
            known,
        )
        if "taps" not in opened:
            return frame
        assert change.mirrors is not None
        taps = Taps(*(torch.from_numpy(opened["taps"].read(name, row)) for name in Taps._fields))
        return FrameWithTaps(
            **{f.name: getattr(frame, f.name) for f in fields(frame)}, taps=mirror_taps(taps, change.mirrors)
        )

    def _cut(self, planes: Bytes, drawn: Mapping[str, ImageFit], plain: Mapping[str, ImageFit]) -> list[Bytes]:
        """Cut network inputs `[h, w, 3]` as drawn out of cached planes, whose border has what `plain` leaves out."""
        images = []
        for image, fit, other in zip(from_planes(planes), drawn.values(), plain.values(), strict=True):
            (width, height), border = fit.size, self._border
            left, top = (border + there - here for there, here in zip(fit.offset, other.offset, strict=True))
            image = image[top : top + height, left : left + width]
            images.append(image[:, ::-1] if fit.mirrored else image)
        return images

    def _change_labels(self, position: int, change: Change, masks: Bytes, classes: int) -> Bytes:
        """Return the labels of the changed world `[6, Y, X]`: the cached ones, or these mirrored, or drawn anew."""
        mirrors, grid = change.mirrors, self._frames.grid
        if mirrors == (False, False) or (mirrors == (False, True) and grid.is_symmetric[1]):
            labels = np.unpackbits(masks, count=classes * math.prod(grid.shape)).reshape(classes, *grid.shape)
            return labels[:, ::-1] if mirrors[1] else labels
        # Outlines are rounded to cells in one direction, so that reversed columns would not be exactly the same.
        return self._frames.read_changed_labels(position, change)[0]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open arrays: a loader process that is not forked opens them itself, instead of receiving them."""
        return {**self.__dict__, "_open": {}}


def check_augment(augment: AugmentConfig, features: Sequence[BevGrid] = ()) -> None:
    """Check that cached frames can be augmented so, and taps on the grids `features` with them.

    Taps follow a mirrored world where their grids are symmetric, and no other change of it. Raises BridgeTAError (exit
    code 2) that names exactly the settings at fault.
    """
    images, world = ["image_resize", "image_rotate"], list[str]()
    if features:
        world = ["rotate", "scale", "translate"]
        for axis, name in enumerate(("flip_x", "flip")):
            world += [name] if not all(grid.is_symmetric[axis] for grid in features) else []
    reasons = {
        "images that are resized or turned need their files": augment.overrides_to_disable(images),
        "a world that is turned, scaled, shifted, or mirrored on a grid that is not symmetric needs the teacher "
        "on every batch": augment.overrides_to_disable(world),
    }
    if wrong := {reason: changes for reason, changes in reasons.items() if changes}:
        raise BridgeTAError(
            f"data.cache cannot follow some of data.augment: {', and '.join(wrong)}",
            fix=f"Leave out data.cache, or set {' '.join(change for changes in wrong.values() for change in changes)}",
            exit_code=2,
        )


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
