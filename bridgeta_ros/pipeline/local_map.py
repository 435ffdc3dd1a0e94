"""A local map in a fixed frame, fused from the results of successive frames. No ROS."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, planar
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import MOST_CELLS
from bridgeta_ros.pipeline.messages import to_percent

GAIN = 0.2
LIMIT = 3.5
_LARGEST_PROBABILITY = 0.99  # of one frame: a network that says 1.0 must not outvote all others for ever
_LARGEST_LIMIT = 20.0  # log-odds; a probability of 1 - 2e-9, and float32 still adds small evidence to it
_FARTHEST = 1e8  # metres; beyond it float64 no longer separates neighbouring cells well enough


class LocalMap:
    """A square window of cells in a fixed frame (`odom` or `map`) that moves with the ego: one grid per class.

    Every cell has the log-odds l of its class and adds each frame by

        l <- clamp(l + gain * ln(p / (1 - p)), -limit, +limit)

    which is the update of an occupancy grid with prior 0.5 (Moravec and Elfes, ICRA 1985; in this form Thrun, Burgard
    and Fox, Probabilistic Robotics, ch. 9), with two additions:

    - `gain` below 1. The sum holds for independent observations. Successive frames of one network show nearly the
      same pixels and share their errors, so a frame counts as a share of an observation: 1 / gain frames as one.
    - `limit`, so that the map can change its mind (the clamping of OctoMap, Hornung et al. 2013). A cell at the limit
      is back at 0.5 after limit / (gain |ln(p / (1 - p))|) frames of the opposite probability p. With the defaults
      (0.2 and 3.5, a probability of 0.97) those are 8 frames of p = 0.1, or 4 of p = 0: p is clipped to 0.01 to 0.99.

    The window's corner is a whole number of cells from the frame's origin. It moves by whole cells, so nothing is ever
    resampled: cells that leave are forgotten, cells that enter are unknown.

    Only x, y and heading of a pose count: the base's x axis is projected into the plane of the fixed frame. Roll and
    pitch are those of the body on its springs and on the slope, and the network's ground plane tilts with them.

    Parameters
    ----------
    grid
        The cells of the results, in the base frame; the window takes over their resolution.
    size
        Side of the window in metres, a whole number of cells.
    classes
        How many classes there are.
    gain
        Weight of a frame, above 0 and at most 1.
    limit
        Largest absolute log-odds of a cell, above 0 and at most 20.

    Raises BridgeTAError for values outside these ranges. Not safe for calls from several threads at once.
    """

    def __init__(
        self,
        grid: BevGrid,
        size: float = 120.0,
        *,
        classes: int = len(CLASSES),
        gain: float = GAIN,
        limit: float = LIMIT,
    ) -> None:
        cells = size / grid.resolution
        if not math.isfinite(cells) or round(cells) < 1 or abs(cells - round(cells)) > 1e-6:
            raise BridgeTAError(
                f"local map of {size} m is not a whole number of {grid.resolution} m cells",
                fix=f"Choose a positive multiple of {grid.resolution}",
                exit_code=2,
            )
        if cells**2 > MOST_CELLS:
            raise BridgeTAError(
                f"local map of {size} m has more than {MOST_CELLS:,} cells", fix="Choose a smaller one", exit_code=2
            )
        if not 0 < gain <= 1:
            raise BridgeTAError(f"local map: the gain is {gain}", fix="Choose one above 0 and up to 1", exit_code=2)
        if not 0 < limit <= _LARGEST_LIMIT:
            fix = f"Choose one above 0 and up to {_LARGEST_LIMIT:g}"
            raise BridgeTAError(f"local map: the limit is {limit}", fix=fix, exit_code=2)
        self._bev, self._gain, self._limit = grid, gain, limit
        self._side = round(cells)
        self._corner = self._find_corner((0.0, 0.0))
        # NaN where nothing was ever observed.
        self._log_odds = np.full((classes, self._side, self._side), np.nan, dtype=np.float32)

    @property
    def grid(self) -> BevGrid:
        """The window's current extent in the fixed frame; before the first update it lies around the origin."""
        (column, row), r = self._corner, self._bev.resolution
        return BevGrid(column * r, (column + self._side) * r, row * r, (row + self._side) * r, r)

    def update(self, probabilities: NDArray[np.floating], seen: NDArray[np.bool_], map_T_base: ArrayLike) -> None:
        """Move the window to the ego and fuse one frame.

        A cell of the window takes part if its centre lies in a cell of the result that is `seen` and whose probability
        is finite. It adds the log-odds there, interpolated between the cells' centres. An unseen cell counts as
        log-odds of 0, so beside one the evidence fades over half a cell.

        Parameters
        ----------
        probabilities
            `[classes, Y, X]` over the grid given at the start, in the base frame.
        seen
            Cells `[Y, X]` that the cameras look at.
        map_T_base
            4x4 pose of the base in the fixed frame at the stamp of the result.

        Raises BridgeTAError for arrays of other shapes and for an invalid pose; the map then stays as it was.
        """
        probabilities, seen = np.asarray(probabilities), np.asarray(seen, dtype=np.bool_)
        expected = (len(self._log_odds), *self._bev.shape)
        if probabilities.shape != expected or seen.shape != expected[1:]:
            raise BridgeTAError(
                f"local map: probabilities {list(probabilities.shape)} and seen cells {list(seen.shape)} "
                f"instead of {list(expected)} and {list(expected[1:])}"
            )
        pose = _to_planar(map_T_base)
        self._move(self._find_corner(pose[:2, 3]))

        bev_T_window = self._bev_T_window(pose)
        # Class by class, so that the arrays stay in the processor's cache.
        for layer, frame in zip(self._log_odds, probabilities, strict=True):
            valid = np.isfinite(frame) & seen
            clipped = np.clip(np.where(valid, frame, 0.5), 1 - _LARGEST_PROBABILITY, _LARGEST_PROBABILITY).astype(
                np.float32
            )
            evidence = self._gain * np.log(clipped / (1 - clipped))
            added = self._warp(evidence, bev_T_window, cv2.INTER_LINEAR)
            covered = self._warp(valid.view(np.uint8), bev_T_window, cv2.INTER_NEAREST).view(np.bool_)
            fused = np.clip(np.where(np.isnan(layer), 0, layer) + added, -self._limit, self._limit)
            layer[:] = np.where(covered, fused, layer)

    def probabilities(self) -> NDArray[np.float32]:
        """Return probabilities `[classes, rows, columns]` over `grid`; NaN where nothing was observed."""
        return 1 / (1 + np.exp(-self._log_odds))

    def values(self) -> NDArray[np.int8]:
        """Return occupancy values `[classes, rows, columns]`: 0 to 100, and -1 where nothing was observed."""
        return np.stack([to_percent(layer) for layer in self.probabilities()])

    def reset(self) -> None:
        """Forget everything observed; the window stays where it is."""
        self._log_odds.fill(np.nan)

    def _find_corner(self, xy: ArrayLike) -> tuple[int, int]:
        """Return the lower left cell (column, row) of a window centred within half a cell of `xy`, metres."""
        corner = np.asarray(xy, dtype=np.float64) / self._bev.resolution - self._side / 2
        return math.floor(corner[0] + 0.5), math.floor(corner[1] + 0.5)

    def _move(self, corner: tuple[int, int]) -> None:
        """Move the window's corner to a cell index; keep the cells that both windows cover."""
        shift = (corner[0] - self._corner[0], corner[1] - self._corner[1])
        self._corner = corner
        if shift == (0, 0):
            return
        (to_columns, from_columns), (to_rows, from_rows) = (self._find_overlap(cells) for cells in shift)
        moved = np.full_like(self._log_odds, np.nan)
        moved[:, to_rows, to_columns] = self._log_odds[:, from_rows, from_columns]
        self._log_odds = moved

    def _find_overlap(self, shift: int) -> tuple[slice, slice]:
        """Return the cells common to the window and one `shift` cells further, along one axis: (new, old) slices."""
        common = max(0, self._side - abs(shift))
        new, old = max(0, -shift), max(0, shift)
        return slice(new, new + common), slice(old, old + common)

    def _bev_T_window(self, pose: Matrix) -> Matrix:
        """Return the 2x3 matrix from (column, row, 1) of a window's cell to (column, row) in the result.

        Cell centres are integers. Metres count from the ego, not from the frame's origin, so that large coordinates
        cost no precision.
        """
        r = self._bev.resolution
        base_R_map = pose[:2, :2].T
        first = base_R_map @ ((np.array(self._corner) + 0.5) * r - pose[:2, 3])
        return np.column_stack((base_R_map, self._bev.to_cells(first) - 0.5))

    def _warp(self, layer: NDArray[np.generic], bev_T_window: Matrix, interpolation: int) -> NDArray[np.generic]:
        """Look up one layer of a result at the window's cells; 0 outside."""
        size = (self._side, self._side)
        return cv2.warpAffine(layer, bev_T_window, size, flags=interpolation | cv2.WARP_INVERSE_MAP)


def _to_planar(map_T_base: ArrayLike) -> Matrix:
    """Remove roll and pitch from a pose. Raises BridgeTAError if it has no position or heading in the plane."""
    pose = np.asarray(map_T_base, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise BridgeTAError(f"local map: the pose is not a finite 4x4 transform: {pose.tolist()}")
    if np.hypot(pose[0, 0], pose[1, 0]) < 1e-3 or np.abs(pose[:2, 3]).max() > _FARTHEST:
        raise BridgeTAError(
            f"local map: the pose has no heading or lies farther than {_FARTHEST:.0e} m away: {pose.tolist()}"
        )
    return planar(pose)
