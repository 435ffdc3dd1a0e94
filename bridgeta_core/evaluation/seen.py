"""The cells that a vehicle sees: those that a camera looks at, and that nothing hides as far as the LiDAR tells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.config.experiment import LiftConfig
from bridgeta_core.data.frames import FrameDataset
from bridgeta_core.data.pointcloud import move, read_lidar
from bridgeta_core.data.sample import LIDAR, Sample
from bridgeta_core.geometry.coverage import measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import fit_images
from bridgeta_core.utils.arrays import Flags, Floats

DIRECTIONS = 1080  # of a third of a degree, as a LiDAR with 32 beams has in a turn of 50 ms
_BESIDE = 3  # directions to both sides whose farthest beam counts: rings are sparse, and posts narrow


class SeenCells:
    """Find the cells of each sample that its vehicle sees.

    `dataset` says which cameras, images and grid the network has, and `lift` the depths that it knows. `without_lidar`
    counts the samples given to `find` that have no LiDAR: nothing counts as hidden there.
    """

    def __init__(self, dataset: FrameDataset, lift: LiftConfig) -> None:
        self._cameras, self._image, self._grid, self._lift = dataset.cameras, dataset.image, dataset.grid, lift
        self._rig: bytes | None = None  # whose view is known: the samples of a scene share it
        self._in_view = np.zeros(dataset.grid.shape, dtype=np.bool_)
        self.without_lidar = 0

    def find_in_view(self, sample: Sample) -> Flags:
        """Find the cells `[Y, X]` whose centre, on level ground, lies in an image of the network."""
        rig = sample.rig(self._cameras)
        key = b"".join(camera.intrinsics.tobytes() + camera.ego_T_cam.tobytes() for camera in rig.cameras)
        if key != self._rig:
            fits = list(fit_images(rig, self._image.size, self._image.margin).values())
            views = measure_coverage(rig, fits, self._grid, self._lift.depth_min, self._lift.depth_max)
            self._rig, self._in_view = key, np.logical_or.reduce([view.seen for view in views])
        return self._in_view

    def find(self, sample: Sample) -> Flags:
        """Find the cells `[Y, X]` that are in view and in sight of the LiDAR.

        Raises BridgeTAError when the LiDAR's file cannot be read.
        """
        in_view = self.find_in_view(sample)
        if LIDAR not in sample.records:
            self.without_lidar += 1
            return in_view
        record = sample.record(LIDAR)
        points = move(record.ego_T_sensor, read_lidar(record.path))
        return np.asarray(in_view & find_in_sight(points, record.ego_T_sensor[:3, 3], self._grid))


def find_in_sight(points: NDArray[np.floating], origin: Floats, grid: BevGrid) -> Flags:
    """Find the cells `[Y, X]` that a LiDAR at `origin` `[3]` looks at, from its returns `[n, 3 + k]`, ego frame.

    A cell is in sight if a return lies in it, at any height, or if in its direction a beam that does not rise comes
    back from at least as far as its centre, to half the diagonal of a cell. Beams that rise look over what hides the
    ground. The farthest beam within a degree counts, so what is narrower than two, such as a post, hides nothing. Nor
    does what is lower than the LiDAR, such as a parked car; and on slopes nothing is hidden by mistake.
    """
    offset = np.asarray(points[:, :3], dtype=np.float64) - origin
    x, y = offset[:, 0], offset[:, 1]
    falling = offset[:, 2] <= 0
    reach = np.zeros(DIRECTIONS)
    np.maximum.at(reach, _find_direction(x[falling], y[falling]), np.hypot(x, y)[falling])
    reach = np.max([np.roll(reach, shift) for shift in range(-_BESIDE, _BESIDE + 1)], axis=0)
    centre_x, centre_y = np.meshgrid(*grid.centres())
    centre_x, centre_y = centre_x - origin[0], centre_y - origin[1]
    slack = grid.resolution / np.sqrt(2)
    in_sight = np.hypot(centre_x, centre_y) <= reach[_find_direction(centre_x, centre_y)] + slack
    column, row = np.floor(grid.to_cells(offset[:, :2] + origin[:2])).astype(np.int64).T
    rows, columns = grid.shape
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    in_sight[row[inside], column[inside]] = True
    return np.asarray(in_sight)


def _find_direction(x: Floats, y: Floats) -> NDArray[np.int64]:
    share = (np.arctan2(y, x) / (2 * np.pi)) % 1.0
    return np.asarray(np.floor(share * DIRECTIONS), dtype=np.int64) % DIRECTIONS
