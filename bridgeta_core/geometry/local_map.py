"""A local map in a fixed frame, fused from the results of successive frames. No ROS."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.transforms import Matrix, planar
from bridgeta_core.utils.arrays import Flags
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import MOST_CELLS

GAIN = 0.1
_LARGEST_PROBABILITY = 0.99  # of one frame: a network that says 1.0 must not outvote all others for ever
_FARTHEST = 1e8  # metres; beyond it float64 no longer separates neighbouring cells well enough


class LocalMap:
    """A square window of cells in a fixed frame (`odom` or `map`) that moves with the ego: one grid per class.

    Every cell has the log-odds l of each class, their mean over the frames that saw it. The n-th of them changes it by

        l <- l + max(1 / n, gain) * (ln(p / (1 - p)) - l)

    so that all frames count alike at first, and a frame counts half as much as one ln(2) / gain frames later. The sum
    that occupancy grids have instead (Moravec and Elfes, ICRA 1985) holds for independent observations. Successive
    frames of one network show nearly the same pixels and share their errors, and a sum would take what the network
    never gives more than 0.5, such as a far divider, for surely absent.

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
        Least weight of a new frame in a mean, above 0 and at most 1; with 1 the map keeps the latest frame alone.

    Raises BridgeTAError for values outside these ranges. Not safe for calls from several threads at once.
    """

    def __init__(
        self,
        grid: BevGrid,
        size: float = 120.0,
        *,
        classes: int = len(CLASSES),
        gain: float = GAIN,
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
        self._bev, self._gain = grid, gain
        self._side = round(cells)
        self._corner = self._find_corner((0.0, 0.0))
        self._log_odds = np.zeros((classes, self._side, self._side), dtype=np.float32)
        self._frames = np.zeros((self._side, self._side), dtype=np.float32)  # that saw a cell, up to 1 / gain
        self._unknown = np.zeros(classes, dtype=np.bool_)  # classes that the results say nothing of

    @property
    def grid(self) -> BevGrid:
        """The window's current extent in the fixed frame; before the first update it lies around the origin."""
        (column, row), r = self._corner, self._bev.resolution
        return BevGrid(column * r, (column + self._side) * r, row * r, (row + self._side) * r, r)

    def update(self, probabilities: NDArray[np.floating], seen: NDArray[np.bool_], map_T_base: ArrayLike) -> None:
        """Move the window to the ego and fuse one frame.

        A cell of the window takes part if its centre lies in a cell of the result that is `seen` and whose
        probabilities are finite. Log-odds are interpolated between the centres of such cells. A class that is NaN
        everywhere is unknown in the map from then on.

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

        bev_T_window, size = self._bev_T_window(pose), (self._side, self._side)
        if not (empty := np.isnan(probabilities).all(axis=(1, 2))).all():
            self._unknown |= empty
        valid = seen & np.isfinite(probabilities[~self._unknown]).all(axis=0)
        covered, weight = _warp_mask(valid, bev_T_window, size)
        self._frames = np.where(covered, np.minimum(self._frames + 1, 1 / self._gain), self._frames)
        rate = np.where(covered, 1 / np.maximum(self._frames, 1), np.float32(0))
        # Class by class, so that the arrays stay in the processor's cache.
        for layer, frame in zip(self._log_odds, probabilities, strict=True):
            clipped = np.clip(np.where(valid, frame, 0.5), 1 - _LARGEST_PROBABILITY, _LARGEST_PROBABILITY).astype(
                np.float32
            )
            evidence = _warp(np.log(clipped / (1 - clipped)), bev_T_window, size, cv2.INTER_LINEAR)
            layer += rate * (evidence / weight - layer)

    def probabilities(self) -> NDArray[np.float32]:
        """Return probabilities `[classes, rows, columns]` over `grid`; NaN where nothing was observed."""
        return self._to_probabilities(self._log_odds, self._frames > 0)

    def look_up(self, map_T_base: ArrayLike) -> NDArray[np.float32]:
        """Return the map around an ego: probabilities `[classes, Y, X]` over the grid given at the start.

        NaN for a cell whose centre lies in a cell of the window where nothing was observed, or outside the window.

        Raises BridgeTAError for an invalid pose.
        """
        window_T_bev = cv2.invertAffineTransform(self._bev_T_window(_to_planar(map_T_base)))
        rows, columns = self._bev.shape
        covered, weight = _warp_mask(self._frames > 0, window_T_bev, (columns, rows))
        layers = [_warp(layer, window_T_bev, (columns, rows), cv2.INTER_LINEAR) / weight for layer in self._log_odds]
        return self._to_probabilities(np.stack(layers), covered)

    def _to_probabilities(self, log_odds: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
        known = observed & ~self._unknown[:, None, None]
        return np.where(known, 1 / (1 + np.exp(-log_odds)), np.float32(np.nan))

    def reset(self) -> None:
        """Forget everything observed; the window stays where it is."""
        self._log_odds.fill(0)
        self._frames.fill(0)
        self._unknown.fill(False)

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
        log_odds, frames = np.zeros_like(self._log_odds), np.zeros_like(self._frames)
        log_odds[:, to_rows, to_columns] = self._log_odds[:, from_rows, from_columns]
        frames[to_rows, to_columns] = self._frames[from_rows, from_columns]
        self._log_odds, self._frames = log_odds, frames

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


def _warp(
    layer: NDArray[np.generic], source_T_target: Matrix, size: tuple[int, int], interpolation: int
) -> NDArray[Any]:
    """Look up a layer at the cells of a target of `size` columns and rows; 0 outside."""
    return cv2.warpAffine(layer, source_T_target, size, flags=interpolation | cv2.WARP_INVERSE_MAP)


def _warp_mask(mask: Flags, source_T_target: Matrix, size: tuple[int, int]) -> tuple[Flags, NDArray[np.float32]]:
    """Find the target's cells whose centres lie in a cell of a mask, and how much of an interpolation there is of it.

    The share is at least a quarter in those cells; elsewhere it is not used, and not 0.
    """
    covered = _warp(mask.view(np.uint8), source_T_target, size, cv2.INTER_NEAREST).view(np.bool_)
    share = _warp(mask.astype(np.float32), source_T_target, size, cv2.INTER_LINEAR)
    return covered, np.maximum(share, 0.2, dtype=np.float32)


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
