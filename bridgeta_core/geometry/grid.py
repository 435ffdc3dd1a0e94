"""The bird's-eye-view grid: the one place that maps metres to cells and to pixels of a view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import MOST_CELLS


@dataclass(frozen=True)
class BevGrid:
    """A rectangle of square cells in the ego frame (REP-103: x forward, y left, metres).

    Tensors over the grid are `[..., y, x]`: row 0 lies at the most negative y and column 0 at the most negative x,
    which is the memory order of nav_msgs/OccupancyGrid. Cell (row i, column j) covers
    [x_min + j r, x_min + (j + 1) r) x [y_min + i r, y_min + (i + 1) r).
    """

    x_min: float = -50.0
    x_max: float = 50.0
    y_min: float = -50.0
    y_max: float = 50.0
    resolution: float = 0.5

    def __post_init__(self) -> None:
        values = (self.x_min, self.x_max, self.y_min, self.y_max, self.resolution)
        if not np.isfinite(values).all() or self.resolution <= 0:
            raise BridgeTAError(f"BEV grid {values} needs finite bounds and a positive resolution", exit_code=2)
        sides = (self.x_max - self.x_min) / self.resolution, (self.y_max - self.y_min) / self.resolution
        if max(map(abs, sides)) > MOST_CELLS or sides[0] * sides[1] > MOST_CELLS:
            raise BridgeTAError(f"BEV grid {values} has more than {MOST_CELLS:,} cells", exit_code=2)
        for axis, low, high, cells in (
            ("x", self.x_min, self.x_max, sides[0]),
            ("y", self.y_min, self.y_max, sides[1]),
        ):
            if round(cells) < 1 or abs(cells - round(cells)) > 1e-6:
                raise BridgeTAError(
                    f"BEV grid: {axis} from {low} to {high} m is not a whole number of {self.resolution} m cells",
                    exit_code=2,
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows along y, columns along x)."""
        return (
            round((self.y_max - self.y_min) / self.resolution),
            round((self.x_max - self.x_min) / self.resolution),
        )

    @property
    def is_symmetric(self) -> tuple[bool, bool]:
        """Whether x = 0 and whether y = 0 is the middle, so that mirroring the world reverses columns or rows."""
        return self.x_min == -self.x_max, self.y_min == -self.y_max

    def centres(self) -> tuple[Floats, Floats]:
        """Return cell centres in metres: x of every column `[X]` and y of every row `[Y]`."""
        rows, columns = self.shape
        return (
            self.x_min + (np.arange(columns) + 0.5) * self.resolution,
            self.y_min + (np.arange(rows) + 0.5) * self.resolution,
        )

    def ranges(self) -> Floats:
        """Return the distance of every cell centre from the ego origin in metres, `[Y, X]`."""
        x, y = self.centres()
        return np.hypot(x[None, :], y[:, None])

    def to_cells(self, xy: NDArray[np.floating]) -> Floats:
        """Map metres `[..., 2]` (x, y) to cell coordinates `[..., 2]` (column, row); their floor is the cell."""
        return (np.asarray(xy, dtype=np.float64) - (self.x_min, self.y_min)) / self.resolution

    def to_pixels(self, xy: NDArray[np.floating], size: tuple[int, int]) -> Floats:
        """Map metres `[n, 2]` (x, y) to pixel coordinates `[n, 2]` (u, v) in a picture of the grid with forward up.

        `size` is the picture's width and height. The centre of the top-left pixel is (0, 0).
        """
        width, height = size
        u = (self.y_max - xy[:, 1]) / (self.y_max - self.y_min) * width
        v = (self.x_max - xy[:, 0]) / (self.x_max - self.x_min) * height
        return np.stack([u, v], axis=1) - 0.5

    def to_metres(self, cells: NDArray[np.floating]) -> Floats:
        """Map cell coordinates back to metres, the inverse of `to_cells`."""
        return np.asarray(cells, dtype=np.float64) * self.resolution + (self.x_min, self.y_min)
