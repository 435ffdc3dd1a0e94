"""A fixed, narrower view of a teacher's features: their principal components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.distill.normalise import TeacherScale, fit_scales


class PrincipalComponents(nn.Module):
    """Features `[B, C, Y, X]`, normalised by the teacher's statistics, along the directions in which they vary most.

    `components` `[size, C]` are orthonormal and in the order of falling variance; before `fit` they are the first
    channels. `size` is at most C. Nothing here is trained.
    """

    components: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.scale = TeacherScale(channels)
        self.register_buffer("components", torch.eye(channels)[:size])

    def forward(self, x: Tensor) -> Tensor:
        """Compute the components `[B, size, Y, X]` of features, in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return functional.conv2d(self.scale(x.float()), self.components[:, :, None, None])

    def fit(self, features: Iterable[Tensor]) -> None:
        """Measure the statistics and the components of a teacher's features in one pass, in float64."""
        channels = self.components.shape[1]
        total = torch.zeros(channels, dtype=torch.float64, device=self.components.device)
        products, count = total.new_zeros(channels, channels), 0

        def read() -> Iterator[dict[str, Tensor]]:
            nonlocal count
            for x in features:
                cells = x.double().transpose(0, 1).flatten(1)
                products.addmm_(cells, cells.T)
                total.add_(cells.sum(dim=1))
                count += cells.shape[1]
                yield {"x": x}

        fit_scales({"x": [self.scale]}, read())
        mean, scale = total / max(1, count), self.scale.scale.double().flatten()
        covariance = (products / max(1, count) - mean[:, None] * mean) / (scale[:, None] * scale)
        # On the CPU, where equal inputs have equal outputs on every machine with the same library.
        vectors = torch.linalg.eigh(covariance.cpu()).eigenvectors.flip(1)  # the eigenvalues ascend
        self.components.copy_(vectors.T[: len(self.components)])
