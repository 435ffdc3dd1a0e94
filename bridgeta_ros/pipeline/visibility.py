"""Which cells of the grid the cameras look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.rig import Rig
from bridgeta_core.geometry.transforms import ImageFit, invert, project, transform


def seen_cells(
    rig: Rig, fits: Sequence[ImageFit], grid: BevGrid, depth_min: float, depth_max: float
) -> NDArray[np.bool_]:
    """Cells `[Y, X]` whose centre, on the ground (z = 0 of the base frame), lies in the network input of a camera
    and between the two depths in metres. What hides it, such as a vehicle, is not considered.
    """
    x, y = grid.centres()
    ground = np.stack((*np.meshgrid(x, y), np.zeros(grid.shape)), axis=-1)
    seen = np.zeros(grid.shape, dtype=np.bool_)
    for camera, fit in zip(rig.cameras, fits, strict=True):
        pixels, depth = project(fit.matrix @ camera.intrinsics, transform(invert(camera.ego_T_cam), ground))
        inside = ((pixels >= -0.5) & (pixels < np.array(fit.size) - 0.5)).all(axis=-1)
        seen |= inside & (depth >= depth_min) & (depth <= depth_max)
    return seen
