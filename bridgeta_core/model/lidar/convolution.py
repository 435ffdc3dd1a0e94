"""Convolutions over active voxels: gather the pairs of each place of the kernel, multiply, scatter."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.model.lidar.sites import CENTRE, KernelMap, Sites, Size


class _Convolve(torch.autograd.Function):
    """Features `[n, in]` and a weight `[places, in, out]` to features `[m, out]`.

    For the backward pass the input is kept, and not what was gathered of it, which is several times as large.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        empty = features.new_zeros(0 if pairs.centred else pairs.outputs, weight.shape[2])
        result = features @ weight[CENTRE] if pairs.centred else empty
        for k, i, o in pairs.pairs:
            result.index_add_(0, o, features.index_select(0, i) @ weight[k])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight = ctx.saved_tensors
        pairs: KernelMap = ctx.pairs
        gradient = gradients[0].contiguous()
        of_weight = torch.zeros_like(weight)
        if pairs.centred:
            of_features = gradient @ weight[CENTRE].T
            of_weight[CENTRE] = features.T @ gradient
        else:
            of_features = torch.zeros_like(features)
        for k, i, o in pairs.pairs:
            part = gradient.index_select(0, o)
            of_features.index_add_(0, i, part @ weight[k].T)
            of_weight[k] = features.index_select(0, i).T @ part
        return of_features, of_weight, None


class SparseConvolution(nn.Module):
    """A convolution without bias over active voxels: features `[n, inputs]` to `[m, outputs]`.

    `weight` is `[x, y, z, inputs, outputs]`, as in spconv. Computes in float32 (float64 stays float64), under autocast
    too.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Size = (3, 3, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*kernel, inputs, outputs))
        bound = 1 / math.sqrt(math.prod(kernel) * inputs)  # as PyTorch's own convolutions start
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor, pairs: KernelMap) -> Tensor:
        """Convolve the features of the rows that `pairs` connects."""
        with torch.autocast(features.device.type, enabled=False):
            weight = self.weight.flatten(0, 2)
            result: Tensor = _Convolve.apply(features.to(weight.dtype), weight, pairs)
        return result


def normalise_rows(norm: nn.BatchNorm1d, values: Tensor) -> Tensor:
    """Apply batch norm to `[n, C]`, by the running statistics for fewer than two rows, which have no variance."""
    if len(values) > 1:
        result: Tensor = norm(values)
        return result
    return functional.batch_norm(
        values, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)  # as in SECOND (Yan et al. 2018)


class Submanifold(nn.Module):
    """A submanifold 3x3x3 convolution, batch norm and ReLU: `[n, inputs]` to `[n, outputs]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution, self.norm = SparseConvolution(inputs, outputs), _norm(outputs)

    def forward(self, features: Tensor, sites: Sites) -> Tensor:
        return functional.relu(normalise_rows(self.norm, self.convolution(features, sites.neighbours)))


class ResidualBlock(nn.Module):
    """Two submanifold 3x3x3 convolutions with a skip connection, on `[n, channels]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Submanifold(channels, channels)
        self.second, self.norm = SparseConvolution(channels, channels), _norm(channels)

    def forward(self, features: Tensor, sites: Sites) -> Tensor:
        second = self.second(self.first(features, sites), sites.neighbours)
        return functional.relu(features + normalise_rows(self.norm, second))


class Strided(nn.Module):
    """A strided convolution, batch norm and ReLU, whose output is active where its kernel meets an active voxel."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: Size, padding: Size) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.convolution, self.norm = SparseConvolution(inputs, outputs, kernel), _norm(outputs)

    def forward(self, features: Tensor, sites: Sites) -> tuple[Tensor, Sites]:
        coarser, pairs = sites.stride(self.kernel, self.stride, self.padding)
        return functional.relu(normalise_rows(self.norm, self.convolution(features, pairs))), coarser
