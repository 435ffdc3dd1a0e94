"""Strided convolutions in our layout: BEVFusion's on rows in reverse."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bridgeta_core.model.strided import StridedConv2d


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (1, 2), (3, 1), (1, 1), (5, 2), (3, 4)])
def test_turned_kernels_on_turned_input_give_the_turned_output(kernel: int, stride: int) -> None:
    layer = StridedConv2d(2, 3, kernel, stride).double()
    x, weight = torch.randn(2, 2, 8, 12).double(), torch.randn(3, 2, kernel, kernel).double()
    theirs = functional.conv2d(x, weight, stride=stride, padding=kernel // 2)
    layer.weight.data = weight.flip(2)
    torch.testing.assert_close(layer(x.flip(2)), theirs.flip(2))
