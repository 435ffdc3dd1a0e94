"""Batch normalisation by the statistics of all processes, on any device."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


class _Shared:
    """A mixin for batch norms: in training, mean and variance are those of all processes' inputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, ...]`; B may differ between processes."""
        norm = cast(nn.BatchNorm2d, self)
        if not norm.training:
            return super().forward(x)  # type: ignore[misc]
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        sums = _Sum.apply(torch.cat([wide.sum(axes), wide.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        _update_statistics(norm, mean.detach(), variance.detach(), float(count))
        result = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            result = result * norm.weight.view(shape) + norm.bias.view(shape)
        return result.to(x.dtype)


def _update_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: float) -> None:
    """Update the running statistics as PyTorch's batch norms do, with the unbiased variance."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    unbiased = variance * (count / max(1.0, count - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)


class SharedBatchNorm(LayerSync):
    """Makes the batch norms of a model compute over all processes, and turns them back.

    On CUDA that is PyTorch's SyncBatchNorm, which needs CUDA; on the CPU ours. A module stays the same object and gets
    a subclass of its class, so weights, buffers and the keys of the state dict do not change.
    """

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda

    def apply(self, model: nn.Module) -> nn.Module:
        """Share the statistics between processes."""
        for module in model.modules():
            if type(module) in _PLAIN:
                module.__class__ = _CLASSES[type(module), self._cuda]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo `apply`."""
        for module in model.modules():
            if type(module) in _CLASSES.values():
                module.__class__ = next(plain for plain in _PLAIN if isinstance(module, plain))
        return model


_PLAIN: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


# SyncBatchNorm reads its group of processes from `process_group`; None is all.
_CLASSES: dict[tuple[type, bool], type] = {
    (plain, cuda): type(f"Shared{plain.__name__}", (how, plain), {"process_group": None})
    for plain in _PLAIN
    for cuda, how in ((True, nn.SyncBatchNorm), (False, _Shared))
}
