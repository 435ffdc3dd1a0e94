"""The one building block that all parts of the network share."""

from __future__ import annotations

from torch import nn


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU (or none): `[B, inputs, h, w]` to `[B, outputs, h / s, w / s]`.

    A kernel as large as its stride is not padded: it covers exactly the cells that it replaces.
    """
    padding = 0 if kernel == stride else kernel // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
