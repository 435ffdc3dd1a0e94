"""Strided convolutions as BEVFusion has them, in our layout of the bird's-eye view."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class StridedConv2d(nn.Conv2d):
    """A convolution without bias of `[B, inputs, Y, X]` whose windows begin at the first column and at the last row.

    BEVFusion's bird's-eye views begin at the rear right of the vehicle and ours at the rear left: its rows are ours in
    reverse. A window of 3 cells with stride 2 does not lie over whole cells, so from which side the windows are counted
    matters. With kernels whose rows are reversed too, this convolution computes what nn.Conv2d with padding
    `kernel // 2` does on reversed rows. The sizes must be divisible by `stride`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False)
        near = kernel // 2
        far = kernel - near - stride  # below 0 it cuts
        self._sides = (near, far, far, near)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self._sides))
