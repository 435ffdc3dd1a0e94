"""Point clouds that follow from their names alone, and sparse weights, so that golden data need not hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from seeded import cameras, uniform, weight

HALF, BOTTOM, EDGES = 12.8, -5.0, np.array([0.1, 0.1, 0.2])  # metres in the frame of the LiDAR


def clouds() -> list[NDArray[np.float32]]:
    """Points `[n, 5]` of two samples in the frame of the LiDAR, dense in one corner, some off the range.

    None lies near the border of a voxel, so that rounding moves none to another one.
    """
    return [_cloud("first", 350, 12), _cloud("second", 60, 6)]


def _cloud(name: str, clusters: int, points: int) -> NDArray[np.float32]:
    middle = (uniform(f"{name} middle", (clusters, 1, 3)) + 1) / 2
    middle[..., :2] **= (1.5, 0.8)  # neither even nor symmetric
    spread = 2.5 * uniform(f"{name} spread", (clusters, points, 3)) * [1, 0.6, 0.4]
    voxels = np.floor(middle * [256, 256, 40] + spread)
    voxels[0] = voxels[0, 0]  # one of more points than count
    place = 0.5 + 0.45 * uniform(f"{name} place", (clusters, points, 3))
    xyz = (voxels + place) * EDGES + [-HALF, -HALF, BOTTOM]
    rest = (uniform(f"{name} rest", (clusters, points, 2)) + 1) / 2 * [2, 0.45]
    return np.concatenate([xyz, rest], axis=2).reshape(-1, 5).astype(np.float32)


def sparse_weight(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """A tensor of a network; that of a sparse convolution, `[x, y, z, inputs, outputs]`, is drawn as a dense one's."""
    if len(shape) != 5:
        return weight(name, shape)
    x, y, z, inputs, outputs = shape
    return np.ascontiguousarray(weight(name, (outputs, inputs, x, y, z)).transpose(2, 3, 4, 1, 0))


def small_images() -> NDArray[np.uint8]:
    """Network inputs `[2, 64, 192, 3]`."""
    return (128 + 100 * uniform("small images", (2, 64, 192, 3))).astype(np.uint8)


def small_cameras() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics `[2, 3, 3]` of these inputs and ego_T_cam `[2, 4, 4]`: of `seeded.cameras`, which see 256 x 704."""
    intrinsics, poses = cameras()
    return np.diag([192 / 704, 64 / 256, 1]) @ intrinsics, poses
