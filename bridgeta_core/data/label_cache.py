"""Cache the labels of a root on disk, since reading them costs a small part of rasterising them."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridgeta_core.config.experiment import LabelConfig
from bridgeta_core.data.dataset import Dataset
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import Scene
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.arrays import Bytes, map_array, save_array
from bridgeta_core.utils.files import describe_file, hash_json
from bridgeta_core.utils.names import make_name
from bridgeta_core.utils.outputs import replace_when_done

logger = logging.getLogger(__name__)

Packed = Bytes

_LAYOUT = 2  # of the files and the meaning of their bits; raise it when the rasterisers change
_CHECKSUM = 4  # bytes at the end of a row


class LabelCache:
    """The labels of all samples of a dataset, in memory-mapped files in `folder` that are written on first use.

    Each scene has a file, a row of bits and their checksum per sample, named by all that the labels depend on. Several
    processes may build it at once, and a damaged one is built again. `maps` holds the raster of each city, `labels` the
    settings that these were made with.
    """

    def __init__(
        self, folder: str | Path, dataset: Dataset, maps: Mapping[str, MapRaster], grid: BevGrid, labels: LabelConfig
    ) -> None:
        self._folder, self._dataset, self._maps, self._grid, self._labels = Path(folder), dataset, maps, grid, labels
        self._shape = (len(CLASSES), *grid.shape)
        self._open: dict[str, Packed] = {}

    def read(self, position: int) -> Bytes:
        """Read the labels `[6, Y, X]`, 0 or 1, of the sample at a position of the dataset.

        Raises BridgeTAError when the folder cannot be written.
        """
        scene = self._dataset.scene_of(position)
        if scene.name not in self._open:
            self._open[scene.name] = self._rows(scene)
        row = self._open[scene.name][position - scene.samples.start]
        return np.unpackbits(row[:-_CHECKSUM], count=int(np.prod(self._shape))).reshape(self._shape)

    def _rows(self, scene: Scene) -> Packed:
        poses = [self._dataset.global_T_ego(position) for position in scene.samples]
        path = self._folder / f"{make_name(scene.name)}-labels-{self._key(scene, poses)}.npy"
        shape = (len(poses), -(-int(np.prod(self._shape)) // 8) + _CHECKSUM)
        if not path.exists():
            self._write(path, scene, poses)
        try:
            return _read(path, shape)
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s is broken and is written again (%s)", path, error)
        self._write(path, scene, poses)
        return _read(path, shape)

    def _key(self, scene: Scene, poses: list[Any]) -> str:
        root = self._dataset.root
        return hash_json(
            [
                _LAYOUT,
                [describe_file(path, root) for path in self._dataset.map_files(scene.location)],
                self._labels.key(),
                dataclasses.asdict(self._grid),
                [pose.tolist() for pose in poses],
            ]
        )

    def _write(self, path: Path, scene: Scene, poses: list[Any]) -> None:
        raster = self._maps[scene.location]
        rows = np.stack([_add_checksum(np.packbits(raster.rasterise(pose, self._grid))) for pose in poses])
        with replace_when_done(path) as temporary:
            save_array(temporary, rows)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files: a loader process that is not forked opens them itself."""
        return {**self.__dict__, "_open": {}}


def _read(path: Path, shape: tuple[int, int]) -> Packed:
    rows = map_array(path)
    if rows.shape != shape or rows.dtype != np.uint8:
        raise ValueError(f"it holds {rows.dtype} {rows.shape} instead of uint8 {shape}")
    for number, row in enumerate(rows):
        if not np.array_equal(row, _add_checksum(row[:-_CHECKSUM])):
            raise ValueError(f"row {number} has another checksum")
    return rows


def _add_checksum(row: Packed) -> Packed:
    return np.append(row, np.frombuffer(zlib.crc32(row.data).to_bytes(_CHECKSUM, "little"), np.uint8))
