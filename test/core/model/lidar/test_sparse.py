"""Sparse convolutions equal dense ones at the active voxels, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from bridgeta_core.model.lidar.convolution import SparseConvolution
from bridgeta_core.model.lidar.sites import KernelMap, Sites, Size
from bridgeta_core.utils.errors import BridgeTAError

BATCH, INPUTS, OUTPUTS = 2, 3, 4
SIZES = st.tuples(*[st.integers(2, 7)] * 3)
SEEDS = st.integers(0, 2**32 - 1)
STRIDED = [  # BEVFusion's, and others
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 0)),
    ((1, 1, 3), (1, 1, 2), (0, 0, 0)),
    ((3, 2, 1), (1, 2, 3), (1, 0, 0)),
    ((5, 3, 3), (2, 3, 1), (2, 1, 1)),
]


def active(size: Size, seed: int) -> Tensor:
    """A random occupancy [B, X, Y, Z], of any density, empty samples included."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(BATCH, 1, 1, 1, generator=generator) ** 2
    return torch.rand(BATCH, *size, generator=generator) < share


def volume(mask: Tensor, seed: int) -> tuple[Sites, Tensor, Tensor]:
    """Sites of a mask, their features [n, C], and the same as a dense volume [B, C, X, Y, Z]; both get gradients."""
    torch.manual_seed(seed)
    dense = (torch.randn(len(mask), INPUTS, *mask.shape[1:], dtype=torch.float64) * mask[:, None]).requires_grad_()
    shuffled = mask.nonzero()[torch.randperm(int(mask.sum()))]
    sites, order = Sites.from_coordinates(shuffled, tuple(mask.shape[1:]), len(mask))
    assert torch.equal(torch.stack(sites.coordinates, dim=1), shuffled[order])
    return sites, pick(dense.detach(), sites).clone().requires_grad_(), dense


def pick(dense: Tensor, sites: Sites) -> Tensor:
    sample, x, y, z = sites.coordinates
    return dense[sample, :, x, y, z]


def compare(
    pairs: KernelMap,
    kernel: Size,
    before: tuple[Sites, Tensor, Tensor],
    after: Sites,
    expected: Tensor,
    layer: SparseConvolution,
    weight: Tensor,
) -> None:
    """Compare values and gradients of the sparse convolution with those of the dense one."""
    sites, features, dense = before
    result = layer(features, pairs)
    torch.testing.assert_close(result, pick(expected, after))
    torch.manual_seed(1)
    gradient = torch.randn_like(result)
    (result * gradient).sum().backward()
    (pick(expected, after) * gradient).sum().backward()
    assert dense.grad is not None
    assert layer.weight.grad is not None
    torch.testing.assert_close(features.grad, pick(dense.grad, sites))
    torch.testing.assert_close(layer.weight.grad, weight.grad)


def build(kernel: Size) -> tuple[SparseConvolution, Tensor, Tensor]:
    """A layer, the same weight as a leaf, and that in the layout of conv3d."""
    layer = SparseConvolution(INPUTS, OUTPUTS, kernel).double()
    weight = layer.weight.detach().clone().requires_grad_()
    return layer, weight, weight.permute(4, 3, 0, 1, 2)


@settings(max_examples=25)
@given(size=SIZES, seed=SEEDS)
def test_a_submanifold_convolution_is_a_dense_one_at_active_voxels(size: Size, seed: int) -> None:
    before = volume(active(size, seed), seed)
    layer, weight, dense_weight = build((3, 3, 3))
    expected = functional.conv3d(before[2], dense_weight, padding=1)
    compare(before[0].neighbours, (3, 3, 3), before, before[0], expected, layer, weight)


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
@settings(max_examples=15)
@given(size=st.tuples(*[st.integers(3, 7)] * 3), seed=SEEDS)
def test_a_strided_convolution_is_a_dense_one_where_it_meets_points(
    kernel: Size, stride: Size, padding: Size, size: Size, seed: int
) -> None:
    mask = active(size, seed)
    before = volume(mask, seed)
    after, pairs = before[0].stride(kernel, stride, padding)
    layer, weight, dense_weight = build(kernel)
    expected = functional.conv3d(before[2], dense_weight, stride=stride, padding=padding)
    met = functional.conv3d(mask[:, None].double(), torch.ones(1, 1, *kernel).double(), stride=stride, padding=padding)
    assert after.size == tuple(expected.shape[2:])
    assert torch.equal(torch.stack(after.coordinates, dim=1), (met[:, 0] > 0).nonzero())
    compare(pairs, kernel, before, after, expected, layer, weight)


def test_every_pair_of_neighbours_is_there_once() -> None:
    """In a full volume, all places of the kernel that lie inside it."""
    sites = volume(torch.ones(BATCH, 3, 4, 5, dtype=torch.bool), 0)[0]
    pairs = sites.neighbours.pairs
    assert [k for k, _, _ in pairs] == [k for k in range(27) if k != 13]
    count = sum(len(i) for _, i, _ in pairs) + len(sites)
    assert count == BATCH * math.prod(3 * cells - 2 for cells in (3, 4, 5))
    for _, i, o in pairs:
        assert len(torch.unique(i)) == len(torch.unique(o)) == len(i)


def test_keys_of_a_volume_beyond_integers_are_refused() -> None:
    with pytest.raises(BridgeTAError, match="more of them than keys reach"):
        Sites.from_coordinates(torch.zeros(0, 4, dtype=torch.int64), (2**21, 2**21, 2**21), 1)


def test_a_volume_smaller_than_the_kernel_is_refused() -> None:
    sites = volume(torch.ones(1, 4, 4, 2, dtype=torch.bool), 0)[0]
    with pytest.raises(BridgeTAError, match="too small for a kernel"):
        sites.stride((1, 1, 3), (1, 1, 2), (0, 0, 0))


def test_under_autocast_convolutions_compute_in_float32() -> None:
    sites, features, _ = volume(torch.ones(1, 3, 3, 3, dtype=torch.bool), 0)
    layer, features = SparseConvolution(INPUTS, OUTPUTS), features.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = layer(features.bfloat16(), sites.neighbours)
    assert torch.equal(result, layer(features.bfloat16().float(), sites.neighbours))
