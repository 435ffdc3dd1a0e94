"""Voxels: which points count, in which order, and what a voxel makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from bridgeta_core.model.lidar.voxels import Voxels
from bridgeta_core.utils.errors import BridgeTAError

LOW, EDGES, SIZE = (-4.0, -2.0, -5.0), (0.5, 0.5, 1.0), (16, 8, 8)
FAR_OUT = [
    (4.0, 0, 0, 9, 0),
    (-4.01, 0, 0, 9, 0),
    (0, 2.0, 0, 9, 0),
    (0, -2.01, 0, 9, 0),
    (1e30, -1e30, 0, 9, 0),
    (0, 0, 3.0, 9, 0),
    (0, 0, -5.01, 9, 0),
    (float("nan"), 0, 0, 9, 0),
    (0, float("inf"), 0, 9, 0),
    (0, 0, float("-inf"), 9, 0),
    (0, 0, 0, float("inf"), 0),
    (0, 0, 0, 9, float("nan")),
]


def voxels(points: int = 3, most: int = 1000) -> Voxels:
    return Voxels(LOW, EDGES, SIZE, points, most, margin=1)


def cloud(seed: int, count: int) -> Tensor:
    """Points around the volume, with many to a voxel."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform((-5, -3, -6), (5, 3, 4), (count, 3)) * rng.choice([0.2, 1.0], (count, 1))
    rest = np.stack([rng.integers(0, 256, count), rng.integers(0, 10, count) * 0.05], axis=1)
    return torch.from_numpy(np.concatenate([xyz, rest], axis=1)).float()


def by_loops(points: Tensor, limit: int, most: int) -> dict[tuple[int, ...], list[NDArray[np.float32]]]:
    """BEVFusion's rule, point by point."""
    members: dict[tuple[int, ...], list[NDArray[np.float32]]] = {}
    low, edges = np.float32(LOW), np.float32(EDGES)
    for point in points.numpy():
        place = np.floor((point[:3] - low) / edges)
        if not np.isfinite(point).all() or not ((place >= 0) & (place < SIZE)).all():
            continue
        voxel = tuple(place.astype(int).tolist())
        if voxel not in members and len(members) >= most:
            continue
        if len(members.setdefault(voxel, [])) < limit:
            members[voxel].append(point)
    return members


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 120), limit=st.integers(1, 4), most=st.integers(1, 40))
def test_voxels_are_the_mean_of_the_first_points(seed: int, count: int, limit: int, most: int) -> None:
    clouds = [cloud(seed, count), torch.zeros(0, 5), cloud(seed + 1, 20)]
    means, sites = voxels(limit, most)(clouds)
    assert sites.size == (16, 8, 9)
    found = torch.stack(sites.coordinates, dim=1).tolist()
    expected = {
        (sample, *voxel): np.mean(inside, axis=0)
        for sample, points in enumerate(clouds)
        for voxel, inside in by_loops(points, limit, most).items()
    }
    assert [tuple(place) for place in found] == sorted(expected)
    wanted = np.array([expected[place] for place in sorted(expected)]).reshape(-1, 5)
    np.testing.assert_allclose(means.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("point", FAR_OUT)
def test_points_off_the_volume_change_nothing(point: tuple[float, ...]) -> None:
    points = cloud(1, 50)
    more = torch.cat([points[:20], torch.tensor([point]), points[20:]])
    (plain, sites), (other, others) = voxels()([points]), voxels()([more])
    assert torch.equal(sites.keys, others.keys)
    assert torch.equal(plain, other)


@pytest.mark.parametrize("shape", [(7, 4), (5,), (1, 7, 5)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BridgeTAError, match=r"should be \[n, 5\] per sample"):
        voxels()([torch.zeros(shape)])
